"""The node searches of a study by the names of their orders (methods: node search)."""

from collections.abc import Iterator

from atlas.circuit.ablation import Ablator
from atlas.circuit.annealing import annealed_search
from atlas.circuit.gates import Gates, gates_search
from atlas.circuit.node_methods import ASCENDING
from atlas.circuit.search import (
    ANNEALED,
    GATES,
    Percents,
    Rule,
    Settle,
    Step,
    as_scored,
    bisect_search,
    by_chance,
    by_effect,
    by_layers,
    jumps,
    node_search,
)
from atlas.circuit.speculation import Speculation
from atlas.core.components import AnyCircuit, Component


def gates_of(name: str, seed: int | None, ablator: Ablator, rule: Rule) -> Gates | None:
    """The gates that the search of an order learns, on an ablator's prompts; None where it learns none."""
    if name.split("_")[0] != GATES:
        return None
    assert seed is not None
    return Gates(ablator, rule, seed)


def run(
    name: str,
    seed: int | None,
    rule: Rule,
    everything: AnyCircuit,
    percents: Percents,
    alone: dict[Component, float],
    batch: int | Speculation = 1,
    settle: Settle = as_scored,
    gates: Gates | None = None,
) -> Iterator[Step]:
    """The search of a study that goes by this name: layers, ascending_effect or by a method of attribution
    (ascending_relp), random_<seed>, bisect, annealed_<seed> or gates_<seed>.

    ``alone``: percent of full with each component alone ablated, measured or estimated, for an ascending order.
    ``gates``: `gates_of` the name.
    An annealed search compares scores with one another, not with a bound alone, and gates are learned by one model, so
    both take no ``settle`` (`precision`): ``percents`` are exact.
    """
    assert settle is as_scored or not jumps(name)
    if gates is not None:
        return gates_search(everything, rule, percents, gates)
    if name == "bisect":
        return bisect_search(everything, rule, by_layers(rule), percents, settle)
    if jumps(name):
        assert seed is not None and name.startswith(ANNEALED)
        return annealed_search(everything, rule, percents, seed)
    order = (
        by_chance(rule, seed)
        if seed is not None
        else by_effect(rule, alone)
        if name.startswith(ASCENDING)
        else by_layers(rule)
    )
    return node_search(everything, rule, order, percents, batch, settle)
