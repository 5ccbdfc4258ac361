"""Searches in a half whose decisions hold in float32 (methods: half precision).

The search runs in bfloat16 or float16. Percents of full that lie too near a bound of the rule to be trusted are taken
again in float32, and the decision with them. How near is too near is measured: BEYOND times the largest difference of
percents between the two precisions that was seen. It is seen on SAMPLE nested circuits before the first decision, from
nearly the full model down to the empty one; on every EVERYth decision, wherever it lies, so that the circuits on the
search's own way are among them; and on every decision that is taken again. Where a later difference widens the bound
so that earlier decisions come to lie within it, the search runs again from the start, with all scores at hand. In the
end no decision stands that was taken in the half and lies within the bound as it is then.

That makes the decisions those of a search in float32, unless a circuit that was never scored in float32 differs BEYOND
times more than all that were: the bound is measured, not proved. Both precisions read one checkpoint, the same prompts
and the same replacement of ablated components.
"""

import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

from atlas.circuit.ablation import Ablator
from atlas.circuit.search import CLOSE, Rule, Settle, Step, as_scored
from atlas.core.components import AnyCircuit

log = logging.getLogger("atlas")

BEYOND = 4  # the largest of a dozen normal differences is seldom below 1.2 standard deviations; this makes 4.8 of it
SAMPLE = 12
EVERY = 8


def nested(everything: AnyCircuit, count: int = SAMPLE) -> list[AnyCircuit]:
    """Up to ``count`` different circuits, evenly spaced in size, each within the one before: everything less its last
    members, down to the empty circuit."""
    members = sorted(everything)
    sizes = dict.fromkeys(len(members) * i // count for i in reversed(range(count)))
    return [frozenset(members[:size]) for size in sizes if size < len(members)]


class Differences:
    """Percents of full of the same circuits in a half and in float32, and the bound within which the two may differ.

    One serves all searches of a task. half, exact: ablators of the same prompts and replacement, whose models have one
    checkpoint. start: where searches start, by default the full model.
    """

    def __init__(self, half: Ablator, exact: Ablator, start: AnyCircuit | None = None) -> None:
        self.half, self.exact = half, exact
        self.known: dict[AnyCircuit, float] = {exact.everything: 100.0}  # circuit -> percent of full in float32
        self.largest = 0.0  # percentage points
        for circuit in nested(exact.everything if start is None else start):
            self.in_float32(circuit, half.percent_of_full(circuit))
        log.info(
            "%s against float32: percents of full differ by at most %.3g on %d circuits, so decisions nearer than %.3g "
            "to their bound are taken again",
            *(dtype_of(half), self.largest, len(self.known) - 1, self.bound),
        )

    @property
    def bound(self) -> float:
        """Percentage points within which a percent in the half is not trusted."""
        return max(CLOSE, BEYOND * self.largest)

    def in_float32(self, circuit: AnyCircuit, percent: float) -> float:
        """The percent of full of a circuit in float32; ``percent``: that in the half, to be compared with it.

        One that is not finite is compared with nothing: no decision rests on it (`Decisions.is_certain`).
        """
        if circuit not in self.known:
            self.known[circuit] = self.exact.percent_of_full(circuit)
            if math.isfinite(percent):
                self.largest = max(self.largest, abs(percent - self.known[circuit]))
        return self.known[circuit]


class Decisions:
    """The decisions of one search in a half: `settle` is asked for each of them, in order.

    dtypes: the precision that decided each. again: how many lay within the bound. sampled: how many others were decided
    in float32, which was at hand or was sampled. flipped: how many of both the half would have decided otherwise.
    """

    def __init__(self, differences: Differences, rule: Rule) -> None:
        self.differences, self.rule = differences, rule
        self.dtypes: list[str] = []
        self.again = self.sampled = self.flipped = 0
        self._start: AnyCircuit | None = None
        self._in_half: list[tuple[float, float, bool]] = []  # percent, percent before, is the latter in float32?

    def is_certain(self, percent: float, before: float, exact: tuple[bool, bool] = (False, False)) -> bool:
        """Whether all percents within the bound of these decide alike; ``exact``: which of the two is in float32.

        The rule allows the more, the higher the percent and the lower the one before, so the extremes decide.
        """
        if not (math.isfinite(percent) and math.isfinite(before)):
            return False
        a, b = (0 if known else self.differences.bound for known in exact)
        return self.rule.allows(percent + a, before - b) == self.rule.allows(percent - a, before + b)

    def settle(self, circuit: AnyCircuit, percent: float, kept: AnyCircuit, before: float) -> tuple[float, float]:
        """The percents to decide by whether a search goes from ``kept`` to ``circuit``, from those in the half."""
        both, by_half = self.differences, self.rule.allows(percent, before)
        if self._start is None:
            self._start = kept  # from which the first loss is counted as from 100, in either precision
        exact = kept == self._start
        if not exact and kept in both.known:
            before, exact = both.known[kept], True
        certain = self.is_certain(percent, before, (False, exact))
        if certain and circuit not in both.known and len(self.dtypes) % EVERY < EVERY - 1:
            self._in_half.append((percent, before, exact))
            self.dtypes.append(dtype_of(both.half))
            return percent, before
        percent = both.in_float32(circuit, percent)
        if not self.is_certain(percent, before, (True, exact)):
            before = before if exact else both.in_float32(kept, before)
        self.again, self.sampled = self.again + (not certain), self.sampled + certain
        self.flipped += by_half != self.rule.allows(percent, before)
        self.dtypes.append(dtype_of(both.exact))
        return percent, before

    def hold(self) -> bool:
        """Whether the decisions taken in the half still lie outside the bound, which may have grown since."""
        return all(self.is_certain(percent, before, (False, known)) for percent, before, known in self._in_half)

    @property
    def said(self) -> str:
        """The same counts in words."""
        both = self.differences
        return (
            f"{len(self.dtypes)} decisions in {dtype_of(both.half)}, {self.again} taken again in float32 (nearer to "
            f"their bound than {both.bound:.3g}), {self.sampled} others compared with it, {self.flipped} flipped"
        )

    def to_json(self) -> dict[str, Any]:
        """What `circuits.json` says of them; differences in percentage points of full."""
        both = self.differences
        counts = {"again": self.again, "sampled": self.sampled, "flipped": self.flipped}
        measured = {"bound": both.bound, "largest_difference": both.largest, "compared": len(both.known) - 1}
        return {"dtype": dtype_of(both.half)} | counts | measured


Search = Callable[[Ablator, Settle], Iterator[Step]]  # the steps of a search by the scores of an ablator


def searched(
    name: str, search: Search, rule: Rule, exact: Ablator, differences: Differences | None
) -> tuple[list[Step], Decisions | None]:
    """The steps of a search, and its `Decisions`; by the scores of ``exact`` and None without ``differences``.

    name: of the search, in the log.
    """
    if differences is None:
        return list(search(exact, as_scored)), None
    while True:
        decisions = Decisions(differences, rule)
        steps = list(search(differences.half, decisions.settle))
        log.info("%s: %s", name, decisions.said)
        if decisions.hold():
            return steps, decisions
        log.info("%s: some of them are within the bound by now; searching again with what is known", name)


def dtype_of(ablator: Ablator) -> str:
    """The name of the dtype that an ablator's model runs in, as configurations write it."""
    return str(ablator.model.dtype).removeprefix("torch.")
