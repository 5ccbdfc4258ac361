"""Run only the live part of an ablated model; TransformerLens hooks are the oracle.

Exact savings over hooks, which compute what they then replace:

1. An ablated head's q, k, v and an ablated MLP are never computed; a key/value head is computed while one of its query
   heads is kept.
2. Only live positions are computed. A score reads the model at a few positions, so a layer's output is needed at
   every position only while a later layer keeps a head; in the last such layer K and V run everywhere, the rest there.
3. The residual entering layer l depends on the circuit below l alone. Residuals are remembered by that part, and an
   evaluation starts at the highest layer whose residual is known: in sweeps over layers, at the layer that changes,
   whose attention is remembered too (`live`).
4. Circuits that differ in one layer share what lies below it and that layer's attention, and run as one batch above.
5. The final norm and the unembedding run at the positions of the score, and for the logit difference on two columns.
6. What ablated heads write together is computed once for each set of them, and the weights of a layer's kept heads are
   laid side by side once, for as long as they are asked for.

A component that is kept at some positions only (`Site`) is computed, and then replaced at the others.

Everything is differentiable with respect to the embeddings and the substitutes; weights are constants.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

import torch

from atlas.core.components import MLP, Circuit, Component, Site
from atlas.core.errors import StudyError
from atlas.model.attention import Positions
from atlas.model.block import Block, Weights, numbers

BUDGET = 512 * 2**20  # bytes of remembered residuals, unless told otherwise

T = TypeVar("T")
Substitute = Callable[[str, int], torch.Tensor]  # (name, layer) -> what replaces its ablated components


@dataclass(frozen=True)
class Kept:
    """What a circuit keeps of one layer: ``heads`` that are kept somewhere, in order; whether the MLP is kept
    everywhere; ``partial``, heads or MLP that are kept at some roles only -> these roles; ``members``, all of it."""

    heads: list[int]
    mlp: bool
    partial: dict[int, list[str]]
    members: Circuit


NOTHING = Kept([], False, {}, frozenset())


@lru_cache(maxsize=64)  # of an evaluation and of those that it is asked with, each looked up in every layer
def by_layer(circuit: Circuit) -> dict[int, Kept]:
    """Layer -> what a circuit keeps of it, of layers of which it keeps something."""
    layers: dict[int, list[Component | Site]] = {}
    for c in circuit:
        layers.setdefault(c.layer, []).append(c)
    found = {}
    for layer, members in layers.items():
        partial: dict[int, list[str]] = {}
        for c in members:
            if isinstance(c, Site) and c.component not in circuit:
                partial.setdefault(c.head, []).append(c.role)
        heads = sorted({c.head for c in members if not c.is_mlp})
        found[layer] = Kept(heads, Component(layer) in circuit, partial, frozenset(members))
    return found


class Engine:
    """The forward pass of a model with the components outside a circuit replaced.

    ``budget``: bytes for copies of the weights of layers that keep some of their heads.
    """

    def __init__(self, weights: Weights, budget: int = BUDGET // 4) -> None:
        self.weights, self.blocks = weights, weights.blocks
        self.picked: Sized[Block] = Sized(budget, lambda block: 4 * bytes_of(block.w_o))

    # ---- one layer ---------------------------------------------------------------------------------------
    def layer(
        self,
        index: int,
        x: torch.Tensor,
        circuit: Circuit,
        substitute: Substitute,
        out: Positions | None,
        inside: Positions | None,
        roles: dict[str, torch.Tensor] | None = None,
        constant: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Residual after layer ``index`` from the one before it.

        x [N, S, D], or [N, K, D] at ``inside``, in which case the layer keeps no head. The result is at every position,
        or at ``out`` alone. ``substitute(name, index)`` gives what replaces ablated components: ``z`` [1 or n, S, H,
        d_head], ``mlp_out`` [1 or n, S, D], where n divides N, and is repeated. ``roles``: role -> its positions, for
        sites, a mask [1 or n, S]. ``constant``: what `constant` gives, if it is at hand.
        """
        kept = self.kept_heads(index, circuit)
        z = self.mix(index, x, kept, out) if kept else None
        return self.finish(index, x, circuit, kept, z, substitute, out, inside, roles, constant)

    def kept_heads(self, index: int, circuit: Circuit) -> list[int]:
        """Heads that are kept somewhere."""
        return by_layer(circuit).get(index, NOTHING).heads

    def block_of(self, index: int, heads: list[int]) -> Block:
        """A layer with these heads alone, kept for the next that asks for them; the layer itself for none."""
        block = self.blocks[index]
        if len(heads) in (0, block.n_heads):
            return block
        found = self.picked.get((index, *heads))
        return self.picked.put((index, *heads), block.of_heads(heads)) if found is None else found

    def mix(self, index: int, x: torch.Tensor, heads: list[int], out: Positions | None) -> torch.Tensor:
        """z of these heads from the residual x [N, S, D], everywhere or at ``out``: [N, P, len(heads), d_head]."""
        block = self.block_of(index, heads)
        q, k, v = block.all_three(block.norm1(x), out)
        _, owners = self.blocks[index].readers(heads)
        return block.attend(q, k, v, out, owners)

    def constant(self, index: int, heads: list[int], z: torch.Tensor) -> torch.Tensor:
        """b_O and what ``heads``, ablated, write together: [1 or n, P, D] of substitutes z [1 or n, P, H, d_head]; [D]
        where there are none."""
        block = self.blocks[index]
        if not heads:
            return block.b_o
        return block.b_o + block.head_writes(picked(z, heads), heads)

    def attended(
        self,
        index: int,
        x: torch.Tensor,
        circuit: Circuit,
        heads: list[int],
        z: torch.Tensor | None,
        substitute: Substitute,
        out: Positions | None,
        inside: Positions | None,
        roles: dict[str, torch.Tensor] | None = None,
        constant: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The residual [N, P, D] that enters a layer, and the same with what its attention writes, at P positions.

        z [N, P, heads, d_head] is of the ``heads`` that are kept somewhere; P are the positions of ``out``, None:
        everywhere. The rest as in `layer`.
        """
        resid, at = x if out is None or inside is not None else out.take(x), inside or out
        masks = self.masks(index, circuit, at, roles, len(x))
        if constant is None:
            ablated = self.ablated(index, circuit)
            constant = self.constant(index, ablated, replacing(substitute, "z", index, at, x) if ablated else x)
        if z is not None and masks.keys() - {MLP}:
            everywhere = torch.ones(1, 1, dtype=torch.bool, device=x.device)
            intact = torch.stack(torch.broadcast_tensors(*(masks.get(h, everywhere) for h in heads)), dim=2)
            z = torch.where(intact[..., None], z, picked(replacing(substitute, "z", index, at, x), heads))
        return resid, self.block_of(index, heads).after_kept(resid, z, constant)

    def masks(
        self,
        index: int,
        circuit: Circuit,
        at: Positions | None,
        roles: dict[str, torch.Tensor] | None,
        n: int,
    ) -> dict[int, torch.Tensor]:
        """Head or MLP that is kept at some roles only -> where it is left as it is, [1 or n, P] of ``n`` rows."""
        partial = by_layer(circuit).get(index, NOTHING).partial
        found = {head: for_rows(where_kept(names, roles), n) for head, names in partial.items()}
        return found if at is None else {head: at.take(mask) for head, mask in found.items()}

    def finish(
        self,
        index: int,
        x: torch.Tensor,
        circuit: Circuit,
        heads: list[int],
        z: torch.Tensor | None,
        substitute: Substitute,
        out: Positions | None,
        inside: Positions | None,
        roles: dict[str, torch.Tensor] | None = None,
        constant: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The layer's output [N, P, D] from z of ``heads``, the others' substitutes, and the MLP: as in `attended`."""
        block, at = self.blocks[index], inside or out
        resid, after = self.attended(index, x, circuit, heads, z, substitute, out, inside, roles, constant)
        if by_layer(circuit).get(index, NOTHING).mlp:
            return block.after_mlp(resid, after)
        ablated, kept = replacing(substitute, "mlp_out", index, at, x), self.masks(index, circuit, at, roles, len(x))
        if MLP not in kept:
            return after + ablated
        return after + torch.where(kept[MLP][..., None], block.mlp_out(block.mlp_reads(resid, after)), ablated)

    def ablated(self, index: int, circuit: Circuit) -> list[int]:
        """Heads of a layer that a circuit keeps nowhere."""
        kept = set(self.kept_heads(index, circuit))
        return [h for h in range(self.weights.n_heads) if h not in kept]

    def bytes_per_row(self, s: int, logits: int) -> int:
        """Most memory that one prompt of ``s`` tokens takes at a time: the residual before, within and after a layer,
        q, k, v and z, the MLP's inner values (twice, around the activation), scores where a cap keeps them (thrice,
        around it and the softmax), and all logits with their softmax at so many positions."""
        w = self.weights
        d_model = w.w_u.shape[1]
        per_token = 4 * d_model + 4 * w.n_heads * w.blocks[0].w_q.shape[2] + 2 * w.mlp_flops // d_model
        if any(block.cap is not None for block in w.blocks):
            per_token += 3 * w.n_heads * s
        return s * per_token * w.w_u.element_size() + self.bytes_of_logits(logits)

    def bytes_of_logits(self, positions: int) -> int:
        """Memory of all logits of a prompt, with their softmax, at so many positions."""
        return positions * 4 * self.weights.w_u.shape[0] * max(4, self.weights.w_u.element_size())


def replacing(substitute: Substitute, name: str, index: int, at: Positions | None, like: torch.Tensor) -> torch.Tensor:
    """What replaces `z` or `mlp_out` of a layer at some positions (None: everywhere), [1 or N, P, ...] for the N rows
    of ``like``, in its dtype."""
    values = for_rows(substitute(name, index), len(like))
    return (values if at is None else at.take(values)).to(like.dtype)


def for_rows(values: torch.Tensor, n: int) -> torch.Tensor:
    """values [1 or m, ...] for ``n`` rows that are copies of m, one after another: as they are where one serves all."""
    return values if len(values) in (1, n) else values.repeat(n // len(values), *[1] * (values.dim() - 1))


def picked(z: torch.Tensor, heads: list[int]) -> torch.Tensor:
    """z [N, P, H, d_head] of these heads, in order; no copy where they are all of them."""
    return z if len(heads) == z.shape[2] else z.index_select(2, numbers(tuple(heads), z.device))


def where_kept(names: list[str], roles: dict[str, torch.Tensor] | None) -> torch.Tensor:
    """[1 or N, S] mask of the positions of these roles; raises StudyError where the prompts have no such role."""
    known = roles or {}
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise StudyError(
            f"circuit: no position of these prompts has the role {unknown[0]!r}; "
            f"known roles: {', '.join(known) or 'none'}"
        )
    return torch.stack(torch.broadcast_tensors(*(known[name] for name in names))).any(0)


def bytes_of(x: torch.Tensor) -> int:
    """Memory that a tensor's numbers take."""
    return x.numel() * x.element_size()


class Sized(Generic[T]):
    """Values by key; the longest unused go when they take more than ``budget`` bytes, of which each takes ``size``."""

    def __init__(self, budget: int, size: Callable[[T], int]) -> None:
        self.budget, self.size, self.bytes = budget, size, 0
        self.values: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable) -> T | None:
        """The value of a key, which is now the one used last; None where it has been dropped or never was."""
        if key in self.values:
            self.values.move_to_end(key)
        return self.values.get(key)

    def clear(self) -> None:
        self.values.clear()
        self.bytes = 0

    def put(self, key: Hashable, x: T) -> T:
        """Keep a value, drop those used longest ago until all fit, and give it back."""
        if key in self.values:
            self.bytes -= self.size(self.values.pop(key))
        self.values[key] = x
        self.bytes += self.size(x)
        while self.bytes > self.budget:
            _, old = self.values.popitem(last=False)
            self.bytes -= self.size(old)
        return x


class Memory(Sized[torch.Tensor]):
    """Tensors by key, within a budget of bytes."""

    def __init__(self, budget: int) -> None:
        super().__init__(budget, bytes_of)
