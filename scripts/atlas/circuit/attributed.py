"""Components scored by gradients, beside what ablating each alone does (methods: attribution)."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from atlas.circuit import attribution
from atlas.circuit.ablation import Ablator
from atlas.circuit.effects import component_effects
from atlas.core import accuracy
from atlas.core.components import columns
from atlas.core.statistics import Bootstrap, column_means

log = logging.getLogger("atlas")

SCORE_COLUMNS = ("component", "layer", "head", "kind", "method", "value", "ci_low", "ci_high")
ACCURACY_COLUMNS = ("kind", "method", *accuracy.COLUMNS)


def every_kind(
    ablators: Iterable[tuple[str, Ablator]],
    metrics: Sequence[str],
    methods: Sequence[str],
    points: int,
    bootstrap: Bootstrap,
) -> dict[str, pd.DataFrame]:
    """`scores` and `effects` as of `component_effects`, and with them `attribution` and `accuracy` (see `of_kind`).

    Ablators are made one after the other, each when the one before it is done with.
    """
    tables: dict[str, list[pd.DataFrame]] = {"scores": [], "effects": [], "attribution": [], "accuracy": []}
    for kind, ablator in ablators:
        effects = component_effects([(kind, ablator)], metrics, bootstrap)
        attributed = of_kind(kind, ablator, methods, points, bootstrap)
        for parts, part in zip(tables.values(), (*effects, *attributed), strict=True):
            parts.append(part)
    return {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}


def of_kind(
    kind: str, ablator: Ablator, methods: Sequence[str], points: int, bootstrap: Bootstrap
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of `node_attribution` and of `node_accuracy` by each method; none, with a word in the log, where the
    architecture has no live engine.

    ablator: that has scored every component alone already, and remembers it.
    """
    if methods and ablator.engine is None:
        log.warning("no attribution of components: the architecture has no live engine")
        methods = ()
    everything, full = sorted(ablator.everything), ablator.logit_diff(ablator.everything)
    effect = np.stack([ablator.logit_diff(ablator.everything - {c}) - full for c in everything], axis=1)
    is_mlp = np.array([c.is_mlp for c in everything])
    scores, near = [], []
    for method in methods:
        scored = attribution.function_of(method)(ablator, attribution.Settings(kind, points))
        estimate = np.stack([scored[c] for c in everything], axis=1)
        names = pd.DataFrame([columns(c) for c in everything])
        scores.append(names.assign(kind=kind, method=method, **column_means(bootstrap, estimate)))
        groups = {"heads": ~is_mlp, "MLPs": is_mlp}
        near += [{"kind": kind, "method": method} | row for row in accuracy.rows(estimate, effect, groups, bootstrap)]
    return table(scores, SCORE_COLUMNS), pd.DataFrame(near, columns=list(ACCURACY_COLUMNS))


def table(parts: list[pd.DataFrame], names: Sequence[str]) -> pd.DataFrame:
    """All parts, which have these columns; with these columns alone where there are none."""
    found: Any = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    return pd.DataFrame(found.reindex(columns=list(names)))
