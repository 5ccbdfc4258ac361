"""Intervals of many columns: the same as one at a time."""

import numpy as np
import pytest

from atlas.core.statistics import Bootstrap, column_means

BOOTSTRAP = Bootstrap(200, 3)


def test_columns_equal_the_bootstrap_of_one_column(monkeypatch):
    monkeypatch.setattr("atlas.core.statistics.CHUNK", 3)
    values = np.random.default_rng(0).normal(size=(17, 7))
    found = column_means(BOOTSTRAP, values)
    for i in range(7):
        assert [found[c][i] for c in ("value", "ci_low", "ci_high")] == pytest.approx(BOOTSTRAP.mean(values[:, i]))


def test_shares_of_instances():
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 4, size=(20, 2))
    hits = rng.integers(0, counts + 1)
    found = column_means(BOOTSTRAP, hits, counts)
    for i in range(2):
        expected = BOOTSTRAP.statistic(lambda h, c: h / c, hits[:, i], counts[:, i])
        assert [found[c][i] for c in ("value", "ci_low", "ci_high")] == pytest.approx(expected)


def test_a_column_without_instances_is_nan():
    found = column_means(BOOTSTRAP, np.zeros((5, 2)), np.stack([np.ones(5), np.zeros(5)], 1))
    assert found["value"][0] == 0 and all(np.isnan(x[1]) for x in found.values())
