"""Random controls: sets of heads with a circuit's number of heads in every layer (methods: metrics)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product
from math import comb, prod
from typing import TYPE_CHECKING, Any

import numpy as np

from atlas.core.components import Circuit, Component, heads, profile

if TYPE_CHECKING:
    import pandas as pd


def matched_sets(
    circuit: Circuit, n_layers: int, n_heads: int, count: int, seed: int, outside: bool
) -> tuple[list[Circuit], str]:
    """Up to ``count`` different random head sets, and a note where there are fewer.

    ``outside``: draw from the heads outside the circuit (necessity); else from all heads, the circuit's included
    (sufficiency), but never the circuit itself. Where no more than ``count`` sets exist they are all listed.
    """
    own = frozenset(heads(circuit))
    if not own:
        return [], "no control: the circuit has no heads"
    need = profile(own, n_layers)
    pools = [
        [Component(layer, h) for h in range(n_heads) if not (outside and Component(layer, h) in own)]
        for layer in range(n_layers)
    ]
    possible = prod(comb(len(pool), k) for pool, k in zip(pools, need, strict=True)) - (not outside)
    if not possible:
        full = next(layer for layer, (pool, k) in enumerate(zip(pools, need, strict=True)) if len(pool) <= k)
        return [], f"no control: layer {full} has too few other heads"
    if possible <= count:
        choices = [list(combinations(pool, k)) for pool, k in zip(pools, need, strict=True)]
        sets = [frozenset(c for layer in pick for c in layer) for pick in product(*choices)]
        return [s for s in sets if s != own], f"all {possible} possible sets"
    rng = np.random.default_rng(seed)
    drawn: dict[frozenset[Component], None] = {}
    while len(drawn) < count:
        pick = [pool[i] for pool, k in zip(pools, need, strict=True) for i in rng.permutation(len(pool))[:k]]
        if frozenset(pick) != own:
            drawn[frozenset(pick)] = None
    return list(drawn), ""


def p_value(value: float, controls: Sequence[float] | np.ndarray, low_is_extreme: bool) -> float:
    """(1 + r) / (1 + n), r of the ``controls`` [n] at least as extreme as ``value``; 1 where there are none."""
    controls = np.asarray(controls)
    r = int((controls <= value).sum() if low_is_extreme else (controls >= value).sum())
    return (1 + r) / (1 + len(controls))


KEYS = ("model", "question", "circuit", "task")
SUMMARY_COLUMNS = (
    *KEYS,
    "value",
    "ci_low",
    "ci_high",
    "controls",
    "control_median",
    "control_low",
    "control_high",
    "place",
    "p",
)


def summarise(controls: pd.DataFrame) -> list[dict[str, Any]]:
    """One row per question, circuit and task: the circuit's value among its controls (a table as in docs/artifacts.md).

    Ablating a necessary set leaves less than ablating its controls does; a sufficient set keeps more than they keep.
    """
    summary = []
    for key, rows in controls.groupby(list(KEYS), sort=False):
        own, random = rows[rows.set == "circuit"].iloc[0], rows[rows.set == "control"].value
        row = dict(zip(KEYS, key, strict=True)) | own[["value", "ci_low", "ci_high"]].to_dict()
        row["controls"] = len(random)
        if len(random):
            row["place"] = float(((random < own.value) + 0.5 * (random == own.value)).mean())
            row["p"] = p_value(own.value, random, low_is_extreme=row["question"] == "necessity")
            quantiles = random.quantile([0.5, 0.025, 0.975])
            row |= dict(zip(("control_median", "control_low", "control_high"), quantiles, strict=True))
        summary.append(row)
    return summary
