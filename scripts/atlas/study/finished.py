"""A finished study, opened where one programs: its circuits, tables, figures, and an ablator on its prompts.

    from atlas.study.finished import open_study

    study = open_study("results")
    study["months"].ablate("3.1", "m4")

Seals are checked when a file is read, and nothing is ever written. A Jupyter notebook shows these objects as HTML.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.core.components import Component, from_json, parse
from atlas.core.errors import StudyError
from atlas.report import pages, wording
from atlas.report.findings.reading import Results, reported, rows
from atlas.study import html
from atlas.study.circuits import Circuit, names_of

if TYPE_CHECKING:
    import pandas as pd

    from atlas.core.statistics import Bootstrap
    from atlas.study.ablating import Ablating, Ablation

PLACE = "results"  # a seal holds the place of its file below a folder of this name
KEPT = "percent_of_full"


def open_study(
    folder: Path | str = PLACE,
    model: str | None = None,
    checkpoint: Path | str | None = None,
    device: str | None = None,
) -> Study:
    """The study of one model in a results folder, which must be called `results`, as the seals of its files say.

    model: its name, where the folder has several. Only what runs the model reads the other two; checkpoint: where its
    files are, if neither the configuration of this checkout nor the cache says so; device: another than the study's
    (`models.device_of`). Raises StudyError, in one line, where there is no finished study.
    """
    folder = Path(folder).expanduser()
    if PLACE not in folder.parts and PLACE not in folder.absolute().parts:
        raise StudyError(f"{folder}: the files of a study lie in a folder called `{PLACE}`; give that one")
    found = sorted(file.parent.name for file in folder.glob("*/model.json"))
    if not found:
        raise StudyError(f"{folder}: holds no study; run `snakemake --cores 2` first, or give its `{PLACE}` folder")
    if model is None and len(found) > 1:
        raise StudyError(f"{folder}: holds studies of {wording.listing(found)}; say which with model=")
    if model is not None and model not in found:
        raise StudyError(f"{folder}: holds no study of {model!r}; there are {wording.listing(found)}")
    study = Study(Results(folder, model or found[0]), checkpoint, device)
    study.main  # noqa: B018, refuses a study that was not run to its end
    return study


@dataclass(frozen=True)
class Study:
    """All that was found out about one model; ``study["months"]`` is one of its tasks. See `open_study`."""

    results: Results
    checkpoint: Path | str | None = None
    device: str | None = None
    loaded: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)  # the model, once it was asked for
    _tasks: dict[str, Task] = field(default_factory=dict, compare=False, repr=False)

    @property
    def model(self) -> str:
        return self.results.model

    @property
    def main(self) -> list[str]:
        """The tasks that circuits were searched for."""
        return self.results.main

    @property
    def tasks(self) -> list[str]:
        """These, then those that circuits were only evaluated on."""
        return self.results.tasks

    def __getitem__(self, task: str) -> Task:
        if task not in self.tasks:
            raise StudyError(f"{self.model}: has no task {task!r}; there are {wording.listing(self.tasks)}")
        return self._tasks.setdefault(task, Task(self, task))

    def __iter__(self) -> Iterator[Task]:
        return (self[task] for task in self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)

    # ---- circuits ----------------------------------------------------------------------------------------
    @property
    def circuits(self) -> dict[str, Circuit]:
        """Main task -> the circuit that is reported."""
        return {task: self[task].circuit for task in self.main}

    @property
    def shared(self) -> Circuit:
        """What the reported circuits of all main tasks have in common."""
        return self.circuit(set.intersection(*(set(c.members) for c in self.circuits.values())), "shared, reported")

    @property
    def shared_core(self) -> Circuit:
        """What the cores of all main tasks have in common: parts that nearly all searches keep (`consensus.json`)."""
        return self.circuit(from_json(self.results.read("comparison/consensus.json")["shared"]), "shared, cores")

    def circuit(self, components: Iterable[Any], title: str = "own", facts: Iterable[str] = ()) -> Circuit:
        """A circuit of this model, of components or their names; raises StudyError on one that it does not have."""
        found = set()
        for name in components:
            try:
                component = parse(str(name))
            except ValueError:
                raise StudyError(f"{name!r} is no component; heads are called 3.1, MLPs m4") from None
            if not isinstance(component, Component) or not self._has(component):
                raise StudyError(f"{self.model}: has no component {name}; {self._sizes}")
            found.add(component)
        return Circuit(frozenset(found), title, self.results.n_layers, self.results.n_heads, tuple(facts))

    def _has(self, component: Component) -> bool:
        most = self.results.n_heads
        return 0 <= component.layer < self.results.n_layers and (component.is_mlp or 0 <= component.head < most)

    @property
    def _sizes(self) -> str:
        heads = wording.count(self.results.n_heads, "head")
        return f"{wording.count(self.results.n_layers, 'layer')} of {heads}, each with an MLP"

    # ---- tables and figures ------------------------------------------------------------------------------
    @property
    def tables(self) -> list[str]:
        """Names of the tables of the whole study (docs/artifacts.md); those of a task: ``study[task].tables``."""
        folder = self.results.folder / self.model
        files = (*folder.glob("*.parquet"), *folder.glob("comparison/*.parquet"), *folder.glob("generation/*.parquet"))
        return sorted(file.relative_to(folder).with_suffix("").as_posix() for file in files)

    def table(self, name: str) -> pd.DataFrame:
        """A table of the whole study, `comparison/overlap`, as a copy; of a `.json` file its content."""
        return read(self.results, name, None, self.tables)

    @property
    def figures(self) -> list[str]:
        """Names of the figures of the whole study; `shared.circuit_diagram` is of what the main tasks share."""
        return html.figures(self._figures, self.model, self.tasks)

    def figure(self, name: str) -> html.Figure:
        """A figure of the whole study, as it was drawn; figures carry no seal."""
        return html.figure(self._figures, self.model, name, self.figures)

    @property
    def _figures(self) -> Path:
        return self.results.folder / "figures" / self.model

    # ---- what a notebook shows -------------------------------------------------------------------------------
    def __repr__(self) -> str:
        return f"study of {self.model}: {wording.listing(self.tasks)}"

    def _repr_html_(self) -> str:
        header = ["task", "circuit", "keeps of the logit difference", "core of all searches"]
        lines = []
        for task in self.tasks:
            if task not in self.main:
                lines.append([wording.words(task), "not searched", "\u2013", "\u2013"])
                continue
            members, core = self[task].circuit, self[task].core
            lines.append([wording.words(task), members.size, wording.percent(self[task].kept), core.size])
        about = f"{self.results.description['architecture']}, {self._sizes}"
        said = [about, pages.warning(self.results.description), "Shared by all circuits: " + self.shared.listed]
        return html.block(f"Study of {self.model}", [s for s in said if s], html.table(header, lines))


@dataclass(frozen=True)
class Task:
    """One task of a study, as ``study[task]`` gives it."""

    study: Study
    name: str

    @property
    def is_main(self) -> bool:
        """Whether circuits were searched for it."""
        return self.name in self.study.main

    def _refuse_unsearched(self) -> None:
        if not self.is_main:
            searched = wording.listing(self.study.main)
            raise StudyError(f"{self.name}: no circuit was searched for it, it was only evaluated on; for {searched}")

    # ---- circuits ----------------------------------------------------------------------------------------
    @property
    def circuit(self) -> Circuit:
        """The circuit that the study reports and compares."""
        self._refuse_unsearched()
        content = self.study.results.read("comparison/circuits.json")
        entry, threshold = content["circuits"][self.name], content["provenance"]["settings"]["threshold"]
        facts = [f"Found by the order {wording.words(entry['order'])}."]
        facts.append(f"It keeps {wording.percent(self.kept)} of the logit difference of {self._said_of(self.kept)}.")
        if self.kept["value"] <= 100 - threshold:
            facts.append(f"That is not above the floor of {100 - threshold:g} %.")
        return self.study.circuit(from_json(entry), f"circuit of {wording.words(self.name)}", facts)

    @property
    def core(self) -> Circuit:
        """What nearly all searches of the task keep (docs/methods.md, consensus)."""
        self._refuse_unsearched()
        entry = self.study.results.read("comparison/consensus.json")["tasks"][self.name]
        facts = [f"Kept by nearly all of {entry['runs']} searches."]
        return self.study.circuit(from_json(entry["core"]), f"core of {wording.words(self.name)}", facts)

    @property
    def kept(self) -> pd.Series[Any]:
        """The row of `cross` with the percent of the full model's logit difference that its circuit keeps, on the
        prompts that are reported on (``value``, ``ci_low``, ``ci_high``, ``split``, ``prompts``)."""
        self._refuse_unsearched()
        found = rows(self.study.results.read("comparison/cross"), circuit=self.name, task=self.name, metric=KEPT)
        return found.iloc[0]

    @staticmethod
    def _said_of(row: Any) -> str:
        noun = "held-out prompt" if row["split"] == "held_out" else "prompt"
        return wording.count(row["prompts"], noun)

    # ---- tables, figures, prompts ------------------------------------------------------------------------
    @property
    def tables(self) -> list[str]:
        """Names of the task's tables (docs/artifacts.md)."""
        folder = self.study.results.folder / self.study.model / self.name
        return sorted(file.stem for file in folder.glob("*.parquet"))

    def table(self, name: str) -> pd.DataFrame:
        """A table of the task, `component_effects`, as a copy; of a `.json` file its content."""
        return read(self.study.results, name, self.name, self.tables)

    @property
    def figures(self) -> list[str]:
        """Names of the task's figures."""
        return html.figures(self.study._figures, f"{self.study.model}.{self.name}")

    def figure(self, name: str) -> html.Figure:
        """A figure of the task, `circuit_diagram`, as it was drawn; figures carry no seal."""
        return html.figure(self.study._figures, f"{self.study.model}.{self.name}", name, self.figures)

    @property
    def prompts(self) -> pd.DataFrame:
        """Every prompt, with ``kept`` (passed the filter) and the scores of the unharmed model (`with_scores`)."""
        from atlas.prompts.clean_scores import with_scores

        return with_scores(self.table("prompts"), self.table("clean"))

    @property
    def accuracy(self) -> pd.Series[Any]:
        """The row of `clean_summary` with the share of clean prompts whose first choice is right, on the reported
        split."""
        found = rows(self.study.results.read("clean_summary", self.name), run="clean", metric="top1")
        return reported(found).iloc[0]

    # ---- the model ---------------------------------------------------------------------------------------
    @cached_property
    def ablating(self) -> Ablating:
        """What runs the model on the task's prompts."""
        from atlas.study.ablating import Ablating

        study = self.study
        return Ablating(study.results, self.name, study.checkpoint, study.device, study.loaded)

    @property
    def bootstrap(self) -> Bootstrap:
        """That of the study: intervals of per-prompt values as its tables have them, paired over prompts."""
        return self.ablating.bootstrap

    def ablate(self, *components: Any, kind: str | None = None, split: str | None = None) -> Ablation:
        """The model with these ablated: components, their names, or circuits; everything downstream is recomputed.

        kind: of the ablation, by default the study's. split: `search` or `held_out`; by default what is reported on.
        Raises StudyError, in one line, on a component that the model lacks and where the model's files are not at hand.
        """
        out = self.study.circuit(names_of(components))
        return self.ablating.without(out, kind, split)

    def keep(self, *components: Any, kind: str | None = None, split: str | None = None) -> Ablation:
        """The same of the model with everything but these ablated."""
        return self.ablating.only(self.study.circuit(names_of(components)), kind, split)

    # ---- what a notebook shows ---------------------------------------------------------------------------
    def __repr__(self) -> str:
        return f"{self.name} of {self.study!r}"

    def _repr_html_(self) -> str:
        counts = self.study.results.read("prompts.json", self.name)["counts"]
        said = [f"{wording.count(counts['prompts'], 'prompt')}, {counts['search']} searched on"]
        said.append(f"The answer is the first choice in {wording.percent(self.accuracy, 100)} of what is reported on.")
        columns = ["prompt", "split", "text", "answer", "incorrect", "logit_diff"]
        head = self.prompts[self.prompts["kept"]][columns].head(3)
        parts = [html.frame(head)] + ([self.circuit._repr_html_()] if self.is_main else [])
        return html.block(wording.words(self.name), said, *parts)


def read(results: Results, name: str, task: str | None, there: list[str]) -> Any:
    """A copy of a table, or the content of a JSON file; raises StudyError where it is none of the tables ``there``."""
    if not results.has(name, task):
        place = results.name_of(name, task)
        raise StudyError(f"{results.folder / place}: there is no such file; tables are {wording.listing(there)}")
    found = results.read(name, task)
    return copy.deepcopy(found)
