"""Means of many columns at once, each with its bootstrap interval over prompts: maps have thousands of cells."""

from typing import Any

import numpy as np

from atlas.statistics import Bootstrap

CHUNK = 4096  # columns whose resamples are held at a time


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
