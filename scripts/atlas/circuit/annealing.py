"""A search that also takes components back: simulated annealing below what a search by layers ends in.

A search that only removes depends on its order: what it kept early may be what a smaller circuit would do without. This
one walks on from the circuit of the order `layers`, through circuits that are all above the floor, and keeps the
smallest that it saw.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from atlas.circuit.search import CLOSE, Percents, Rule, Step, by_layers, node_search
from atlas.core.components import AnyCircuit

HOT, COLD = 0.3, 0.005  # temperatures of the first and of the last move, in components
# (removed, returned) at a time -> how often: one for one changes what is kept, two for one makes it smaller
MOVES = {(1, 1): 0.4, (2, 1): 0.3, (1, 0): 0.1, (2, 0): 0.1, (0, 1): 0.1}


def annealed_search(everything: AnyCircuit, rule: Rule, percents: Percents, seed: int) -> Iterator[Step]:
    """Yield every evaluation; a step's ``left`` is the smallest circuit found so far, the last one's the result.

    Three parts, of `Rule.evaluations` in all. (1) The search by layers. (2) The walk: a move removes and returns a few
    components drawn at random (`MOVES`); it is refused where `Rule.allows` refuses its circuit (relative_tolerance then
    bounds what one move may cost), and else made with probability min(1, exp(-increase / temperature)) of the energy:
    components less the share of T that the score is above the floor, 0 to 1, at most that of 100 %. So between circuits
    of one size the walk goes to those with room for a removal. Temperatures fall from HOT to COLD. (3) Single removals
    from the smallest circuit, until none can go. Every circuit of the walk is above the floor, and so is the result,
    which is never larger than what part 1 found. With too few evaluations the parts end where they are.

    `removed` of a step says whether its move was made; ``returned`` what it put back. Nothing that ``rule`` never tests
    or visits is moved.
    """
    walk, asked, sweep = Walk(everything, rule, seed), 0, 0
    for step in islice(node_search(everything, rule, by_layers(rule), percents), rule.evaluations):
        asked, sweep = asked + 1, step.sweep
        if step.removed:
            walk.go(step.left, step.percent)
        yield step
    moves = rule.evaluations - asked - len(walk.best)
    for share in np.linspace(0, 1, moves) if moves > 0 and walk.movable else ():
        asked += 1
        removed, returned = walk.proposal()
        circuit = (walk.kept - removed) | returned
        (percent,) = percents([circuit])
        made, close = walk.decide(circuit, percent, HOT * (COLD / HOT) ** float(share))
        back = tuple(sorted(returned))
        yield Step(sweep + 1, "annealed", tuple(sorted(removed)), percent, made, walk.best, close, back)
    last = node_search(walk.best, rule, by_layers(rule), percents, before=walk.highest)
    for step in islice(last, max(0, rule.evaluations - asked)):
        yield replace(step, sweep=sweep + 1 + step.sweep)


class Walk:
    """Where the walk is: ``kept`` with its ``percent`` of full; ``best``: the smallest circuit so far, of equal sizes
    the one with the ``highest`` percent; ``movable``: what may go and return."""

    def __init__(self, everything: AnyCircuit, rule: Rule, seed: int) -> None:
        kinds = {kind for visited in rule.visit.values() for kind in visited}
        self.movable = sorted(c for c in everything if rule.tests(c) and ("mlp" if c.is_mlp else "head") in kinds)
        self.rule, self.rng = rule, np.random.default_rng(seed)
        self.kept, self.percent = everything, 100.0
        self.best, self.highest = everything, 100.0

    def go(self, circuit: AnyCircuit, percent: float) -> None:
        """Make a move to a circuit above the floor."""
        self.kept, self.percent = circuit, percent
        if (len(circuit), -percent) < (len(self.best), -self.highest):
            self.best, self.highest = circuit, percent

    def proposal(self) -> tuple[AnyCircuit, AnyCircuit]:
        """(removed, returned) of the next move, cut to what there is."""
        out, back = list(MOVES)[self.rng.choice(len(MOVES), p=list(MOVES.values()))]
        inside = [c for c in self.movable if c in self.kept]
        outside = [c for c in self.movable if c not in self.kept]
        if not (inside if out else outside):  # a removal from nothing, or a return of nothing
            out, back = (0, 1) if outside else (1, 0)
        return self.drawn(inside, out), self.drawn(outside, back)

    def drawn(self, members: list[Any], count: int) -> AnyCircuit:
        """``count`` of them, or all."""
        return frozenset(members[i] for i in self.rng.permutation(len(members))[:count])

    def energy(self, circuit: AnyCircuit, percent: float) -> float:
        """Components, less the share of the threshold that is not spent."""
        return len(circuit) - (min(percent, 100.0) - (100 - self.rule.threshold)) / self.rule.threshold

    def decide(self, circuit: AnyCircuit, percent: float, temperature: float) -> tuple[bool, bool]:
        """Go to a circuit, or stay: (whether it went, whether rounding could decide otherwise)."""
        chance = 1 - self.rng.random()  # above 0
        close = self.rule.is_close(percent, self.percent)
        if not self.rule.allows(percent, self.percent):
            return False, close
        increase = self.energy(circuit, percent) - self.energy(self.kept, self.percent)
        most = -temperature * math.log(chance)
        if increase <= most:
            self.go(circuit, percent)
        return increase <= most, close or abs(increase - most) <= CLOSE / self.rule.threshold
