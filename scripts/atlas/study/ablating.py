"""Run the model of a finished study with some of its components ablated, on the prompts of one of its tasks.

Scores are those of the study itself: the same model (its files are held against what the study recorded), prompts,
means, kind of ablation and resamples, so that what a table says of a circuit is what comes out here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from atlas.circuit import kinds
from atlas.circuit.ablation import Ablator
from atlas.circuit.task_data import TaskData
from atlas.core.errors import StudyError
from atlas.core.statistics import Bootstrap
from atlas.model import source
from atlas.report import wording
from atlas.report.findings.reading import Results
from atlas.store import artifacts, places
from atlas.store.sources import ROOT
from atlas.study import html
from atlas.study.circuits import Circuit

METRICS = ("logit_diff", "top1")
Estimate = tuple[float, float, float]  # value, and its 95 % bootstrap interval over the prompts
FILES = ("weights", "tokenizer", "config")  # digests in model.json


@dataclass(frozen=True)
class Ablation:
    """What is left of a task with some components ablated.

    per_prompt: a row for each prompt, with ``prompt``, ``text``, ``answer``, ``incorrect``, ``full`` and ``left``
    (logit differences of the answer over the incorrect one, of the full model and of what is left), ``lost`` (full
    less left) and ``first`` (is the answer still the first choice?). percent: of the full model's mean logit
    difference, left; first: share of prompts; logit_diff: mean, in logits.
    """

    title: str
    about: str
    per_prompt: pd.DataFrame
    percent: Estimate
    logit_diff: Estimate
    first: Estimate

    def by(self, column: str) -> pd.DataFrame:
        """Means of ``full``, ``left``, ``lost`` and ``first`` for each value of a column, as `answer`, with how many
        ``prompts`` have it."""
        groups = self.per_prompt.groupby(column, sort=False)
        found = groups[["full", "left", "lost", "first"]].mean()
        return found.assign(prompts=groups.size()).reset_index()

    def __repr__(self) -> str:
        return f"{self.title}: {said(self.percent, ' %')} of the full model's logit difference left ({self.about})"

    def _repr_html_(self) -> str:
        sentences = [
            f"{said(self.percent, ' %')} of the full model's logit difference is left: {said(self.logit_diff, '', 2)} "
            f"logits. The answer is still the first choice in {said(self.first, ' %', factor=100)} of the prompts.",
            f"{self.about}. Prompts that lose most:",
        ]
        most = self.per_prompt.sort_values("lost", ascending=False, kind="stable").head(3)
        columns = ["prompt", "text", "answer", "full", "left", "lost"]
        return html.block(self.title, sentences, html.frame(most[columns]))


def said(estimate: Estimate, unit: str, digits: int = 1, factor: float = 1) -> str:
    """`82.1 % [80.0, 84.0]`."""
    value, low, high = (wording.number(factor * part, digits) for part in estimate)
    return f"{value}{unit} [{low}, {high}]"


class Ablating:
    """Runs the model on a task's prompts with components ablated; remembers what it has run, on no disk.

    checkpoint, device: as of `finished.open_study`. loaded: of all tasks of the study, holds its `model` once it runs.
    """

    def __init__(
        self, results: Results, task: str, checkpoint: Path | str | None, device: str | None, loaded: dict[str, Any]
    ) -> None:
        self.results, self.task, self.checkpoint, self.loaded = results, task, checkpoint, loaded
        self.settings = settings_of(results, task)
        if device:
            self.settings["run"] = self.settings["run"] | {"device": device}
        self.bootstrap = Bootstrap(self.settings["bootstrap"], self.settings["seed"])
        self._ablators: dict[tuple[str, str], Ablator] = {}

    @cached_property
    def data(self) -> TaskData:
        """The task's prompts, means and model."""
        folder = self.results.folder / self.results.model
        names = {"prompts": "prompts.parquet", "clean": "clean.parquet", "means": "means.pt"}
        paths = {name: folder / self.task / file for name, file in names.items()}
        paths |= {"model": folder / "model.json", "activations": folder / self.task / "activations.pt"}
        for path in paths.values():
            if not path.is_file():
                raise StudyError(f"{path}: missing; ablating needs it, run the study of {self.results.model} again")
        found = TaskData(
            paths,
            {"model": self.results.model, "task": self.task},
            model_folder(self.results, self.checkpoint),
            self.settings["run"],
            **{key: self.settings[key] for key in ("kind", "legacy_mlp_means", "allow_negative_clean")},
        )
        if "model" in self.loaded:
            vars(found)["model"] = self.loaded["model"]  # a cached property: one model serves all tasks
        self.loaded["model"] = found.model
        return found

    def ablator(self, kind: str | None = None, split: str | None = None) -> Ablator:
        """That of a kind of ablation and a split; by default those of the study's reports."""
        kind, split = kind or self.settings["kind"], split or self.data.report_split
        if kind not in kinds.KINDS:
            raise StudyError(f"{kind!r} is no kind of ablation; there are {wording.listing(kinds.KINDS)}")
        there = sorted(set(self.data.every_prompt["split"]))
        if split not in there:
            raise StudyError(f"{self.task}: has no prompts of {split!r}; there are {wording.listing(there)}")
        if (kind, split) not in self._ablators:
            other = None if kind == self.settings["kind"] else kind
            self._ablators[kind, split] = self.data.ablator(split, METRICS, other)
        return self._ablators[kind, split]

    def without(self, out: Circuit, kind: str | None = None, split: str | None = None) -> Ablation:
        """The model without these components."""
        ablator = self.ablator(kind, split)
        return self._scored(
            ablator,
            ablator.everything - out.members,
            f"without {_named(out)}" if len(out) else "unablated",
            kind,
            split,
        )

    def only(self, kept: Circuit, kind: str | None = None, split: str | None = None) -> Ablation:
        """The model with nothing but these."""
        return self._scored(
            self.ablator(kind, split),
            kept.members,
            f"only {_named(kept)}" if len(kept) else "with everything ablated",
            kind,
            split,
        )

    def _scored(self, ablator: Ablator, circuit: Any, title: str, kind: str | None, split: str | None) -> Ablation:
        full, left = ablator.logit_diff(ablator.everything), ablator.scores(circuit)
        split = split or self.data.report_split
        frame = self.data.frame(split)[["prompt", "text", "answer", "incorrect"]]
        scores = {"full": full, "left": left["logit_diff"], "lost": full - left["logit_diff"], "first": left["top1"]}
        many = wording.count(len(frame), "held-out prompt" if split == "held_out" else "prompt")
        many += " searched on" if split == "search" else ""
        how = kinds.known(kind or self.settings["kind"]).title
        return Ablation(
            title=f"{wording.words(self.task)}, {title}",
            about=f"{many}; ablated components are replaced by: {how}",
            per_prompt=frame.assign(**scores),
            percent=self.bootstrap.percent(left["logit_diff"], full),
            logit_diff=self.bootstrap.mean(left["logit_diff"]),
            first=self.bootstrap.mean(left["top1"]),
        )


def _named(circuit: Circuit) -> str:
    """Few components by name, many by their number."""
    return wording.listing(circuit) if len(circuit) <= 6 else circuit.size


def settings_of(results: Results, task: str) -> dict[str, Any]:
    """How the study ran and ablated on a task, from what its table `cross` came from: ``run``, ``kind``, ``bootstrap``,
    ``seed``, ``legacy_mlp_means``, ``allow_negative_clean``."""
    results.read("cross", task)  # which checks its seal
    settings: dict[str, Any] = artifacts.table_provenance(results.folder / results.name_of("cross", task))["settings"]
    return settings


# ---- where the model is --------------------------------------------------------------------------------------
def model_folder(results: Results, checkpoint: Path | str | None = None) -> Path:
    """The folder of the study's model, whose files are those that the study ran.

    ``checkpoint`` where it is given; else the one that the study built or the cache holds, else the one that a
    configuration of this checkout names. Raises StudyError where none holds those files.
    """
    about, model = results.description, results.model
    for folder in [Path(checkpoint).expanduser()] if checkpoint else folders(results):
        if (folder / "config.json").is_file():
            there = source.describe(model, folder)
            changed = [name for name in FILES if there[name] != about[name]]
            if not changed:
                return folder
            if checkpoint:
                said = wording.listing(changed)
                raise StudyError(f"{folder}: holds another model than the study ran; its {said} differ")
    where = f"{checkpoint}: holds no checkpoint" if checkpoint else "its files are not at hand"
    raise StudyError(f"{model}: {where}; give its folder, open_study(..., checkpoint=)")


def folders(results: Results) -> Iterator[Path]:
    """Where the model may be, the likeliest first. Raises StudyError where a cache lost it."""
    about = results.description
    description = results.folder / results.model / "model.json"
    if about["random_weights"]:
        yield description.parent / "checkpoint"
    elif about.get("source"):
        yield places.model_folder({"gguf": about["source"]["file"]}, False, description)
    elif about["commit"]:
        yield places.model_folder(about["provenance"]["settings"]["source"], False, description)
    else:
        for file in (ROOT / "config.yaml", *sorted((ROOT / "presets").glob("*.yaml"))):
            block = yaml.safe_load(file.read_text()).get("models", {}).get(results.model, {})
            if "path" in block:
                yield places.below_root(block["path"])
