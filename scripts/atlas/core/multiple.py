"""Tests that are read together: Holm's correction, and p-values of intervals (methods: tests).

Every p-value of a study belongs to a family, the tests behind one claim. These are the families, and where their rows
say so (`claim`, `tests`, `p_holm`):

- `overlap.parquet`, `agreement.parquet`, `models.parquet`: the pairs of one level, and in `agreement` of one task;
- `shared.parquet`: of heads and MLPs apart the cores, all tasks and pairs; and the searches of one group of tasks;
- `controls_summary.parquet`: the tasks of one question (`circuit/verdicts.py`);
- `generation/summary.parquet`: the prompt sets and sets of heads of one choice of prompts, single heads apart;
- `composition_edges.parquet`: all tasks and kinds;
- `geometry/probes.parquet`: the points and classes of one label, all members and those beyond ten apart;
- `minimality.parquet`: the members of one circuit; `backup.parquet`: all pairs of heads of a task.

Sentences that pick what "surely" differs out of many intervals correct over all that they pick from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

ALPHA = 0.05  # corrected p-values below it count
TOGETHER = ("claim", "tests", "p_holm")  # the columns of `corrected`
SMALLEST = 1e-6  # p-value of an interval
REACH = 1.959963984540054  # standard deviations from the middle of a normal curve to the end of its 95 % interval


def holm(p: Sequence[float] | np.ndarray | pd.Series) -> np.ndarray:
    """[n] Holm's p-values of a family of tests; nan, where no test was made, stays nan and counts for nothing.

    The i-th smallest of m is multiplied by m - i + 1 (i from 1); no result is smaller than that of a smaller p, or
    larger than 1. Where all below alpha count, the chance that any of them is false is at most alpha, however the tests
    hang together.
    """
    given = np.asarray(p, dtype=float)
    found, known = np.full(given.shape, np.nan), np.flatnonzero(~np.isnan(given))
    order = known[np.argsort(given[known], kind="stable")]
    found[order] = np.minimum(1, np.maximum.accumulate(given[order] * np.arange(len(order), 0, -1)))
    return found


def corrected(table: pd.DataFrame, claim: pd.Series | str, p: str = "p") -> pd.DataFrame:
    """The table with ``claim`` (for each row, or one for all), its number of ``tests``, and their ``p_holm``."""
    named = table.assign(claim=claim)
    family = named[p].astype(float).groupby(named["claim"])
    return named.assign(tests=family.transform("count").astype(int), p_holm=family.transform(holm))


def interval_p(
    value: Sequence[float] | np.ndarray | pd.Series,
    low: Sequence[float] | np.ndarray | pd.Series,
    high: Sequence[float] | np.ndarray | pd.Series,
    null: float = 0.0,
) -> np.ndarray:
    """[n] two-sided p-values of ``null`` from values with 95 % intervals.

    By a normal curve around the value, as wide as the interval is on the side of ``null``: so p < 0.05 just where the
    interval leaves ``null`` out. None is smaller than SMALLEST, since neither resamples nor a normal curve tell how
    seldom such things happen far out; so an interval without width gives SMALLEST, or 1 at ``null`` itself.
    """
    at, lower, upper = (np.asarray(x, dtype=float) for x in (value, low, high))
    side = np.maximum(np.where(at > null, at - lower, upper - at), 0)
    distance = np.abs(at - null)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(distance == 0, 0.0, REACH * distance / side)
    p = np.array([max(math.erfc(x / math.sqrt(2)), SMALLEST) for x in z.ravel()])
    return p.reshape(z.shape)
