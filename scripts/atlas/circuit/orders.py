"""The node searches of a study by the names of their orders (methods: node search)."""

from collections.abc import Iterator

from atlas.circuit.annealing import annealed_search
from atlas.circuit.search import (
    Percents,
    Rule,
    Settle,
    Step,
    as_scored,
    bisect_search,
    by_chance,
    by_effect,
    by_layers,
    node_search,
)
from atlas.circuit.speculation import Speculation
from atlas.core.components import AnyCircuit, Component

ANNEALED = "annealed"


def anneals(name: str) -> bool:
    """Whether the search of an order takes components back, annealed_<seed>; its steps are then no list of removals."""
    return name.split("_")[0] == ANNEALED


def run(
    name: str,
    seed: int | None,
    rule: Rule,
    everything: AnyCircuit,
    percents: Percents,
    alone: dict[Component, float],
    batch: int | Speculation = 1,
    settle: Settle = as_scored,
) -> Iterator[Step]:
    """The search of a study that goes by this name: layers, ascending_effect, random_<seed>, bisect or annealed_<seed>.

    ``alone``: percent of full with each component alone ablated, for ascending_effect. An annealed search compares
    scores with one another, not with a bound alone, and takes no ``settle`` (`precision`): ``percents`` are exact.
    """
    if name == "bisect":
        return bisect_search(everything, rule, by_layers(rule), percents, settle)
    if anneals(name):
        assert seed is not None and settle is as_scored
        return annealed_search(everything, rule, percents, seed)
    order = (
        by_chance(rule, seed)
        if seed is not None
        else by_effect(rule, alone)
        if name == "ascending_effect"
        else by_layers(rule)
    )
    return node_search(everything, rule, order, percents, batch, settle)
