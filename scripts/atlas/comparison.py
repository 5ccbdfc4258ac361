"""The circuits of a study that are compared, and what they have in common."""

from atlas import artifacts
from atlas.components import Circuit, from_json
from atlas.graph import EdgeCircuit, parse


def circuit_at(path, order: str, threshold: float) -> Circuit:
    """The circuit that a task's search found in an order at a threshold."""
    found = artifacts.read_json(path)["circuits"]
    return from_json(next(c for c in found if (c["order"], c["threshold"]) == (order, threshold)))


def chosen_circuits(paths, order: str, threshold: float) -> dict[str, Circuit]:
    """Task -> its circuit at this order and threshold, then ``shared`` (intersection) and ``union``."""
    circuits = {artifacts.read_json(path)["task"]: circuit_at(path, order, threshold) for path in paths}
    found = list(circuits.values())
    return circuits | {"shared": frozenset.intersection(*found), "union": frozenset.union(*found)}


def reported_edges(content: dict) -> EdgeCircuit:
    """The edge circuit that a study reports, from `edge_circuits.json`: that of iterative_edges."""
    return parse(next(c for c in content["circuits"] if c["method"] == "iterative_edges")["edges"])


def methods_of(nodes: dict, edges: dict | None) -> list[dict]:
    """Rows (task, level, method, name): which components and edges each method kept.

    ``nodes``: a task's `circuits.json`; ``edges``: its `edge_circuits.json`, if any. Edge methods also say which
    components they keep: those that write along one of their edges.
    """
    rows = []

    def add(level: str, method: str, names) -> None:
        rows.extend({"task": nodes["task"], "level": level, "method": method, "name": name} for name in names)

    for c in nodes["circuits"]:
        add("component", f"{c['order']} T={c['threshold']:g}", [*c["heads"], *c["mlps"]])
    for c in (edges or {"circuits": []})["circuits"]:
        label = c["method"] + (f" {c['ranking']}" if c["ranking"] else "")
        label += {"acdc": f" tau={c['setting']:g}", "iterative_edges": f" T={c['setting']:g}"}.get(c["method"], "")
        if c["method"] != "node_circuit":
            add("edge", label, c["edges"])
            add("component", label, c["nodes"])
    return rows
