"""Run circuits one after another on fixed tokens, and compute of each what the ones before it leave to be computed.

What is saved is exact; `engine` lists it. Savings 3 and 4 are here, with the pieces that candidates of one layer share.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import torch

from atlas.core.components import Circuit
from atlas.model.attention import Positions
from atlas.model.block import chosen, numbers
from atlas.model.engine import BUDGET, NOTHING, Engine, Memory, Substitute, by_layer, picked, replacing

MIXED = "z"  # in a run's memory: z of the layer at which the last evaluation started

Below = tuple[Circuit, ...]  # what a circuit keeps of each layer below one


class LiveRun:
    """Final residuals of circuits on fixed tokens [N, S], with remembered residuals.

    ``positions``: where the score reads the model, [K] or [N, K]; by default the last position. ``roles``: role -> mask
    [1 or N, S] of its positions, for circuits with sites. What ``substitute`` gives for ``z`` is the same for all
    circuits of a run; what it gives for ``mlp_out`` of a layer may depend on the circuit up to that layer and on
    nothing above it (it is fixed, but for legacy MLP means).
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
        self.mixed: tuple[Hashable, list[int]] = (None, [])  # of which layer and residual MIXED is, and of which heads

    @property
    def n_layers(self) -> int:
        return len(self.engine.blocks)

    def clear(self) -> None:
        """Forget what was run."""
        self.memory.clear()

    def final_residual(self, circuit: Circuit, substitute: Substitute) -> torch.Tensor:
        """[N, K, D] at the positions of the score."""
        top, below = last_head(circuit), prefixes(circuit, self.n_layers)
        with torch.no_grad():
            start, x = self.known(below, top)
            return self.run(start, self.n_layers, x, circuit, substitute, top, below)

    def final_residuals(self, circuits: list[Circuit], substitute: Substitute) -> torch.Tensor:
        """[C, N, K, D] of circuits that differ in one layer only: below it they share residuals and its attention,
        above it they run as one batch."""
        if len(circuits) == 1:
            return self.final_residual(circuits[0], substitute)[None]
        differ = {c.layer for c in frozenset().union(*circuits) - frozenset.intersection(*circuits)}
        if not differ:
            return torch.stack([self.final_residual(circuits[0], substitute)] * len(circuits))
        if len(differ) > 1:
            raise ValueError(f"circuits differ in layers {sorted(differ)}; a batch may differ in one")
        layer, every, times = differ.pop(), frozenset().union(*circuits), len(circuits)
        top, below = last_head(every), prefixes(every, layer)
        with torch.no_grad():
            start, x = self.known(below, top)
            x = self.run(start, layer, x, every, substitute, top, below)
            x = self.side_by_side(layer, x, circuits, every, substitute, top, below[layer])
            for above in range(layer + 1, self.n_layers):
                at, out = self.where(above, top), self.where(above + 1, top)
                constant = self.constant(above, circuits[0], substitute, at or out, x)
                inside, out = (p and p.repeat(times) for p in (at, out))
                x = self.engine.layer(above, x, circuits[0], substitute, out, inside, self.roles, constant)
        found: torch.Tensor = x.unflatten(0, (times, len(self.tokens)))
        return found

    # ---- which layers run --------------------------------------------------------------------------------
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
        below: list[Below],
    ) -> torch.Tensor:
        """The residual [N, S or P, D] entering layer ``stop`` from x entering ``start``; remembers those between."""
        for layer in range(start, stop):
            parts = self.parts(layer, x, circuit, substitute, top, below[layer] if layer == start else None)
            x = self.engine.finish(layer, x, circuit, *parts)
            self.memory.put((layer + 1, layer + 1 <= top, below[layer + 1]), x)
        return x

    def parts(
        self, layer: int, x: torch.Tensor, circuit: Circuit, substitute: Substitute, top: int, below: Below | None
    ) -> tuple[Any, ...]:
        """What `Engine.finish` and `Engine.attended` take beside layer, x and circuit. ``below``: what is kept below
        the layer, where the next evaluation may well start at it."""
        out, inside = self.where(layer + 1, top), self.where(layer, top)
        heads = self.engine.kept_heads(layer, circuit)
        z = None
        if heads and below is not None:
            z = self.attention(layer, x, heads, out, below)
        elif heads:
            z = self.engine.mix(layer, x, heads, out)
        constant = self.constant(layer, circuit, substitute, inside or out, x)
        return heads, z, substitute, out, inside, self.roles, constant

    def written(self, layer: int, circuit: Circuit, substitute: Substitute, top: int) -> torch.Tensor:
        """What the MLP of a layer writes in a circuit that keeps it, [N, S or K, D]: everywhere below the layer
        ``top``, else at the positions of the score."""
        below = prefixes(circuit, self.n_layers)
        with torch.no_grad():
            start, x = self.known(below[: layer + 1], top)
            x = self.run(start, layer, x, circuit, substitute, top, below)
            block, parts = self.engine.blocks[layer], self.parts(layer, x, circuit, substitute, top, below[layer])
            resid, after = self.engine.attended(layer, x, circuit, *parts)
            written = block.mlp_out(block.mlp_reads(resid, after))
            self.memory.put((layer + 1, layer + 1 <= top, below[layer + 1]), after + written)
            return written

    def known(self, below: list[Below], top: int) -> tuple[int, torch.Tensor]:
        """The highest layer whose input [N, S or P, D] is remembered, and that input; else the embeddings."""
        for layer in range(len(below) - 1, 0, -1):
            for everywhere in (True,) if layer <= top else (False, True):
                x = self.memory.get((layer, everywhere, below[layer]))
                if x is not None:
                    return layer, self.positions.take(x) if everywhere and layer > top else x
        x = self.engine.weights.embed(self.tokens)
        return 0, x if top >= 0 else self.positions.take(x)

    # ---- what candidates of a layer share ----------------------------------------------------------------
    def attention(
        self, layer: int, x: torch.Tensor, heads: list[int], out: Positions | None, below: Below
    ) -> torch.Tensor:
        """z of these heads, as `Engine.mix`, of which those are computed that the last such call did not leave: the
        next candidate of a layer differs in a head, not in the residual x that enters the layer."""
        key, (of, have) = (layer, out is None, below), self.mixed
        z = self.memory.get(MIXED) if of == key else None
        have = have if z is not None else []
        missing = [h for h in heads if h not in have]
        if missing:
            new = self.engine.mix(layer, x, missing, out)
            z, have = new if z is None else torch.cat((z, new), 2), have + missing
            self.memory.put(MIXED, z)
            self.mixed = key, have
        assert z is not None
        return z if have == heads else z.index_select(2, numbers(tuple(map(have.index, heads)), z.device))

    def constant(
        self, layer: int, circuit: Circuit, substitute: Substitute, at: Positions | None, x: torch.Tensor
    ) -> torch.Tensor:
        """`Engine.constant` of the heads that a circuit ablates, for rows like x or copies of them; remembered."""
        ablated = self.engine.ablated(layer, circuit)
        if not ablated:
            return self.engine.constant(layer, [], x)
        key = (layer, at is None, *ablated)
        found = self.memory.get(key)
        if found is not None:
            return found
        values = replacing(substitute, "z", layer, at, x[: len(self.tokens)])
        return self.memory.put(key, self.engine.constant(layer, ablated, values))

    def side_by_side(
        self,
        layer: int,
        x: torch.Tensor,
        circuits: Sequence[Circuit],
        every: Circuit,
        substitute: Substitute,
        top: int,
        below: Below,
    ) -> torch.Tensor:
        """[C N, P, D] the residual after ``layer`` of circuits that differ in it, from x [N, S, D] that enters it.

        ``every``: all that one of them keeps. Without sites, what each head that one of them drops changes is computed
        once, and added to the circuits that drop it.
        """
        inside, out = self.where(layer, top), self.where(layer + 1, top)
        own = [by_layer(circuit).get(layer, NOTHING) for circuit in circuits]
        heads, at = self.engine.kept_heads(layer, every), inside or out
        z = self.attention(layer, x, heads, out, below) if heads else None
        if any(kept.partial for kept in own):
            rows = []
            for circuit, kept in zip(circuits, own, strict=True):
                some = None if z is None or not kept.heads else picked(z, list(map(heads.index, kept.heads)))
                args = circuit, kept.heads, some, substitute, out, inside, self.roles
                rows.append(self.engine.finish(layer, x, *args, self.constant(layer, circuit, substitute, at, x)))
            return torch.cat(rows)
        block, resid = self.engine.block_of(layer, heads), x if out is None or inside is not None else out.take(x)
        summed = block.summed(resid, z, self.constant(layer, every, substitute, at, x))[None]
        dropped = [h for h in heads if not all(h in kept.heads for kept in own)]
        if z is not None and dropped:
            means = picked(replacing(substitute, "z", layer, at, x), dropped)
            change = means - picked(z, list(map(heads.index, dropped)))
            writes = change.flatten(0, 1).transpose(0, 1) @ chosen(self.engine.blocks[layer].w_o, dropped, 0)
            drops = writes.new_tensor([[h not in kept.heads for h in dropped] for kept in own])
            summed = torch.addmm(summed.flatten(1), drops, writes.flatten(1)).view(-1, *resid.shape)
        after = block.reached(resid, summed).expand(len(own), *resid.shape).contiguous()
        intact, gone = ([i for i, kept in enumerate(own) if kept.mlp == whole] for whole in (True, False))
        if intact:
            of = numbers(tuple(intact), x.device)
            reads = block.mlp_reads(resid, after.index_select(0, of)).reshape(-1, *resid.shape[1:])
            after.index_add_(0, of, block.mlp_out(reads).view(-1, *resid.shape).expand(len(intact), *resid.shape))
        if gone:
            values = replacing(substitute, "mlp_out", layer, at, x).expand(len(gone), *resid.shape)
            after.index_add_(0, numbers(tuple(gone), x.device), values)
        return after.flatten(0, 1)


def prefixes(circuit: Circuit, stop: int) -> list[Below]:
    """For each layer up to ``stop``, included: what the circuit keeps of each layer below it."""
    kept = by_layer(circuit)
    members = tuple(kept.get(layer, NOTHING).members for layer in range(stop))
    return [members[:layer] for layer in range(stop + 1)]


def last_head(circuit: Circuit) -> int:
    """The last layer that keeps a head, or -1."""
    return max((layer for layer, kept in by_layer(circuit).items() if kept.heads), default=-1)
