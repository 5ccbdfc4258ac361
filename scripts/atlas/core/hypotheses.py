"""Statistics of the tests that doubt a circuit: signs, and independence by kernels (methods: doubts).

Nothing here knows a model. Prompts are taken as independent draws, as intervals over prompts take them.
"""

from __future__ import annotations

import numpy as np

MOST_PROMPTS = 500  # of a test by kernels, which takes their square; more are thinned evenly


def sign_p(better: int, worse: int) -> float:
    """Two-sided p that either is as likely, of so many signs: twice the smaller tail of a fair coin, 1 at most.

    Exact, in integers; ties are in neither number. Without any sign it is 1.
    """
    n, fewer = better + worse, min(better, worse)
    ways = total = 1
    for k in range(fewer):
        ways = ways * (n - k) // (k + 1)
        total += ways
    return min(1.0, 2 * total / 2**n) if n < 1000 else min(1.0, float(2 * total * 10**30 // 2**n) / 1e30)


def smallest_sign_p(n: int) -> float:
    """The smallest p that n signs can have: all of them alike."""
    return min(1.0, 2.0 ** (1 - n))


def kernel(x: np.ndarray, least: float = 0.0) -> np.ndarray:
    """[N, N] Gaussian kernel of rows x [N, D], as wide as the median distance between different rows.

    Rows no further apart than ``least`` count as the same, so that rounding is no signal; where all do, it is 1
    everywhere, which is independent of anything.
    """
    squares = np.square(x[:, None] - x[None]).sum(-1)
    squares[squares <= least**2] = 0
    apart = squares[squares > 0]
    if not len(apart):
        return np.ones_like(squares)
    found: np.ndarray = np.exp(-squares / (2 * np.median(apart)))
    return found


def centred(k: np.ndarray) -> np.ndarray:
    """A kernel [N, N] less the means of its rows and columns."""
    found: np.ndarray = k - k.mean(0) - k.mean(1)[:, None] + k.mean()
    return found


def hsic(k: np.ndarray, other: np.ndarray) -> float:
    """Hilbert-Schmidt independence criterion of two kernels [N, N]: tr(K H L H) / N^2, 0 where either is constant."""
    return float((centred(k) * other).sum() / len(k) ** 2)


def independence(
    x: np.ndarray, y: np.ndarray, permutations: int, seed: int, least: tuple[float, float] = (0.0, 0.0)
) -> tuple[float, float]:
    """(statistic, p) of rows x [N, D] and y [N, E] being independent.

    The statistic is HSIC over the root of both kernels' own, 0 to 1. p = (1 + r) / (1 + permutations), r of random
    pairings of the rows with a statistic as large. ``least``: distances of either that are rounding (`kernel`).
    """
    keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), MOST_PROMPTS)).round().astype(int))
    k, other = (centred(kernel(v[keep], small)) for v, small in zip((x, y), least, strict=True))
    scale = np.sqrt((k * k).sum() * (other * other).sum())
    if scale <= 1e-12 * len(keep):  # one of the two never changes
        return 0.0, 1.0
    own, rng = float((k * other).sum()), np.random.default_rng(seed)
    beyond = 0
    for _ in range(permutations):
        order = rng.permutation(len(keep))
        beyond += float((k * other[np.ix_(order, order)]).sum()) >= own * (1 - 1e-12)
    return own / float(scale), (1 + beyond) / (1 + permutations)


def difference(a: tuple[float, float, float], b: tuple[float, float, float]) -> tuple[float, float, float]:
    """(a - b, low, high) of two independent estimates (value, low, high).

    Margins add in quadrature, each on its own side (Zou and Donner 2008), so that skew intervals stay skew.
    """
    value = a[0] - b[0]
    low = value - float(np.hypot(a[0] - a[1], b[2] - b[0]))
    return value, low, value + float(np.hypot(a[2] - a[0], b[0] - b[1]))


def average(estimates: list[tuple[float, float, float]]) -> tuple[float, float, float]:
    """Mean of independent estimates (value, low, high), with margins in quadrature."""
    values, low, high = np.array(estimates).T
    n, value = len(values), float(values.mean())
    below, above = (float(np.sqrt(np.square(end - values).sum())) / n for end in (low, high))
    return value, value - below, value + above
