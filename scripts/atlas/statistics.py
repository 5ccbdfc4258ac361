"""Bootstrap intervals over prompts."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np


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
