"""Run only the live part of an ablated model; TransformerLens hooks are the oracle.

Exact savings over hooks, which compute what they then replace:

1. An ablated head's q, k, v and an ablated MLP are never computed; a key/value head is computed while one of its query
   heads is kept.
2. Only live positions are computed. A score reads the model at a few positions, so a layer's output is needed at
   every position only while a later layer keeps a head; in the last such layer K and V run everywhere, the rest there.
3. The residual entering layer l depends on the circuit below l alone. Residuals are remembered by that part, and an
   evaluation starts at the highest layer whose residual is known: in sweeps over layers, at the layer that changes.
4. Circuits that differ in one layer share what lies below it and that layer's attention, and run as one batch above.
5. The final norm and the unembedding run at the positions of the score, and for the logit difference on two columns.

A component that is kept at some positions only (`Site`) is computed, and then replaced at the others.

Everything is differentiable with respect to the embeddings and the substitutes; weights are constants.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable

import torch

from atlas.core.components import MLP, Circuit, Component, Site
from atlas.core.errors import StudyError
from atlas.model.block import Block, Positions, Weights

BUDGET = 512 * 2**20  # bytes of remembered residuals, unless told otherwise

Substitute = Callable[[str, int], torch.Tensor]  # (name, layer) -> what replaces its ablated components


class Engine:
    """The forward pass of a model with the components outside a circuit replaced."""

    def __init__(self, weights: Weights) -> None:
        self.weights, self.blocks = weights, weights.blocks

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
    ) -> torch.Tensor:
        """Residual after layer ``index`` from the one before it.

        x [N, S, D], or [N, K, D] at ``inside``, in which case the layer keeps no head. The result is at every position,
        or at ``out`` alone. ``substitute(name, index)`` gives what replaces ablated components: ``z`` [1 or N, S, H,
        d_head], ``mlp_out`` [1 or N, S, D]. ``roles``: role -> its positions, for sites, a mask [1 or N, S].
        """
        kept = self.kept_heads(index, circuit)
        z = self.mix(self.blocks[index], x, kept, out) if kept else None
        return self.finish(index, x, circuit, kept, z, substitute, out, inside, roles)

    def kept_heads(self, index: int, circuit: Circuit) -> list[int]:
        """Heads that are kept somewhere."""
        return sorted({c.head for c in circuit if c.layer == index and c.head != MLP})

    def mix(self, block: Block, x: torch.Tensor, heads: list[int], out: Positions | None) -> torch.Tensor:
        """z of these heads from the residual x [N, S, D], everywhere or at ``out``: [N, P, len(heads), d_head]."""
        normed, read = block.norm1(x), [block.owners[h] for h in heads]
        used = sorted(set(read))
        q = block.queries(normed if out is None else out.take(normed), out, heads)
        k, v = block.keys_values(normed, heads=used)
        return block.attend(q, k, v, out, [used.index(g) for g in read] if block.n_kv_heads < block.n_heads else None)

    def finish(
        self,
        index: int,
        x: torch.Tensor,
        circuit: Circuit,
        kept: list[int],
        z: torch.Tensor | None,
        substitute: Substitute,
        out: Positions | None,
        inside: Positions | None,
        roles: dict[str, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """The layer's output [N, P, D] from z [N, P, kept, d_head], the others' substitutes, and the MLP.

        x [N, S, D] enters the layer; at the positions ``inside``, where given, [N, P, D]. P are those of ``out``; None:
        everywhere. ``roles``: role -> mask [1 or N, S], for sites.
        """
        block = self.blocks[index]
        resid = x if out is None or inside is not None else out.take(x)
        at = inside or out  # where substitutes are read

        def read(name: str) -> torch.Tensor:
            values = substitute(name, index)
            return (values if at is None else at.take(values)).to(x.dtype)

        partial = {head: where_kept(names, roles) for head, names in partly_kept(index, circuit).items()}

        def intact(which: Iterable[int]) -> torch.Tensor:
            """[1 or N, P, len(which), 1]: where components are left as they are."""
            everywhere = torch.ones(1, 1, dtype=torch.bool, device=x.device)
            masks = [partial.get(h, everywhere) for h in which]
            masks = [m if at is None or m is everywhere else at.take(m) for m in masks]
            return torch.stack(torch.broadcast_tensors(*masks), dim=2)[..., None]

        ablated = [h for h in range(self.weights.n_heads) if h not in kept]
        others = block.head_writes(read("z")[:, :, ablated], ablated) if ablated else None
        if z is not None and partial.keys() - {MLP}:
            z = torch.where(intact(kept), z, read("z")[:, :, kept])
        after = block.after_kept(resid, z, kept, others)
        if MLP in partial:
            written = block.mlp_out(block.mlp_reads(resid, after))
            return after + torch.where(intact([MLP])[:, :, 0], written, read("mlp_out"))
        if Component(index, MLP) in circuit:
            return block.after_mlp(resid, after)
        return after + read("mlp_out")

    def bytes_per_row(self, s: int, logits: int) -> int:
        """Most memory that one prompt of ``s`` tokens takes at a time: the residual before, within and after a layer,
        q, k, v and z, the MLP's inner values (twice, around the activation), and all logits with their softmax at so
        many positions."""
        w = self.weights
        d_model = w.w_u.shape[1]
        per_token = 4 * d_model + 4 * w.n_heads * w.blocks[0].w_q.shape[2] + 2 * w.mlp_flops // d_model
        return s * per_token * w.w_u.element_size() + self.bytes_of_logits(logits)

    def bytes_of_logits(self, positions: int) -> int:
        """Memory of all logits of a prompt, with their softmax, at so many positions."""
        return positions * 4 * self.weights.w_u.shape[0] * max(4, self.weights.w_u.element_size())


def partly_kept(layer: int, circuit: Circuit) -> dict[int, list[str]]:
    """Head (or MLP) of a layer that a circuit keeps at some roles only -> these roles."""
    found: dict[int, list[str]] = {}
    for site in circuit:
        if isinstance(site, Site) and site.layer == layer and site.component not in circuit:
            found.setdefault(site.head, []).append(site.role)
    return found


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


class Memory:
    """Tensors by key; the longest unused go when they take more than ``budget`` bytes."""

    def __init__(self, budget: int) -> None:
        self.budget, self.bytes = budget, 0
        self.values: OrderedDict[Hashable, torch.Tensor] = OrderedDict()

    def get(self, key: Hashable) -> torch.Tensor | None:
        """The tensor of a key, which is now the one used last; None where it has been dropped or never was."""
        if key in self.values:
            self.values.move_to_end(key)
        return self.values.get(key)

    def clear(self) -> None:
        self.values.clear()
        self.bytes = 0

    def put(self, key: Hashable, x: torch.Tensor) -> torch.Tensor:
        """Keep a tensor, drop those used longest ago until all fit, and give it back."""
        if key not in self.values:
            self.bytes += x.numel() * x.element_size()
        self.values[key] = x
        self.values.move_to_end(key)
        while self.bytes > self.budget:
            _, old = self.values.popitem(last=False)
            self.bytes -= old.numel() * old.element_size()
        return x


class LiveRun:
    """Final residuals of circuits on fixed tokens [N, S], with remembered residuals.

    ``positions``: where the score reads the model, [K] or [N, K]; by default the last position. ``roles``: role -> mask
    [1 or N, S] of its positions, for circuits with sites. What ``substitute``
    gives for a layer may depend on the circuit up to that layer and on nothing above it (it is fixed, but for legacy
    MLP means).
    """

    def __init__(
        self,
        engine: Engine,
        tokens: torch.Tensor,
        positions: torch.Tensor | None = None,
        budget: int = BUDGET,
        roles: dict[str, torch.Tensor] | None = None,
    ) -> None:
        self.engine, self.tokens, self.roles = engine, tokens, roles
        last = torch.tensor([tokens.shape[1] - 1], device=tokens.device)
        self.positions = Positions(last if positions is None else positions)
        self.memory = Memory(budget)  # (layer, everywhere?, circuit below) -> residual entering it

    def final_residual(self, circuit: Circuit, substitute: Substitute) -> torch.Tensor:
        """[N, K, D] at the positions of the score."""
        top = last_head(circuit)
        below = [frozenset(c for c in circuit if c.layer < layer) for layer in range(self.n_layers + 1)]
        with torch.no_grad():
            start, x = self.known(below, top)
            return self.run(start, self.n_layers, x, circuit, substitute, top, below)

    def final_residuals(self, circuits: list[Circuit], substitute: Substitute) -> torch.Tensor:
        """[C, N, K, D] of circuits that differ in one layer only: below it they share residuals and its attention,
        above it they run as one batch."""
        differ = {c.layer for c in frozenset().union(*circuits) - frozenset.intersection(*circuits)}
        if len(circuits) == 1 or not differ:
            return torch.stack([self.final_residual(circuits[0], substitute)] * len(circuits))
        if len(differ) > 1:
            raise ValueError(f"circuits differ in layers {sorted(differ)}; a batch may differ in one")
        layer, every = differ.pop(), frozenset().union(*circuits)
        top = last_head(every)
        below = [frozenset(c for c in every if c.layer < i) for i in range(layer + 1)]
        with torch.no_grad():
            start, x = self.known(below, top)
            x = self.run(start, layer, x, every, substitute, top, below)
            inside, out = self.where(layer, top), self.where(layer + 1, top)
            heads = self.engine.kept_heads(layer, every)
            z = self.engine.mix(self.engine.blocks[layer], x, heads, out) if heads else None
            rows = []
            for circuit in circuits:
                kept = self.engine.kept_heads(layer, circuit)
                own = z[:, :, [heads.index(h) for h in kept]] if kept and z is not None else None
                rows.append(self.engine.finish(layer, x, circuit, kept, own, substitute, out, inside, self.roles))
            x, n = torch.cat(rows), len(self.tokens)
            stacked, roles = repeated(substitute, len(circuits)), self.roles
            if roles:
                roles = {name: m if len(m) == 1 else m.repeat(len(circuits), 1) for name, m in roles.items()}
            for above in range(layer + 1, self.n_layers):
                inside, out = (
                    p and p.repeat(len(circuits)) for p in (self.where(above, top), self.where(above + 1, top))
                )
                x = self.engine.layer(above, x, circuits[0], stacked, out, inside, roles)
        found: torch.Tensor = x.unflatten(0, (len(circuits), n))
        return found

    def clear(self) -> None:
        """Forget what was run."""
        self.memory.clear()

    @property
    def n_layers(self) -> int:
        return len(self.engine.blocks)

    def where(self, layer: int, top: int) -> Positions | None:
        """Positions at which the residual entering ``layer`` is needed; None: everywhere."""
        return None if layer <= top else self.positions

    def run(
        self,
        start: int,
        stop: int,
        x: torch.Tensor,
        circuit: Circuit,
        substitute: Substitute,
        top: int,
        below: list[Circuit],
    ) -> torch.Tensor:
        """The residual [N, S or P, D] entering layer ``stop`` from x entering ``start``; remembers those between."""
        for layer in range(start, stop):
            out, inside = self.where(layer + 1, top), self.where(layer, top)
            x = self.engine.layer(layer, x, circuit, substitute, out, inside, self.roles)
            self.memory.put((layer + 1, layer + 1 <= top, below[layer + 1]), x)
        return x

    def known(self, below: list[Circuit], top: int) -> tuple[int, torch.Tensor]:
        """The highest layer whose input [N, S or P, D] is remembered, and that input; else the embeddings."""
        for layer in range(len(below) - 1, 0, -1):
            for everywhere in (True,) if layer <= top else (False, True):
                x = self.memory.get((layer, everywhere, below[layer]))
                if x is not None:
                    return layer, self.positions.take(x) if everywhere and layer > top else x
        x = self.engine.weights.embed(self.tokens)
        return 0, x if top >= 0 else self.positions.take(x)


def last_head(circuit: Circuit) -> int:
    """The last layer that keeps a head, or -1."""
    return max((c.layer for c in circuit if not c.is_mlp), default=-1)


def repeated(substitute: Substitute, times: int) -> Substitute:
    """A substitute for ``times`` copies of the rows, one after another."""

    def read(name: str, layer: int) -> torch.Tensor:
        values = substitute(name, layer)
        return values if len(values) == 1 else values.repeat(times, *[1] * (values.dim() - 1))

    return read
