"""Statistics of doubt against closed forms and naive sums; how often they reject what is true."""

from itertools import permutations
from math import comb

import numpy as np
import pytest

from atlas.core import hypotheses


# ---- signs ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("better", "worse"), [(0, 0), (0, 6), (5, 0), (3, 3), (2, 9), (40, 25), (72, 72)])
def test_signs_equal_the_sum_of_binomials(better, worse):
    n, fewer = better + worse, min(better, worse)
    tail = sum(comb(n, k) for k in range(fewer + 1)) / 2**n
    assert hypotheses.sign_p(better, worse) == pytest.approx(min(1, 2 * tail), rel=1e-12)


def test_many_signs_follow_the_normal_curve():
    """Of 10,000 signs the binomial is normal to three digits, with half a sign of continuity."""
    from math import erfc, sqrt

    better, n = 5098, 10_000
    z = (better - 0.5 - n / 2) / sqrt(n / 4)
    assert hypotheses.sign_p(better, n - better) == pytest.approx(erfc(z / sqrt(2)), rel=2e-3)
    assert hypotheses.smallest_sign_p(6) == hypotheses.sign_p(6, 0) == 2**-5


def test_signs_of_a_fair_coin_are_rejected_at_most_as_often_as_said():
    """Exactly: all outcomes of 30 fair signs, each with its probability."""
    ps = np.array([hypotheses.sign_p(k, 30 - k) for k in range(31)])
    chance = np.array([comb(30, k) for k in range(31)]) / 2**30
    for alpha in (0.01, 0.05, 0.2):
        assert chance[ps <= alpha].sum() <= alpha


# ---- independence --------------------------------------------------------------------------------------------
def test_hsic_equals_naive_sums():
    """tr(K H L H) / N^2 as the three sums of its expectation, kernel values one by one."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 2)), rng.normal(size=(7, 1))
    k, other = hypotheses.kernel(x), hypotheses.kernel(y)
    n = len(x)
    apart = [np.sum((x[i] - x[j]) ** 2) for i in range(n) for j in range(n) if i != j]
    for i in range(n):
        for j in range(n):
            assert k[i, j] == pytest.approx(np.exp(-np.sum((x[i] - x[j]) ** 2) / (2 * np.median(apart))))
    both = sum(k[i, j] * other[i, j] for i in range(n) for j in range(n)) / n**2
    apart_sums = k.sum() * other.sum() / n**4
    mixed = sum(k[i, j] * other[i, m] for i in range(n) for j in range(n) for m in range(n)) / n**3
    assert hypotheses.hsic(k, other) == pytest.approx(both + apart_sums - 2 * mixed, rel=1e-10)


def test_independence_equals_the_slow_way_over_all_pairings():
    """Of five rows there are 120 pairings; many random ones come to the share of these with as large a sum."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(5, 1))
    y = x + rng.normal(size=(5, 1))
    k, other = hypotheses.kernel(x), hypotheses.kernel(y)
    own = hypotheses.hsic(k, other)
    every = [hypotheses.hsic(k, other[np.ix_(order, order)]) for order in map(list, permutations(range(5)))]
    share = np.mean(np.array(every) >= own * (1 - 1e-9))
    _, p = hypotheses.independence(x, y, 20_000, 0)
    assert p == pytest.approx(share, abs=4 * np.sqrt(share / 20_000) + 1e-4)


def test_dependence_without_correlation_is_found_and_constants_are_independent():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 1))
    statistic, p = hypotheses.independence(x, x**2 - 1, 199, 0)
    assert p == 1 / 200 and 0 < statistic < 1
    assert hypotheses.independence(x, x, 99, 0) == (pytest.approx(1), 0.01)
    assert hypotheses.independence(x, np.ones((80, 1)), 99, 0) == (0, 1)
    noise = 1e-6 * x
    assert hypotheses.independence(noise, x, 99, 0)[1] == 0.01, "rounding would count as a signal"
    assert hypotheses.independence(noise, x, 99, 0, least=(1e-4, 0)) == (0, 1)


def test_independent_rows_are_rejected_as_often_as_said():
    """300 draws of independent rows, 39 pairings each: p <= 0.05 in 5 % of them, within three standard deviations."""
    rng = np.random.default_rng(1)
    ps = [hypotheses.independence(rng.normal(size=(24, 2)), rng.normal(size=(24, 1)), 39, i)[1] for i in range(300)]
    share = np.mean(np.array(ps) <= 0.05)
    assert abs(share - 0.05) <= 3 * np.sqrt(0.05 * 0.95 / 300)


def test_many_prompts_are_thinned():
    x = np.random.default_rng(0).normal(size=(2 * hypotheses.MOST_PROMPTS + 1, 1))
    assert hypotheses.independence(x, x, 1, 0) == (pytest.approx(1), 0.5)


# ---- differences of intervals ----------------------------------------------------------------------------------
def test_margins_of_a_difference_add_in_quadrature():
    """Two normal means with known errors: the interval of the difference is 1.96 sqrt(s1^2 + s2^2) wide either way."""
    a, b = (10.0, 10 - 1.96 * 3, 10 + 1.96 * 3), (4.0, 4 - 1.96 * 4, 4 + 1.96 * 4)
    assert hypotheses.difference(a, b) == pytest.approx((6, 6 - 1.96 * 5, 6 + 1.96 * 5))
    assert hypotheses.average([a, b]) == pytest.approx((7, 7 - 1.96 * 2.5, 7 + 1.96 * 2.5))
    skew = hypotheses.difference((1.0, 0.0, 3.0), (0.0, 0.0, 0.0))
    assert skew == (1.0, 0.0, 3.0)
