"""The circuits of components that a study reports and compares, and what they have in common."""

from pathlib import Path
from typing import Any

from atlas.core.components import Circuit, from_json
from atlas.core.errors import StudyError
from atlas.store import artifacts

OWN_RUN = "reported"  # in `stability.json`, the run on the task's own prompts that opens each family of runs on others


def entry_at(path: Path | str, threshold: float) -> dict[str, Any]:
    """The entry of a task's `chosen.json` at a threshold; raises StudyError where it has none."""
    found = artifacts.read_json(path)["circuits"]
    for entry in found:
        if entry["threshold"] == threshold:
            return dict(entry)
    known = ", ".join(f"{entry['threshold']:g}" for entry in found)
    raise StudyError(
        f"{path}: no circuit at the threshold {threshold:g}, it has {known or 'none'}; "
        "name one of them in comparison.threshold, or recompute the file"
    )


def circuit_at(path: Path | str, threshold: float) -> Circuit:
    """The circuit that a task reports at a threshold, from its `chosen.json`; raises as `entry_at`."""
    return from_json(entry_at(path, threshold))


def chosen_circuits(path: Path | str) -> dict[str, Circuit]:
    """Task -> the circuit it reports, then ``shared`` (intersection) and ``union``; from `comparison/circuits.json`."""
    circuits = {task: from_json(entry) for task, entry in artifacts.read_json(path)["circuits"].items()}
    found = list(circuits.values())
    return circuits | {"shared": frozenset.intersection(*found), "union": frozenset.union(*found)}


def consensus_circuits(path: Path | str, task: str) -> dict[str, Circuit]:
    """`core` and `core and contingent` of a task, where it is a main one, and ``shared``, what the cores of all main
    tasks share; from `comparison/consensus.json`."""
    content = artifacts.read_json(path)
    circuits = {"shared": from_json(content["shared"])}
    if task in content["tasks"]:
        core, contingent = (from_json(content["tasks"][task][name]) for name in ("core", "contingent"))
        circuits |= {"core": core, "core and contingent": core | contingent}
    return circuits
