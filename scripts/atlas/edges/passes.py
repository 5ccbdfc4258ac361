"""One edge circuit on its way through the model: what each node reads and writes.

Sets of senders are integers with a bit for each, as in `EdgeMask`.
"""

import functools
import operator
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from atlas.core.graph import EMBED, members
from atlas.edges.frame import Frame, matrix, rows_in
from atlas.edges.inputs import Inputs, entered
from atlas.model.attention import Positions
from atlas.model.block import Block

COPIED = 3  # times that a copy, and the product with it, goes through memory: else sums are taken one by one


class Pass:
    """One circuit on its way through the model; ``rows``: receiver -> the senders of its kept edges.

    ``parent``: the pass of another circuit, whose writes are taken where nothing upstream differs. ``wide``: senders
    that are needed at every position; of the others what they write at the positions of the score is enough.
    """

    def __init__(self, run: Frame, rows: Sequence[int], parent: "Pass | None" = None, wide: int | None = None) -> None:
        self.run, self.graph, self.rows = run, run.graph, rows
        self.live = 0
        for row in rows:
            self.live |= row
        self.wide = self.needed_everywhere() if wide is None else wide
        self.out: dict[int, torch.Tensor] = {}  # sender -> z of a head, what an MLP writes; [1 or N, S or K, ...]
        self.covered = 0  # senders whose `out` is at every position
        self.whole: dict[int, torch.Tensor] = {}  # layer -> z [N, S, H, d_head] where all its heads were made at once
        self.streams: dict[tuple[int, bool], torch.Tensor] = {}
        self.ports: dict[tuple[int, bool], torch.Tensor] = {}  # receiver, everywhere? -> query, key or value it gives
        self.parent, self.is_fresh = parent, parent is None
        self.changed = 0 if parent else self.live  # senders that write otherwise than in the parent

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
        return [*own, *made.values(), *self.streams.values(), *self.ports.values()]

    def forget_reads(self) -> None:
        """Forget what can be made again from what nodes write."""
        self.streams, self.ports = {}, {}

    # ---- the way through the model -----------------------------------------------------------------------
    def final(self) -> torch.Tensor:
        """[N, K, D] the final residual at the positions of the score."""
        for layer in range(self.graph.n_layers):
            self.attention(layer)
            self.mlp(layer)
        x = self.reads(2 * self.graph.n_layers, [self.rows[-1]], everywhere=False)[0]
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
        k, v = entered(block, "k", self.given(inputs, "k", owners, True)), self.given(inputs, "v", owners, True)
        for some, everywhere in ((wide, True), (narrow, False)):
            if some:
                q = self.given(inputs, "q", some, everywhere)
                z = self.attend(block, q, k, v, [owners.index(block.owners[h]) for h in some], everywhere)
                for head, own in zip(some, z.unbind(2), strict=True):
                    self.put(first + head, own, everywhere)
                if len(some) == block.n_heads and everywhere:
                    self.whole[layer] = z

    def given(self, inputs: "Inputs", part: str, owners: list[int], everywhere: bool) -> torch.Tensor:
        """Queries, keys or values [1 or N, h, P, d_head]: of the parent where nothing that they read differs."""
        first, before, found = self.graph.row(inputs.layer, part), self.parent, {}
        for owner in owners:
            key, row = (first + owner, everywhere), self.rows[first + owner]
            if before and key in before.ports and row == before.rows[first + owner] and not row & self.changed:
                found[owner] = before.ports[key]
        if new := [owner for owner in owners if owner not in found]:
            made = inputs.projected(part, new, everywhere)
            found |= dict(zip(new, made.unbind(1), strict=True))
        self.ports |= {(first + owner, everywhere): x for owner, x in found.items()}
        if len(new) == len(owners):
            return made
        n = max(map(rows_in, found.values()))
        return torch.stack([self.spread(found[owner], n).expand(n, -1, -1) for owner in owners], dim=1)

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
        n = max(map(rows_in, (q, k, v)))
        q, k, v = (self.spread(x, n) for x in (q, k, v))
        at = None if everywhere else self.positions_of(n)
        return block.attend(entered(block, "q", q, at), k, v, at, None if owners == list(range(k.shape[1])) else owners)

    # ---- rows and positions ------------------------------------------------------------------------------
    def spread(self, x: torch.Tensor, n: int) -> torch.Tensor:
        """x [1 or N, ...] beside tensors of ``n`` rows, which may be copies of the prompts: as it is, or repeated."""
        own = x.shape[0]
        return x if own == 1 or own >= n else x.repeat(n // own, *[1] * (x.dim() - 1))

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
            terms.append((missing if whole[-1] else row) & self.run.adding)
        x = self.added(level, terms, whole, everywhere)
        return self.mixed(x, level, rows, [here if w else 0 for w in whole], everywhere) if self.run.mixes else x

    def added(self, level: int, terms: list[int], whole: list[bool], everywhere: bool) -> torch.Tensor:
        """[len(terms), 1 or N, S or K, D]: for each set of senders the stream, where ``whole``, less their differences,
        or base + these."""
        starts = {w: self.stream(level, everywhere) if w else self.base(level, everywhere) for w in set(whole)}
        used = functools.reduce(operator.or_, terms)
        if not used:
            return together([starts[w] for w in whole])
        senders, carried = self.carried(used, everywhere)
        if sum(map(int.bit_count, terms)) <= COPIED * used.bit_count():
            places = {sender: i for i, sender in enumerate(members(senders))}
            parts = [[carried[places[s]] for s in members(term)] for term in terms]
            return together([self.summed(starts[w], part, w) for w, part in zip(whole, parts, strict=True)])
        if COPIED * used.bit_count() < senders.bit_count():
            places = {sender: i for i, sender in enumerate(members(senders))}
            senders, carried = used, carried[[places[s] for s in members(used)]]
        signs = matrix(terms, senders) * np.where(whole, -1, 1)[:, None]
        x = (torch.from_numpy(signs).to(carried) @ carried.flatten(1)).view(-1, *carried.shape[1:])
        if len(starts) == 1:
            return self.plus(x, starts[whole[0]])
        n = max(map(rows_in, (x[0], *starts.values())))
        stream, base = (self.spread(starts[w], n) for w in (True, False))
        streams = torch.tensor(whole, device=x.device, dtype=x.dtype).view(-1, 1, 1, 1)
        return self.plus(x, base).addcmul_(streams, stream - base)

    def mixed(
        self, x: torch.Tensor, level: int, rows: Sequence[int], starts: Sequence[int], everywhere: bool
    ) -> torch.Tensor:
        """x [len(rows), 1 or N, S or K, D], in which the heads ``starts`` write their own, where a norm stands behind
        the attention: with what each layer's attention gives where these are the heads of ``rows``."""
        own = False  # x may be a stream that is remembered
        for layer in range((level + 1) // 2):
            heads = self.run.heads_of(layer)
            for start in set(starts):
                sets = {i: row & heads for i, row in enumerate(rows) if starts[i] == start and (row ^ start) & heads}
                if not sets:
                    continue
                distinct = list(dict.fromkeys(sets.values()))
                change = self.mixture(layer, distinct, everywhere)
                before = self.base if not start else self.stream
                change = self.plus(change, before(2 * layer, everywhere) - before(2 * layer + 1, everywhere))
                n = max(rows_in(x[0]), rows_in(change[0]))
                if not own or rows_in(x[0]) < n:
                    x, own = self.with_rows(x, n).clone(), True
                parts, wanted = x.unbind(), self.with_rows(change, n).unbind()
                torch._foreach_add_([parts[i] for i in sets], [wanted[distinct.index(some)] for some in sets.values()])
        return x

    def mixture(self, layer: int, sets: list[int], everywhere: bool) -> torch.Tensor:
        """[len(sets), 1 or N, S or K, D] what a layer's attention adds to the residual stream where each of these sets
        of its heads writes its own and the others write what is ablated."""
        x, used = self.at(self.run.mixtures[layer], everywhere)[None], functools.reduce(operator.or_, sets)
        if used:
            senders, carried = self.carried(used, everywhere)
            below = (used & -used) - 1  # senders of lower layers, whose differences are held beside these
            signs = torch.from_numpy(matrix(sets, senders & ~below)).to(carried)
            carried = carried[(senders & below).bit_count() :]
            x = self.plus((signs @ carried.flatten(1)).view(-1, *carried.shape[1:]), x[0])
        return self.run.blocks[layer].added(x.flatten(0, 1)).view(x.shape)

    def summed(self, start: torch.Tensor, parts: list[torch.Tensor], minus: bool) -> torch.Tensor:
        """``start`` [1 or N, P, D] plus, or minus, the parts, [1 or N, P, D] each."""
        x = start
        for part in parts:
            n, sign = max(part.shape[0], x.shape[0]), -1 if minus else 1
            if x is start or x.shape[0] < n:
                x = torch.add(self.spread(x, n), self.spread(part, n), alpha=sign)
            else:
                x.add_(self.spread(part, n), alpha=sign)
        return x

    def plus(self, x: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        """The sum of x [..., 1 or N, P, D], which may be changed, and ``start`` [1 or N, P, D]."""
        n = x.shape[-3]
        return x + start if start.shape[0] > n else x.add_(self.spread(start, n))

    def base(self, level: int, everywhere: bool) -> torch.Tensor:
        """[1 or N, S or K, D] biases and ablated writes before a level."""
        return self.at(self.run.bases[level], everywhere)

    def carried(self, used: int, everywhere: bool) -> tuple[int, torch.Tensor]:
        """What the edges of senders carry, their writes less their ablated writes: a set that holds those ``used``, and
        [senders, 1 or N, S or K, D]."""
        bases, differences = self.run.bases[0], self.run.differences
        places = bases.shape[1] if everywhere else self.run.positions.index.shape[-1]
        shape = (len(self.graph.senders), len(self.run.tokens), places, bases.shape[2])
        held = differences.rows(everywhere, shape, bases)
        made_of = differences.made_of[everywhere]
        stale: dict[int, list[int]] = {}
        for sender in members(used):
            if made_of[sender] is not (self.out[sender] if sender else self.run.tokens):
                stale.setdefault((sender - 1) // self.graph.senders_a_layer, []).append(sender)
                made_of[sender] = self.out[sender] if sender else self.run.tokens
        for layer, senders in stale.items():
            whole = len(senders) == senders[-1] - senders[0] + 1
            rows = slice(senders[0], senders[-1] + 1) if whole else senders
            held[rows] = self.made_by(layer, senders, everywhere)
        last = used.bit_length()
        return (1 << last) - 1, held[:last]

    def made_by(self, layer: int, senders: list[int], everywhere: bool) -> torch.Tensor:
        """[senders, 1 or N, S or K, D] what live senders of a layer carry; of layer -1 the embeddings."""
        run, n_heads = self.run, self.graph.n_heads
        if layer < 0:
            embeddings = run.engine.weights.embed(run.tokens)
            return self.at(embeddings - run.ablated(EMBED), everywhere)[None]
        first, parts = self.graph.first(layer), []
        heads = [sender - first for sender in senders if sender < first + n_heads]
        if heads:
            z, ablated = self.z_of(layer, heads, everywhere), self.at(run.ablated("z", layer)[:, :, heads], everywhere)
            z = (z - self.spread(ablated, z.shape[0])).movedim(2, 0)  # [h, N, P, d_head]
            w_o = run.blocks[layer].w_o
            w_o = w_o if len(heads) == n_heads else w_o[heads]
            parts.append(torch.bmm(z.flatten(1, 2), w_o).view(*z.shape[:3], -1))
        if len(heads) < len(senders):
            mlp, ablated = self.output(senders[-1], everywhere), self.at(run.ablated("mlp_out", layer), everywhere)
            parts.append((mlp - self.spread(ablated, mlp.shape[0]))[None])
        n = max(part.shape[1] for part in parts)
        return torch.cat([self.with_rows(part, n) for part in parts])

    def with_rows(self, x: torch.Tensor, n: int) -> torch.Tensor:
        """x [k, 1 or N, ...] with n rows."""
        own = x.shape[1]
        return x.expand(-1, n, *x.shape[2:]) if own in (1, n) else x.repeat(1, n // own, *[1] * (x.dim() - 2))

    def z_of(self, layer: int, heads: list[int], everywhere: bool) -> torch.Tensor:
        """z [1 or N, S or K, h, d_head] of live heads of a layer."""
        if everywhere and layer in self.whole:
            z = self.whole[layer]
            return z if len(heads) == z.shape[2] else z[:, :, heads]
        parts = [self.output(self.graph.first(layer) + head, everywhere) for head in heads]
        n = max(map(rows_in, parts))
        return torch.stack([self.spread(part, n).expand(n, -1, -1) for part in parts], dim=2)

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
            y = (
                self.output(sender, everywhere)
                if live >> sender & 1
                else self.at(run.ablated("mlp_out", layer), everywhere)
            )
            return self.spread(x, y.shape[0]) + self.spread(y, x.shape[0])
        heads = [h for h in self.graph.heads if live >> first + h & 1]
        if len(heads) == self.graph.n_heads:
            z = self.z_of(layer, heads, everywhere)
        else:
            ablated = self.at(run.ablated("z", layer), everywhere)
            own = self.z_of(layer, heads, everywhere) if heads else ablated[:, :, :0]
            n = max(own.shape[0], ablated.shape[0])
            z = self.spread(ablated, n).expand(n, *ablated.shape[1:]).clone()
            z[:, :, heads] = self.spread(own, n)
        block = run.blocks[layer]
        return block.after_attention(self.spread(x, z.shape[0]), block.head_writes(z))


def together(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Tensors [1 or N, ...] as one, [len(parts), 1 or N, ...]."""
    n = max(map(rows_in, parts))
    return parts[0][None] if len(parts) == 1 else torch.stack([x.expand(n, *x.shape[1:]) for x in parts])
