"""Run a model with any set of its edges ablated (methods: edges).

An edge s -> r is ablated by letting r read the ablated write of s in place of the actual one; what other receivers read
of s stays. So an edge carries a difference, d(s) = write of s - ablated write of s, and a receiver reads

    base + sum of d(s) over the kept edges s -> r,

the base being all biases and all ablated writes before it. Ablating every edge out of a component is ablating the
component; the embedding is a sender like others.

What is saved is exact. Only nodes with a path to the logits run, and at the last position alone where nothing reads
more of them. What a node writes depends on the kept edges upstream of it and on nothing else, so a circuit that differs
little from one that was just run (`Pass`) runs again only what reads a change. A receiver that misses few of the live
senders reads the whole stream less these, so that a model with nearly all edges costs little more than a plain one; all
that the receivers of a layer read is one matrix product of senders' differences. Which way a sum is taken depends on
the circuit alone, never on what happens to be remembered. Circuits that lack one edge each, into receivers of one kind
and layer, share all that lies below it, and run as one batch from there on (variants.py).

Sets of senders are integers with a bit for each, as in `EdgeCircuit`.
"""

import functools
import operator
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from atlas.core.graph import EMBED, EdgeCircuit, Graph, members
from atlas.model.block import Block, Positions
from atlas.model.engine import Engine, Substitute

GROUPS = 3  # up to so many different inputs of a layer's heads are projected one after another, more of them at once
KEPT = 2  # passes that are remembered: the one that a search removes from, and the one before


class EdgeRun:
    """Final residuals of edge circuits on fixed tokens [N, S].

    ``substitute(name, layer)``: what replaces components (`z`, `mlp_out`) and the embeddings (`embed`), see
    `EdgeReplacement.reader`. ``positions``: where the score reads the model, by default the last position. ``budget``:
    bytes that remembered passes may take.
    """

    def __init__(
        self,
        engine: Engine,
        graph: Graph,
        tokens: torch.Tensor,
        substitute: Substitute,
        positions: torch.Tensor | None = None,
        budget: int = 2**29,
    ) -> None:
        self.engine, self.blocks, self.graph, self.tokens = engine, engine.blocks, graph, tokens
        self.substitute, self.budget = substitute, budget
        last = torch.tensor([tokens.shape[1] - 1], device=tokens.device)
        self.positions = Positions(last if positions is None else positions)
        self.passes: list[Pass] = []  # the one used last at the end
        self.reference: Pass | None = None  # of the whole model, for `variants`
        self.bases = self.constant_parts()

    def constant_parts(self) -> list[torch.Tensor]:
        """Biases and ablated writes that stand before the attention (2 l) and the MLP (2 l + 1) of layer l, and the
        logits (2 L): [1 or N, S, D] each."""
        bases = [self.ablated(EMBED)]
        for layer, block in enumerate(self.blocks):
            bases.append(block.after_attention(bases[-1], block.head_writes(self.ablated("z", layer))))
            bases.append(bases[-1] + self.ablated("mlp_out", layer))
        return bases

    def ablated(self, name: str, layer: int = 0) -> torch.Tensor:
        """What stands in for the components of a layer, or for the embeddings; [1 or N, S, ...]."""
        return self.substitute(name, layer).to(self.engine.weights.w_u.dtype)

    def senders_before(self, level: int) -> int:
        """The senders whose writes a level holds: 2 l stands before the attention of layer l, 2 l + 1 behind it."""
        layer, after_heads = divmod(level, 2)
        return (1 << self.graph.first(layer) + after_heads * self.graph.n_heads) - 1

    def final_residual(self, circuit: EdgeCircuit) -> torch.Tensor:
        """[N, K, D] at the positions of the score, with only these edges kept; all must have a path to the logits."""
        with torch.no_grad():
            parent = max(self.passes, key=lambda known: known.agrees_with(circuit.rows), default=None)
            made = Pass(self, circuit.rows, parent)
            x = made.final()
            self.keep(made, parent)
        return x

    def keep(self, made: "Pass", parent: "Pass | None") -> None:
        """Remember a pass and the one that it was made from; less of them, or none, where they take too much."""
        self.passes = [known for known in (parent, made) if known is not None][-KEPT:]
        if bytes_of(self.passes) > self.budget:
            for known in self.passes:
                known.forget_sums()
        while bytes_of(self.passes) > self.budget:
            self.passes.pop(0)

    def clear(self) -> None:
        """Forget what was run."""
        self.passes = []


def bytes_of(passes: Iterable["Pass"]) -> int:
    """Memory of passes, which share what did not change."""
    tensors = {id(x): x for known in passes for x in known.tensors()}
    return sum(x.numel() * x.element_size() for x in tensors.values())


class Pass:
    """One circuit on its way through the model; ``rows``: receiver -> the senders of its kept edges.

    ``parent``: the pass of another circuit, whose writes are taken where nothing upstream differs. ``wide``: senders
    that are needed at every position; of the others what they write at the positions of the score is enough.
    """

    def __init__(
        self, run: EdgeRun, rows: Sequence[int], parent: "Pass | None" = None, wide: int | None = None
    ) -> None:
        self.run, self.graph, self.rows = run, run.graph, rows
        self.live = 0
        for row in rows:
            self.live |= row
        self.wide = self.needed_everywhere() if wide is None else wide
        self.out: dict[int, torch.Tensor] = {}  # sender -> z of a head, what an MLP writes; [1 or N, S or K, ...]
        self.covered = 0  # senders whose `out` is at every position
        self.whole: dict[int, torch.Tensor] = {}  # layer -> z [N, S, H, d_head] where all its heads were made at once
        self.streams: dict[tuple[int, bool], torch.Tensor] = {}
        self.differences: dict[tuple[int, bool], torch.Tensor] = {}
        self.projections: dict[tuple[int, bool], tuple[torch.Tensor, ...]] = {}  # of one layer, for `variants`
        self.parent, self.changed = parent, 0 if parent else self.live  # senders that write otherwise than there

    def needed_everywhere(self) -> int:
        """Senders that a key or value, or what is itself needed everywhere, reads."""
        wide, rows_of, rows = 0, self.graph.rows_of, self.rows
        for sender in range(len(rows_of) - 1, 0, -1):
            if self.live >> sender & 1:
                ports = rows_of[sender]
                for port in ports if wide >> sender & 1 else ports[1:]:  # of a head q, k, v; of an MLP one
                    wide |= rows[port]
        return wide

    def agrees_with(self, rows: Sequence[int]) -> int:
        """The first receiver that reads other senders than in these rows."""
        return next((i for i, (a, b) in enumerate(zip(self.rows, rows, strict=True)) if a != b), len(rows))

    def tensors(self) -> list[torch.Tensor]:
        """All that the pass holds; of heads that were made at once, their common tensor and no view of it."""
        n, made = self.graph.senders_a_layer, self.whole
        own = [x for s, x in self.out.items() if (s - 1) // n not in made or (s - 1) % n == self.graph.n_heads]
        return [*own, *made.values(), *self.streams.values(), *self.differences.values()]

    def forget_sums(self) -> None:
        """Forget what can be made again from what nodes write."""
        self.streams, self.differences = {}, {}

    # ---- the way through the model -----------------------------------------------------------------------
    def final(self) -> torch.Tensor:
        """[N, K, D] the final residual at the positions of the score."""
        for layer in range(self.graph.n_layers):
            self.attention(layer)
            self.mlp(layer)
        (x,) = self.reads(2 * self.graph.n_layers, [self.rows[-1]], everywhere=False)
        self.parent = None
        return x.expand(len(self.run.tokens), *x.shape[1:]) if len(x) == 1 else x

    def is_known(self, sender: int) -> bool:
        """Take what a node writes from the parent, if nothing that it reads differs; else note that it changes."""
        before, bit = self.parent, 1 << sender
        if before and sender in before.out and (before.covered & bit or not self.wide & bit):
            for port in self.graph.rows_of[sender]:
                row = self.rows[port]
                if row != before.rows[port] or row & self.changed:
                    break
            else:
                self.out[sender] = before.out[sender]
                self.covered |= before.covered & bit
                return True
        self.changed |= bit
        return False

    def put(self, sender: int, out: torch.Tensor, everywhere: bool) -> None:
        self.out[sender] = out
        self.covered |= everywhere << sender

    def mlp(self, layer: int) -> None:
        sender = self.graph.first(layer) + self.graph.n_heads
        if self.live >> sender & 1 and not self.is_known(sender):
            everywhere = bool(self.wide >> sender & 1)
            row = self.rows[self.graph.row(layer, "m")]
            (read,) = self.reads(2 * layer + (not self.graph.parallel), [row], everywhere)
            self.put(sender, self.run.blocks[layer].mlp_out(read), everywhere)

    def attention(self, layer: int) -> None:
        """The heads of one layer that are live and differ from the parent's."""
        first, block = self.graph.first(layer), self.run.blocks[layer]
        live = [h for h in self.graph.heads if self.live >> first + h & 1]
        heads = [h for h in live if not self.is_known(first + h)]
        if not heads:
            if self.parent and len(live) == block.n_heads and layer in self.parent.whole:
                self.whole[layer] = self.parent.whole[layer]
            return
        wide = [h for h in heads if self.wide >> first + h & 1]
        narrow = [h for h in heads if h not in wide] if len(wide) < len(heads) else []
        owners = sorted({block.owners[h] for h in heads})
        inputs = Inputs(self, layer)
        both = [*self.rows_of("k", layer, owners), *self.rows_of("v", layer, owners)]
        inputs.read([*both, *self.rows_of("q", layer, wide)], True)
        k, v = block.placed("k", inputs.projected("k", owners, True)), inputs.projected("v", owners, True)
        for some, everywhere in ((wide, True), (narrow, False)):
            if some:
                q = inputs.projected("q", some, everywhere)
                z = self.attend(block, q, k, v, [owners.index(block.owners[h]) for h in some], everywhere)
                for i, head in enumerate(some):
                    self.put(first + head, z[:, :, i], everywhere)
                if len(some) == block.n_heads and everywhere:
                    self.whole[layer] = z

    def rows_of(self, part: str, layer: int, owners: Iterable[int]) -> list[int]:
        """What the queries, keys or values of some heads read."""
        first = self.graph.row(layer, part)
        return [self.rows[first + owner] for owner in owners]

    def attend(
        self,
        block: Block,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        owners: list[int],
        everywhere: bool,
    ) -> torch.Tensor:
        """z [1 or N, P, h, d_head] of queries [1 or N, h, P, d_head] that read the keys and values ``owners``."""
        n = max(map(len, (q, k, v)))
        q, k, v = (self.spread(x, n) for x in (q, k, v))
        at = None if everywhere else self.positions_of(n)
        return block.attend(block.placed("q", q, at), k, v, at, None if owners == list(range(k.shape[1])) else owners)

    # ---- rows and positions ------------------------------------------------------------------------------
    def spread(self, x: torch.Tensor, n: int) -> torch.Tensor:
        """x [1 or N, ...] beside tensors of ``n`` rows, which may be copies of the prompts: as it is, or repeated."""
        return x if len(x) == 1 or len(x) >= n else x.repeat(n // len(x), *[1] * (x.dim() - 1))

    def positions_of(self, n: int) -> Positions:
        """The positions of the score in n rows."""
        return self.run.positions

    def at(self, x: torch.Tensor, everywhere: bool) -> torch.Tensor:
        """x [1 or N, S, D], everywhere or at the K positions of the score."""
        return x if everywhere else self.positions_of(len(x)).take(x)

    def output(self, sender: int, everywhere: bool) -> torch.Tensor:
        """What a live sender gives, [1 or N, S or K, D], of a head its z, [1 or N, S or K, d_head]."""
        return self.at(self.out[sender], everywhere or not self.covered >> sender & 1)

    # ---- what receivers read -----------------------------------------------------------------------------
    def reads(self, level: int, rows: Sequence[int], everywhere: bool) -> torch.Tensor:
        """[len(rows), 1 or N, S or K, D] for each set of senders: base + their differences, or, where fewer are
        missing, the stream less those of the missing ones."""
        here = self.run.senders_before(level) & (self.wide if everywhere else self.live)
        terms, whole = [], []
        for row in rows:
            missing = here & ~row
            whole.append(missing.bit_count() < row.bit_count())
            terms.append(missing if whole[-1] else row)
        starts = {w: self.stream(level, everywhere) if w else self.base(level, everywhere) for w in set(whole)}
        if not any(terms):
            return self.together([starts[w] for w in whole])
        senders = members(functools.reduce(operator.or_, terms))
        carried = self.together(self.carried(senders, everywhere))
        signs = matrix(terms, senders) * np.where(whole, -1, 1)[:, None]
        x = (torch.from_numpy(signs).to(carried) @ carried.flatten(1)).view(-1, *carried.shape[1:])
        if len(starts) == 1:
            return self.plus(x, starts[whole[0]])
        return self.together([self.plus(part, starts[w]) for part, w in zip(x, whole, strict=True)])

    def plus(self, x: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        """The sum of x [..., 1 or N, P, D], which may be changed, and ``start`` [1 or N, P, D]."""
        n = x.shape[-3]
        if len(start) > n == 1:
            return x + start
        return x.add_(self.spread(start, n))

    def together(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Tensors [1 or N, ...] as one, [len(parts), 1 or N, ...]."""
        if len(parts) == 1:
            return parts[0][None]
        n = max(map(len, parts))
        return torch.stack([x if len(x) == n else self.spread(x, n).expand(n, *x.shape[1:]) for x in parts])

    def base(self, level: int, everywhere: bool) -> torch.Tensor:
        """[1 or N, S or K, D] biases and ablated writes before a level."""
        return self.at(self.run.bases[level], everywhere)

    def carried(self, senders: Sequence[int], everywhere: bool) -> list[torch.Tensor]:
        """[1 or N, S or K, D] of each sender: what its edges carry, its write less its ablated write."""
        new: dict[int, list[int]] = {}
        for sender in senders:
            key, before = (sender, everywhere), self.parent
            if key in self.differences:
                continue
            if before and key in before.differences and not self.changed >> sender & 1:
                self.differences[key] = before.differences[key]
            elif sender == 0:
                embeddings = self.run.engine.weights.embed(self.run.tokens)
                self.differences[key] = self.at(embeddings - self.run.ablated(EMBED), everywhere)
            else:
                layer, place = divmod(sender - 1, self.graph.senders_a_layer)
                new.setdefault(layer, []).append(place)
        for layer, places in new.items():
            self.carry(layer, places, everywhere)
        return [self.differences[sender, everywhere] for sender in senders]

    def carry(self, layer: int, places: list[int], everywhere: bool) -> None:
        """Make the differences of some senders of a layer: heads by their numbers, the MLP as the last."""
        run, first = self.run, self.graph.first(layer)
        if places[-1] == self.graph.n_heads:
            own, ablated = self.output(first + places.pop(), everywhere), run.ablated("mlp_out", layer)
            self.differences[first + self.graph.n_heads, everywhere] = self.less(own, self.at(ablated, everywhere))
        if not places:
            return
        own = self.together([self.output(first + head, everywhere) for head in places]).movedim(0, 2)
        ablated = self.at(run.ablated("z", layer)[:, :, places], everywhere)
        z = self.less(own, ablated).movedim(2, 0)  # [h, N, P, d_head]
        w_o = run.blocks[layer].w_o[places]
        found = torch.bmm(z.flatten(1, 2), w_o).view(*z.shape[:3], -1)
        for head, x in zip(places, found, strict=True):
            self.differences[first + head, everywhere] = x

    def less(self, own: torch.Tensor, ablated: torch.Tensor) -> torch.Tensor:
        """own - ablated, [1 or N, ...] both."""
        return own - self.spread(ablated, len(own))

    def stream(self, level: int, everywhere: bool) -> torch.Tensor:
        """[1 or N, S or K, D] the residual stream with live senders' own writes, and the ablated ones of all others."""
        key = (level, everywhere)
        if key not in self.streams:
            here, before = self.run.senders_before(level) & (self.wide if everywhere else self.live), self.parent
            if not everywhere and not here & ~self.wide:
                return self.at(self.stream(level, True), False)
            theirs = before and (before.wide if everywhere else before.live) & self.run.senders_before(level)
            if before and key in before.streams and here == theirs and not here & self.changed:
                self.streams[key] = before.streams[key]
            else:
                self.streams[key] = self.next_stream(level, here, everywhere)
        return self.streams[key]

    def next_stream(self, level: int, live: int, everywhere: bool) -> torch.Tensor:
        """The same, made from the stream of the level before; ``live``: senders that write their own."""
        run = self.run
        if level == 0:
            return self.at(run.engine.weights.embed(run.tokens) if live & 1 else run.bases[0], everywhere)
        layer, after_mlp = divmod(level - 1, 2)
        x, first = self.stream(level - 1, everywhere), self.graph.first(layer)
        if after_mlp:
            sender = first + self.graph.n_heads
            own = live >> sender & 1
            y = self.output(sender, everywhere) if own else self.at(run.ablated("mlp_out", layer), everywhere)
            return self.spread(x, len(y)) + self.spread(y, len(x))
        if layer in self.whole and everywhere:
            z = self.whole[layer]
        else:
            ablated = self.at(run.ablated("z", layer), everywhere)
            parts = [
                self.output(first + h, everywhere) if live >> first + h & 1 else ablated[:, :, h]
                for h in self.graph.heads
            ]
            n = max(map(len, parts))
            z = torch.stack([self.spread(part, n).expand(n, -1, -1) for part in parts], dim=2)
        block = run.blocks[layer]
        return block.after_attention(self.spread(x, len(z)), block.head_writes(z))


def matrix(rows: Sequence[int], columns: Sequence[int]) -> np.ndarray:
    """[rows, columns] 1 where a row has the bit of a column, else 0."""
    size = columns[-1] // 8 + 1
    held = b"".join([row.to_bytes(size, "little") for row in rows])
    bits = np.unpackbits(np.frombuffer(held, dtype=np.uint8).reshape(-1, size), axis=1, bitorder="little")
    return bits[:, columns].astype(np.int8)


class Inputs:
    """What the heads of one layer read, after the first norm: one tensor [1 or N, S or K, D] for each set of senders."""

    def __init__(self, made: Pass, layer: int) -> None:
        self.made, self.layer, self.block = made, layer, made.run.blocks[layer]
        self.normed: dict[tuple[int, bool], torch.Tensor] = {}

    def read(self, rows: Iterable[int], everywhere: bool) -> None:
        """Bring in some sets of senders together, those that are not there."""
        new = [row for row in dict.fromkeys(rows) if (row, everywhere) not in self.normed]
        if new:
            x = self.made.reads(2 * self.layer, new, everywhere)
            normed = self.block.norm1(x.flatten(0, 1)).view(x.shape)
            self.normed |= {(row, everywhere): y for row, y in zip(new, normed, strict=True)}

    def projected(self, part: str, owners: list[int], everywhere: bool) -> torch.Tensor:
        """Queries, keys or values [1 or N, len(owners), P, d_head]; those that read the same are taken together."""
        rows = self.made.rows_of(part, self.layer, owners)
        self.read(rows, everywhere)
        together: dict[int, list[int]] = {}
        for owner, row in zip(owners, rows, strict=True):
            together.setdefault(row, []).append(owner)
        if len(together) > GROUPS:
            inputs = self.made.together([self.normed[row, everywhere] for row in rows])
            return projected_each(self.block, part, inputs, owners)
        found: dict[int, torch.Tensor] = {}
        for row, who in together.items():
            x = self.block.project(part, self.normed[row, everywhere], who)
            if len(together) == 1:
                return x
            found |= dict(zip(who, x.unbind(1), strict=True))
        return self.made.together([found[owner] for owner in owners]).transpose(0, 1)


def projected_each(block: Block, part: str, x: torch.Tensor, owners: Sequence[int]) -> torch.Tensor:
    """`Block.project` where each of the heads has its own input, x [h, N, P, D]: [N, h, P, d_head]."""
    weight, bias = block.linear(part)
    index = torch.tensor(owners, device=weight.device)
    out = torch.baddbmm(bias[index][:, None], x.flatten(1, 2), weight.transpose(0, 1)[index])
    return out.view(*x.shape[:3], -1).transpose(0, 1)
