"""Score the edges of a task and search its edge circuits by every method of a study (methods: edges)."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from atlas.circuit.evaluation import refuse_no_effect
from atlas.circuit.search import Step
from atlas.core import accuracy
from atlas.core.components import Circuit
from atlas.core.errors import StudyError
from atlas.core.graph import LOGITS, Edge, EdgeCircuit, names
from atlas.core.statistics import Bootstrap, column_means
from atlas.edges import choice, searches
from atlas.edges.by_method import Scores, function_of
from atlas.edges.engine import EdgeAblator
from atlas.edges.methods import CHOICES, NODE_CIRCUIT, REPORTED, SCORING, SEARCHING, EdgeSettings
from atlas.edges.rankings import ranked
from atlas.model import memory
from atlas.store.job import progress

log = logging.getLogger("atlas")

ACCURACY_COLUMNS = ("method", *accuracy.COLUMNS)
SCORE_COLUMNS = ("method", "sender", "receiver", "value", "ci_low", "ci_high")
TRACE_COLUMNS = ("method", "setting", "step", "sender", "receiver", "percent", "removed", "close", "edges")


class EdgeCircuits:
    """Collects the edge circuits of one task and the traces of their searches.

    ``add`` and ``search`` append to ``circuits`` (entries of `edge_circuits.json`) and ``trace`` (rows of
    `edge_trace`).
    """

    def __init__(self, task: str, ablator: EdgeAblator, settings: EdgeSettings, bootstrap: Bootstrap) -> None:
        self.task, self.ablator, self.settings, self.bootstrap = task, ablator, settings, bootstrap
        self.full, self.empty = ablator.logit_diff(ablator.everything), ablator.logit_diff(frozenset())
        self.circuits: list[dict[str, Any]] = []
        self.trace: list[dict[str, Any]] = []

    def start(self, among: Mapping[float, EdgeCircuit], allow_negative_clean: bool) -> EdgeCircuit:
        """Where removals start, of ``among`` (threshold -> edges of the node circuit) or all edges.

        Raises StudyError where that keeps too little of the model for anything to go.
        """
        settings, ablator = self.settings, self.ablator
        start = ablator.everything if settings.start == "full" else among[settings.start_threshold]
        percent = ablator.percent_of_full(start)
        if percent <= 100 - settings.threshold:
            said = (
                f"edges.threshold: {settings.threshold}, but the edges that {self.task} starts from keep only "
                f"{percent:.1f} % of the full model; lower edges.start_threshold or use start: full"
            )
            if not allow_negative_clean:
                raise StudyError(said)
            log.warning("%s; going on, as allow_negative_clean says", said)
        return start

    def add(self, method: str, ranking: str, setting: float, edges: EdgeCircuit) -> None:
        """Append the `entry` of a circuit."""
        self.circuits.append(self.entry(method, ranking, setting, edges))

    def entry(self, method: str, ranking: str, setting: float, edges: EdgeCircuit) -> dict[str, Any]:
        """A circuit: its edges, less those on no path from the embeddings to the logits where the settings say so; the
        scores of what is left; and how many edges were dropped, with the percent that all had together."""
        graph = self.ablator.graph
        lost = graph.without_path(edges)
        reported = graph.on_paths(edges) if self.settings.drop_without_path else edges
        found = self.ablator.logit_diff(reported)
        dropped, whole = len(edges) - len(reported), self.ablator.percent_of_full(edges)
        percent = self.bootstrap.percent(found, self.full)[0]
        out: dict[str, Any] = {"method": method, "ranking": ranking, "setting": setting, "edges": names(reported)}
        out |= {"nodes": sorted(map(str, graph.nodes(reported))), "without_path": sorted(map(str, lost))}
        out |= {"dropped": dropped, "percent_with_dropped": whole, "percent_of_full": percent}
        out |= {"faithfulness": self.bootstrap.faithfulness(found, self.full, self.empty)[0]}
        text = "%s, %s %s %s: %d edges, %.1f %% of full; %d dropped (with them %.1f %%), without a path: %s"
        without = " ".join(map(str, sorted(lost))) or "none"
        log.info(text, self.task, method, ranking, setting, len(reported), percent, dropped, whole, without)
        memory.give_back()
        return out

    def search(self, method: str, setting: float, start: EdgeCircuit, steps: Iterator[Step]) -> None:
        """The circuit that a search ends at, and a row for each of its evaluations."""
        left, penalty = start, None
        for number, step in enumerate(progress(steps, f"{method} {setting:g}"), start=1):
            left, penalty = step.left, step.penalty
            row = {"method": method, "setting": float(setting), "step": number} | step.components[0]._asdict()
            row |= {"percent": step.percent, "removed": step.removed, "close": step.close}
            self.trace.append(row | {"edges": len(left)})
        self.add(method, "", setting, left)
        if penalty is not None:
            self.circuits[-1] |= {"penalty": penalty, "seed": self.settings.seed}


def score(
    task: str, ablator: EdgeAblator, start: EdgeCircuit, settings: EdgeSettings, bootstrap: Bootstrap
) -> tuple[pd.DataFrame, dict[str, dict[Edge, float]], pd.DataFrame]:
    """Rows of `edge_scores` by every method of the settings that scores; method -> edge -> mean score; and rows of
    `edge_accuracy`, of the others beside `path_patching` on the edges that this scored."""
    tables, means, exact, near = [], {}, dict[Edge, Any](), []
    for method in SCORING:
        if method in settings.methods:
            scored = function_of(method)(ablator, start, settings)
            estimates = column_means(bootstrap, np.stack(list(scored.values()), axis=1))
            means[method] = dict(zip(scored, estimates["value"].tolist(), strict=True))
            edges = pd.DataFrame(scored.keys(), columns=["sender", "receiver"])
            tables.append(edges.assign(method=method, **estimates))
            log.info("%s: %s of %d edges", task, method, len(scored))
            if method == "path_patching":
                exact = scored
            elif exact:
                near += [{"method": method} | row for row in beside(exact, scored, bootstrap)]
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    found = pd.DataFrame(near, columns=list(ACCURACY_COLUMNS))
    return table.reindex(columns=list(SCORE_COLUMNS)), means, found


def beside(exact: Scores, scored: Scores, bootstrap: Bootstrap) -> Iterator[dict[str, Any]]:
    """Rows (group, metric, value, interval) of estimates of edges beside their effects: all edges, and by what they end
    in."""
    effect, estimate = (np.stack([np.asarray(of[edge]) for edge in exact], axis=1) for of in (exact, scored))
    ends = np.array([edge.receiver if edge.receiver == LOGITS else edge.receiver[-1] for edge in exact])
    is_mlp = np.array([edge.receiver[0] == "m" for edge in exact])
    groups = {"edges": np.ones(len(exact), dtype=bool)}
    groups |= {f"into {part}": (ends == part) & ~is_mlp for part in "qkv"}
    groups |= {"into MLPs": is_mlp, "into logits": ends == LOGITS}
    return accuracy.rows(estimate, effect, groups, bootstrap)


def search(
    task: str,
    ablator: EdgeAblator,
    nodes: dict[float, Circuit],
    settings: EdgeSettings,
    bootstrap: Bootstrap,
    allow_negative_clean: bool = False,
    reported_on: Mapping[str, EdgeAblator] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, dict[str, Any], pd.DataFrame]:
    """`edge_scores`, `edge_trace`, `edge_choice`, `edge_circuits.json` (its content) and `edge_accuracy`, of one task.

    nodes: threshold -> node circuit. reported_on: split -> ablator of other prompts than those searched on, by which
    the reported circuit is chosen where the settings ask for it. Circuits are, in this order: the edges among each node
    circuit; those that searches end at, that of REPORTED first; of each method that scores and each ranking, the
    highest-scored edges, as many as that has. Raises StudyError where there is no effect to explain or nothing can be
    removed.
    """
    found = EdgeCircuits(task, ablator, settings, bootstrap)
    refuse_no_effect(task, found.full, found.empty, allow_negative_clean)
    among = {threshold: ablator.graph.among(circuit) for threshold, circuit in nodes.items()}
    start = found.start(among, allow_negative_clean)
    scores, means, near = score(task, ablator, start, settings, bootstrap)
    for threshold, edges in among.items():
        found.add(NODE_CIRCUIT, "", threshold, edges)
    for method in [REPORTED.name, *(m for m in SEARCHING if m in settings.methods and m != REPORTED.name)]:
        for setting, steps in function_of(method)(ablator, start, settings):
            found.search(method, setting, start, steps)
        if method == REPORTED.name:
            size = len(found.circuits[-1]["edges"])
    for method, values in means.items():
        for ranking in settings.rankings:
            found.add(method, ranking, float(size), searches.top(ranked(values, ranking, ablator.graph), size))
    ablators = {"search": ablator, **(reported_on or {})}
    ablator.forget()  # those of other prompts take as much
    table, said = report(found, start, means, ablators)
    log.info("%s: %d forward passes over %d prompts", task, ablator.evaluations, len(ablator.prompts))
    trace = pd.DataFrame(found.trace, columns=list(TRACE_COLUMNS))
    graph = {"graph": asdict(ablator.graph), "total_edges": len(ablator.everything)}
    return scores, trace, table, graph | {"circuits": found.circuits, "reported": said}, near


def report(
    found: EdgeCircuits,
    start: EdgeCircuit,
    means: Mapping[str, Mapping[Edge, float]],
    ablators: Mapping[str, EdgeAblator],
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Rows of `edge_choice`, and the entry of the circuit that is reported (`choice.choose`).

    Where `EdgeSettings.choice` is not `held_out` there is one candidate, the circuit that REPORTED ended at.
    """
    settings = found.settings
    tried = choice.candidates(found.ablator, found.circuits, start, means, settings)
    tried = tried if settings.choice == CHOICES[0] else tried[:1]
    table, reported, said = choice.choose(found.task, tried, ablators, settings.threshold, found.bootstrap)
    return table, found.entry(reported.method, "", reported.setting, reported.circuit) | said
