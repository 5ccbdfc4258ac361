"""Displacements between planted classes, against loops over their members."""

import numpy as np
import pytest

from atlas.geometry import displacements
from atlas.geometry.displacements import Moves, Steps
from atlas.geometry.residuals import Residuals
from planted_members import CONTEXTS, D, isotropic, members_of, planted


def like(of, name, first, noise, seed=9, n=None):
    """Another class whose members lie as those of a class do, elsewhere: word `name` + number."""
    rng = np.random.default_rng(seed)
    n = n or len(of.members)
    members = members_of(n, name)
    values = of.values[:, :, :n] + 3 * rng.standard_normal(D)
    values = values + noise * rng.standard_normal((1, 1, n, D)) + 0.02 * rng.standard_normal((1, CONTEXTS, n, D))
    return Residuals(members, of.points, values.astype(np.float32))


def rows(found):
    return found.set_index(["class", "other", "measure"])


def test_a_displacement_that_two_classes_share_is_found_and_leads_to_the_next_member():
    one = isotropic(members_of(9, "a"), 1)
    found = rows(displacements.table([one, like(one, "bb", 0, 0.2), isotropic(members_of(9, "ccc"), 2)], 199, 0))
    shared = found.loc[("a", "bb", "cosine")]
    assert shared.value > 0.9 and shared.p == 1 / 200 and abs(shared.unmatched) < 0.2
    for pair in (("a", "bb"), ("bb", "a")):
        assert found.loc[(*pair, "transfer")].value == 1 and found.loc[(*pair, "transfer")].p == 1 / 200
    for pair in (("a", "ccc"), ("bb", "ccc")):
        assert abs(found.loc[(*pair, "cosine")].value) < 0.2 and found.loc[(*pair, "cosine")].p > 0.05
        assert found.loc[(*pair, "transfer")].p > 0.05


def test_one_direction_for_all_steps_is_matched_and_unmatched_alike_and_found_within_a_class():
    line = planted(members_of(8, "a"), np.arange(8.0)[:, None], 0.02)
    found = rows(displacements.table([line, like(line, "bb", 0, 0.01)], 199, 0))
    between, within = found.loc[("a", "bb", "cosine")], found.loc[("a", "a", "cosine")]
    assert between.value > 0.9 and between.unmatched > 0.9
    assert within.value > 0.9 and within.p == 1 / 200
    assert found.loc[("a", "a", "transfer")].value == 1 > found.loc[("a", "a", "transfer")].unmoved


@pytest.mark.slow
def test_in_isotropic_classes_nothing_is_found():
    tables = [
        displacements.table([isotropic(members_of(8, "a"), i), isotropic(members_of(8, "bb"), 100 + i)], 39, 0)
        for i in range(12)
    ]
    p = np.concatenate([table.p for table in tables])
    assert (p <= 0.05).mean() <= 0.1 and p.mean() > 0.35


def test_cosines_and_arrivals_equal_those_counted_one_by_one():
    one, two = isotropic(members_of(7, "a"), 1), isotropic(members_of(6, "bb"), 2)
    a, b = one.mean[0], two.mean[0]
    steps, orders = Steps.between(one, two), np.stack([np.arange(7), np.random.default_rng(0).permutation(7)])
    assert len(steps) == 5
    moves = Moves.of(a, b, steps, orders)
    means, unmatched = displacements.between(moves)
    shares = displacements.transfer(moves, False)
    for row, order in enumerate(orders):
        matched, others, arrived, unmoved = [], [], [], []
        for i in range(5):
            way = a[order[i + 1]] - a[order[i]]
            for j in range(5):
                cosine = way @ (b[j + 1] - b[j]) / np.linalg.norm(way) / np.linalg.norm(b[j + 1] - b[j])
                (matched if i == j else others).append(cosine)
            way *= np.linalg.norm(a[i + 1] - a[i]) / np.linalg.norm(way)
            for moved, into in ((b[i] + way, arrived), (b[i], unmoved)):
                near = {j: np.linalg.norm(moved - b[j]) for j in range(6) if j != i}
                into.append(min(near, key=near.get) == i + 1)
        assert means[row] == pytest.approx(np.mean(matched)) and shares[1 + row] == np.mean(arrived)
        assert shares[0] == np.mean(unmoved)
        if not row:
            assert unmatched == pytest.approx(np.mean(others))


def test_within_a_class_steps_that_share_a_member_do_not_count():
    one = isotropic(members_of(6, "a", cyclic=True), 3)
    steps = Steps.between(one, one)
    assert len(steps) == 6, "the last step goes around the end"
    fit, held_out = one.fit[0], one.held_out[0]
    cosines, arrived = [], []
    for i in range(6):
        ways = []
        for j in range(6):
            if not {i, (i + 1) % 6} & {j, (j + 1) % 6}:
                x, y = fit[(i + 1) % 6] - fit[i], held_out[(j + 1) % 6] - held_out[j]
                cosines.append(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
                ways.append(one.mean[0][(j + 1) % 6] - one.mean[0][j])
        moved = one.mean[0][i] + np.mean(ways, axis=0)
        near = {j: np.linalg.norm(moved - one.mean[0][j]) for j in range(6) if j != i}
        arrived.append(min(near, key=near.get) == (i + 1) % 6)
    orders = np.arange(6)[None]
    assert displacements.within(fit, held_out, steps, orders)[0] == pytest.approx(np.mean(cosines))
    moves = Moves.of(one.mean[0], one.mean[0], steps, orders)
    assert displacements.transfer(moves, True)[1] == np.mean(arrived)


def test_members_are_matched_by_the_number_they_stand_for():
    numerals = isotropic(members_of(6, "numerals", words=["0", "1", "2", "3", "4", "5"]), 1)
    words = isotropic(members_of(4, "words"), 2)
    steps = Steps.between(numerals, words)
    assert steps.first.tolist() == [1, 2, 3] and steps.other_first.tolist() == [0, 1, 2]
    days = isotropic(members_of(5, "days", cyclic=True), 3)
    assert len(Steps.between(days, words)) == 3, "of two classes none goes around an end"


def test_classes_that_share_a_member_or_too_few_steps_are_not_compared():
    one, few = isotropic(members_of(6, "a"), 1), isotropic(members_of(3, "bb"), 2)
    table = displacements.table([one, few, Residuals(one.members, (0,), one.values)], 19, 0)
    assert {tuple(pair) for pair in table[["class", "other"]].to_numpy()} == {("a", "a")}
    assert list(table) == displacements.COLUMNS
    assert list(displacements.table([few], 19, 0)) == displacements.COLUMNS


def test_members_that_do_not_differ_lead_nowhere():
    one = isotropic(members_of(8, "a"), 1)
    same = Residuals(one.members, (0,), np.ones_like(one.values))
    other = Residuals(members_of(8, "bb"), (0,), np.ones_like(one.values))
    table = displacements.table([same, other], 19, 0)
    assert (table.value == 0).all() and (table.p == 1).all()
