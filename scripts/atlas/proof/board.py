"""The leaderboard: every method of the registries on one model and its prompts, measured alike.

A *case* is a model with prompts under one kind of ablation, at the level of components or of edges. A method sees the
prompts searched on; what it found is scored on those reported on, which in planted models are the same. Results hold
numbers that reproduce; what a clock or the memory of a machine says is kept apart (`Cost`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from atlas.circuit import attribution, node_methods
from atlas.circuit.ablation import Ablator
from atlas.circuit.effects import single_ablations
from atlas.circuit.search import Step
from atlas.circuit.unablated import answer_logits
from atlas.core import metrics
from atlas.core.components import AnyCircuit
from atlas.core.errors import StudyError
from atlas.edges.by_method import function_of
from atlas.edges.engine import EdgeAblator
from atlas.edges.methods import BY_SCORE, METHODS
from atlas.edges.searches import auroc
from atlas.proof import board_metrics, board_orders, certify
from atlas.proof.attributed import POINTS
from atlas.proof.fixtures import GATES, KINDS, NODE_METHODS, THRESHOLD, Fixture

log = logging.getLogger("atlas.leaderboard")  # of its own, since searches are not to say what they do
LEVELS = ("node", "edge")
SEARCH = "search"  # in place of a ranking: the order that a search gives
CHANCE, SEED, DRAWS = "chance", 0, 5  # in place of a method: random rankings, of which numbers are the mean
TELL = 10  # seconds from which on a method is told of in the log
MOST_EDGES, MOST_COMPONENTS = 5000, 200  # what runs the model once for each is left out above them
STATUS = Path("/proc/self/status")


def single_ablation(ablator: Ablator, kind: str) -> dict[Any, float]:
    """Component -> M(without it) - M(full), the mean logit difference, each ablated alone."""
    full = ablator.logit_diff(ablator.everything).mean()
    return {c: float(scores["logit_diff"].mean() - full) for c, scores in single_ablations(ablator)}


def attributed(method: str, ablator: Ablator, kind: str) -> dict[Any, float]:
    """The same by an estimate of `node_methods.METHODS`, as the certificate takes it."""
    scored = attribution.function_of(method)(ablator, attribution.Settings(kind, POINTS))
    return {component: float(values.mean()) for component, values in scored.items()}


# Methods that score components: (ablator, kind of ablation) -> component -> M(without) - M(full), or an estimate
NODE_SCORES: dict[str, Callable[[Ablator, str], dict[Any, float]]] = {"single_ablation": single_ablation}
NODE_SCORES |= {name: partial(attributed, name) for name in node_methods.METHODS}


@dataclass(frozen=True)
class Case:
    """What methods of one level run on.

    identity: the columns that name it. fresh: a new ablator of the prompts searched on, which remembers nothing. judge:
    the ablator of the prompts reported on. truth: the true elements, None where nobody knows them. must_find: methods
    that the design of the fixture says return the truth and nothing else. scored: edge method that ran -> edge -> score
    per prompt, of which ensembles are made.
    """

    level: str
    identity: dict[str, Any]
    fresh: Callable[[], Any]
    judge: Any
    truth: AnyCircuit | None = None
    must_find: frozenset[str] = frozenset()
    scored: dict[str, dict[Any, np.ndarray]] = field(default_factory=dict)

    @cached_property
    def elements(self) -> list[Any]:
        """All components, or all edges in the order of the forward pass."""
        return list(self.judge.everything) if self.level == "edge" else sorted(self.judge.everything)

    @property
    def nothing(self) -> float:
        """Mean scores up to this are rounding; of models whose circuit is not known all count."""
        return 0.0 if self.truth is None else certify.NOTHING

    @cached_property
    def corrupted(self) -> float:
        """Mean logit difference of the corrupted prompts, of the clean prompts' answers."""
        prompts = self.judge.prompts
        logits = answer_logits(self.judge.model, prompts, "corrupted")
        values = metrics.per_prompt(("logit_diff",), logits, prompts.answer, prompts.incorrect)["logit_diff"]
        return float(values.double().mean())

    def methods(self) -> list[str]:
        """Names of the methods of the registries that run here, those that would take too long left out."""
        if self.level == "node":
            large = len(self.elements) > MOST_COMPONENTS
            return [*(["bisect"] if large else (*NODE_METHODS, GATES)), *NODE_SCORES, CHANCE]
        ran = [n for n, m in METHODS.items() if m.few_passes or len(self.elements) <= MOST_EDGES]
        return [*ran, *board_orders.possible(ran), CHANCE]

    def run(self, method: str, ablator: Any) -> tuple[dict[str, list[dict[Any, float]]], AnyCircuit | None]:
        """(ranking -> importance of every element, one or, of random orders, several; the circuit that a search ends
        with, None of other methods)."""
        if method == CHANCE:
            orders = [np.random.default_rng([SEED, d]).permutation(len(self.elements)) for d in range(DRAWS)]
            return {"": [dict(zip(self.elements, map(float, order), strict=True)) for order in orders]}, None
        if method in board_orders.MEMBERS:
            return board_orders.of_ensemble(method, self.scored), None
        steps: list[Step] = []
        found: AnyCircuit
        if self.level == "node" and method in NODE_SCORES:
            return self._scored(NODE_SCORES[method](ablator, self.identity["kind"]))
        if self.level == "node":
            found, _ = certify.search(method, ablator, THRESHOLD, self.identity["kind"], steps)
        else:
            made = function_of(method)(ablator, ablator.everything, certify.EDGES)
            if METHODS[method].scores:
                means = {edge: float(values.mean()) for edge, values in made.items()}
                kept = {e: np.asarray(v, dtype=float) * (abs(means[e]) > self.nothing) for e, v in made.items()}
                self.scored[method] = kept
                return self._scored(means)[0] | board_orders.of_method(method, kept, ablator.graph), None
            ((_, search),) = made
            steps = list(search)
            found = steps[-1].left
        return {SEARCH: [board_metrics.importance_of_search(self.elements, steps)]}, found

    def _scored(self, scores: Mapping[Any, float]) -> tuple[dict[str, list[dict[Any, float]]], None]:
        scores = {element: v if abs(v := scores[element]) > self.nothing else 0.0 for element in self.elements}
        return {name: [board_metrics.importance_of_scores(scores, name)] for name in BY_SCORE}, None

    def mean_of(self, circuit: AnyCircuit) -> float:
        """Mean logit difference of a circuit on the prompts reported on."""
        return float(self.judge.logit_diff(circuit).mean())

    def judged(self, importance: dict[Any, float]) -> dict[str, float]:
        """The columns of one ranking: against the truth, where it is known, and of what its top keeps of the model."""
        truth, paths = self.truth, self.judge.graph.on_paths if self.level == "edge" else None
        size = len(truth) if truth else max(1, round(board_metrics.FIFTH * len(self.elements)))
        against = {"auroc": float("nan"), "precision": float("nan")}
        if truth:
            values = [importance[element] for element in self.elements]
            against["auroc"] = auroc(values, [element in truth for element in self.elements])
            against["precision"] = board_metrics.precision_at(importance, truth)
        return against | board_metrics.areas(importance, self.mean_of, paths, size, self.corrupted)


class Cost:
    """Wall-clock seconds, and the most memory (MB) that was taken beyond what was held at the start."""

    def __init__(self) -> None:
        try:  # Linux: from here on the peak is counted anew
            Path("/proc/self/clear_refs").write_text("5")
            self.held: float | None = _kilobytes("VmRSS")
        except OSError:
            self.held = None
        self.started = time.perf_counter()

    def columns(self) -> dict[str, float]:
        """`seconds` and `peak_mb`; the latter is nan where the system does not tell."""
        seconds = time.perf_counter() - self.started
        peak = float("nan") if self.held is None else (_kilobytes("VmHWM") - self.held) / 1024
        return {"seconds": seconds, "peak_mb": peak}


def _kilobytes(name: str) -> float:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return float(line.split()[1])


# ---- rows ----------------------------------------------------------------------------------------------------
def measure(case: Case) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of the leaderboard, one for each method and ranking; and what each method cost, in another table.

    Raises StudyError where a method does not put all that is true first although the fixture's design says so.
    """
    rows, costs, asked = [], [], dict[str, int]()
    full, empty = case.mean_of(case.judge.everything), case.mean_of(frozenset())
    if not full > empty:
        raise StudyError(f"leaderboard: {case.identity}: the whole model scores {full:.3f}, ablated {empty:.3f}")
    for method in case.methods():
        ablator, cost = case.fresh(), Cost()
        rankings, found = case.run(method, ablator)
        asked[method] = ablator.evaluations + sum(asked[m] for m in board_orders.MEMBERS.get(method, ()))
        name = case.identity | {"level": case.level, "method": method}
        costs.append(name | cost.columns())
        for ranking, importances in rankings.items():
            judged = [case.judged(importance) for importance in importances]
            row = name | {"ranking": ranking, "evaluations": asked[method], "elements": len(case.elements)}
            row |= {key: float(np.mean([j[key] for j in judged])) for key in judged[0]}
            row |= {"found": float("nan"), "found_faithfulness": float("nan")}
            if found is not None:
                kept = (case.mean_of(found) - empty) / (full - empty)
                row |= {"found": float(len(found)), "found_faithfulness": kept}
            row["by_design"] = method in case.must_find and ranking != "signed"
            rows.append(row)
        if (seconds := time.perf_counter() - cost.started) > TELL:
            log.info("%s, %s: %s took %.0f s", case.identity["fixture"], case.level, method, seconds)
    refuse_missed(rows)
    return rows, costs


def refuse_missed(rows: list[dict[str, Any]]) -> None:
    """Raise StudyError where an area under the curve is not 1 although the design says that the truth is found."""
    for row in rows:
        if row["by_design"] and row["auroc"] < 1:
            of = " ".join(str(row[key]) for key in ("model", "kind", "level", "method"))
            raise StudyError(
                f"leaderboard: {of}: AUROC {row['auroc']:.4f}, but docs/fixtures.md says that it finds all"
            )


def cases_of(fixture: Fixture, folder: Path | str) -> Iterator[Case]:
    """The cases of a planted model: each kind of ablation, at both levels where its edges are known."""
    ablators = certify.make_ablators(folder, fixture.prompts())
    for kind in KINDS:
        nodes = ablators[kind]
        identity = {"model": fixture.id, "fixture": fixture.name, "family": fixture.family, "task": "planted"}
        identity |= {"kind": kind}

        def fresh(nodes: Ablator = nodes) -> Ablator:
            return Ablator(nodes.model, nodes.prompts, nodes.substitute)

        truth = fixture.nodes[kind]
        searches = (*NODE_METHODS, *fixture.gated(kind))
        sure = frozenset(m for m in searches if fixture.returns(m, kind) == (truth,))
        sure |= {m for m in node_methods.METHODS if fixture.attributed.get(m, {}).get(kind) == truth}
        yield Case("node", identity, fresh, nodes, truth, sure)
        if not fixture.edges:
            continue

        def fresh_edges(nodes: Ablator = nodes, kind: str = kind) -> EdgeAblator:
            return certify.edge_ablator(nodes, kind)

        judge = fresh_edges()
        edges, expected = fixture.named(fixture.edges[kind], judge.graph), fixture.edges_expected
        sure = frozenset(m for m in METHODS if expected.get(m, {}).get(kind) == (fixture.edges[kind],))
        sure |= frozenset(board_orders.possible(sure))
        yield Case("edge", identity, fresh_edges, judge, edges, sure)
