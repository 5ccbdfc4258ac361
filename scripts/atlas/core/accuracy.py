"""How near estimates of effects come to the effects themselves, over components or edges (methods: attribution).

Intervals are over prompts: each resample of them makes every estimate and every effect anew, both from the same
prompts, and compares these. What of two estimates is the better one on other prompts is told by their intervals; what
it would be in another model is not.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from atlas.core.statistics import Bootstrap, interval_columns

NUMBERS = 2**22  # estimates whose resamples are held at a time
METRICS = ("pearson", "spearman", "error", "slope")
COLUMNS = ("group", "members", "metric", "value", "ci_low", "ci_high")
NOTHING = 1e-6  # share of the largest number: what float32 leaves of the difference of two equal logits is below it


def pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """[...] correlation along the last axis of x and y [..., E]; nan where either does not vary."""
    x, y = (a - a.mean(-1, keepdims=True) for a in (x, y))
    size = np.sqrt((x * x).sum(-1) * (y * y).sum(-1))
    found: np.ndarray = np.divide((x * y).sum(-1), size, out=np.full(size.shape, np.nan), where=size > 0)
    return found


def ranks(x: np.ndarray) -> np.ndarray:
    """[B, E] ranks within each row from 0, equal numbers sharing the mean of theirs."""
    order = np.argsort(x, axis=1, kind="stable")
    ordered, place = np.take_along_axis(x, order, 1), np.arange(x.shape[1])
    differs = ordered[:, 1:] != ordered[:, :-1]
    ends = np.ones((len(x), 1), dtype=bool)
    first = np.maximum.accumulate(np.where(np.hstack([ends, differs]), place, 0), axis=1)
    last = np.where(np.hstack([differs, ends]), place, x.shape[1])
    last = np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]
    found = np.empty(x.shape)
    np.put_along_axis(found, order, (first + last) / 2, 1)
    return found


def settled(x: np.ndarray) -> np.ndarray:
    """x [B, E] with 0 for what is within NOTHING of a row's largest number by size.

    Many components of a small model do nothing, and what rounding leaves of them has an order that differs between
    machines.
    """
    size = np.abs(x)
    found: np.ndarray = np.where(size > NOTHING * size.max(-1, keepdims=True), x, 0)
    return found


def compared(estimate: np.ndarray, effect: np.ndarray) -> dict[str, np.ndarray]:
    """Name of METRICS -> [B], of estimates and effects [B, E].

    pearson, spearman: correlations, nan where either does not vary; ranks are of `settled` numbers, so that those that
    do nothing share one. error: sum of |estimate - effect| over the sum of
    |effect|; 0 is best, and 1 is what an estimate of nothing gets. slope: of the line through 0 that leads from
    estimates to effects with least squares, below 1 where estimates are too large; nan where all are 0.
    """
    size, square = np.abs(effect).sum(-1), (estimate * estimate).sum(-1)
    off, product = np.abs(estimate - effect).sum(-1), (estimate * effect).sum(-1)
    return {
        "pearson": pearson(estimate, effect),
        "spearman": pearson(ranks(settled(estimate)), ranks(settled(effect))),
        "error": np.divide(off, size, out=np.full(size.shape, np.nan), where=size > 0),
        "slope": np.divide(product, square, out=np.full(size.shape, np.nan), where=square > 0),
    }


def rows(
    estimate: np.ndarray, effect: np.ndarray, groups: Mapping[str, np.ndarray], bootstrap: Bootstrap
) -> Iterator[dict[str, Any]]:
    """Rows of COLUMNS of estimates and effects per prompt [N, E]; ``groups``: name -> which of the E [E], boolean.

    A group of fewer than 3 has no rows. An interval is of the resamples in which the metric exists.
    """
    weights = bootstrap.weights(len(estimate))
    for name, which in groups.items():
        own, true = estimate[:, which], effect[:, which]
        if own.shape[1] < 3:
            continue
        value = compared(own.mean(0)[None], true.mean(0)[None])
        at_once = max(1, NUMBERS // own.shape[1])
        parts = [
            compared(w @ own, w @ true) for w in (weights[i : i + at_once] for i in range(0, len(weights), at_once))
        ]
        for metric in METRICS:
            found = np.concatenate([part[metric] for part in parts])
            found = found[~np.isnan(found)]
            low, high = np.percentile(found, [2.5, 97.5]) if len(found) else (np.nan, np.nan)
            estimated = float(value[metric][0]), float(low), float(high)
            yield {"group": name, "members": own.shape[1], "metric": metric} | interval_columns(estimated)
