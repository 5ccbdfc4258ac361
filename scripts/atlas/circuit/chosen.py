"""The circuits of a study that are compared, and what they have in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.core.components import AnyCircuit, Circuit, Component, from_json
from atlas.core.errors import StudyError
from atlas.core.graph import EMBED, Edge, EdgeCircuit, parse
from atlas.store import artifacts

if TYPE_CHECKING:
    import pandas as pd

EDGE_SCORES = ("eap_ig", "eap", "path_patching")  # in order of preference: the first two cover every edge


def circuit_at(path: Path | str, order: str, threshold: float) -> Circuit:
    """The circuit that a task's search found in an order at a threshold; raises StudyError where it has none."""
    found = artifacts.read_json(path)["circuits"]
    for entry in found:
        if (entry["order"], entry["threshold"]) == (order, threshold):
            return from_json(entry)
    known = ", ".join(f"{entry['order']} at {entry['threshold']:g}" for entry in found)
    raise StudyError(
        f"{path}: no circuit of the order {order!r} at the threshold {threshold:g}, it has {known or 'none'}; "
        "name one of them in comparison, or recompute the file"
    )


def chosen_circuits(path: Path | str) -> dict[str, Circuit]:
    """Task -> the circuit it reports, then ``shared`` (intersection) and ``union``; from `comparison/circuits.json`."""
    circuits = {task: from_json(entry) for task, entry in artifacts.read_json(path)["circuits"].items()}
    found = list(circuits.values())
    return circuits | {"shared": frozenset.intersection(*found), "union": frozenset.union(*found)}


def reported_edges(content: dict[str, Any]) -> EdgeCircuit:
    """The edge circuit that a study reports, from `edge_circuits.json`; raises as `reported_entry`."""
    return parse(reported_entry(content)["edges"])


def reported_entry(content: dict[str, Any]) -> dict[str, Any]:
    """The entry of an `edge_circuits.json` that a study reports: that of iterative_edges; raises StudyError without."""
    for entry in content["circuits"]:
        if entry["method"] == "iterative_edges":
            return dict(entry)
    raise StudyError(
        f"edge_circuits.json of {content['task']}: no circuit of iterative_edges; name it in edges.methods"
    )


def edge_values(scores: pd.DataFrame) -> dict[Edge, float]:
    """Edge -> its score, from `edge_scores.parquet`, by the first method of EDGE_SCORES that the study ran."""
    method = next((m for m in EDGE_SCORES if (scores.method == m).any()), None)
    rows = scores[scores.method == method]
    return {Edge(s, r): v for s, r, v in zip(rows.sender, rows.receiver, rows.value, strict=True)}


def method_circuits(nodes: dict[str, Any], edges: dict[str, Any] | None) -> dict[str, dict[str, AnyCircuit]]:
    """Level (component, edge) -> label of the method -> circuit, for all circuits found for a task.

    ``nodes``: a task's `circuits.json`; ``edges``: its `edge_circuits.json`, if any. Labels name what distinguishes the
    circuits: order and threshold, tau, ranking.
    """
    found: dict[str, dict[str, AnyCircuit]] = {"component": {}, "edge": {}}
    found["component"] = {f"{c['order']} T={c['threshold']:g}": from_json(c) for c in nodes["circuits"]}
    for c in (edges or {"circuits": []})["circuits"]:
        label = c["method"] + (f" {c['ranking']}" if c["ranking"] else "")
        label += {"acdc": f" tau={c['setting']:g}", "iterative_edges": f" T={c['setting']:g}"}.get(c["method"], "")
        if c["method"] != "node_circuit":  # the same circuit as that of the node search
            found["edge"][label] = parse(c["edges"])
    return found


def methods_of(nodes: dict[str, Any], edges: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Rows (task, level, method, name): which components and edges each method kept.

    Edge methods also say which components they keep: those that write along one of their edges.
    """
    rows, found = [], method_circuits(nodes, edges)
    for label, edge_circuit in found["edge"].items():
        found["component"][label] = frozenset(Component.parse(e.sender) for e in edge_circuit if e.sender != EMBED)
    for level, circuits in found.items():
        for label, circuit in circuits.items():
            names = sorted(map(str, circuit))
            rows += [{"task": nodes["task"], "level": level, "method": label, "name": name} for name in names]
    return rows
