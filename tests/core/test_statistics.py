"""Bootstrap intervals against theory and against a naive loop."""

import numpy as np
import pytest

from atlas.core.statistics import Bootstrap, interval_columns


def test_the_interval_of_a_mean_has_the_width_of_theory():
    """Half width 1.96 s / sqrt(n); percentiles of 4,000 resamples stray by about 3 percent."""
    values = np.random.default_rng(0).normal(5, 2, 400)
    mean, low, high = Bootstrap(4000, 1).mean(values)
    assert mean == pytest.approx(values.mean())
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.08)


def test_a_ratio_is_paired():
    """Where every prompt keeps half of its score the percent is 50 in every resample."""
    full = np.random.default_rng(0).uniform(1, 9, 50)
    assert Bootstrap(200, 0).percent(full / 2, full) == pytest.approx((50, 50, 50))


def test_faithfulness_equals_a_naive_bootstrap():
    rng = np.random.default_rng(3)
    found, full, empty = rng.normal(3, 1, 30), rng.normal(5, 1, 30), rng.normal(0, 1, 30)
    b = Bootstrap(300, 5)
    picks = np.random.default_rng(5).multinomial(30, np.full(30, 1 / 30), 300)
    naive = []
    for counts in picks:
        rows = np.repeat(np.arange(30), counts)
        naive.append((found[rows].mean() - empty[rows].mean()) / (full[rows].mean() - empty[rows].mean()))
    estimate, low, high = b.faithfulness(found, full, empty)
    assert estimate == pytest.approx((found.mean() - empty.mean()) / (full.mean() - empty.mean()))
    assert (low, high) == pytest.approx(tuple(np.percentile(naive, [2.5, 97.5])))


def test_interval_columns():
    assert interval_columns((1.0, 0.5, 2.0)) == {"value": 1.0, "ci_low": 0.5, "ci_high": 2.0}
