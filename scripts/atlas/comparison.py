"""The circuits of a study that are compared, and what they have in common."""

from atlas import artifacts
from atlas.components import Circuit, from_json


def chosen_circuits(paths, order: str, threshold: float) -> dict[str, Circuit]:
    """Task -> its circuit at this order and threshold, then ``shared`` (intersection) and ``union``."""
    circuits = {}
    for path in paths:
        content = artifacts.read_json(path)
        entry = next(c for c in content["circuits"] if (c["order"], c["threshold"]) == (order, threshold))
        circuits[content["task"]] = from_json(entry)
    found = list(circuits.values())
    return circuits | {"shared": frozenset.intersection(*found), "union": frozenset.union(*found)}
