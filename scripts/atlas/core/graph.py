"""The computational graph of a transformer: which component writes what which other one reads (methods: edges).

Senders write to the residual stream: `embed` (token and position embeddings together), heads `0.1`, MLPs `m1`.
Receivers read it: the query, key and value input of a head (`1.2.q`, `1.2.k`, `1.2.v`), MLPs `m1`, and `logits`. With
grouped queries, keys and values belong to a key/value head that several query heads share: `1.kv0.k` feeds all heads of
its group. In sequential blocks a layer's heads write into the MLP of their own layer; in parallel blocks they do not.
An edge is direct: it is what one receiver reads of one sender, and nothing that other components make of it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from atlas.core.components import Circuit, Component

EMBED, LOGITS = "embed", "logits"


class Edge(NamedTuple):
    """``sender`` is `embed` or a component; ``receiver`` `0.1.q`, `0.kv0.k`, `m1` or `logits`."""

    sender: str
    receiver: str

    def __str__(self) -> str:
        return f"{self.sender}->{self.receiver}"

    @classmethod
    def parse(cls, name: str) -> "Edge":
        """Inverse of ``str``; raises ValueError on anything else."""
        sender, receiver = name.split("->")
        return cls(sender, receiver)


EdgeCircuit = frozenset[Edge]  # the kept edges


@dataclass(frozen=True)
class Graph:
    """Sizes of a model, and all that follows from them. ``parallel``: attention and MLP read the same residual."""

    n_layers: int
    n_heads: int
    n_kv_heads: int
    parallel: bool = False

    @classmethod
    def of(cls, description: dict[str, Any]) -> "Graph":
        """From `model.json`."""
        layers, heads, kv_heads = (description[k] for k in ("n_layers", "n_heads", "n_kv_heads"))
        return cls(layers, heads, kv_heads, description["parallel_blocks"])

    # ---- names -------------------------------------------------------------------------------------------
    def port(self, layer: int, head: int, part: str) -> str:
        """The receiver through which query head ``head`` gets its q, k or v."""
        if part == "q" or self.n_kv_heads == self.n_heads:
            return f"{layer}.{head}.{part}"
        return f"{layer}.kv{head * self.n_kv_heads // self.n_heads}.{part}"

    @cached_property
    def senders(self) -> list[str]:
        """In the order of the forward pass; within a layer heads before the MLP."""
        return [EMBED, *(str(Component(layer, h)) for layer in range(self.n_layers) for h in [*self.heads, -1])]

    @cached_property
    def receivers(self) -> list[str]:
        """In the order of the forward pass."""
        out: list[str] = []
        for layer in range(self.n_layers):
            out += dict.fromkeys(self.port(layer, head, part) for part in "qkv" for head in self.heads)
            out.append(f"m{layer}")
        return [*out, LOGITS]

    @property
    def heads(self) -> range:
        return range(self.n_heads)

    def layer_of(self, name: str) -> int:
        """Layer of a sender or receiver; -1 for `embed`, the number of layers for `logits`."""
        if name in (EMBED, LOGITS):
            return -1 if name == EMBED else self.n_layers
        return int(name[1:]) if name[0] == "m" else int(name.split(".")[0])

    def readers(self, receiver: str) -> list[str]:
        """The senders (or `logits`) whose output depends on what comes in at a receiver: several for shared keys."""
        if receiver == LOGITS or receiver[0] == "m":
            return [receiver]
        layer, head, _ = receiver.split(".")
        if not head.startswith("kv"):
            return [f"{layer}.{head}"]
        group = self.n_heads // self.n_kv_heads
        first = int(head[2:]) * group
        return [f"{layer}.{h}" for h in range(first, first + group)]

    @cached_property
    def ports(self) -> dict[str, list[str]]:
        """Node -> the receivers that it reads: itself for MLPs and `logits`, three for a head, none for `embed`."""
        ports: dict[str, list[str]] = {EMBED: [], LOGITS: [LOGITS]}
        for layer in range(self.n_layers):
            ports |= {f"{layer}.{head}": [self.port(layer, head, part) for part in "qkv"] for head in self.heads}
            ports[f"m{layer}"] = [f"m{layer}"]
        return ports

    # ---- edges -------------------------------------------------------------------------------------------
    def senders_of(self, receiver: str) -> list[str]:
        """All that a receiver can read, in the order of the forward pass."""
        layer = self.layer_of(receiver)
        before = 1 + layer * (self.n_heads + 1)
        if receiver[0] == "m" and not self.parallel:
            before += self.n_heads
        return self.senders[:before]

    @cached_property
    def edges(self) -> list[Edge]:
        """Every edge, receivers first to last, senders first to last."""
        return [Edge(sender, receiver) for receiver in self.receivers for sender in self.senders_of(receiver)]

    @cached_property
    def all_edges(self) -> EdgeCircuit:
        return frozenset(self.edges)

    def among(self, circuit: Circuit) -> EdgeCircuit:
        """The edges of a node circuit: between its components, from `embed`, and to `logits`.

        A shared key or value input belongs to the circuit if one of its query heads does.
        """
        nodes = {str(c) for c in circuit} | {EMBED, LOGITS}
        ports = {port for node in nodes for port in self.ports[node]}
        return frozenset(e for e in self.edges if e.sender in nodes and e.receiver in ports)

    def nodes(self, edges: Iterable[Edge]) -> Circuit:
        """Components that write along one of the edges."""
        return frozenset(Component.parse(e.sender) for e in edges if e.sender != EMBED)

    def live(self, edges: Iterable[Edge]) -> EdgeCircuit:
        """The edges from which `logits` can be reached along edges; no other edge of the circuit changes anything."""
        incoming: dict[str, list[Edge]] = {}
        for edge in edges:
            incoming.setdefault(edge.receiver, []).append(edge)
        out, queue, seen = set(), [LOGITS], {LOGITS}
        while queue:
            for port in self.ports[queue.pop()]:
                for edge in incoming.pop(port, ()):
                    out.add(edge)
                    if edge.sender not in seen:
                        seen.add(edge.sender)
                        queue.append(edge.sender)
        return frozenset(out)

    def without_path(self, edges: Iterable[Edge]) -> Circuit:
        """Components that have edges in the circuit but no path to `logits`, and so no effect."""
        edges = frozenset(edges)
        touched = {e.sender for e in edges} | {node for e in edges for node in self.readers(e.receiver)}
        return frozenset(map(Component.parse, touched - {EMBED, LOGITS})) - self.nodes(self.live(edges))


def names(edges: Iterable[Edge]) -> list[str]:
    """Sorted names, for tables and JSON."""
    return sorted(map(str, edges))


def parse(edge_names: Iterable[str]) -> EdgeCircuit:
    """The edges of these names; raises ValueError on one that has no `->`."""
    return frozenset(map(Edge.parse, edge_names))
