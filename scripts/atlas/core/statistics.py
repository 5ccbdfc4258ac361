"""Bootstrap intervals over prompts: of one statistic, and of thousands of columns at once, as maps have them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

CHUNK = 4096  # columns whose resamples are held at a time


@dataclass(frozen=True)
class Bootstrap:
    """Resamples the prompts; ``resamples`` and ``seed`` come from the config key ``statistics``.

    Intervals are the 2.5 and 97.5 percentiles of the statistic over resamples (Efron's percentile interval).
    Equal numbers of prompts get equal resamples, so differences and ratios are paired.
    """

    resamples: int = 1000
    seed: int = 0

    @lru_cache(maxsize=4)  # noqa: B019 (one small object per job; many statistics share a number of prompts)
    def weights(self, n: int) -> np.ndarray:
        """[resamples, n]: share of each prompt in each resample."""
        return np.random.default_rng(self.seed).multinomial(n, np.full(n, 1 / n), self.resamples) / n

    def mean(self, values: np.ndarray) -> tuple[float, float, float]:
        """(mean, low, high) of per-prompt values [n]."""
        return self.statistic(lambda m: m, values)

    def percent(self, values: np.ndarray, full: np.ndarray) -> tuple[float, float, float]:
        """Percent of full: 100 x mean(values) / mean(full), both per prompt [n]."""
        return self.statistic(lambda m, f: 100 * m / f, values, full)

    def faithfulness(self, values: np.ndarray, full: np.ndarray, empty: np.ndarray) -> tuple[float, float, float]:
        """(M(C) - M(empty)) / (M(full) - M(empty)) of per-prompt values [n] (methods: metrics)."""
        return self.statistic(lambda m, f, e: (m - e) / (f - e), values, full, empty)

    def statistic(self, function: Callable[..., Any], *samples: np.ndarray) -> tuple[float, float, float]:
        """(estimate, low, high) of ``function`` of the means of paired samples [n]."""
        values = [np.asarray(s, dtype=float) for s in samples]
        weights = self.weights(len(values[0]))
        low, high = np.percentile(function(*(weights @ s for s in values)), [2.5, 97.5])
        return float(function(*(s.mean() for s in values))), float(low), float(high)


def interval_columns(estimate: tuple[float, float, float]) -> dict[str, Any]:
    """The table columns of an estimate with its interval."""
    return dict(zip(("value", "ci_low", "ci_high"), estimate, strict=True))


def column_means(bootstrap: Bootstrap, values: Any, counts: Any = None) -> dict[str, np.ndarray]:
    """Table columns ``value``, ``ci_low``, ``ci_high``, each [R], of per-prompt values [N, R].

    With ``counts`` (same shape) a column is sum(values) / sum(counts), as for shares of instances of which a prompt may
    have several or none. A column without any instance is nan.
    """
    values = np.asarray(values, dtype=float)
    if counts is None:
        value, percentile = values.mean(0), np.percentile
    else:
        counts = np.asarray(counts, dtype=float)
        some = counts.sum(0) > 0
        value = np.divide(values.sum(0), counts.sum(0), out=np.full(len(some), np.nan), where=some)
        percentile = np.nanpercentile  # a resample may leave out every prompt that has an instance
    weights, intervals = bootstrap.weights(len(values)), np.full((2, values.shape[1]), np.nan)
    for start in range(0, values.shape[1], CHUNK):
        columns = np.arange(start, min(start + CHUNK, values.shape[1]))
        columns = columns[~np.isnan(value[columns])]
        resampled = weights @ values[:, columns]
        if counts is not None:
            with np.errstate(invalid="ignore"):
                resampled /= weights @ counts[:, columns]
        if len(columns):
            intervals[:, columns] = percentile(resampled, [2.5, 97.5], axis=0)
    return {"value": value, "ci_low": intervals[0], "ci_high": intervals[1]}
