"""Index probes on planted residuals with and without a code that classes share, and against probes written out."""

import numpy as np
import pandas as pd
import pytest

from atlas.core.statistics import Bootstrap
from atlas.geometry import probes
from atlas.geometry.classes import Members
from atlas.geometry.residuals import Residuals

D, C = 48, 4
SIZES = {"words": 30, "letters": 24, "months": 12, "ordinals": 12}
BOOTSTRAP = Bootstrap(200, 0)
SETTINGS = probes.Settings(shuffles=20, ridge=0.1)


def members(name: str, size: int) -> Members:
    return Members(name, tuple(f"{name} {i}" for i in range(size)), tuple(range(size)), tuple(range(size)), size)


def planted(kind: str, seed: int = 11) -> list[Residuals]:
    """Classes with nothing at point 0 but noise and their own vector, and at point 1 a code of the index: `shared` by
    all classes, of its last digit; `own` to each class; or a `line` that all share."""
    rng = np.random.default_rng(seed)
    code, direction, found = rng.normal(size=(10, D)), rng.normal(size=D), []
    for name, size in SIZES.items():
        index = np.arange(1, size + 1)
        of_member = {
            "shared": code[index % 10],
            "own": rng.normal(size=(10, D))[index % 10],
            "line": index[:, None] / 10 * direction,
        }[kind]
        noise = 0.1 * rng.normal(size=(2, C, size, D))
        values = noise + 3 * rng.normal(size=D) + np.stack([0 * of_member, of_member])[:, None]
        found.append(Residuals(members(name, size), (0, 1), values.astype(np.float32)))
    return found


@pytest.fixture(scope="module")
def tables():
    return {kind: probes.table(planted(kind), SETTINGS, BOOTSTRAP) for kind in ("shared", "own", "line")}


def rows(table, label, point=1, trained_on=probes.OTHERS):
    own = table[(table["label"] == label) & (table["point"] == point) & (table["trained_on"] == trained_on)]
    return own.set_index("tested_on")


# ---- what is planted is found --------------------------------------------------------------------------------
@pytest.mark.parametrize("label", ["mod 10", "mod 5", "mod 2"])
def test_a_code_that_classes_share_is_found_in_each_of_them(tables, label):
    found = rows(tables["shared"], label)
    assert set(found.index) == {*SIZES, probes.ALL, probes.BEYOND}
    assert (found["value"] > 0.9).all() and (found["p_holm"] < 0.05).all()
    assert (found["ci_low"] > found["null_high"]).all() and (found["null_median"] < found["chance"] + 0.1).all()
    assert found.loc["months", "members"] == 12 and found.loc[probes.ALL, "members"] == sum(SIZES.values())
    assert found.loc[probes.BEYOND, "members"] == 20 + 14 + 2 + 2


@pytest.mark.parametrize("kind", ["shared", "own", "line"])
def test_where_there_is_noise_alone_nothing_is_found(tables, kind):
    table = tables[kind]
    assert not (table[table["point"] == 0]["p_holm"] < 0.05).any()


@pytest.mark.parametrize("label", ["mod 10", "mod 5", "mod 2", "index"])
def test_a_code_of_its_own_carries_over_to_no_class_though_each_can_be_read(tables, label):
    found = rows(tables["own"], label)
    assert not (found["p_holm"] < 0.05).any()
    if label != "index":
        assert (rows(tables["own"], label, trained_on=probes.ALL_CLASSES)["value"] > 0.85).all()


@pytest.mark.slow
def test_codes_of_their_own_are_taken_for_shared_as_seldom_as_p_says():
    """Of 30 draws a fifth at most, where a tenth has p < 0.1: single classes, all members and those beyond ten."""
    tables = [probes.table(planted("own", seed), SETTINGS, Bootstrap(10, 0)) for seed in range(30)]
    found = pd.concat(tables).query("trained_on == 'other classes' and point == 1")
    often = found.groupby(["label", "tested_on"])["p"].agg(lambda p: (p < 0.1).mean())
    assert often.max() <= 0.3 and often.mean() < 0.15


def test_a_shared_line_is_an_index_and_no_last_digit(tables):
    """Within ten, the index tells the last digit; beyond ten it does not."""
    found = rows(tables["line"], "index")
    assert (found["value"] > 0.9).all() and (found["p_holm"] < 0.05).all() and probes.BEYOND not in found.index
    assert not rows(tables["line"], "mod 10").loc[probes.BEYOND, "p_holm"] < 0.05


def test_a_class_vector_changes_nothing():
    data = planted("shared")
    moved = [Residuals(one.members, one.points, one.values + np.float32(i)) for i, one in enumerate(data)]
    for first, second in zip(probes.Probed.of(data, 0.1).other, probes.Probed.of(moved, 0.1).other, strict=True):
        np.testing.assert_allclose(np.stack(first), np.stack(second), atol=2e-4)


# ---- against probes written out ------------------------------------------------------------------------------
def written_out(data, of, point, targets, ridge):
    """What a probe says of each member of class ``of``: the ridge regression of D weights, solved as it is defined."""
    fit = [one.fit[point] - one.fit[point].mean(0) for i, one in enumerate(data) if i != of]
    size = np.sqrt(sum((x**2).mean(0) for x in fit) / len(fit))
    a, b, total = np.zeros((D, D)), np.zeros((D, targets[0].shape[1])), 0.0
    for x, y in zip(fit, (t for i, t in enumerate(targets) if i != of), strict=True):
        for one, target in zip(x / size, y, strict=True):
            a += np.outer(one, one) / len(x)
            b += np.outer(one, target) / len(x)
            total += one @ one / len(x)
    penalty = ridge * total / sum(len(x) for x in fit)
    test = data[of].held_out[point]
    return ((test - test.mean(0)) / size) @ np.linalg.solve(a + penalty * np.eye(D), b)


@pytest.mark.parametrize("name", ["mod 10", "mod 2", "index"])
def test_scores_and_shuffled_scores_equal_probes_trained_one_by_one(name):
    data = planted("shared", seed=3)
    classes = [one.members for one in data]
    label = next(x for x in probes.labels_of(classes) if x.name == name)
    shuffles = probes.shuffles_of([len(m) for m in classes], 6, seed=1)
    everyone = [np.ones(len(m), dtype=bool) for m in classes]
    probed = probes.Probed.of(data, 0.1)
    for of in (0, 2):
        found = probes.score(label, of, probed, shuffles, everyone[of])
        np.testing.assert_array_equal(found.null, found.null_beyond)
        index = np.arange(1, len(classes[of]) + 1)
        for point in (0, 1):
            says = written_out(data, of, point, label.targets, 0.1)
            draws = [[t[s[r]] for t, s in zip(label.targets, shuffles, strict=True)] for r in range(6)]
            nulls = [written_out(data, of, point, targets, 0.1) for targets in draws]
            if name == "index":
                own = label.scores(of, found.own[point]).mean()
                assert own == pytest.approx(np.corrcoef(says[:, 0], index)[0, 1], abs=1e-5)
                expected = [np.corrcoef(said[:, 0], index)[0, 1] * len(index) for said in nulls]
            else:
                modulus = says.shape[1]
                np.testing.assert_array_equal(found.own[point], says.argmax(1) == index % modulus)
                expected = [(said.argmax(1) == index % modulus).sum() for said in nulls]
            np.testing.assert_allclose(found.null[point], expected, atol=1e-4)


def test_the_upper_bound_sees_the_class_in_other_contexts():
    data = planted("own")
    label = probes.labels_of([one.members for one in data])[0]
    found = probes.score(
        label, 1, probes.Probed.of(data, 0.1), probes.shuffles_of(SIZES.values(), 2, 0), np.ones(24) > 0
    )
    held_out = data[1].held_out[1] - data[1].held_out[1].mean(0)
    fit = [one.fit[1] - one.fit[1].mean(0) for one in data]
    says = probes.reader(fit, held_out, 0.1) @ np.concatenate(label.targets)
    np.testing.assert_array_equal(found.bound[1], says.argmax(1) == label.truth[1])


def test_p_counts_the_shuffles_that_reach_the_score():
    label = probes.labels_of([members("a", 4)])[2]
    hits = np.array([1.0, 1, 0, 1])
    told = probes.row(label, probes.OTHERS, hits, hits, np.array([0, 2, 3, 4, 1.0]), BOOTSTRAP)
    assert told["p"] == 3 / 6 and told["value"] == 0.75 and told["chance"] == 0.5
    assert told["null_median"] == 0.5 and told["null_high"] == pytest.approx(np.quantile([0, 2, 3, 4, 1], 0.95) / 4)
    bound = probes.row(label, probes.ALL_CLASSES, np.ones(4), np.ones(4), None, BOOTSTRAP)
    assert np.isnan([bound["p"], bound["null_high"]]).all()


def test_the_correlation_and_its_interval_are_those_of_what_is_said_and_the_index():
    label, rng = probes.labels_of([members("a", 30)])[-1], np.random.default_rng(0)
    read = probes.standardised(label.truth[0] + rng.normal(size=30))
    told = probes.row(label, probes.OTHERS, read, label.truth[0], np.zeros(3), BOOTSTRAP)
    draws = BOOTSTRAP.weights(30)
    expected = [
        np.corrcoef(*np.repeat([read, label.truth[0]], np.round(30 * w).astype(int), axis=1))[0, 1] for w in draws
    ]
    assert told["value"] == pytest.approx(np.corrcoef(read, label.truth[0])[0, 1])
    assert [told["ci_low"], told["ci_high"]] == pytest.approx(np.percentile(expected, [2.5, 97.5]))
    flat = probes.row(label, probes.OTHERS, np.zeros(30), label.truth[0], np.zeros(3), BOOTSTRAP)
    assert flat["value"] == flat["ci_high"] == 0 and flat["p"] == 1


def test_tests_are_corrected_over_points_and_classes(tables):
    table = tables["shared"]
    of_classes = table[table["tested_on"].isin(SIZES) & (table["trained_on"] == probes.OTHERS)]
    assert set(of_classes["tests"]) == {2 * len(SIZES)} and set(table["shuffles"]) == {20 * 2 * len(SIZES)}
    others = table[table["tested_on"].isin([probes.ALL, probes.BEYOND]) & (table["trained_on"] == probes.OTHERS)]
    assert set(others["tests"]) == {2}
    assert list(table.columns) == probes.COLUMNS and table.notna()["value"].all()
    assert (table["ci_low"] <= table["value"] + 1e-9).all() and (table["value"] <= table["ci_high"] + 1e-9).all()


# ---- labels --------------------------------------------------------------------------------------------------
def test_an_index_is_what_digits_say_or_the_place_from_one():
    numerals = Members("n", ("0", "7", "20"), (1, 2, 3), (0, 7, 20), 21)
    months = Members("m", ("January", "March"), (1, 2), (0, 2), 12)
    assert probes.indices(numerals).tolist() == [0, 7, 20] and probes.indices(months).tolist() == [1, 3]


def test_shuffles_stay_within_their_class():
    for found, size in zip(probes.shuffles_of([5, 9], 7, 0), (5, 9), strict=True):
        assert found.shape == (7, size) and (np.sort(found, axis=1) == np.arange(size)).all()
        assert len({tuple(x) for x in found.tolist()}) > 1


def test_what_does_not_vary_is_read_as_nothing():
    flat = [np.zeros((6, D)), np.zeros((5, D))]
    np.testing.assert_array_equal(probes.reader(flat, np.ones((3, D)), 0.1), np.zeros((3, 11)))
    np.testing.assert_array_equal(probes.standardised(np.ones((2, 4))), np.zeros((2, 4)))


def test_one_class_alone_leaves_nothing_to_carry_over_to():
    found = probes.table(planted("shared")[:1], SETTINGS, BOOTSTRAP)
    assert found.empty and list(found.columns) == probes.COLUMNS


def test_the_same_table_twice(tables):
    assert probes.table(planted("shared"), SETTINGS, BOOTSTRAP).equals(tables["shared"])
