"""The circuits of components that a study reports and compares, and what they have in common."""

from pathlib import Path

from atlas.core.components import Circuit, from_json
from atlas.core.errors import StudyError
from atlas.store import artifacts


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
