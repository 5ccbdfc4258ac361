"""What the circuits of a model's main tasks share, and what methods agree on, as tables (methods: comparison)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from atlas.compare.overlap import COLUMNS, compare, compare_edges, together, typologies
from atlas.core.components import Circuit, columns
from atlas.edges.chosen import edge_values, method_circuits, methods_of, reported_edges

if TYPE_CHECKING:
    import pandas as pd

    from atlas.core.graph import Graph

# Table -> its columns after ``model``
TABLES: dict[str, tuple[str, ...]] = {
    "membership": ("circuit", "component", "layer", "head"),
    "overlap": COLUMNS,
    "typology": ("circuit_a", "circuit_b", "level", "type", "reason"),
    "methods": ("task", "level", "method", "name"),
    "agreement": ("task", *COLUMNS),
    "edge_membership": ("circuit", "sender", "receiver", "value"),
}


def compare_circuits(
    graph: Graph,
    chosen: Mapping[str, Circuit],
    searched: Sequence[dict[str, Any]],
    edges: Sequence[dict[str, Any]],
    edge_scores: Sequence[pd.DataFrame],
    same: float,
    alpha: float,
) -> dict[str, list[dict[str, Any]]]:
    """Table of TABLES -> its rows.

    chosen: task -> the circuit it reports, then `shared` and `union` (`chosen.chosen_circuits`). searched: contents of
    each task's `circuits.json`. edges, edge_scores: of `edge_circuits.json` and `edge_scores`, in one order of tasks;
    empty in a study without edges. same, alpha: as in `overlap.typology`.
    """
    circuits = {name: circuit for name, circuit in chosen.items() if name not in ("shared", "union")}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    members = circuits | {"shared": chosen["shared"]}
    rows["membership"] = [{"circuit": name} | columns(c) for name, circuit in members.items() for c in sorted(circuit)]
    contents = {content["task"]: content for content in edges}
    edge_circuits = {task: reported_edges(content) for task, content in contents.items()}
    for (task, circuit), scores in zip(edge_circuits.items(), edge_scores, strict=True):
        values = edge_values(scores)
        for edge in sorted(circuit):
            rows["edge_membership"].append({"circuit": task} | edge._asdict() | {"value": values.get(edge)})
    rows["overlap"] = together(compare(circuits, graph.n_layers, graph.n_heads) + compare_edges(edge_circuits, graph))
    for content in searched:
        own = contents.get(content["task"])
        rows["methods"] += methods_of(content, own)
        found = method_circuits(content, own)
        pairs = compare(found["component"], graph.n_layers, graph.n_heads) + compare_edges(found["edge"], graph)
        rows["agreement"] += [{"task": content["task"]} | row for row in pairs]
    rows["agreement"] = together(rows["agreement"])
    rows["typology"] = typologies(rows["overlap"], same, alpha)
    return rows
