"""`edge_roles` of a task: parts of its reported edges by roles of positions, scored, and the largest ablated alone."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np
import pandas as pd

from atlas.core.graph import Edge
from atlas.core.statistics import Bootstrap, column_means
from atlas.edges import by_roles, role_patching
from atlas.edges.engine import EdgeAblator

log = logging.getLogger("atlas")

COLUMNS = ("method", "sender", "receiver", "start", "end", "value", "ci_low", "ci_high")
EXACT = ("exact", "exact_low", "exact_high")


def table(
    task: str,
    ablator: EdgeAblator,
    edges: Iterable[Edge],
    method: str,
    points: int,
    exact: int,
    bootstrap: Bootstrap,
) -> pd.DataFrame:
    """Rows of `edge_roles`, one for each part of these edges, in the order of the graph; empty without edges.

    ``ablator``: of prompts with roles. method: `eap`, or `eap_ig` with ``points``. exact: how many parts, those with
    the largest scores of either sign, are also ablated alone; the others have no value there.
    """
    scored = by_roles.scores(ablator, edges, points if method == "eap_ig" else None)
    columns = [*COLUMNS, *EXACT]
    if not scored:
        return pd.DataFrame(columns=columns)
    estimates = column_means(bootstrap, np.stack([values.numpy() for values in scored.values()], axis=1))
    largest = np.argsort(-np.abs(estimates["value"]), kind="stable")[:exact]
    names = pd.DataFrame([(*edge, start, end) for edge, start, end in scored], columns=list(COLUMNS[1:5]))
    found = names.assign(method=method, **estimates).reindex(columns=columns)
    parts = list(scored)
    effects = role_patching.effects(ablator, [parts[i] for i in sorted(largest)])
    if effects:
        ablated = column_means(bootstrap, np.stack(list(effects.values()), axis=1))
        for column, values in zip(EXACT, ablated.values(), strict=True):
            found.loc[sorted(largest), column] = values
    log.info("%s: %d parts of edges by %s, %d of them ablated alone", task, len(found), method, len(effects))
    return found
