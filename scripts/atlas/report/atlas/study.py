"""Everything that the atlas page shows of one model, and sentences on what it does not show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from atlas.core.graph import Graph
from atlas.report import pages
from atlas.report.atlas import compare, explained, order, searched, trust
from atlas.report.atlas.packing import Numbering, rounded
from atlas.report.atlas.tables import Inputs
from atlas.report.sections.study import Study
from atlas.report.shown import GEOMETRY, MAIN, TASK
from atlas.report.wording import listing, words

METRIC = "logit_diff"
TRUST = ("hypotheses", "member_tests", "unseen", "specificity", "shared", "consensus")
TOKENS_ABOUT = (
    "What it writes at the last position, read through the final norm and the unembedding, in the mean over the "
    "sampled prompts: logits above or below their mean over all tokens."
)
OF_SEARCHES = (
    "circuits",
    "traces",
    "effects",
    "positions",
    "edges",
    "share",
    "class",
    "runs",
    "needed",
)  # null elsewhere


@dataclass(frozen=True)
class Settings:
    """Of the configuration: see `config.yaml` (`title` is `study.title`, `threshold` and `order` those of
    `comparison`, ``k`` the largest of `heads.ov.k`, ``megabytes`` that of `atlas`)."""

    title: str
    kind: str
    threshold: float
    thresholds: Sequence[float]
    orders: Sequence[str]
    labels: Mapping[str, float]
    k: int
    megabytes: float


@dataclass(frozen=True)
class OfModel:
    """One model of a study. `data` is what the page holds of it, `notes` what it leaves out."""

    name: str
    inputs: Inputs
    settings: Settings

    # ---- the model -------------------------------------------------------------------------------------------
    @cached_property
    def description(self) -> dict[str, Any]:
        """`model.json`."""
        found: dict[str, Any] = self.inputs.read("model", self.name)
        return found

    @cached_property
    def graph(self) -> Graph:
        return Graph.of(self.description)

    @cached_property
    def numbering(self) -> Numbering:
        return Numbering(self.graph.n_layers, self.graph.n_heads)

    @property
    def main(self) -> list[str]:
        """Tasks that were searched."""
        return list(self.inputs.tasks[MAIN])

    def rows(self, name: str, task: str | None = None) -> pd.DataFrame | None:
        return self.inputs.rows(name, self.name, task)

    def _table(self, name: str, task: str | None = None) -> pd.DataFrame:
        table: pd.DataFrame = self.inputs.read(name, self.name, task)
        return table

    def data(self) -> dict[str, Any]:
        """MODEL of the page (`page.py`)."""
        detectors, settings = self.rows("detectors"), self.settings
        return {
            "name": self.name,
            "n_layers": self.graph.n_layers,
            "n_heads": self.graph.n_heads,
            "n_kv_heads": self.graph.n_kv_heads,
            "parallel": self.graph.parallel,
            "source": self.description["architecture"],
            "warning": pages.warning(self.description),
            "kind": settings.kind,
            "threshold": rounded(settings.threshold),
            "thresholds": [rounded(t) for t in settings.thresholds],
            "orders": list(settings.orders),
            "labels": dict(settings.labels),
            "detectors": {} if detectors is None else explained.detectors(detectors, self.numbering),
            "tasks": [self.task(task) for task in self.inputs.tasks[TASK]],
            "order": self.order(),
            "compare": self.compare(),
        }

    def compare(self) -> dict[str, Any]:
        """COMPARE of the page."""
        consensus, tests, members = (self._table(name) for name in ("consensus", "shared", "shared_members"))
        return {
            "overlap": compare.overlap(self._table("overlap")),
            "cross": compare.cross(self._table("cross")),
            "controls": compare.controls(self._table("controls_summary")),
            "shared": compare.shared(self.main, consensus, tests, members, self.numbering),
            "doubts": self.doubts(),
        }

    def doubts(self) -> dict[str, Any]:
        """What the tests of the circuits say (`trust.doubts`)."""
        tables = {name: self._table(name) for name in TRUST}
        tables["consensus_tests"] = pd.concat([self._table("consensus_tests", task) for task in self.main])
        return trust.doubts(tables, self.main)

    def order(self) -> dict[str, Any] | None:
        """ORDER of the page, of the analyses of order that the study makes."""
        names = [name for tables in GEOMETRY.values() for name in tables if self.inputs.has(name)]
        if not names:
            return None
        tables = {name: self._table(name) for name in (*names, *order.ALSO)}
        settings = {"tasks": list(self.inputs.tasks[TASK]), "main_tasks": self.main, "labels": self.settings.labels}
        left_out = self.inputs.read("analyses", self.name)["left_out"]
        return order.order(Study(tables, {}, {}, self.description, left_out, settings, {}), self.numbering)

    # ---- a task ----------------------------------------------------------------------------------------------
    def task(self, task: str) -> dict[str, Any]:
        """TASK of the page; what the study does not make of it is empty or null."""
        traces = self.inputs.read("traces", self.name, task)
        out = {
            "name": task,
            "words": words(task),
            "main": task in self.main,
            "metric": METRIC,
            "full": explained.full(self._table("clean_summary", task)),
            "prompts_of": traces["prompts_of"],
            "several_tokens": traces["several_tokens"],
        }
        searches = self.searches(task) if task in self.main else dict.fromkeys(OF_SEARCHES)
        return out | searches | self.explanations(task, traces)

    def searches(self, task: str) -> dict[str, Any]:
        """OF_SEARCHES of a main task."""
        numbering, read = self.numbering, self.inputs.read
        found_by, chosen = (read(name, self.name, task) for name in ("circuits", "chosen"))
        tables = {name: self._table(name, task) for name in ("faithfulness", "choice")}
        consensus = self._table("consensus")
        found: dict[str, Any] = {
            "circuits": searched.circuits(found_by, chosen, tables, numbering, self.settings.threshold),
            "traces": searched.traces(self._table("trace", task), numbering),
            "effects": searched.effects(self._table("component_effects", task), numbering),
            "positions": searched.positions(self._table("positions", task), numbering),
            "edges": None,
            **searched.share(consensus[consensus["task"] == task], numbering),
        }
        members, edges = self._table("member_tests"), self._table("consensus_edges")
        found["needed"] = trust.needed(members[members["task"] == task], numbering)
        if self.inputs.has("edge_circuits"):
            scores, content = self._table("edge_scores", task), read("edge_circuits", self.name, task)
            own = edges[edges["task"] == task]
            classes = dict(zip(own["edge"], own["class"], strict=True))
            found["edges"], said = searched.edges(content, scores, self.graph, numbering, classes)
            found["edges"]["left_out"] = said
        return found

    def explanations(self, task: str, traces: Mapping[str, Any]) -> dict[str, Any]:
        """What is known of single components on any task, and its sampled prompts."""
        numbering = self.numbering
        tables = {name: self.rows(name, task) for name in ("attribution", "patching", "ov", "backup")}
        roles = self.rows("roles")
        makers: dict[str, Any] = {
            "attribution": lambda table: explained.attribution(table, numbering),
            "patching": lambda table: explained.patching(table, numbering),
            "ov": lambda table: explained.ov(table, numbering, self.settings.k),
            "backup": lambda table: explained.backup(table, numbering),
        }
        found = {name: None if table is None else makers[name](table) for name, table in tables.items()}
        found |= {"roles": [], "scores": {}, "tokens_about": TOKENS_ABOUT}
        if roles is not None:
            roles = roles[roles["task"] == task]
            found["roles"] = explained.roles(roles, numbering, self.settings.labels)
            found["scores"] = explained.scores(roles, numbering)
        found["tokens"] = explained.written(traces["written"], numbering)
        return found | {"prompts": explained.prompts(traces, numbering)}

    # ---- what is left out ------------------------------------------------------------------------------------
    def notes(self, data: Mapping[str, Any]) -> list[str]:
        """Sentences on what the page does not show of ``data`` (`data`), and what its numbers are of."""
        tasks = data["tasks"]
        said = [data["warning"]] if data["warning"] else []
        for name, reason in self.inputs.read("analyses", self.name)["left_out"].items():
            what = f"{words(name)[:1].upper()}{words(name)[1:]}"
            said.append(f"{what} {'are' if name == 'edges' else 'is'} left out{f': {reason}' if reason else ''}.")
        said += [self._of_prompts(tasks)]
        kept = [task for task in tasks if any("attention" in prompt for prompt in task["prompts"])]
        if kept:
            n = len(kept[0]["prompts"][0]["attention"]["heads"])
            every = self.graph.n_layers * self.graph.n_heads
            chosen = "" if n == every else ": those of the circuits, and the largest others by effect"
            said.append(
                f"Attention on prompts is kept of {n} of {every} heads{chosen}; its weights are right to 0.002."
            )
        several = [task["words"] for task in tasks if task["several_tokens"]]
        if several:
            said.append(
                f"Answers of {listing(several)} have several tokens: what heads do is read at one answer token, so "
                "attention, attribution and lens are not shown."
            )
        transfer = [task["words"] for task in tasks if not task["main"]]
        if transfer:
            said.append(
                f"Circuits were not searched on {listing(transfer)}, only evaluated there: no component was ablated "
                "alone on their prompts."
            )
        cut = [
            f"{task['words']}, {task['edges']['left_out']}" for task in tasks if (task["edges"] or {}).get("left_out")
        ]
        said += [f"Edges on the page, with all of the reported circuit: {'; '.join(cut)}."] if cut else []
        return said

    def _of_prompts(self, tasks: Sequence[Mapping[str, Any]]) -> str:
        parts = [f"{len(task['prompts'])} of {task['prompts_of']} ({task['words']})" for task in tasks]
        return (
            f"Prompts are a sample, spread over first members and wordings: {listing(parts)}. On tasks that were "
            "searched they are prompts searched on, whose components were ablated one at a time; circuits are scored "
            "on prompts held out, where there are any."
        )
