"""The computational graph of a transformer: which component writes what which other one reads (methods: edges).

Senders write to the residual stream: `embed` (token and position embeddings together), heads `0.1`, MLPs `m1`.
Receivers read it: the query, key and value input of a head (`1.2.q`, `1.2.k`, `1.2.v`), MLPs `m1`, and `logits`. With
grouped queries, keys and values belong to a key/value head that several query heads share: `1.kv0.k` feeds all heads of
its group. In sequential blocks a layer's heads write into the MLP of their own layer; in parallel blocks they do not.
An edge is direct: it is what one receiver reads of one sender, and nothing that other components make of it.

Senders and receivers are numbered in the order of the forward pass. A receiver reads senders before it, so the edges of
a circuit are one integer for each receiver, in which bit s stands for the edge from sender s (`EdgeMask`).
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence, Set
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


EdgeCircuit = Set[Edge]  # the kept edges


class EdgeMask(Set[Edge]):
    """The kept edges of a graph: a set of `Edge`, which takes the operators of sets, also with other sets of edges.

    ``rows[r]``: the senders that receiver r reads, one bit each. Few bytes beside the graph, which circuits share: a
    copy without one edge takes microseconds.
    """

    __slots__ = ("_digest", "graph", "rows")

    def __init__(self, graph: "Graph", rows: Sequence[int]) -> None:
        self.graph, self.rows = graph, tuple(rows)
        self._digest: bytes | None = None

    @classmethod
    def _from_iterable(cls, edges: Iterable[Any]) -> frozenset[Any]:  # what the operators of `Set` make, but for `-`
        return frozenset(edges)

    def __iter__(self) -> Iterator[Edge]:
        """In the order of `Graph.edges`."""
        for receiver, row in zip(self.graph.receivers, self.rows, strict=True):
            for sender in members(row):
                yield Edge(self.graph.senders[sender], receiver)

    def __len__(self) -> int:
        return sum(map(int.bit_count, self.rows))

    def __contains__(self, edge: object) -> bool:
        place = self.graph.place.get(edge)  # type: ignore[call-overload]
        return place is not None and bool(self.rows[place[0]] >> place[1] & 1)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, EdgeMask) and other.graph == self.graph:
            return self.rows == other.rows
        return super().__eq__(other)

    __hash__ = Set._hash  # that of an equal frozenset

    def __sub__(self, other: Iterable[Any]) -> "EdgeMask":
        if isinstance(other, EdgeMask) and other.graph == self.graph:
            return EdgeMask(self.graph, [a & ~b for a, b in zip(self.rows, other.rows, strict=True)])
        rows = list(self.rows)
        for receiver, sender in filter(None, map(self.graph.place.get, other)):
            rows[receiver] &= ~(1 << sender)
        return EdgeMask(self.graph, rows)

    @property
    def digest(self) -> bytes:
        """16 bytes that name the set among those of its graph."""
        if self._digest is None:
            size = len(self.graph.senders) // 8 + 1
            content = b"".join([row.to_bytes(size, "little") for row in self.rows])
            self._digest = hashlib.blake2b(content, digest_size=16).digest()
        return self._digest


def members(row: int) -> list[int]:
    """The numbers of the bits that are set, in order."""
    found = []
    while row:
        lowest = row & -row
        found.append(lowest.bit_length() - 1)
        row ^= lowest
    return found


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

    # ---- numbers -----------------------------------------------------------------------------------------
    @property
    def senders_a_layer(self) -> int:
        return self.n_heads + 1

    def first(self, layer: int) -> int:
        """Number of the first head of a layer among the senders; its MLP's is `n_heads` more."""
        return 1 + layer * self.senders_a_layer

    def row(self, layer: int, part: str, owner: int = 0) -> int:
        """Number among the receivers of input ``part``, `q`, `k` or `v`, of a query or key/value head, or of `m`."""
        first = layer * (self.n_heads + 2 * self.n_kv_heads + 1)
        before = {"q": 0, "k": self.n_heads, "v": self.n_heads + self.n_kv_heads}
        return first + before.get(part, self.n_heads + 2 * self.n_kv_heads) + owner

    @cached_property
    def rows_of(self) -> list[tuple[int, ...]]:
        """Sender -> numbers of the receivers that it reads: q, k and v of a head, one of an MLP, none of `embed`."""
        numbers = {name: i for i, name in enumerate(self.receivers)}
        return [tuple(numbers[port] for port in self.ports[sender]) for sender in self.senders]

    @cached_property
    def place(self) -> dict[Edge, tuple[int, int]]:
        """Edge -> numbers of its receiver and its sender."""
        return {
            Edge(sender, receiver): (r, s)
            for r, receiver in enumerate(self.receivers)
            for s, sender in enumerate(self.senders_of(receiver))
        }

    # ---- edges -------------------------------------------------------------------------------------------
    def senders_of(self, receiver: str) -> list[str]:
        """All that a receiver can read, in the order of the forward pass."""
        layer = self.layer_of(receiver)
        before = self.first(layer)
        if receiver[0] == "m" and not self.parallel:
            before += self.n_heads
        return self.senders[:before]

    @cached_property
    def edges(self) -> list[Edge]:
        """Every edge, receivers first to last, senders first to last."""
        return list(self.place)

    @cached_property
    def all_edges(self) -> EdgeMask:
        return EdgeMask(self, [(1 << len(self.senders_of(receiver))) - 1 for receiver in self.receivers])

    def circuit(self, edges: Iterable[Edge]) -> EdgeMask:
        """The set of these edges; raises ValueError on an edge that the graph does not have."""
        if isinstance(edges, EdgeMask) and edges.graph == self:
            return edges
        rows, unknown = [0] * len(self.receivers), []
        for edge in edges:
            if (place := self.place.get(edge)) is None:
                unknown.append(edge)
            else:
                rows[place[0]] |= 1 << place[1]
        if unknown:
            raise ValueError(f"not an edge of this model: {min(unknown)}")
        return EdgeMask(self, rows)

    def among(self, circuit: Circuit) -> EdgeMask:
        """The edges of a node circuit: between its components, from `embed`, and to `logits`.

        A shared key or value input belongs to the circuit if one of its query heads does.
        """
        nodes = {str(c) for c in circuit} | {EMBED, LOGITS}
        ports = {port for node in nodes for port in self.ports[node]}
        writers = sum(1 << s for s, sender in enumerate(self.senders) if sender in nodes)
        every = zip(self.receivers, self.all_edges.rows, strict=True)
        return EdgeMask(self, [row & writers if receiver in ports else 0 for receiver, row in every])

    def nodes(self, edges: Iterable[Edge]) -> Circuit:
        """Components that write along one of the edges."""
        return frozenset(Component.parse(e.sender) for e in edges if e.sender != EMBED)

    def live(self, edges: Iterable[Edge]) -> EdgeMask:
        """The edges from which `logits` can be reached along edges; no other edge of the circuit changes anything."""
        rows = self.circuit(edges).rows
        alive = rows[-1]  # senders with a path; those that read them stand behind them, and are done before
        out = [0] * len(rows)
        out[-1] = alive
        for sender in range(len(self.senders) - 1, 0, -1):
            if alive >> sender & 1:
                for row in self.rows_of[sender]:
                    out[row] = rows[row]
                    alive |= rows[row]
        return EdgeMask(self, out)

    def reached(self, edges: Iterable[Edge]) -> EdgeMask:
        """The edges whose sender can be reached from `embed` along edges; what all others carry is the same whatever
        the prompt says, or depends on the corrupted prompt alone."""
        rows, known = self.circuit(edges).rows, 1  # `embed`
        for sender in range(1, len(self.senders)):
            if any(rows[row] & known for row in self.rows_of[sender]):
                known |= 1 << sender
        return EdgeMask(self, [row & known for row in rows])

    def on_paths(self, edges: Iterable[Edge]) -> EdgeMask:
        """The edges that lie on a path from `embed` to `logits`."""
        return self.live(self.reached(edges))

    def without_path(self, edges: Iterable[Edge]) -> Circuit:
        """Components that have edges in the circuit but lie on no path from `embed` to `logits`.

        Of heads that share a key or value all count where none of them is on a path, else those that have other edges.
        """
        edges = frozenset(edges)
        kept, touched = self.nodes(self.on_paths(edges)), {e.sender for e in edges}
        for receiver in {e.receiver for e in edges}:
            readers = self.readers(receiver)
            if len(readers) == 1 or not any(Component.parse(node) in kept for node in readers):
                touched.update(readers)
        return frozenset(map(Component.parse, touched - {EMBED, LOGITS})) - kept


def names(edges: Iterable[Edge]) -> list[str]:
    """Sorted names, for tables and JSON."""
    return sorted(map(str, edges))


def parse(edge_names: Iterable[str]) -> frozenset[Edge]:
    """The edges of these names; raises ValueError on one that has no `->`."""
    return frozenset(map(Edge.parse, edge_names))
