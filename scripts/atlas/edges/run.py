"""Run a model with any set of its edges ablated (methods: edges).

An edge s -> r is ablated by letting r read the ablated write of s in place of the actual one; what other receivers read
of s stays. So an edge carries a difference, d(s) = write of s - ablated write of s, and a receiver reads

    base + sum of d(s) over the kept edges s -> r,

the base being all biases and all ablated writes before it. Ablating every edge out of a component is ablating the
component; the embedding is a sender like others.

What is saved is exact. Only nodes with a path to the logits run, and at the last position alone where nothing reads
more of them. What a node writes depends on the kept edges upstream of it and on nothing else, so writes are remembered
under exactly these: trying one edge more or less recomputes what lies downstream of it. A receiver that misses few of
the live senders reads the whole stream less these, so that a model with nearly all edges costs little more than a plain
one. Which way a sum is taken depends on the circuit alone, never on what happens to be remembered.
"""

from collections.abc import Callable, Hashable, Sequence
from itertools import groupby
from typing import Any, cast

import torch

from atlas.core.graph import EMBED, LOGITS, EdgeCircuit, Graph
from atlas.model.block import Block, Positions
from atlas.model.engine import Engine, Memory, Substitute


class EdgeRun:
    """Final residuals of edge circuits on fixed tokens [N, S].

    ``substitute(name, layer)``: what replaces components (`z`, `mlp_out`) and the embeddings (`embed`), see
    `EdgeReplacement.reader`. ``positions``: where the score reads the model, by default the last position.
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
        self.substitute = substitute
        last = torch.tensor([tokens.shape[1] - 1], device=tokens.device)
        self.positions = Positions(last if positions is None else positions)
        self.memory = Memory(budget)
        self.identities: dict[Hashable, int] = {}
        self.bases = self.constant_parts()

    # ---- what is the same for all circuits ---------------------------------------------------------------
    def constant_parts(self) -> list[torch.Tensor]:
        """Biases and ablated writes that stand before the attention (2 l) and the MLP (2 l + 1) of layer l, and the
        logits (2 L): [1 or N, S, D] each."""
        bases = [self.substitute(EMBED, 0).to(self.dtype)]
        for layer, block in enumerate(self.blocks):
            z = self.substitute("z", layer).to(self.dtype)
            bases.append(block.after_attention(bases[-1], block.head_writes(z)))
            bases.append(bases[-1] + self.substitute("mlp_out", layer).to(self.dtype))
        return bases

    @property
    def dtype(self) -> torch.dtype:
        return self.engine.weights.w_u.dtype

    def level(self, receiver: str) -> int:
        """Which of the constant parts a receiver reads."""
        layer = self.graph.layer_of(receiver)
        return 2 * layer + (receiver[0] == "m" and not self.graph.parallel)

    # ---- one circuit -------------------------------------------------------------------------------------
    def final_residual(self, edges: EdgeCircuit) -> torch.Tensor:
        """[N, K, D] at the positions of the score, with only these edges kept; all must have a path to the logits."""
        incoming: dict[str, list[str]] = {}
        kept = set(edges)
        for edge in self.graph.edges:  # in the order of the forward pass
            if edge in kept:
                incoming.setdefault(edge.receiver, []).append(edge.sender)
        with torch.no_grad():
            return Pass(self, incoming).final()

    def identity(self, description: Hashable) -> int:
        """A small number for all that determines a write; equal numbers mean equal writes."""
        return self.identities.setdefault(description, len(self.identities))

    def ablated(self, node: str) -> torch.Tensor:
        """What an ablated node writes, [1 or N, S, D]."""
        if node == EMBED:
            return self.substitute(EMBED, 0).to(self.dtype)
        layer = self.graph.layer_of(node)
        if node[0] == "m":
            return self.substitute("mlp_out", layer).to(self.dtype)
        head = head_of(node)
        return self.blocks[layer].head_write(self.substitute("z", layer)[:, :, head].to(self.dtype), head)


def head_of(node: str) -> int:
    """The number within its layer of a sender that is a head: 2 of `1.2`."""
    return int(node.split(".")[1])


class Pass:
    """One circuit on its way through the model. ``incoming``: receiver -> senders of its kept edges, in order.

    `everywhere` says for each tensor whether it covers every position, [1 or N, S, ...], or those of the score alone,
    [1 or N, K, ...].
    """

    def __init__(self, run: EdgeRun, incoming: dict[str, list[str]], wide: set[str] | None = None) -> None:
        self.run, self.graph, self.incoming = run, run.graph, incoming
        self.identities: dict[str, int] = {EMBED: run.identity(EMBED)}
        self.outputs: dict[str, torch.Tensor] = {}  # z of heads, what MLPs write
        self.inputs: dict[tuple[Any, ...], torch.Tensor] = {}
        self.live = {sender for found in incoming.values() for sender in found}
        self.wide = self.needed_everywhere() if wide is None else wide

    def needed_everywhere(self) -> set[str]:
        """Senders that a key or value, or what is itself needed everywhere, reads; of others one position is enough."""
        wide: set[str] = set()
        for node in reversed(self.graph.senders[1:]):
            for port in self.graph.ports[node]:
                if port[-1] in "kv" or node in wide:
                    wide.update(self.incoming.get(port, ()))
        return wide

    def final(self) -> torch.Tensor:
        """[N, K, D] the final residual at the positions of the score."""
        run = self.run
        for layer in range(self.graph.n_layers):
            heads = [h for h in self.graph.heads if f"{layer}.{h}" in self.live]
            for everywhere in (True, False):
                self.attention(layer, [h for h in heads if (f"{layer}.{h}" in self.wide) == everywhere], everywhere)
            if f"m{layer}" in self.live:
                self.mlp(layer)
        x = self.read(LOGITS, everywhere=False)
        return x.expand(len(run.tokens), *x.shape[1:])

    def remembered(self, key: Hashable, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        found = self.run.memory.get(key)
        return self.run.memory.put(key, make()) if found is None else found

    # ---- nodes -------------------------------------------------------------------------------------------
    def known(self, node: str) -> bool:
        """Give a node its identity, and look whether its output is remembered."""
        reads = (tuple(map(self.identities.get, self.incoming.get(port, ()))) for port in self.graph.ports[node])
        self.identities[node] = identity = self.run.identity((node, *reads))
        found = self.run.memory.get((identity, node in self.wide))
        if found is None and node not in self.wide:
            found = self.run.memory.get((identity, True))
            found = None if found is None else self.run.positions.take(found)
        if found is not None:
            self.outputs[node] = found
        return found is not None

    def keep(self, node: str, output: torch.Tensor) -> None:
        self.outputs[node] = self.run.memory.put((self.identities[node], node in self.wide), output)

    def output(self, node: str, everywhere: bool) -> torch.Tensor:
        """What a live node gives, [1 or N, S or K, D] of an MLP, [1 or N, S or K, d_head], its z, of a head."""
        found = self.outputs[node]
        return self.run.positions.take(found) if node in self.wide and not everywhere else found

    def mlp(self, layer: int) -> None:
        node, block = f"m{layer}", self.run.blocks[layer]
        if not self.known(node):
            self.keep(node, block.mlp_out(self.read(node, node in self.wide)))

    def attention(self, layer: int, heads: list[int], everywhere: bool) -> None:
        """Heads of one layer whose output is needed everywhere, or at the positions of the score alone."""
        run, block = self.run, self.run.blocks[layer]
        heads = [h for h in heads if not self.known(f"{layer}.{h}")]
        if not heads:
            return
        owners, at = [block.owners[h] for h in heads], None if everywhere else run.positions
        q = block.placed("q", self.projected(layer, block, "q", heads, everywhere), at)
        k = block.placed("k", self.projected(layer, block, "k", owners, True))
        z = block.attend(q, k, self.projected(layer, block, "v", owners, True), at)
        for i, head in enumerate(heads):
            self.keep(f"{layer}.{head}", z[:, :, i].contiguous())  # a copy of its own: memory counts what it holds

    def projected(self, layer: int, block: Block, part: str, owners: list[int], everywhere: bool) -> torch.Tensor:
        """Queries, keys or values [1 or N, len(owners), P, d_head]; those that read the same are taken together."""
        together: dict[tuple[str, ...], list[int]] = {}
        shared = part != "q" and self.graph.n_kv_heads < self.graph.n_heads
        for owner in dict.fromkeys(owners):
            port = f"{layer}.{'kv' if shared else ''}{owner}.{part}"
            together.setdefault(tuple(self.incoming.get(port, ())), []).append(owner)
        found: dict[int, torch.Tensor] = {}
        for senders, who in together.items():
            x = block.project(part, self.normed(layer, senders, everywhere), who)
            if who == owners:
                return x
            found |= dict(zip(who, x.unbind(1), strict=True))
        rows = max(map(len, found.values()))
        return torch.stack([found[owner].expand(rows, -1, -1) for owner in owners], dim=1)

    # ---- what receivers read -----------------------------------------------------------------------------
    def normed(self, layer: int, senders: tuple[str, ...], everywhere: bool) -> torch.Tensor:
        """[1 or N, S or K, D] what projections read of the writes of ``senders``, after the first norm."""
        key = (layer, senders, everywhere)
        if key not in self.inputs:
            self.inputs[key] = self.run.blocks[layer].norm1(self.total(2 * layer, senders, everywhere))
        return self.inputs[key]

    def read(self, receiver: str, everywhere: bool) -> torch.Tensor:
        """[1 or N, S or K, D] the residual that a receiver reads, before its norm."""
        return self.total(self.run.level(receiver), self.incoming.get(receiver, ()), everywhere)

    def total(self, level: int, senders: Sequence[str], everywhere: bool) -> torch.Tensor:
        """base + differences of the senders, [1 or N, S or K, D]; or, where fewer are missing, all less the missing."""
        kept = set(senders)
        missing = [s for s in self.before(level, everywhere) if s not in kept]
        if len(missing) < len(kept):
            x, rest, sign = self.stream(level, everywhere), missing, -1
        else:
            x, rest, sign = self.at(self.run.bases[level], everywhere), list(senders), 1
        for _, block in groupby(rest, self.graph.layer_of):
            x = x.add(self.sum(tuple(block), everywhere), alpha=sign)
        return x

    def before(self, level: int, everywhere: bool) -> list[str]:
        """Live senders that stand before a level, those needed everywhere or all, in order."""
        layer, after_heads = divmod(level, 2)
        senders = self.graph.senders[: 1 + layer * (self.graph.n_heads + 1) + after_heads * self.graph.n_heads]
        return [s for s in senders if s in (self.wide if everywhere else self.live)]

    def at(self, x: torch.Tensor, everywhere: bool) -> torch.Tensor:
        """x [1 or N, S, D], everywhere or at the K positions of the score."""
        return x if everywhere else self.run.positions.take(x)

    def stream(self, level: int, everywhere: bool) -> torch.Tensor:
        """[1 or N, S or K, D] the residual stream with live senders' own writes, and the ablated ones of all others."""
        live = self.before(level, everywhere)
        if not everywhere and all(s in self.wide for s in live):
            return self.at(self.stream(level, True), False)
        key = ("stream", level, everywhere, tuple(map(self.identities.get, live)))
        return self.remembered(key, lambda: self.next_stream(level, set(live), everywhere))

    def next_stream(self, level: int, live: set[str], everywhere: bool) -> torch.Tensor:
        """The same, made from the stream of the level before; ``live``: senders that write their own."""
        if level == 0:
            x = self.run.engine.weights.embed(self.run.tokens) if EMBED in live else self.run.bases[0]
            return self.at(x, everywhere)
        x, layer = self.stream(level - 1, everywhere), (level - 1) // 2
        if level % 2 == 0:
            node = f"m{layer}"
            return x + (self.output(node, everywhere) if node in live else self.at(self.run.ablated(node), everywhere))
        names, block = [f"{layer}.{h}" for h in self.graph.heads], self.run.blocks[layer]
        ablated = self.at(self.run.substitute("z", layer).to(x.dtype), everywhere)
        parts = [self.output(s, everywhere) if s in live else ablated[:, :, h] for h, s in enumerate(names)]
        n = max(map(len, parts))
        z = torch.stack([part.expand(n, -1, -1) for part in parts], dim=2)
        return block.after_attention(x, block.head_writes(z))

    def difference(self, node: str, everywhere: bool) -> torch.Tensor:
        """[1 or N, S or K, D] what the edges of a sender carry: its write less its ablated write."""
        key = ("difference", self.identities[node], everywhere)
        return self.remembered(key, lambda: self.write(node, everywhere) - self.at(self.run.ablated(node), everywhere))

    def write(self, node: str, everywhere: bool) -> torch.Tensor:
        """[1 or N, S or K, D] what a live sender writes to the residual stream; a head without b_O."""
        if node == EMBED:
            return self.at(self.run.engine.weights.embed(self.run.tokens), everywhere)
        output = self.output(node, everywhere)
        if node[0] == "m":
            return output
        return self.run.blocks[self.graph.layer_of(node)].head_write(output, head_of(node))

    def sum(self, senders: tuple[str, ...], everywhere: bool) -> torch.Tensor:
        """[1 or N, S or K, D] sum of the differences of senders of one layer."""
        if len(senders) == 1:
            return self.difference(senders[0], everywhere)
        key = ("sum", tuple(map(self.identities.get, senders)), everywhere)
        return self.remembered(key, lambda: cast(torch.Tensor, sum(self.difference(s, everywhere) for s in senders)))
