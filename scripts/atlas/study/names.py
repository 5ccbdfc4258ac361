"""The enumerations of a configuration that are registries of the library: a new record can be named at once."""

from typing import Any

from atlas.circuit.kinds import KINDS
from atlas.circuit.node_methods import METHODS as NODE_METHODS
from atlas.core.metrics import METRICS
from atlas.edges.methods import BY_ROLES, METHODS

# `$defs` of schemas/config.schema.yaml -> what may be named there, and what it means
NAMES: dict[str, dict[str | None, str]] = {
    "metric": {name: metric.title for name, metric in METRICS.items()},
    "ablation_kind": {name: kind.title for name, kind in KINDS.items()},
    "node_method": {name: method.about for name, method in NODE_METHODS.items()},
    "edge_method": {name: method.about for name, method in METHODS.items()},
    "repeated_edge_method": {name: method.about for name, method in METHODS.items() if method.few_passes}
    | {None: "no edges"},
    "edge_part_method": {name: METHODS[name].about for name in BY_ROLES} | {None: "no parts"},
}


def filled(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with the names of NAMES in its `$defs`; raises KeyError where it lacks one of them."""
    definitions = {key: schema["$defs"][key] | {"enum": list(names)} for key, names in NAMES.items()}
    return schema | {"$defs": schema["$defs"] | definitions}
