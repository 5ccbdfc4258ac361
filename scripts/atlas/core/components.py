"""Names of components, and of components at some positions only, and sets of them."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from atlas.core.errors import StudyError

MLP = -1  # the `head` of an MLP in tables


class Component(NamedTuple):
    """Head ``head`` of layer ``layer``, printed ``9.1``; or, with head -1, the MLP of that layer, printed ``m9``."""

    layer: int
    head: int = MLP

    @property
    def is_mlp(self) -> bool:
        return self.head == MLP

    def __str__(self) -> str:
        return f"m{self.layer}" if self.is_mlp else f"{self.layer}.{self.head}"

    @classmethod
    def parse(cls, name: str) -> "Component":
        """Inverse of ``str``; raises ValueError on anything else."""
        if name.startswith("m"):
            return cls(int(name[1:]))
        layer, head = name.split(".")
        return cls(int(layer), int(head))


class Site(NamedTuple):
    """A component at the positions of one role (`positions.ROLES`), printed ``9.1@last`` or ``m9@members``."""

    layer: int
    head: int
    role: str

    @property
    def is_mlp(self) -> bool:
        return self.head == MLP

    @property
    def component(self) -> Component:
        return Component(self.layer, self.head)

    def __str__(self) -> str:
        return f"{self.component}@{self.role}"

    @classmethod
    def parse(cls, name: str) -> "Site":
        """Inverse of ``str``; raises ValueError on anything else."""
        component, role = name.split("@")
        return cls(*Component.parse(component), role)


Circuit = frozenset[Component | Site]  # what is kept: components everywhere, sites at their role's positions alone
AnyCircuit = Any  # such a circuit, or one of edges, a set that is no frozenset (graph.py)
EMPTY: Circuit = frozenset()


def parse(name: str) -> Component | Site:
    """A component or, where the name has an `@`, a site; raises ValueError on anything else."""
    return Site.parse(name) if "@" in name else Component.parse(name)


def sites(circuit: Iterable[Component], role_names: Iterable[str]) -> Circuit:
    """Each component of a circuit at each role: as much as the circuit itself, divided."""
    return frozenset(Site(c.layer, c.head, role) for c in circuit for role in role_names)


def all_components(n_layers: int, n_heads: int) -> list[Component]:
    """Every head and MLP, layer by layer, heads before the MLP."""
    return [Component(layer, head) for layer in range(n_layers) for head in [*range(n_heads), MLP]]


def named(
    key: str, names: Iterable[str], n_layers: int, n_heads: int, only_heads: bool = False
) -> frozenset[Component]:
    """Components that a configuration names under ``key``; raises StudyError on one that the model lacks."""
    found = frozenset(map(Component.parse, names))
    lacking = found.difference(all_components(n_layers, n_heads)) | {c for c in found if only_heads and c.is_mlp}
    if lacking:
        kind = "head" if only_heads else "component"
        raise StudyError(
            f"{key}: {min(lacking)} is no {kind} of a model with {n_layers} layers of {n_heads} heads, counted from 0; "
            "take it out"
        )
    return found


def heads(circuit: Iterable[Any]) -> list[Component]:
    """The heads of a circuit of components or sites, by layer and number; a site stays one."""
    return sorted(c for c in circuit if not c.is_mlp)


def mlps(circuit: Iterable[Any]) -> list[Component]:
    """The MLPs of a circuit of components or sites, by layer; a site stays one."""
    return sorted(c for c in circuit if c.is_mlp)


def profile(circuit: Circuit, n_layers: int) -> list[int]:
    """Heads per layer."""
    return [sum(c.layer == layer for c in heads(circuit)) for layer in range(n_layers)]


def to_json(circuit: Iterable[Component | Site]) -> dict[str, Any]:
    """A circuit as JSON holds it: its sorted names under `heads` and `mlps`; inverse of `from_json`."""
    return {"heads": [str(c) for c in heads(circuit)], "mlps": [str(c) for c in mlps(circuit)]}


def from_json(entry: dict[str, Any]) -> Circuit:
    """The circuit of an object with `heads` and `mlps`, whatever else it has; raises ValueError on other names."""
    return frozenset(parse(name) for name in [*entry["heads"], *entry["mlps"]])


def group_columns(components: Sequence[Component]) -> dict[str, Any]:
    """The table columns of a component or of a group (`bisect`): its names, and its layer, or -1 for several."""
    if len(components) == 1:
        return columns(components[0])
    layers = {c.layer for c in components}
    layer = layers.pop() if len(layers) == 1 else -1
    return {"component": " ".join(map(str, components)), "layer": layer, "head": MLP}


def columns(component: Component | Site) -> dict[str, Any]:
    """The table columns that name a component."""
    return {"component": str(component), "layer": component.layer, "head": component.head}
