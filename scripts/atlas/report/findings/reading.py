"""The tables of finished studies, by model, task and name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from atlas.circuit import verdicts
from atlas.circuit.chosen import OWN_RUN, entry_at
from atlas.core.errors import StudyError
from atlas.report import pages, wording
from atlas.store import artifacts

SHARED = "shared"  # in place of a task: what the circuits of all main tasks share


@dataclass(frozen=True)
class Results:
    """The results of one model's study below ``folder`` (`results/`).

    Files are read when they are first asked for, and once. Raises StudyError, in one line, where a file is missing or
    damaged.
    """

    folder: Path
    model: str
    _read: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def name_of(self, name: str, task: str | None = None) -> str:
        """`model/task/name.parquet`, as the page cites it; a name with an ending stands as it is."""
        file = name if "." in name else f"{name}.parquet"
        return "/".join(part for part in (self.model, task, file) if part)

    def read(self, name: str, task: str | None = None) -> Any:
        """A table, or the content of a JSON file, of the model or of one of its tasks."""
        cited = self.name_of(name, task)
        if cited not in self._read:
            path = self.existing(cited)
            reader = artifacts.read_json if path.suffix == ".json" else artifacts.read_table
            self._read[cited] = reader(path)
        return self._read[cited]

    def existing(self, cited: str) -> Path:
        """The path of a file as it is cited; raises StudyError where it is missing."""
        path = self.folder / cited
        if not path.is_file():
            raise StudyError(f"{path}: missing; run the study of {self.model} to its end first")
        return path

    def has(self, name: str, task: str | None = None) -> bool:
        return (self.folder / self.name_of(name, task)).is_file()

    # ---- what the study is of ----------------------------------------------------------------------------
    @cached_property
    def description(self) -> dict[str, Any]:
        """`model.json`."""
        found: dict[str, Any] = self.read("model.json")
        return found

    @property
    def n_layers(self) -> int:
        return int(self.description["n_layers"])

    @property
    def n_heads(self) -> int:
        """Of a layer."""
        return int(self.description["n_heads"])

    @property
    def all_heads(self) -> int:
        return self.n_layers * self.n_heads

    @cached_property
    def main(self) -> list[str]:
        """The tasks that were searched, in the study's order."""
        return list(self.read("comparison/circuits.json")["circuits"])

    @cached_property
    def tasks(self) -> list[str]:
        """These, then those that circuits were only evaluated on."""
        evaluated = self.read("comparison/cross")["task"]
        return [*self.main, *(task for task in evaluated.unique() if task not in self.main)]

    # ---- circuits ----------------------------------------------------------------------------------------
    @cached_property
    def circuits(self) -> dict[str, frozenset[str]]:
        """Main task -> names of the components of the circuit that is reported."""
        members = self.read("comparison/membership")
        return {task: frozenset(members.loc[members["circuit"] == task, "component"]) for task in self.main}

    @cached_property
    def cores(self) -> dict[str, frozenset[str]]:
        """Main task -> names of the components that nearly all of its searches keep (`consensus.json`)."""
        parts = self.read("comparison/consensus.json")["tasks"]
        return {task: frozenset([*parts[task]["core"]["heads"], *parts[task]["core"]["mlps"]]) for task in self.main}

    @property
    def threshold(self) -> float:
        """T of the circuits that are compared."""
        return float(self.read("comparison/consensus.json")["threshold"])

    def passes(self, task: str) -> bool:
        """Whether the reported circuit of a task passes the floor on the prompts that it is reported on."""
        return bool(entry_at(self.existing(self.name_of("chosen.json", task)), self.threshold)["passes"])

    def searches(self, task: str) -> int:
        """How many searches of a task its core is of."""
        return int(self.read("comparison/consensus.json")["tasks"][task]["runs"])

    def shared(self, tasks: Iterable[str] | None = None) -> frozenset[str]:
        """The heads in the cores of all of these tasks (all main ones)."""
        return frozenset.intersection(*(heads(self.cores[task]) for task in (tasks or self.main)))

    def runs(self, tasks: Iterable[str]) -> dict[tuple[str, str], dict[str, frozenset[str]]]:
        """(family, run) -> task -> heads found, of the searches in `stability.json` that all of these tasks have.

        The reported circuit stands among the orders, by the name of its own, and is not counted again elsewhere.
        """
        found: dict[tuple[str, str], dict[str, frozenset[str]]] = {}
        tasks = list(tasks)
        for task in tasks:
            for run in self.read("stability.json", task)["runs"]:
                if run["level"] == "component" and run["run"] != OWN_RUN:
                    found.setdefault((run["family"], run["run"]), {})[task] = heads(run["members"])
        return {key: by_task for key, by_task in found.items() if len(by_task) == len(tasks)}


def heads(components: Iterable[str]) -> frozenset[str]:
    """Those of the named components that are heads."""
    return frozenset(name for name in components if not wording.is_mlp(name))


def rows(table: pd.DataFrame, **where: object) -> pd.DataFrame:
    """The rows of a table with these values."""
    for key, value in where.items():
        table = table[table[key] == value]
    return table


def of_shared(results: Results, tasks: Iterable[str] | None = None) -> pd.DataFrame:
    """What is left of each of these tasks (all of them) without the heads that all cores share, beside random sets and
    with its verdict: a row a task."""
    tables = [results.read("consensus_tests", task).assign(task=task) for task in tasks or results.tasks]
    tests = verdicts.of_parts(pd.concat(tables, ignore_index=True), results.main)
    return rows(tests, question="necessity", circuit=SHARED)


def random_sets(row: pd.Series, factor: float = 1) -> str:
    """Median and spread of a row's random sets; a dash where there are none."""
    if not row["controls"]:
        return "\u2013"
    low, high = (wording.number(factor * row[key], 1) for key in ("control_low", "control_high"))
    return f"{wording.number(factor * row['control_median'], 1)} [{low}, {high}]"


def decision(row: pd.Series, name: str = "p") -> str:
    """The p-value after Holm of a row with its verdict (`circuit/verdicts.py`), as `wording.p_value` writes it; why,
    where the test could not decide anything."""
    if row["state"] == verdicts.UNTESTABLE:
        return f"untestable: {row['reason']}"
    return wording.p_value(row["p_holm"], name)


def reported(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of held-out prompts; of the prompts searched on where none were held out."""
    held_out = table[table["split"] == "held_out"]
    return held_out if len(held_out) else table[table["split"] == "search"]


def source_of(description: dict[str, Any]) -> str:
    """What `model.json` says of a model's size, and of where its weights come from."""
    size = f"{description['architecture']}, {description['n_layers']} layers of {description['n_heads']} heads"
    return f"{size}. {pages.warning(description)}".rstrip(" .")
