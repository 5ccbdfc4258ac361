"""How much circuits share, and how much they would share by chance (methods: comparison)."""

import functools
from collections import Counter
from collections.abc import Iterable
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from atlas.compare.exchange import exchanged
from atlas.core.chance import blockwise, hypergeometric, jaccard, overlap_coefficient, tail
from atlas.core.components import AnyCircuit, Circuit, heads, mlps, profile
from atlas.core.graph import LOGITS, Edge, EdgeCircuit, Graph
from atlas.core.multiple import TOGETHER, corrected

COLUMNS = (
    "circuit_a",
    "circuit_b",
    "level",
    "size_a",
    "size_b",
    "shared",
    "jaccard",
    "overlap_coefficient",
    "expected",
    "p_hypergeometric",
    "p_layer_matched",
    "p_smallest",
    "ratio",
    "expected_exchanged",
    "p_exchanged",
    *TOGETHER,
)
TOLD = 0.001  # the smallest p-value that is told in words
TYPES = ("same members", "shared core with branches", "disjoint", "undecided")


# ---- pairs of circuits ---------------------------------------------------------------------------------------
def chance(population: int, blocks: Iterable[tuple[int, int, int]], a: AnyCircuit, b: AnyCircuit) -> dict[str, Any]:
    """``expected``, both p-values, and the smallest p that any overlap of circuits with these blocks could have."""
    matched = blockwise(blocks)
    return {
        "expected": float(matched @ np.arange(len(matched))),
        "p_hypergeometric": tail(hypergeometric(population, len(a), len(b)), len(a & b)),
        "p_layer_matched": tail(matched, len(a & b)),
        "p_smallest": float(matched[-1]),
    }


def compare(circuits: dict[str, Circuit], n_layers: int, n_heads: int) -> list[dict[str, Any]]:
    """One row per pair of circuits and level (heads, mlps, components); see docs/artifacts.md for the columns.

    ``expected`` and the p-values hold for heads: shared heads expected for random circuits with the same numbers of
    heads per layer, and the chance of at least as many shared, ignoring layers and with layers held fixed.
    """
    rows = []
    for (name_a, a), (name_b, b) in combinations(circuits.items(), 2):
        for level, pick in (("heads", heads), ("mlps", mlps), ("components", sorted)):
            one, two = frozenset(pick(a)), frozenset(pick(b))
            rows.append(_row(name_a, name_b, level, one, two))
            if level == "heads":
                profiles = zip(profile(one, n_layers), profile(two, n_layers), strict=True)
                rows[-1] |= chance(n_layers * n_heads, [(n_heads, i, j) for i, j in profiles], one, two)
    return rows


def compare_edges(circuits: dict[str, EdgeCircuit], graph: Graph) -> list[dict[str, Any]]:
    """One row per pair, level `edges`, with the columns of `compare`.

    Where `compare` holds heads per layer fixed, this holds the number of edges from each layer into each kind of input
    (q, k, v, MLP, logits) of each layer. Edges of one component come and go together, more than chance as counted here
    allows for, so these p-values are too small where circuits share components: ``expected_exchanged`` and
    ``p_exchanged`` are of whole circuits instead (`exchange`). ``ratio``: shared over ``expected``. Raises ValueError
    on edges that the graph lacks.
    """
    if any(not circuit <= graph.all_edges for circuit in circuits.values()):
        raise ValueError("a circuit has edges that are not in the graph")
    blocks_of_edges, sizes = blocks_of(graph)
    counts = {name: Counter(blocks_of_edges[edge] for edge in circuit) for name, circuit in circuits.items()}
    rows = []
    for (name_a, a), (name_b, b) in combinations(circuits.items(), 2):
        # a block that one circuit has no edges in shares none for certain
        blocks = [(sizes[k], counts[name_a][k], counts[name_b][k]) for k in sizes if counts[name_a][k]]
        row = _row(name_a, name_b, "edges", a, b) | chance(len(graph.edges), blocks, a, b)
        row["ratio"] = row["shared"] / row["expected"] if row["expected"] else np.nan
        row["expected_exchanged"], row["p_exchanged"] = exchanged(a, b, graph)
        rows.append(row)
    return rows


@functools.cache
def blocks_of(graph: Graph) -> tuple[dict[Edge, tuple[int, int, str]], Counter[tuple[int, int, str]]]:
    """Edge -> its block; block -> its number of edges."""
    found = {edge: block(edge, graph) for edge in graph.edges}
    return found, Counter(found.values())


def block(edge: Edge, graph: Graph) -> tuple[int, int, str]:
    """Layer of the sender (-1 for `embed`), layer of the receiver, and `q`, `k`, `v`, `m` or `logits`."""
    kind = LOGITS if edge.receiver == LOGITS else "m" if edge.receiver[0] == "m" else edge.receiver[-1]
    return graph.layer_of(edge.sender), graph.layer_of(edge.receiver), kind


def together(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `compare` and `compare_edges` with ``claim``, ``tests`` and ``p_holm``: of heads of the layer-matched p,
    of edges of that with heads exchanged.

    The pairs of one level are a family, in a table with tasks those of one task.
    """
    if not rows:
        return rows
    table = pd.DataFrame(rows)
    claim = "overlap of " + table["level"] + (", " + table["task"] if "task" in table else "")
    table["tested"] = table["p_exchanged"].where(table["level"] == "edges", table["p_layer_matched"])
    found = corrected(table, claim, p="tested").drop(columns="tested")
    return [dict(row) for row in found.to_dict("records")]


def _row(name_a: str, name_b: str, level: str, a: AnyCircuit, b: AnyCircuit) -> dict[str, Any]:
    unknown = dict.fromkeys(COLUMNS, np.nan)
    return unknown | {
        "circuit_a": name_a,
        "circuit_b": name_b,
        "level": level,
        "size_a": len(a),
        "size_b": len(b),
        "shared": len(a & b),
        "jaccard": jaccard(a, b),
        "overlap_coefficient": overlap_coefficient(a, b),
    }


def compare_models(
    circuits: dict[tuple[str, str], AnyCircuit], graphs: dict[str, Graph], edges: bool = False
) -> tuple[list[dict[str, Any]], list[str]]:
    """Circuits of one task in several models: rows (``task``, and COLUMNS with models as circuits), and notes.

    ``circuits``: (model, task) -> circuit, of nodes or of ``edges``. Component 4.3 of one model has a counterpart only
    in a model of the same ``shape``, so all other pairs make a note and no row.
    """
    rows, notes = [], []
    for (one, task), (two, other) in combinations(circuits, 2):
        if task != other:
            continue
        shapes = [shape(graphs[name], edges) for name in (one, two)]
        if shapes[0] != shapes[1]:
            notes.append(f"{task}: {one} ({shapes[0]}) and {two} ({shapes[1]}) differ in shape and are not compared")
            continue
        pair, graph = {name: circuits[name, task] for name in (one, two)}, graphs[one]
        found = compare_edges(pair, graph) if edges else compare(pair, graph.n_layers, graph.n_heads)
        rows += [{"task": task} | row for row in found]
    return rows, notes


def shape(graph: Graph, edges: bool) -> str:
    """What two models must have in common for their components, or edges, to have the same names."""
    words = f"{graph.n_layers} layers of {graph.n_heads} heads"
    blocks = "parallel" if graph.parallel else "sequential"
    return f"{words}, {graph.n_kv_heads} key/value heads, {blocks} blocks" if edges else words


# ---- types of overlap ----------------------------------------------------------------------------------------
def typology(row: dict[str, Any], same: float = 0.8, alpha: float = 0.05) -> tuple[str, str]:
    """Type of overlap of two circuits (one of TYPES) from a row of `together`, and why.

    Same members: Jaccard index of ``same`` or more. Disjoint: nothing shared, or no more than expected. Shared core
    with branches: more shared than chance explains (layer-matched p, corrected for all pairs, below ``alpha``).
    Undecided: an empty circuit; circuits so small, or layers so full, that no overlap could have p below ``alpha``; or
    more shared than expected, with p not below ``alpha``.
    """
    expected = row["expected_exchanged"] if row["level"] == "edges" else row["expected"]
    shared, p = row["shared"], row["p_holm"]
    said = f"p < {TOLD:g}" if p < TOLD else f"p = {p:.2g}"  # smaller ones say no more
    if not (row["size_a"] and row["size_b"]):
        return "undecided", "a circuit is empty"
    if row["jaccard"] >= same:
        return "same members", f"Jaccard {row['jaccard']:.2f} is at least {same:g}"
    if not shared:
        return "disjoint", "nothing is shared"
    versus = f"{shared} shared, {expected:.1f} expected by chance"
    if p < alpha:
        return "shared core with branches", f"{versus}, {said} (corrected) is below {alpha:g}"
    if row["p_smallest"] >= alpha:
        return "undecided", f"{versus}, and no overlap of such circuits could have p below {alpha:g}"
    if shared <= expected:
        return "disjoint", versus
    return "undecided", f"{versus}, but {said} (corrected) is not below {alpha:g}"


def typologies(overlap_rows: list[dict[str, Any]], same: float = 0.8, alpha: float = 0.05) -> list[dict[str, Any]]:
    """`typology` of every pair at the levels that have a p-value, heads and edges; a ``model`` is carried along."""
    rows = []
    for row in overlap_rows:
        if row["level"] in ("heads", "edges"):
            kind, reason = typology(row, same, alpha)
            names = {key: row[key] for key in ("model", "circuit_a", "circuit_b", "level") if key in row}
            rows.append(names | {"type": kind, "reason": reason})
    return rows
