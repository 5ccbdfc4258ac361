"""The edge circuits and scores that a study reports and compares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atlas.core.components import AnyCircuit, Component, from_json
from atlas.core.errors import StudyError
from atlas.core.graph import EMBED, Edge, EdgeCircuit, parse
from atlas.edges.methods import METHODS, NODE_CIRCUIT, REPORTED, preferred_scores

if TYPE_CHECKING:
    import pandas as pd


def reported_edges(content: dict[str, Any]) -> EdgeCircuit:
    """The edge circuit that a study reports, from `edge_circuits.json`; raises as `reported_entry`."""
    return parse(reported_entry(content)["edges"])


def reported_entry(content: dict[str, Any]) -> dict[str, Any]:
    """The entry of an `edge_circuits.json` that a study reports: the chosen one, or, in files without a choice, that of
    REPORTED; raises StudyError without either."""
    if "reported" in content:
        return dict(content["reported"])
    for entry in content["circuits"]:
        if entry["method"] == REPORTED.name:
            return dict(entry)
    raise StudyError(
        f"edge_circuits.json of {content['task']}: no circuit of {REPORTED.name}; name it in edges.methods"
    )


def edge_values(scores: pd.DataFrame) -> dict[Edge, float]:
    """Edge -> its score, from `edge_scores.parquet`, by the preferred method that the study ran."""
    method = preferred_scores(scores.method.unique().tolist())
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
        named = METHODS[c["method"]].setting if c["method"] in METHODS else ""
        label += f" {named}={c['setting']:g}" if named else ""
        if c["method"] != NODE_CIRCUIT:  # the same circuit as that of the node search
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
