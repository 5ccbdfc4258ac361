"""Holm's correction against its definition, and p-values of intervals against a normal curve."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.core.multiple import SMALLEST, corrected, holm, interval_p
from atlas.core.statistics import Bootstrap


def accepted(p: list[float], alpha: float) -> set[int]:
    """Holm 1979, as stated: go through the p-values from the smallest and stop at the first that is too large."""
    found: set[int] = set()
    for step, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[i] * (len(p) - step) >= alpha:
            break
        found.add(i)
    return found


@given(st.lists(st.floats(0, 1), max_size=8), st.floats(0.001, 1))
def test_what_lies_below_alpha_is_what_the_procedure_accepts(p, alpha):
    assert set(np.flatnonzero(holm(p) < alpha)) == accepted(p, alpha)


@given(st.lists(st.floats(0, 1), max_size=8), st.integers(0, 8))
def test_tests_that_were_not_made_count_for_nothing(p, at):
    with_hole = [*p[:at], math.nan, *p[at:]]
    hole = min(at, len(p))
    assert math.isnan(holm(with_hole)[hole])
    np.testing.assert_array_equal(np.delete(holm(with_hole), hole), holm(p))


def test_known_values():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert holm([]).shape == (0,)


def test_false_findings_stay_below_alpha_however_tests_hang_together():
    """Of 2,000 families of 10 true nulls, about 5 % or fewer have any p below 0.05: 0.05 + 3 standard errors."""
    rng = np.random.default_rng(0)
    for shared in (0.0, 0.9):
        z = math.sqrt(1 - shared) * rng.normal(size=(2000, 10)) + math.sqrt(shared) * rng.normal(size=(2000, 1))
        p = np.vectorize(math.erfc)(np.abs(z) / math.sqrt(2))
        assert np.mean([(holm(row) < 0.05).any() for row in p]) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


def test_families_are_corrected_apart():
    table = pd.DataFrame({"p": [0.01, 0.02, 0.03, math.nan], "of": ["a", "b", "a", "b"]})
    found = corrected(table, table["of"])
    assert found["p_holm"].tolist()[:3] == [0.02, 0.02, 0.03] and found["tests"].tolist() == [2, 1, 2, 1]
    assert corrected(table, "one")["tests"].tolist() == [3] * 4
    assert list(corrected(table.head(0), "one")) == ["p", "of", "claim", "tests", "p_holm"]


@given(st.floats(-5, 5), st.floats(0.01, 3), st.floats(0.01, 3), st.floats(-5, 5))
def test_p_of_an_interval_is_below_5_percent_where_it_leaves_the_value_out(value, down, up, null):
    outside = null < value - down or null > value + up
    p = interval_p([value], [value - down], [value + up], null)[0]
    assert (p < 0.05) == outside or p == pytest.approx(0.05, rel=1e-6)


def test_p_of_an_interval_equals_that_of_a_normal_mean():
    """The interval of a mean of 400 normal values; 4,000 resamples know its width to 3 percent or so, here z = 2.7."""
    values = np.random.default_rng(0).normal(0.13, 1, 400)
    mean, low, high = Bootstrap(4000, 1).mean(values)
    z = mean / (values.std() / 20)
    assert interval_p([mean], [low], [high])[0] == pytest.approx(math.erfc(z / math.sqrt(2)), rel=0.5)
    assert list(interval_p([1, 0, 9], [1, 0, 8], [1, 0, 10])) == [SMALLEST, 1, SMALLEST]
