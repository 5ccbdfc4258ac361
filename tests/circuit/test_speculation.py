"""How many candidates are tried at once, chosen from invented timings; a search with it takes the same steps."""

import random

import pytest

from atlas.circuit.search import Rule, by_layers, node_search
from atlas.circuit.speculation import GAIN, MOST, TRIAL, Speculation
from atlas.core.components import all_components

RULE = Rule(threshold=20)


class Machine:
    """Scores circuits, and takes ``seconds(candidates, layers above them)`` of an invented clock for each call.

    ``removable``: the share of components whose removal costs nothing; others cost everything.
    """

    def __init__(self, seconds, removable, layers=12, heads=12, seed=0):
        self.seconds, self.now, self.ran, self.known, self.asked = seconds, 0.0, 0, {}, []
        self.everything, rng = frozenset(all_components(layers, heads)), random.Random(seed)
        self.needed = {c for c in sorted(self.everything) if rng.random() > removable}
        self.layers = layers

    def percents(self, circuits):
        new = [c for c in circuits if c not in self.known]
        if new:
            layer = min(c.layer for c in self.everything - circuits[0])  # in a backward sweep that of the candidates
            self.now += self.seconds(len(new), self.layers - layer)
        self.ran += len(new)
        self.asked.append(len(circuits))
        self.known |= {c: 100.0 if self.needed <= c else 0.0 for c in new}
        return [self.known[c] for c in circuits]

    def search(self, batch):
        return list(node_search(self.everything, RULE, by_layers(RULE), self.percents, batch))


def speculated(*args, **keys):
    machine = Machine(*args, **keys)
    choice = Speculation(lambda: machine.ran, lambda: machine.now)
    return machine, choice, machine.search(choice)


FULL = {"each costs as much": 1.0, "each costs nearly as much": 0.9}
IDLE = {"several cost as one": 0.0, "several cost little more": 0.05}


@pytest.mark.parametrize("removable", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("cost", [0.0, 0.05, 0.3, 0.6, 0.9, 1.0])
def test_steps_are_those_of_one_at_a_time_and_it_is_not_slower(cost, removable):
    """Beyond what the comparisons cost, COMPARED and now and then: a tenth of such a search."""

    def seconds(candidates, layers):
        return layers * (1 + cost * (candidates - 1))

    machine, _, steps = speculated(seconds, removable)
    alone = Machine(seconds, removable)
    assert steps == alone.search(1)
    assert machine.now <= 1.1 * alone.now


@pytest.mark.parametrize("cost", IDLE.values(), ids=IDLE)
def test_a_gpu_with_little_to_do_tries_many_where_most_can_go(cost):
    def seconds(candidates, layers):
        return layers * (1 + cost * (candidates - 1))

    machine, _, _ = speculated(seconds, 0.95)
    alone = Machine(seconds, 0.95)
    alone.search(1)
    assert machine.now < 0.6 * alone.now and max(machine.asked) > TRIAL


@pytest.mark.parametrize("cost", FULL.values(), ids=FULL)
def test_a_gpu_that_is_full_tries_one_at_a_time(cost):
    machine, choice, _ = speculated(lambda candidates, layers: layers * (1 + cost * (candidates - 1)), 0.95)
    assert choice.size("another layer", MOST) == 1
    assert sum(size > 1 for size in machine.asked) <= choice.compared + 1, "for comparisons alone"


def test_where_nothing_can_go_one_is_tried_at_a_time():
    machine, choice, _ = speculated(lambda candidates, layers: 1.0, 0.0)
    assert choice.share < 0.1 and machine.asked[-100:].count(1) > 90


def test_a_batch_that_fills_the_gpu_is_found_out_where_it_is_used():
    """Four cost as one, sixteen four times as much: later comparisons are made at the size that is used."""

    def seconds(candidates, layers):
        return layers * max(1, candidates / 4)

    machine, choice, _ = speculated(seconds, 0.97, layers=40)
    assert max(choice.costs) > 0.1 and machine.asked.count(MOST) < 40


def test_calls_that_found_circuits_known_say_nothing_about_time():
    """A second search of the same ablator, at the same threshold, runs nothing and measures nothing."""
    machine = Machine(lambda candidates, layers: layers, 0.9)
    machine.search(1)
    choice = Speculation(lambda: machine.ran, lambda: machine.now)
    before = machine.ran
    machine.search(choice)
    assert not choice.costs and machine.ran - before < 10 * TRIAL


def test_the_first_comparison_is_not_believed():
    """It pays for what a first run of a size costs."""
    machine = Machine(lambda candidates, layers: layers, 1.0)
    first = [True]

    def percents(circuits):
        if len(circuits) > 1 and first.pop() if first else False:
            machine.now += 1000
        return machine.percents(circuits)

    choice = Speculation(lambda: machine.ran, lambda: machine.now)
    list(node_search(machine.everything, RULE, by_layers(RULE), percents, choice))
    assert choice.costs and max(choice.costs) < 1


def test_the_promise_is_that_of_the_docstring():
    choice = Speculation(int)
    choice.costs.append(0.25)
    choice.removed.extend([True] * 7)  # a share of 8 / 9
    assert choice.promise(1) == 1
    assert choice.promise(3) == pytest.approx((1 + 8 / 9 + (8 / 9) ** 2) / 1.5)
    assert choice.promise(3) > GAIN
