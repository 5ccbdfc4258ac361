"""Node search: remove components one at a time while the score stays above a floor (methods: node search).

The decision logic sees nothing but percents, so published traces can be replayed through it without any model.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from atlas.circuit.speculation import Speculation
from atlas.core.components import AnyCircuit, Component, Site

KINDS = ("head", "mlp")
CLOSE = 1e-4  # percentage points: 1e-6 of the full model's score, about what float32 sums in another order differ by


# Orders with a search of their own, by the first word of their names
ANNEALED, GATES = "annealed", "gates"


def jumps(name: str) -> bool:
    """Whether the steps of the search of an order are no list of removals: annealed_<seed>, gates_<seed>."""
    return name.split("_")[0] in (ANNEALED, GATES)


@dataclass(frozen=True)
class Rule:
    """When a component may go, and what is visited.

    threshold: T; the score must stay strictly above 100 - T percent of the full model (100 - percent < T).
    relative_tolerance: if given, one removal may cost at most this many percentage points.
    never_test: components that are kept without a test, at every position, and sites.
    visit: for each direction the kinds visited within a layer, in order.
    evaluations: budget of a search that has one (`annealing`).
    """

    threshold: float
    relative_tolerance: float | None = None
    never_test: frozenset[Component | Site] = frozenset()
    visit: dict[str, tuple[str, ...]] = field(
        default_factory=lambda: {"backward": ("mlp", "head"), "forward": ("head", "mlp")}
    )
    evaluations: int = 1000

    def tests(self, member: Component | Site) -> bool:
        """Whether a component, or a site of one, may go at all."""
        whole = member.component if isinstance(member, Site) else member
        return not self.never_test & {member, whole}

    def allows(self, percent: float, before: float) -> bool:
        if not 100 - percent < self.threshold:
            return False
        return self.relative_tolerance is None or before - percent <= self.relative_tolerance

    def is_close(self, percent: float, before: float) -> bool:
        """Whether another order of sums (threads, batch size, hardware) could decide otherwise."""
        bounds = [
            100 - self.threshold,
            *([] if self.relative_tolerance is None else [before - self.relative_tolerance]),
        ]
        return any(abs(percent - bound) <= CLOSE for bound in bounds)


@dataclass(frozen=True)
class SearchSettings:
    """The keys of `search` in a configuration that say when a component may go, how many are tried at once, whether a
    search in a half takes close decisions in float32 (`precision`), and the budget of annealed searches; what orders by
    attribution go by, the kind of ablation and the number of points (`attribution.Settings`)."""

    relative_tolerance: float | None
    never_test: Sequence[str]
    visit: dict[str, Sequence[str]]
    batch: int | str
    check_in_float32: bool = True
    annealed_evaluations: int = Rule.evaluations
    kind: str = "mean"
    points: int = 5

    def rule(self, threshold: float) -> Rule:
        """The rule at a threshold."""
        kept = frozenset(map(Component.parse, self.never_test))
        visit = {way: tuple(kinds) for way, kinds in self.visit.items()}
        return Rule(threshold, self.relative_tolerance, kept, visit, self.annealed_evaluations)


@dataclass(frozen=True)
class Step:
    """One evaluation: the percent of full without ``components``, and the decision. Groups occur in `bisect` and in
    annealed searches only.

    close: the percent lies within CLOSE of a bound, so that floating point can flip the decision. returned: components
    that were put back at the same time (`annealing`). penalty: at which gates found ``left`` (`gates`).
    """

    sweep: int
    direction: str
    components: tuple[Any, ...]
    percent: float
    removed: bool
    left: AnyCircuit
    close: bool = False
    returned: tuple[Any, ...] = ()
    penalty: float | None = None


Percents = Callable[[list[AnyCircuit]], list[float]]  # percent of full with only each circuit intact
# (candidate, its percent, kept, percent before) -> the two percents to decide by, asked once for each decision
Settle = Callable[[AnyCircuit, float, AnyCircuit, float], tuple[float, float]]
Order = Callable[[int, str, AnyCircuit], list[Any]]  # (sweep from 1, direction, kept) -> components to visit


def by_layers(rule: Rule) -> Order:
    """The study's order: backward sweeps go last layer to first, forward sweeps first to last."""

    def order(sweep: int, direction: str, kept: AnyCircuit) -> list[Component]:
        kinds = rule.visit[direction]
        layers = sorted({c.layer for c in kept}, reverse=direction == "backward")
        out = []
        for layer in layers:
            for kind in kinds:
                out += sorted(c for c in kept if c.layer == layer and c.is_mlp == (kind == "mlp"))
        return out

    return order


def by_effect(rule: Rule, percent_alone: dict[Component, float]) -> Order:
    """Smallest effect first: ``percent_alone`` is the percent of full with that component alone ablated, or an estimate
    of it."""

    def order(sweep: int, direction: str, kept: AnyCircuit) -> list[Component]:
        visited = [c for c in kept if ("mlp" if c.is_mlp else "head") in rule.visit[direction]]
        return sorted(visited, key=lambda c: (abs(100 - percent_alone[c]), c))

    return order


def by_chance(rule: Rule, seed: int) -> Order:
    """A random order, drawn anew for every sweep."""

    def order(sweep: int, direction: str, kept: AnyCircuit) -> list[Component]:
        visited = sorted(c for c in kept if ("mlp" if c.is_mlp else "head") in rule.visit[direction])
        return [visited[i] for i in np.random.default_rng([seed, sweep]).permutation(len(visited))]

    return order


def as_scored(circuit: AnyCircuit, percent: float, kept: AnyCircuit, before: float) -> tuple[float, float]:
    """Decide by the percents as they were given."""
    return percent, before


def node_search(
    everything: AnyCircuit,
    rule: Rule,
    order: Order,
    percents: Percents,
    batch: int | Speculation = 1,
    settle: Settle = as_scored,
    before: float = 100.0,
) -> Iterator[Step]:
    """Yield every evaluation of an iterative search from the full model; the last step's ``left`` is the circuit.

    Where ``everything`` is less than the full model, ``before`` is its percent of full.

    Sweeps alternate, backward first, until a sweep changes nothing. With ``batch`` > 1 the search speculates: for the
    next components of a layer it asks for "without the first", "without the first two", ... at once and takes them up
    to the first failure, whose circuit is the very one that a search one at a time asks for. What comes after a failure
    is thrown away (scores are not monotone, so it proves nothing), so that steps and circuit are the same. A
    `Speculation` chooses how many each time. ``settle``: what each decision is taken by (`precision`).
    """
    kept = everything
    most, choice = (batch, None) if isinstance(batch, int) else (batch.most, batch)
    for sweep, direction in sweeps():
        size, waiting = len(kept), [c for c in order(sweep, direction, kept) if rule.tests(c)]
        while waiting:
            chain = same_layer(waiting[:most])
            if choice:
                place = sweep, chain[0].layer, chain[0].is_mlp  # what one head takes is compared with what several do
                chain = chain[: choice.size(place, len(chain))]
            circuits = [kept - frozenset(chain[: i + 1]) for i in range(len(chain))]
            found = choice.timed(percents, circuits) if choice else percents(circuits)
            for component, circuit, scored in zip(chain, circuits, found, strict=True):
                waiting.pop(0)
                percent, before = settle(circuit, scored, kept, before)
                removed, close = rule.allows(percent, before), rule.is_close(percent, before)
                if removed:
                    kept, before = circuit, percent
                if choice:
                    choice.decided(removed)
                yield Step(sweep, direction, (component,), percent, removed, kept, close)
                if not removed:
                    break
        if len(kept) == size:
            return


def tried_at_once(batch: int | str, device: str, ran: Callable[[], int]) -> int | Speculation:
    """How many candidates are tried at once, by `search.batch` of the configuration.

    `auto` is one at a time on a CPU, where several were found to cost as much each, so that nothing depends on a clock;
    on a GPU it is a `Speculation`. ``ran``: circuits that have been run so far (`Ablator.evaluations`).
    """
    if isinstance(batch, int):
        return batch
    return 1 if device == "cpu" else Speculation(ran)


def same_layer(components: list[Component]) -> list[Component]:
    """The first components up to a change of layer."""
    return [c for i, c in enumerate(components) if all(other.layer == c.layer for other in components[:i])]


def bisect_search(
    everything: AnyCircuit, rule: Rule, order: Order, percents: Percents, settle: Settle = as_scored
) -> Iterator[Step]:
    """Remove groups: try all that a sweep would visit, and split a group that may not go, down to single components.

    Takes far fewer evaluations than `node_search` where most components can go. Every removal is evaluated on what is
    then left, so the circuit's own score is always the last one accepted. The result may differ from an iterative
    search, as that of any other order does.
    """
    kept, before = everything, 100.0
    for sweep, direction in sweeps():
        size, groups = len(kept), [tuple(c for c in order(sweep, direction, kept) if rule.tests(c))]
        while groups:
            group = groups.pop(0)
            if not group:
                continue
            (scored,) = percents([kept - frozenset(group)])
            percent, before = settle(kept - frozenset(group), scored, kept, before)
            removed, close = rule.allows(percent, before), rule.is_close(percent, before)
            if removed:
                kept, before = kept - frozenset(group), percent
            yield Step(sweep, direction, group, percent, removed, kept, close)
            if not removed and len(group) > 1:
                groups[:0] = [group[: len(group) // 2], group[len(group) // 2 :]]
        if len(kept) == size:
            return


def sweeps() -> Iterator[tuple[int, str]]:
    """(1, backward), (2, forward), (3, backward), ..."""
    for sweep in count(1):
        yield sweep, "backward" if sweep % 2 else "forward"


def survival(circuits: list[AnyCircuit]) -> dict[Component, float]:
    """Component -> share of the circuits that keep it, for every component kept by at least one."""
    union = frozenset().union(*circuits)
    return {c: sum(c in circuit for circuit in circuits) / len(circuits) for c in sorted(union)}
