"""Run a circuit again and again, each time without one edge: what lies below the edge's receiver is run once.

Edges into receivers of one kind in one layer run together: they share the layer's queries, keys and values, and from
there on the prompts stand once for each edge, one copy after another, in one batch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

from atlas.core.graph import LOGITS, Edge, Graph, members
from atlas.edges.inputs import Inputs, entered, joint, placed_each, projected_each
from atlas.edges.passes import Pass
from atlas.edges.run import EdgeRun, bytes_of
from atlas.model.attention import Positions
from atlas.model.low_rank import ChangedMlp, is_half


@dataclass(frozen=True)
class Place:
    """Where the edges of a batch end: inputs of one kind (`q`, `k`, `v`, `m`, or `logits`) in one layer."""

    layer: int
    kind: str


def groups(graph: Graph, edges: Iterable[Edge]) -> list[tuple[Place, list[Edge]]]:
    """The edges in the order of the graph, those that end in one place together; raises ValueError on unknown ones."""

    def place(edge: Edge) -> tuple[int, str]:
        kind = edge.receiver if edge.receiver == LOGITS else "m" if edge.receiver[0] == "m" else edge.receiver[-1]
        return graph.layer_of(edge.receiver), kind

    return [(Place(*where), list(found)) for where, found in groupby(graph.circuit(edges), place)]


def without_each(run: EdgeRun, place: Place, edges: Sequence[Edge], at_once: int) -> torch.Tensor:
    """[C, N, K, D] final residuals of the whole model without each of these edges [C] alone, which end in ``place``.

    ``at_once``: edges in one batch. The pass of the whole model is kept where it fits into the run's budget.
    """
    with torch.no_grad():
        reference = run.reference or Reference(whole_model(run))
        run.reference = reference if bytes_of([reference.made, *run.passes]) <= run.budget else None
        found = []
        for i in range(0, len(edges), at_once):
            part = edges[i : i + at_once]
            x, n = Variants(run, reference, place, part).final(), len(run.tokens)
            unchanged = len(x) == n and len(part) > 1  # no change has a path to the logits
            found.append(x.expand(len(part), *x.shape) if unchanged else x.unflatten(0, (len(part), n)))
    return torch.cat(found)


def whole_model(run: EdgeRun) -> Pass:
    """A pass of the whole model that was made of nothing else, so that it does not depend on what was run before."""
    rows = run.graph.all_edges.rows
    for known in run.passes:
        if known.is_fresh and known.rows == rows:
            known.ports = {}  # of no use here
            return known
    base = Pass(run, rows)
    base.final()
    base.ports = {}
    return base


@dataclass(frozen=True)
class Change:
    """By how much heads of one layer give something else than in the whole model; heads[i] in copy i of the prompts.

    z [C, N P, h d_head], head by head; written [C N, P, D], what that makes of the residual.
    """

    heads: list[list[int]]
    z: torch.Tensor
    written: torch.Tensor
    everywhere: bool


class Reference:
    """A pass of the whole model, and what is made of one layer of it while edges into that layer are tried."""

    def __init__(self, made: Pass) -> None:
        self.made, self.layer = made, -1
        self.projections: dict[bool, tuple[torch.Tensor, ...]] = {}  # everywhere? -> q, k and v
        self.mlps: dict[bool, ChangedMlp] = {}
        self.writes: dict[bool, torch.Tensor] = {}  # of all heads together, [1 or N, P, D]

    def turn_to(self, layer: int) -> None:
        """Forget what was made of other layers."""
        if layer != self.layer:
            self.layer, self.projections, self.mlps, self.writes = layer, {}, {}, {}


class Variants(Pass):
    """Passes of one circuit that each lack one edge, as one: tensors of what differs have C N rows."""

    def __init__(self, run: EdgeRun, reference: Reference, place: Place, edges: Sequence[Edge]) -> None:
        base = reference.made
        super().__init__(run, base.rows, base, base.wide)
        self.reference, self.place, self.copies = reference, place, len(edges)
        self.change: Change | None = None
        reference.turn_to(place.layer)
        self.receivers, self.cut = [], []  # of each edge: number of its receiver, and what that reads without it
        for edge in edges:
            receiver, sender = self.graph.place[edge]
            self.receivers.append(receiver)
            self.cut.append(base.rows[receiver] & ~(1 << sender))
        self.repeated = run.positions.repeat(self.copies)
        self.wanted = self.terms_of_all()

    def terms_of_all(self) -> int:
        """Senders whose differences some receiver adds or takes away."""
        wanted = 0
        for receiver, row in zip(self.graph.receivers, self.rows, strict=True):
            missing = self.live & self.run.senders_before(self.level(receiver)) & ~row
            wanted |= missing if missing.bit_count() < row.bit_count() else row
        return wanted

    def level(self, receiver: str) -> int:
        """The level that a receiver reads."""
        return 2 * self.graph.layer_of(receiver) + (receiver[0] == "m" and not self.graph.parallel)

    def positions_of(self, n: int) -> Positions:
        return self.run.positions if n <= len(self.run.tokens) else self.repeated

    def final(self) -> torch.Tensor:
        if self.place.kind == LOGITS:
            for layer in range(self.graph.n_layers):
                self.attention(layer)
                self.mlp(layer)
            return self.copied(self.reads(2 * self.graph.n_layers, self.cut, everywhere=False))
        return super().final()

    def carried(self, used: int, everywhere: bool) -> tuple[int, torch.Tensor]:
        """Made anew: few senders are asked for, and those that changed, and so all beside them, have C N rows."""
        by_layer: dict[int, list[int]] = {}
        for sender in members(used):
            by_layer.setdefault((sender - 1) // self.graph.senders_a_layer, []).append(sender)
        parts = [self.made_by(layer, senders, everywhere) for layer, senders in by_layer.items()]
        n = max(part.shape[1] for part in parts)
        return used, torch.cat([self.with_rows(part, n) for part in parts])

    def copied(self, x: torch.Tensor) -> torch.Tensor:
        """[C N, ...] of what the changed receivers read, [C, 1 or N, ...]."""
        return x.expand(-1, len(self.run.tokens), *x.shape[2:]).flatten(0, 1)

    def mlp(self, layer: int) -> None:
        sender = self.graph.first(layer) + self.graph.n_heads
        if self.change and layer == self.place.layer and self.serves(sender):
            self.exchange(sender, self.of_change(layer, self.change), self.change.everywhere)
        else:
            super().mlp(layer)
        if self.place == Place(layer, "m") and self.live >> sender & 1:
            everywhere = bool(self.wide >> sender & 1)
            read = self.copied(self.reads(2 * layer + (not self.graph.parallel), self.cut, everywhere))
            self.exchange(sender, self.run.blocks[layer].mlp_out(read), everywhere)
        self.forget_below(layer)

    def serves(self, sender: int) -> bool:
        """Does an MLP read all heads that changed in its layer, and is it needed where they are?"""
        assert self.change
        row, first = self.rows[self.graph.rows_of[sender][0]], sender - self.graph.n_heads
        needed = self.wide if self.change.everywhere else self.live & ~self.wide
        return bool(needed >> sender & 1) and all(row >> first + h & 1 for some in self.change.heads for h in some)

    def of_change(self, layer: int, change: "Change") -> torch.Tensor:
        """[C N, P, D] what the MLP of a layer makes of a change of its heads."""
        mlps, everywhere = self.reference.mlps, change.everywhere
        if everywhere not in mlps:
            (read,) = self.reference.made.reads(2 * layer + 1, [self.rows[self.graph.row(layer, "m")]], everywhere)
            mlps[everywhere] = ChangedMlp(self.run.blocks[layer], read.expand(len(self.run.tokens), -1, -1))
        mlp = mlps[everywhere]
        return mlp(change.z, change.heads, self.plus(change.written, mlp.read))

    def exchange(self, sender: int, out: torch.Tensor, everywhere: bool) -> None:
        """Let a sender give ``out`` instead, [C N, P, ...]."""
        self.changed |= 1 << sender
        self.covered &= ~(1 << sender)
        self.put(sender, out, everywhere)

    def forget_below(self, layer: int) -> None:
        """Drop what no layer above will read: many copies of the prompts take much memory."""
        if (2 * layer, True) not in self.streams:
            return
        self.streams, self.ports = {key: x for key, x in self.streams.items() if key[0] >= 2 * layer}, {}
        if not self.live & ~self.wide & self.run.senders_before(2 * layer):
            first = self.graph.first(layer)
            self.out = {s: x for s, x in self.out.items() if s >= first or self.wanted >> s & 1}
            self.whole = {key: z for key, z in self.whole.items() if key >= layer}

    def attention(self, layer: int) -> None:
        super().attention(layer)
        if layer != self.place.layer or self.place.kind not in "qkv":
            return
        graph, block, part, first = self.graph, self.run.blocks[layer], self.place.kind, self.graph.first(layer)
        owners = [receiver - graph.row(layer, part) for receiver in self.receivers]
        size = 1 if part == "q" else graph.n_heads // graph.n_kv_heads  # heads that read what one receiver gets
        readers = [[owner * size + i for i in range(size)] for owner in owners]
        everywhere = any(self.wide >> first + h & 1 for heads in readers for h in heads)
        new = self.projected(layer, owners, everywhere or part != "q")
        q, k, v = self.base_projections(layer, everywhere)
        heads, theirs = [h for some in readers for h in some], [block.owners[some[0]] for some in readers]
        z = self.attend(
            block,
            new if part == "q" else self.picked(q, heads),
            entered(block, "k", new) if part == "k" else self.picked(k, theirs),
            new if part == "v" else self.picked(v, theirs),
            [0] * size,
            everywhere,
        )
        for head in sorted({h for h in heads if self.live >> first + h & 1}):
            self.exchange_head(
                first + head, [(i, r.index(head)) for i, r in enumerate(readers) if head in r], z, everywhere
            )
        self.whole.pop(layer, None)
        self.pass_on(layer, readers, z, everywhere)

    def pass_on(self, layer: int, readers: list[list[int]], z: torch.Tensor, everywhere: bool) -> None:
        """Take the residual behind an attention in which heads give z [C N, P, h, d_head] from that of the whole model
        and the change; where they all are live and needed at the same positions, and that residual is there."""
        first, block, known = self.graph.first(layer), self.run.blocks[layer], self.reference.made.streams
        distinct, after = sorted({head for some in readers for head in some}), (2 * layer + 1, everywhere)
        needed = self.wide if everywhere else self.live & ~self.wide
        alike = all(needed >> first + head & 1 for head in distinct)
        mixes = block.norm_attn_out is not None and not is_half(block)
        if not alike or after not in known or not (mixes or ChangedMlp.serves(block)):
            return
        n, copies = len(self.run.tokens), self.copies
        places = [[distinct.index(head) for head in some] for some in readers]
        before = self.reference.made.z_of(layer, distinct, everywhere).expand(n, -1, -1, -1)[:, :, places]
        changed = z.unflatten(0, (copies, n)) - before.permute(2, 0, 1, 3, 4)  # [C, N, P, h, d_head]
        change = changed.flatten(3).flatten(1, 2)
        written = torch.bmm(change, torch.stack([block.w_o[some].flatten(0, 1) for some in readers]))
        written = written.view(copies * n, -1, written.shape[-1])
        if mixes:
            writes = self.reference.writes
            if everywhere not in writes:
                z = self.reference.made.z_of(layer, list(self.graph.heads), everywhere)
                writes[everywhere] = block.head_writes(z)
            before = self.spread(self.reference.made.stream(2 * layer, everywhere), copies * n)
            self.streams[after] = block.after_attention(before, self.plus(written, writes[everywhere]))
            return
        self.change = Change(readers, change, written, everywhere)
        self.streams[after] = self.plus(written.clone(), known[after])

    def exchange_head(self, sender: int, where: list[tuple[int, int]], z: torch.Tensor, everywhere: bool) -> None:
        """Let a head give z [C N, P, h, d_head] in the copies ``where`` (copy, place in h), elsewhere what it gave."""
        (_, place), wide = where[0], everywhere and bool(self.covered >> sender & 1)
        z = z[:, :, place]
        z = self.at(z, False) if everywhere and not wide else z
        if len(where) < self.copies:
            copies, n = [i for i, _ in where], len(self.run.tokens)
            old = self.output(sender, wide)
            out = old.expand(n, *old.shape[1:]).repeat(self.copies, 1, 1).unflatten(0, (self.copies, n))
            out[copies] = z.unflatten(0, (self.copies, n))[copies]
            z = out.flatten(0, 1)
        self.exchange(sender, z, wide)

    def projected(self, layer: int, owners: list[int], everywhere: bool) -> torch.Tensor:
        """[C N, 1, P, d_head] queries, keys or values of the receivers, each without its edge; see `Inputs`."""
        block, part = self.run.blocks[layer], self.place.kind
        x = self.copied(self.reads(2 * layer, self.cut, everywhere))
        x = block.norm1(x)
        if len(set(owners)) == 1 and not joint(block, part):
            return block.project(part, x, owners[:1])
        each = x.unflatten(0, (self.copies, -1))
        found = projected_each(block, part, each, owners)
        if joint(block, part):
            found = placed_each(block, part, found, each, owners, None if everywhere else self.run.positions)
        return found.transpose(0, 1).flatten(0, 1)[:, None]

    def base_projections(self, layer: int, everywhere: bool) -> tuple[torch.Tensor, ...]:
        """q before it is placed, k and v of all heads of a layer in the whole model, [1 or N, h, P, d_head]."""
        held = self.reference.projections
        if everywhere not in held:
            block, heads, owners = self.run.blocks[layer], list(self.graph.heads), list(range(self.graph.n_kv_heads))
            inputs = Inputs(self, layer)
            q, k, v = (
                inputs.projected(p, some, p != "q" or everywhere)
                for p, some in zip("qkv", (heads, owners, owners), strict=True)
            )
            held[everywhere] = q, entered(block, "k", k), v
        return held[everywhere]

    def picked(self, x: torch.Tensor, heads: list[int]) -> torch.Tensor:
        """[C N, h, P, d_head] of x [1 or N, H, P, d_head]: ``heads`` [C h], as many for each copy of the prompts."""
        n, index = len(self.run.tokens), torch.tensor(heads, device=x.device)
        found = x[:, index].expand(n, -1, -1, -1).unflatten(1, (self.copies, -1))
        picked: torch.Tensor = found.transpose(0, 1).flatten(0, 1)
        return picked
