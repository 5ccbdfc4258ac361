"""Assess the circuits of a task, of components and of edges: all that `circuit.evaluation` and `curves` have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from atlas.circuit import evaluation
from atlas.core.components import EMPTY
from atlas.edges import curves
from atlas.edges.task_data import edge_ablator

if TYPE_CHECKING:
    from atlas.circuit.ablation import Ablator
    from atlas.circuit.search import SearchSettings
    from atlas.circuit.task_data import TaskData
    from atlas.core.components import Component
    from atlas.core.statistics import Bootstrap


@dataclass(frozen=True)
class AssessSettings:
    """completeness, positions: as in `evaluation` of a configuration; sizes, rankings, random_draws: as in `edges`."""

    completeness: int
    positions: dict[str, float]
    sizes: Sequence[float]
    rankings: Sequence[str]
    random_draws: int
    seed: int


def circuits_of_task(
    data: TaskData, circuits: evaluation.Named, settings: AssessSettings, bootstrap: Bootstrap
) -> dict[str, pd.DataFrame]:
    """`evaluation`, `completeness` and `minimality` of circuits, on the prompts that are reported on.

    Raises StudyError where there is no effect to explain.
    """
    split = data.report_split
    ablators: dict[str, Ablator] = {"node": data.ablator(split, evaluation.METRICS)}
    if any(level == "edge" for _, level in circuits.values()):
        ablators["edge"] = edge_ablator(data, split, evaluation.METRICS)
    nodes = ablators["node"]
    full, empty = (nodes.logit_diff(c) for c in (nodes.everything, EMPTY))
    evaluation.refuse_no_effect(data.task, full, empty, data.allow_negative_clean)
    patching = evaluation.Patching(data.model, nodes.prompts, data.cache, data.allow_negative_clean)
    samples, seed = settings.completeness, settings.seed
    found = evaluation.assess(ablators, circuits, split, patching, samples, seed, bootstrap)
    return {name: pd.DataFrame(rows) for name, rows in found.items()}


def positions_of_task(
    data: TaskData,
    start: Iterable[Component],
    roles: Sequence[dict[str, list[int]]],
    settings: AssessSettings,
    search: SearchSettings,
    bootstrap: Bootstrap,
) -> pd.DataFrame:
    """`positions`: of the components of a node circuit, at the positions of each role; ``roles`` of each layout."""
    on_search, reported = (data.ablator(split, roles=roles) for split in ("search", data.report_split))
    threshold, half = settings.positions["threshold"], None
    if search.check_in_float32 and data.float32_model:
        half, on_search = on_search, data.ablator("search", roles=roles, model=data.float32_model)
    return pd.DataFrame(evaluation.position_rows(on_search, reported, start, threshold, search, bootstrap, half))


def curves_of_task(
    data: TaskData, content: dict[str, Any], scores: pd.DataFrame, settings: AssessSettings, bootstrap: Bootstrap
) -> dict[str, pd.DataFrame]:
    """`edge_curves` and `edge_areas`; ``content``, ``scores``: of `edge_circuits.json` and `edge_scores`."""
    split, random = data.report_split, (settings.random_draws, settings.seed)
    ablator = edge_ablator(data, split)
    points, areas = curves.draw(
        ablator, content, scores, settings.rankings, random, bootstrap, {"split": split}, settings.sizes
    )
    return {"edge_curves": points, "edge_areas": areas}
