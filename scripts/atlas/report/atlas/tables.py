"""The tables of a study that the atlas page shows, and a reader of them.

The rules take the page's inputs from here: nothing heavy is imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from atlas.report.shown import EXPLAINED, GEOMETRY, MAIN, MODEL, TASK, Table, of_geometry
from atlas.store import artifacts

if TYPE_CHECKING:
    import pandas as pd


def _of(kind: str, *names: str) -> dict[str, Table]:
    return {name: Table(f"{name}.parquet", kind) for name in names}


TABLES = {
    "model": Table("model.json"),
    "analyses": Table("analyses.json"),
    "detectors": Table("detectors.parquet"),
    **{
        name: Table(f"comparison/{name}.parquet")
        for name in ("roles", "overlap", "cross", "controls_summary", "consensus", "shared", "shared_members")
    },
    **{
        name: Table(f"comparison/{name}.parquet")
        for name in ("membership", "consensus_edges", "hypotheses", "member_tests", "unseen", "specificity")
    },
    "info": Table("prompts.json", TASK),
    "clean_summary": Table("clean_summary.parquet", TASK),
    "traces": Table("traces.json", TASK),
    "circuits": Table("circuits.json", MAIN),
    "chosen": Table("chosen.json", MAIN),
    **_of(MAIN, "trace", "faithfulness", "choice", "component_effects", "positions", "consensus_tests"),
    "edge_circuits": Table("edge_circuits.json", MAIN),
    **_of(MAIN, "edge_scores"),
    **_of(EXPLAINED, "patching", "attribution", "ov", "backup"),
    **of_geometry(*(name for names in GEOMETRY.values() for name in names)),
}
_FIRST = (
    "model",
    "info",
    "clean_summary",
    "circuits",
    "chosen",
    "trace",
    "faithfulness",
    "choice",
    "component_effects",
)
FIRST = {name: TABLES[name] for name in _FIRST}  # of the first page (first.py), which shows one task alone
OF_MODELS = {"between": "results/comparison/models.parquet"}  # in a study of several


@dataclass(frozen=True)
class Inputs:
    """The files of a job, under the names of TABLES: of each model in turn, of each of its tasks in turn.

    ``tasks``: kind (`shown.TASK`, ...) -> names of tasks. A name that the study does not make has no files.
    """

    files: Mapping[str, Sequence[str]]
    models: Sequence[str]
    tasks: Mapping[str, Sequence[str]]
    _read: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def has(self, name: str, task: str | None = None) -> bool:
        """Whether the study makes a table, and makes it of this task."""
        return bool(self.files.get(name)) and (task is None or task in self.tasks[TABLES[name].of])

    def place(self, name: str, model: str, task: str | None = None) -> str:
        """The file of a table of a model, and of a task where there is one of each."""
        of, at = TABLES[name].of, self.models.index(model)
        if of != MODEL:
            assert task is not None
            at = at * len(self.tasks[of]) + list(self.tasks[of]).index(task)
        return self.files[name][at]

    def read(self, name: str, model: str, task: str | None = None) -> Any:
        """The rows of a table or the content of a JSON file; raises StudyError where it is damaged."""
        path = self.place(name, model, task)
        if path not in self._read:
            self._read[path] = (artifacts.read_json if path.endswith(".json") else artifacts.read_table)(path)
        return self._read[path]

    def rows(self, name: str, model: str, task: str | None = None) -> pd.DataFrame | None:
        """The same of a table, or None where the study does not make it."""
        if not self.has(name, task):
            return None
        table: pd.DataFrame = self.read(name, model, task)
        return table if task is None or "task" not in table else table[table["task"] == task]
