"""Node search: remove components one at a time while the score stays above a floor (methods: node search).

The decision logic sees nothing but percents, so published traces can be replayed through it without any model.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from atlas.components import Circuit, Component

KINDS = ("head", "mlp")


@dataclass(frozen=True)
class Rule:
    """When a component may go, and what is visited.

    threshold: T; the score must stay strictly above 100 - T percent of the full model (100 - percent < T).
    relative_tolerance: if given, one removal may cost at most this many percentage points.
    never_test: components that are kept without a test.
    visit: for each direction the kinds visited within a layer, in order.
    """

    threshold: float
    relative_tolerance: float | None = None
    never_test: frozenset[Component] = frozenset()
    visit: dict[str, tuple[str, ...]] = field(
        default_factory=lambda: {"backward": ("mlp", "head"), "forward": ("head", "mlp")}
    )

    def allows(self, percent: float, before: float) -> bool:
        if not 100 - percent < self.threshold:
            return False
        return self.relative_tolerance is None or before - percent <= self.relative_tolerance


@dataclass(frozen=True)
class Step:
    """One evaluation: the percent of full without ``component``, and the decision."""

    sweep: int
    direction: str
    component: Component
    percent: float
    removed: bool
    left: Circuit


Order = Callable[[int, str, Circuit], list[Component]]  # (sweep from 1, direction, kept) -> components to visit


def by_layers(rule: Rule) -> Order:
    """The study's order: backward sweeps go last layer to first, forward sweeps first to last."""

    def order(sweep: int, direction: str, kept: Circuit) -> list[Component]:
        kinds = rule.visit[direction]
        layers = sorted({c.layer for c in kept}, reverse=direction == "backward")
        out = []
        for layer in layers:
            for kind in kinds:
                out += sorted(c for c in kept if c.layer == layer and c.is_mlp == (kind == "mlp"))
        return out

    return order


def by_effect(rule: Rule, percent_alone: dict[Component, float]) -> Order:
    """Smallest effect first: ``percent_alone`` is the percent of full with that component alone ablated."""

    def order(sweep: int, direction: str, kept: Circuit) -> list[Component]:
        visited = [c for c in kept if ("mlp" if c.is_mlp else "head") in rule.visit[direction]]
        return sorted(visited, key=lambda c: (abs(100 - percent_alone[c]), c))

    return order


def by_chance(rule: Rule, seed: int) -> Order:
    """A random order, drawn anew for every sweep."""

    def order(sweep: int, direction: str, kept: Circuit) -> list[Component]:
        visited = sorted(c for c in kept if ("mlp" if c.is_mlp else "head") in rule.visit[direction])
        return [visited[i] for i in np.random.default_rng([seed, sweep]).permutation(len(visited))]

    return order


def node_search(
    everything: Circuit, rule: Rule, order: Order, percent: Callable[[Component, Circuit], float]
) -> Iterator[Step]:
    """Yield every evaluation of an iterative search from the full model; the last step's ``left`` is the circuit.

    Sweeps alternate, backward first, until a sweep changes nothing. ``percent(component, kept)`` is the percent of full
    with only ``kept`` intact, which lacks ``component``.
    """
    kept, before, sweep = everything, 100.0, 0
    while True:
        sweep += 1
        direction = "backward" if sweep % 2 else "forward"
        size = len(kept)
        for component in order(sweep, direction, kept):
            if component in rule.never_test:
                continue
            value = percent(component, kept - {component})
            removed = rule.allows(value, before)
            if removed:
                kept, before = kept - {component}, value
            yield Step(sweep, direction, component, value, removed, kept)
        if len(kept) == size:
            return


def survival(circuits: list[Circuit]) -> dict[Component, float]:
    """Component -> share of the circuits that keep it, for every component kept by at least one."""
    union = frozenset().union(*circuits)
    return {c: sum(c in circuit for circuit in circuits) / len(circuits) for c in sorted(union)}
