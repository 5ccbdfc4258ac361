"""Orders of scored edges, most important first (methods: edges). Sees scores alone, no model."""

import heapq
from collections.abc import Iterable, Mapping

from atlas.core.graph import LOGITS, Edge, Graph


def ranked(scores: Mapping[Edge, float], ranking: str, graph: Graph) -> list[Edge]:
    """All edges of ``scores``, M(without the edge) - M(full) or an estimate of it, most important first.

    `signed`: those whose ablation lowers the metric most, that is, by minus the score; `absolute`: by its size;
    `greedy`: see `greedy`. Equal scores keep the order of ``scores``. Raises KeyError on any other ranking.
    """
    if ranking == "greedy":
        return greedy(scores, graph)
    key = {"signed": lambda e: scores[e], "absolute": lambda e: -abs(scores[e])}[ranking]
    return sorted(scores, key=key)


def greedy(scores: Mapping[Edge, float], graph: Graph) -> list[Edge]:
    """By the size of scores, an edge only when what it ends in is connected to the logits by edges before it.

    From the logits on: of all edges into what is connected the one with the largest score of either sign comes next,
    of equal ones the first in ``scores``; its sender is then connected, with all that it reads: query, key and value of
    a head. A shared key or value is connected as soon as one of its heads is. So of every beginning of the order
    `Graph.live` is all of it; whether the embeddings reach a sender is not asked. Edges of ``scores`` from which no
    others of them lead to the logits come last, by the size of their scores.
    """
    into: dict[str, list[tuple[float, int, Edge]]] = {}
    for number, (edge, score) in enumerate(scores.items()):
        into.setdefault(edge.receiver, []).append((-abs(score), number, edge))
    order: list[Edge] = []
    waiting: list[tuple[float, int, Edge]] = []

    def connect(ports: Iterable[str]) -> None:
        for port in ports:
            for entry in into.pop(port, ()):
                heapq.heappush(waiting, entry)

    connect([LOGITS])
    while waiting:
        edge = heapq.heappop(waiting)[-1]
        order.append(edge)
        connect(graph.ports[edge.sender])
    left = sorted(entry for entries in into.values() for entry in entries)
    return order + [edge for *_, edge in left]
