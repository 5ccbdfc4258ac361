"""Bootstrap intervals over prompts."""

from dataclasses import dataclass
from functools import lru_cache

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

    def mean(self, values) -> tuple[float, float, float]:
        """(mean, low, high) of per-prompt values [n]."""
        return self.statistic(lambda m: m, values)

    def percent(self, values, full) -> tuple[float, float, float]:
        """Percent of full: 100 x mean(values) / mean(full), both per prompt [n]."""
        return self.statistic(lambda m, f: 100 * m / f, values, full)

    def faithfulness(self, values, full, empty) -> tuple[float, float, float]:
        """(M(C) - M(empty)) / (M(full) - M(empty)) of per-prompt values [n] (methods: metrics)."""
        return self.statistic(lambda m, f, e: (m - e) / (f - e), values, full, empty)

    def statistic(self, function, *samples) -> tuple[float, float, float]:
        """(estimate, low, high) of ``function`` of the means of paired samples [n]."""
        samples = [np.asarray(s, dtype=float) for s in samples]
        weights = self.weights(len(samples[0]))
        low, high = np.percentile(function(*(weights @ s for s in samples)), [2.5, 97.5])
        return float(function(*(s.mean() for s in samples))), float(low), float(high)


def interval_columns(estimate: tuple[float, float, float]) -> dict:
    """The table columns of an estimate with its interval."""
    return dict(zip(("value", "ci_low", "ci_high"), estimate, strict=True))
