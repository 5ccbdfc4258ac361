"""How many edges two circuits would share if one of them used other heads of the same layers (methods: comparison).

Edges of one component come and go together, so edges drawn one by one are no fair chance. Here a whole circuit is
drawn: its heads change places with other heads of their layer, key/value heads with the query heads that read them, and
every edge goes along. What wires embeddings, MLPs and logits stays, and so is shared by chance as well.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from atlas.core.graph import EdgeCircuit, Graph

DRAWS = 999  # p is at least 1 / (1 + DRAWS), its floor
FLOOR = 1 / (1 + DRAWS)


def exchanged(a: EdgeCircuit, b: EdgeCircuit, graph: Graph, draws: int = DRAWS, seed: int = 0) -> tuple[float, float]:
    """(edges expected to be shared, p = (1 + r) / (1 + draws)) with r of the draws of ``b`` sharing as many edges with
    ``a`` as ``b`` does, or more. Raises ValueError on edges that the graph lacks."""
    if any(not circuit <= graph.all_edges for circuit in (a, b)):
        raise ValueError("a circuit has edges that are not in the graph")
    held = np.zeros((len(graph.receivers), len(graph.senders)), dtype=bool)
    held[tuple(np.array([graph.place[edge] for edge in a], dtype=int).reshape(-1, 2).T)] = True
    receivers, senders = np.array([graph.place[edge] for edge in b], dtype=int).reshape(-1, 2).T
    shared = np.array([held[rows[receivers], columns[senders]].sum() for rows, columns in places(graph, draws, seed)])
    return float(shared.mean()), float((1 + (shared >= len(a & b)).sum()) / (1 + draws))


@lru_cache(maxsize=4)
def places(graph: Graph, draws: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each draw where receivers and senders go: number -> number."""
    rng, groups, size = np.random.default_rng(seed), graph.n_kv_heads, graph.n_heads // graph.n_kv_heads
    owners = rng.random((draws, graph.n_layers, groups)).argsort(-1)
    inside = rng.random((draws, graph.n_layers, groups, size)).argsort(-1)
    heads = (owners[..., None] * size + inside).reshape(draws, graph.n_layers, graph.n_heads)
    found = []
    for draw in range(draws):
        rows, columns = np.arange(len(graph.receivers)), np.arange(len(graph.senders))
        for layer in range(graph.n_layers):
            first = graph.first(layer)
            columns[first : first + graph.n_heads] = first + heads[draw, layer]
            for part, order in (("q", heads), ("k", owners), ("v", owners)):
                start = graph.row(layer, part)
                rows[start : start + order.shape[2]] = start + order[draw, layer]
        found.append((rows, columns))
    return found
