"""Does a circuit survive other data? The search again on resampled prompts and on prompts made anew.

Families of runs: `orders` (other orders of the search, same data), `bootstrap` (the search split's prompts resampled),
`seeds`, `templates`, `corruption` (prompts made anew with that one part changed). Searches on other data take the order
that found the reported circuit, and the circuit that it found, nothing dropped, is the first run of every family: the
others are compared with it and with each other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from atlas.circuit import orders, search
from atlas.circuit.ablation import Ablator
from atlas.circuit.attribution import Settings as Estimate
from atlas.circuit.evaluation import refuse_no_effect
from atlas.circuit.legacy import LegacyAblator
from atlas.circuit.node_circuits import alone_of
from atlas.circuit.precision import Differences, searched
from atlas.circuit.remade import Dataset
from atlas.circuit.replacement import Replacement
from atlas.core.chance import jaccard, layer_matched
from atlas.core.components import AnyCircuit, Circuit, heads, mlps, profile
from atlas.model.models import Model
from atlas.prompts.batch import Prompts

log = logging.getLogger("atlas")

SURVIVAL_COLUMNS = ("level", "name", "family", "share", "runs")
SUMMARY_COLUMNS: tuple[str, ...] = ("level", "family", "runs", "size_min", "size_max", "intersection", "union")
SUMMARY_COLUMNS += ("jaccard", "jaccard_low", "jaccard_high", "expected")


# ---- runs ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Run:
    """A circuit (of components or of edges) and the data or order that it was found with."""

    family: str
    name: str
    circuit: AnyCircuit


@dataclass(frozen=True)
class NodeSearch:
    """The search that found the reported circuit. ``order`` and ``seed`` (of an order that has one) as in `orders.run`,
    ``batch`` as in the configuration; ``float32``: where searches run in a half, the model of close decisions;
    ``estimate``: of an order by attribution."""

    task: str
    order: str
    seed: int | None
    rule: search.Rule
    batch: int | str = 1
    legacy_mlp_means: bool = False
    allow_negative_clean: bool = False
    float32: Model | None = None
    estimate: Estimate = field(default_factory=Estimate)

    def ablator(self, model: Model, data: Dataset) -> Ablator:
        if self.legacy_mlp_means:
            return LegacyAblator(model, data.prompts, data.substitute, data.prompts)
        return Ablator(model, data.prompts, data.substitute)

    def circuit(self, model: Model, data: Dataset) -> Circuit:
        ablator = self.ablator(self.float32 or model, data)
        everything = ablator.everything
        full, empty = map(ablator.logit_diff, (everything, frozenset()))
        refuse_no_effect(f"{self.task} ({data.family}, {data.name})", full, empty, self.allow_negative_clean)
        alone = alone_of(ablator, self.order, self.estimate)
        gates = orders.gates_of(self.order, self.seed, ablator, self.rule)

        def steps(by: Ablator, settle: search.Settle) -> Iterator[search.Step]:
            batch = search.tried_at_once(self.batch, model.device, lambda: by.evaluations)
            return orders.run(
                self.order, self.seed, self.rule, everything, by.percents_of_full, alone, batch, settle, gates
            )

        in_half = self.float32 and not search.jumps(self.order)
        differences = Differences(self.ablator(model, data), ablator) if in_half else None
        made, _ = searched(f"{data.family}, {data.name}", steps, self.rule, ablator, differences)
        found: Circuit = made[-1].left if made else everything
        about = data.family, data.name, len(heads(found)), len(mlps(found)), ablator.percent_of_full(found)
        log.info("%s, %s: %d heads, %d MLPs, %.1f %% of full, %d forward passes", *about, ablator.evaluations)
        return found


EdgeSearch = Callable[[Model, Prompts, Replacement, Circuit], AnyCircuit]  # the edge circuit within a node circuit


def all_runs(
    model: Model,
    own: Dataset,
    others: Iterable[Dataset],
    orders: dict[str, Circuit],
    node_search: NodeSearch,
    edge_search: EdgeSearch | None = None,
) -> tuple[list[Run], list[Run]]:
    """The runs of components, and those of edges, which there are where ``edge_search`` is given.

    own: the task's own data. others: data to search on anew. orders: order -> circuit found on ``own``; that of the
    search's own order is the one that runs on other data are compared with. Edges have no family `orders`.
    """
    reported = orders[node_search.order]
    components = [Run("orders", name, circuit) for name, circuit in orders.items()]
    edges, reported_edges = [], edge_search and edge_search(model, own.prompts, own.substitute, reported)
    known = {"orders"}
    for data in others:
        if data.family not in known:
            known.add(data.family)
            components.append(Run(data.family, own.name, reported))
            if reported_edges is not None:
                edges.append(Run(data.family, own.name, reported_edges))
        circuit = node_search.circuit(model, data)
        components.append(Run(data.family, data.name, circuit))
        if edge_search:
            found = edge_search(model, data.prompts, data.substitute, circuit)
            edges.append(Run(data.family, data.name, found))
    return components, edges


# ---- what they share -----------------------------------------------------------------------------------------
def families(runs: Iterable[Run]) -> dict[str, list[AnyCircuit]]:
    """Family -> its circuits; a family of a single run says nothing about stability and is left out."""
    found: dict[str, list[AnyCircuit]] = {}
    for run in runs:
        found.setdefault(run.family, []).append(run.circuit)
    return {family: circuits for family, circuits in found.items() if len(circuits) > 1}


def survival_rows(runs: Iterable[Run], level: str) -> list[dict[str, Any]]:
    """Rows of `stability`: the share of a family's runs that keep each component (or edge) that any of them keeps."""
    return [
        {"level": level, "name": str(kept), "family": family, "share": share, "runs": len(circuits)}
        for family, circuits in families(runs).items()
        for kept, share in search.survival(circuits).items()
    ]


def summary_rows(runs: Iterable[Run], level: str, expected: Callable[..., Any] | None = None) -> list[dict[str, Any]]:
    """Rows of `stability_summary`: sizes, what all runs share, and Jaccard indices of pairs of runs.

    ``expected(a, b)``: Jaccard index of two circuits under chance; its mean over pairs is the column ``expected``.
    """
    rows = []
    for family, circuits in families(runs).items():
        sizes, pairs = list(map(len, circuits)), list(combinations(circuits, 2))
        found = [jaccard(a, b) for a, b in pairs]
        row = {"level": level, "family": family, "runs": len(circuits), "size_min": min(sizes), "size_max": max(sizes)}
        row |= {"intersection": len(frozenset.intersection(*circuits)), "union": len(frozenset.union(*circuits))}
        row |= {"jaccard": np.mean(found), "jaccard_low": min(found), "jaccard_high": max(found)}
        rows.append(row | {"expected": np.mean([expected(a, b) for a, b in pairs]) if expected else np.nan})
    return rows


def expected_jaccard(a: Circuit, b: Circuit, n_layers: int, n_heads: int) -> float:
    """Expected Jaccard index of random circuits with the heads per layer of a and of b, and their MLPs as they are.

    Exact: the number of shared heads is a sum of independent hypergeometric variables, one for each layer.
    """
    chance = layer_matched(n_heads, profile(a, n_layers), profile(b, n_layers))
    shared = np.arange(len(chance)) + len(frozenset(mlps(a)) & frozenset(mlps(b)))
    either = len(a) + len(b) - shared
    return float(chance @ np.where(either > 0, shared / np.maximum(either, 1), 1.0))


def to_json(runs: Iterable[Run], level: str) -> dict[str, Any]:
    """Every run's circuit, and the intersection and union of each family, by name."""
    runs = list(runs)

    def members(circuit: AnyCircuit) -> list[str]:
        return [str(member) for member in sorted(circuit)]

    shared = [
        {"level": level, "family": family, "runs": len(circuits)}
        | {"intersection": members(frozenset.intersection(*circuits)), "union": members(frozenset.union(*circuits))}
        for family, circuits in families(runs).items()
    ]
    found = [{"level": level, "family": r.family, "run": r.name, "members": members(r.circuit)} for r in runs]
    return {"families": shared, "runs": found}


def tables(
    runs: dict[str, list[Run]], n_layers: int, n_heads: int
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, list[Any]]]:
    """`stability`, `stability_summary`, and the content of `stability.json`; ``runs``: level -> its runs."""

    def by_chance(a: Circuit, b: Circuit) -> float:
        return expected_jaccard(a, b, n_layers, n_heads)

    survival, summary = [], []
    circuits: dict[str, list[Any]] = {"families": [], "runs": []}
    for level, found in runs.items():
        survival += survival_rows(found, level)
        summary += summary_rows(found, level, by_chance if level == "component" else None)
        if level == "component":
            heads_alone = [Run(r.family, r.name, frozenset(heads(r.circuit))) for r in found]
            summary += summary_rows(heads_alone, "head", by_chance)
            summary += summary_rows([Run(r.family, r.name, frozenset(mlps(r.circuit))) for r in found], "mlp")
        circuits = {key: value + to_json(found, level)[key] for key, value in circuits.items()}
    return (
        pd.DataFrame(survival, columns=list(SURVIVAL_COLUMNS)),
        pd.DataFrame(summary, columns=list(SUMMARY_COLUMNS)),
        circuits,
    )
