"""Estimates beside effects: ranks and correlations against pandas, intervals against a naive bootstrap."""

import numpy as np
import pandas as pd
import pytest

from atlas.core import accuracy
from atlas.core.statistics import Bootstrap


def test_ranks_and_correlations_are_those_of_pandas():
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, y = rng.integers(0, 6, (2, 3, 9)).astype(float)
        expected = np.stack([pd.Series(row).rank().to_numpy() - 1 for row in x])
        assert np.array_equal(accuracy.ranks(x), expected)
        found = accuracy.compared(x, y)
        for i in range(3):
            a, b = pd.Series(x[i]), pd.Series(y[i])
            if a.nunique() > 1 and b.nunique() > 1:
                assert found["pearson"][i] == pytest.approx(a.corr(b), abs=1e-12)
                assert found["spearman"][i] == pytest.approx(a.rank().corr(b.rank()), abs=1e-12)
            assert found["error"][i] == pytest.approx((a - b).abs().sum() / b.abs().sum())
            assert found["slope"][i] == pytest.approx(np.linalg.lstsq(x[i][:, None], y[i], rcond=None)[0][0])


def test_an_estimate_of_nothing_correlates_with_nothing():
    found = accuracy.compared(np.zeros((1, 4)), np.array([[1.0, -2, 3, 0]]))
    assert np.isnan(found["pearson"]) and np.isnan(found["spearman"]) and np.isnan(found["slope"])
    assert found["error"] == 1


def test_what_does_nothing_has_one_rank_whatever_rounding_leaves_of_it():
    """Of a model in which 20 of 30 components do nothing, on two machines; of 24 that do little none is nothing."""
    rng = np.random.default_rng(2)
    effect, estimate = np.zeros((2, 1, 30))
    effect[0, :10], estimate[0, :10] = rng.normal(size=(2, 10))

    def on_a_machine():
        return accuracy.compared(estimate + 1e-15 * rng.normal(size=(1, 30)), effect + 1e-7 * rng.normal(size=(1, 30)))

    expected = pd.Series(estimate[0]).rank().corr(pd.Series(effect[0]).rank())
    for _ in range(5):
        assert on_a_machine()["spearman"] == pytest.approx(expected, abs=1e-12)
    little = np.append(1e-5 * (1 + rng.permutation(25)), 1)
    other = np.append(little[:-1][::-1], 1)
    found = accuracy.compared(little[None], other[None])["spearman"]
    assert found == pytest.approx(pd.Series(little).rank().corr(pd.Series(other).rank()), abs=1e-12)


def test_intervals_are_over_prompts_and_groups_are_apart(monkeypatch):
    rng, bootstrap = np.random.default_rng(1), Bootstrap(40, 2)
    effect = rng.normal(size=(6, 10))
    estimate = effect + 0.5 * rng.normal(size=effect.shape)
    which = np.arange(10) < 4
    groups = {"few": which, "others": ~which, "two": np.arange(10) < 2}
    rows = pd.DataFrame(accuracy.rows(estimate, effect, groups, bootstrap))
    assert list(rows.columns) == list(accuracy.COLUMNS)
    assert set(rows.group) == {"few", "others"}, "of two members nothing can be said"
    few = rows[rows.group == "few"].set_index("metric")
    assert (few.members == 4).all()
    naive = [np.corrcoef(w @ estimate[:, which], w @ effect[:, which])[0, 1] for w in bootstrap.weights(6)]
    expected = np.percentile(naive, [2.5, 97.5])
    assert few.loc["pearson", ["ci_low", "ci_high"]].tolist() == pytest.approx(expected.tolist(), abs=1e-12)
    monkeypatch.setattr(accuracy, "NUMBERS", 1)
    pd.testing.assert_frame_equal(rows, pd.DataFrame(accuracy.rows(estimate, effect, groups, bootstrap)))
