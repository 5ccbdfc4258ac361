"""Names of components and sets of them."""

from typing import NamedTuple

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


Circuit = frozenset[Component]  # the kept components


def all_components(n_layers: int, n_heads: int) -> list[Component]:
    """Every head and MLP, layer by layer, heads before the MLP."""
    return [Component(layer, head) for layer in range(n_layers) for head in [*range(n_heads), MLP]]


def heads(circuit) -> list[Component]:
    return sorted(c for c in circuit if not c.is_mlp)


def mlps(circuit) -> list[Component]:
    return sorted(c for c in circuit if c.is_mlp)


def profile(circuit: Circuit, n_layers: int) -> list[int]:
    """Heads per layer."""
    return [sum(c.layer == layer for c in heads(circuit)) for layer in range(n_layers)]


def to_json(circuit) -> dict:
    return {"heads": [str(c) for c in heads(circuit)], "mlps": [str(c) for c in mlps(circuit)]}


def from_json(entry: dict) -> Circuit:
    return frozenset(Component.parse(name) for name in [*entry["heads"], *entry["mlps"]])


def group_columns(components) -> dict:
    """The table columns of a component or of a group (`bisect`): its names, and its layer, or -1 for several."""
    if len(components) == 1:
        return columns(components[0])
    layers = {c.layer for c in components}
    layer = layers.pop() if len(layers) == 1 else -1
    return {"component": " ".join(map(str, components)), "layer": layer, "head": MLP}


def columns(component: Component) -> dict:
    """The table columns that name a component."""
    return {"component": str(component), "layer": component.layer, "head": component.head}
