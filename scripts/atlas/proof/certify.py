"""Run the node searches and edge methods on the fixtures and compare what they find with what they must find."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from atlas.circuit import attribution, node_methods
from atlas.circuit.ablation import Ablator
from atlas.circuit.node_circuits import alone_of
from atlas.circuit.optimal import fitted
from atlas.circuit.orders import gates_of, run
from atlas.circuit.replacement import replacement
from atlas.circuit.search import Rule, Step
from atlas.core.components import AnyCircuit, Circuit, heads, mlps
from atlas.core.errors import StudyError
from atlas.core.graph import Edge, EdgeCircuit
from atlas.core.graph import names as edge_names
from atlas.edges.by_method import function_of
from atlas.edges.engine import EdgeAblator, engine_of, graph_of, with_embeddings
from atlas.edges.methods import METHODS, EdgeSettings
from atlas.edges.searches import auroc as area_under_roc
from atlas.model import activations, models
from atlas.prompts.batch import Prompts
from atlas.proof.attributed import POINTS
from atlas.proof.fixtures import KINDS, NODE_METHODS, OPTIMAL, THRESHOLD, Fixture

log = logging.getLogger("atlas")
SEED = 0  # of the random and the annealed order
EVALUATIONS = 600  # of an annealed search; a pair that can only go together is drawn once in 15 moves
BATCH = 8  # candidates that the speculative search asks for at once
EDGES = EdgeSettings(threshold=THRESHOLD, taus=(1.0,), points=POINTS)  # from the full graph
NOTHING = 1e-4  # scores (logit differences of order 8) up to this are rounding
CLEAR = 1e-3  # and above this they count; one between the two is found by a hair, and fails the certificate


def make_ablators(folder: Path | str, prompts: Prompts, batch_size: int = 64) -> dict[str, Ablator]:
    """An ablator of a built fixture for each kind of ablation, `optimal` the last."""
    model = models.load(folder, device="cpu", batch_size=batch_size)
    runs = {"corrupted": prompts.corrupted_tokens, "clean": prompts.tokens}
    collected = {run: activations.collect(model, tokens) for run, tokens in runs.items()}
    means: dict[str, Any] = {run: found for run, (_, found) in collected.items()}
    cache: dict[str, Any] = {run: kept for run, (kept, _) in collected.items()} | {"prompt": prompts.prompt}
    means[OPTIMAL] = fitted(model, prompts, means)
    kinds = (*KINDS, OPTIMAL)
    return {kind: Ablator(model, prompts, replacement(kind, model, prompts, means, cache)) for kind in kinds}


def search(
    method: str, ablator: Ablator, threshold: float, kind: str = "mean", trace: list[Step] | None = None
) -> tuple[Circuit, int]:
    """The circuit that a method finds, and how many circuits it asked for; its steps are appended to ``trace``.

    `speculative` is `layers` with several candidates at once, and asks for more than it uses; the others are those of a
    study. ``kind``: of ablation, which orders by attribution read.
    """
    asked = 0

    def percents(circuits: list[AnyCircuit]) -> list[float]:
        nonlocal asked
        asked += len(circuits)
        return ablator.percents_of_full(circuits)

    everything, alone = ablator.everything, {}
    if method == "ascending_effect":
        alone = {c: percents([everything - {c}])[0] for c in sorted(everything)}
    elif node_methods.of_order(method):
        alone = alone_of(ablator, method, attribution.Settings(kind, POINTS))
    name = "layers" if method == "speculative" else method
    seed = SEED if method in ("random", "annealed", "gates") else None
    batch, found = (BATCH if method == "speculative" else 1), everything
    rule = Rule(threshold, evaluations=EVALUATIONS)
    gates = gates_of(name, seed, ablator, rule)
    for step in run(name, seed, rule, everything, percents, alone, batch, gates=gates):
        found = step.left
        if trace is not None:
            trace.append(step)
    return found, asked


def names(circuit: Circuit) -> str:
    """Names of heads, then of MLPs, with spaces between."""
    return " ".join(map(str, [*heads(circuit), *mlps(circuit)]))


def rates(found: AnyCircuit, truth: AnyCircuit) -> dict[str, Any]:
    """Share of what was found that is true, and share of what is true that was found."""
    right = len(found & truth)
    return {"precision": right / len(found) if found else float(not truth), "recall": right / len(truth)}


# ---- edges ---------------------------------------------------------------------------------------------------
def edge_ablator(ablator: Ablator, kind: str) -> EdgeAblator:
    """The edge ablator that belongs to a node ablator of a built fixture."""
    graph = graph_of(engine_of(ablator.model).weights)
    substitute = with_embeddings(ablator.substitute, kind, ablator.model, ablator.prompts)
    return EdgeAblator(ablator.model, graph, ablator.prompts, substitute)


def edge_scores(method: str, ablator: EdgeAblator) -> dict[Edge, float]:
    """The mean score of every edge by a method that scores."""
    scored = function_of(method)(ablator, ablator.everything, EDGES)
    return {edge: float(values.mean()) for edge, values in scored.items()}


def judged(scores: Mapping[Any, float], truth: AnyCircuit) -> tuple[AnyCircuit, dict[str, Any]]:
    """What has a score that is not 0, and columns: the AUROC of the sizes of scores against the truth, rounding being
    0; the smallest size of a score that counts, and the largest of one that does not (nan where there is none)."""
    sizes = {name: abs(score) for name, score in scores.items()}
    found = frozenset(name for name, size in sizes.items() if size > NOTHING)
    others = [size for name, size in sizes.items() if name not in found]
    counted = [size if name in found else 0.0 for name, size in sizes.items()]
    auroc = area_under_roc(counted, [name in truth for name in sizes]) if truth else float("nan")
    margins = {
        "weakest": min((sizes[name] for name in found), default=float("nan")),
        "strongest": max(others, default=float("nan")),
    }
    return found, {"auroc": auroc} | margins


def is_clear(columns: Mapping[str, Any]) -> bool:
    """Whether no score of a row counts by a hair; `judged` gives its columns, and a search has none."""
    return not columns.get("weakest", CLEAR) < CLEAR


def search_edges(method: str, ablator: EdgeAblator) -> tuple[EdgeCircuit, float]:
    """The circuit that a method that searches finds, from the full graph, and the setting (of one) that it ran with."""
    ((setting, steps),) = function_of(method)(ablator, ablator.everything, EDGES)
    found = ablator.everything
    for step in steps:
        found = step.left
    return found, setting


def certify_edges(
    fixture: Fixture, nodes: dict[str, Ablator], methods: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """One row per edge method (default: all that are certified) and kind of ablation; methods that score edges also get
    their AUROC against the truth."""
    rows = []
    for kind, shared in nodes.items():
        for method in fixture.edge_methods(kind) if methods is None else methods:
            ablator, started = edge_ablator(shared, kind), time.perf_counter()
            setting, columns = float("nan"), {"auroc": float("nan")}
            truth = fixture.named(fixture.edges[kind], ablator.graph)
            if not METHODS[method].scores:
                found, setting = search_edges(method, ablator)
            else:
                found, columns = judged(edge_scores(method, ablator), truth)
            expected = [fixture.named(e, ablator.graph) for e in fixture.edges_expected.get(method, {}).get(kind, ())]
            rows.append(
                {"fixture": fixture.name, "family": fixture.family, "method": method, "kind": kind}
                | {"threshold": setting}
                | {"truth": " ".join(edge_names(truth)), "found": " ".join(edge_names(found))}
                | {"expected": " or ".join(" ".join(edge_names(e)) for e in expected) or "not fixed by design"}
                | {"as_expected": not expected or (found in expected and is_clear(columns))}
                | {**rates(found, truth), **columns}
                | {"percent": ablator.percent_of_full(found), "evaluations": ablator.evaluations}
                | {"seconds": time.perf_counter() - started}
            )
    return rows


def certify_components(
    fixture: Fixture, nodes: dict[str, Ablator], methods: Sequence[str] = tuple(node_methods.METHODS)
) -> list[dict[str, Any]]:
    """One row per method that scores components and kind of ablation, as `certify_edges` for edges."""
    rows = []
    for kind, ablator in nodes.items():
        for method in methods:
            started, truth = time.perf_counter(), fixture.nodes[kind]
            scored = attribution.function_of(method)(ablator, attribution.Settings(kind, POINTS))
            found, columns = judged({c: float(values.mean()) for c, values in scored.items()}, truth)
            expected = fixture.attributed.get(method, {}).get(kind)
            rows.append(
                {"fixture": fixture.name, "family": fixture.family, "method": method, "kind": kind}
                | {"threshold": float("nan"), "truth": names(truth), "found": names(found)}
                | {"expected": "not fixed by design" if expected is None else names(expected)}
                | {"as_expected": expected is None or (found == expected and is_clear(columns))}
                | {**rates(found, truth), **columns, "percent": ablator.percent_of_full(found)}
                | {"evaluations": 0, "seconds": time.perf_counter() - started}
            )
    return rows


def certify(fixture: Fixture, folder: Path | str) -> list[dict[str, Any]]:
    """One row per method, kind of ablation and threshold, on a built fixture; no search sees another's scores."""
    rows, ablators = [], make_ablators(folder, fixture.prompts())
    if fixture.edges:
        rows += certify_edges(fixture, {kind: ablators[kind] for kind in KINDS})
    rows += certify_components(fixture, {kind: ablators[kind] for kind in KINDS})
    for kind, shared in ablators.items():
        if kind == OPTIMAL and not fixture.effects:
            continue  # what follows for it from those of `mean` follows from exact effects alone
        for threshold in fixture.thresholds:
            for method in (*NODE_METHODS, *fixture.gated(kind)):
                ablator = Ablator(shared.model, shared.prompts, shared.substitute)
                started = time.perf_counter()
                found, asked = search(method, ablator, threshold, kind)
                seconds = time.perf_counter() - started
                expected = fixture.returns(method, kind, threshold)
                truth = fixture.nodes["mean" if kind == OPTIMAL else kind]
                rows.append(
                    {"fixture": fixture.name, "family": fixture.family, "method": method, "kind": kind}
                    | {"threshold": threshold, "truth": names(truth), "expected": " or ".join(map(names, expected))}
                    | {"found": names(found), "as_expected": found in expected, **rates(found, truth)}
                    | {"percent": ablator.percent_of_full(found), "evaluations": asked, "seconds": seconds}
                )
    return rows


def refuse_unexpected(table: pd.DataFrame) -> None:
    """Log every row that found something else than it must, and raise StudyError where there is one."""
    wrong = table[~table["as_expected"]]
    for row in wrong.itertuples():
        log.error("%s-%s, %s, %s: %s, not %s", row.fixture, row.family, row.method, row.kind, row.found, row.expected)
    if len(wrong):
        raise StudyError(
            f"certify: {len(wrong)} of {len(table)} searches found something else than they must (see above)"
        )


def describe(fixture: Fixture) -> dict[str, Any]:
    """A fixture's truth and what is expected of every method, as JSON that a person can read."""
    return {
        "name": fixture.name,
        "family": fixture.family,
        "shows": fixture.shows,
        "prompt": fixture.rows()[0],
        "full": fixture.full,
        "nodes": {kind: names(circuit) for kind, circuit in fixture.nodes.items()},
        "edges": {kind: sorted(map(str, edges)) for kind, edges in fixture.edges.items()},
        "effects": [
            {"ablated": names(e.ablated), "difference": e.difference, "kinds": list(e.kinds)} for e in fixture.effects
        ],
        "expected": [
            {"circuits": [names(c) for c in e.circuits], "methods": list(e.methods) or list(NODE_METHODS)}
            | {"kinds": list(e.kinds), "threshold": e.threshold}
            for e in fixture.expected
        ],
        "edges_expected": {
            method: {kind: [sorted(map(str, edges)) for edges in sets] for kind, sets in kinds.items()}
            for method, kinds in fixture.edges_expected.items()
        },
        "attributed": {
            method: {kind: names(circuit) for kind, circuit in kinds.items()}
            for method, kinds in fixture.attributed.items()
        },
    }
