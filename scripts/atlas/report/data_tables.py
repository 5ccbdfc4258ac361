"""What there is of a task's data before anything is searched: numbers of prompts, the model's scores, answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from atlas.core.statistics import Bootstrap, interval_columns
from atlas.prompts import rejections
from atlas.prompts.clean_scores import SIDES

METRICS = ("top1", "logit_diff", "probability", "corrupted_top1", "corrupted_logit_diff")


@dataclass(frozen=True)
class TaskPrompts:
    """What is known of one task's data.

    ``prompts``: prompts.parquet with what `clean_scores.with_scores` adds; ``info``: prompts.json; ``rejected``:
    rejected.parquet; ``settings``: ``file`` (do prompts come from a file?), ``filter``, ``allow_negative_clean`` and
    ``groups`` (`ablation.groups`).
    """

    task: str
    prompts: pd.DataFrame
    info: Mapping[str, Any]
    rejected: pd.DataFrame
    settings: Mapping[str, Any]
    bootstrap: Bootstrap

    @property
    def from_file(self) -> bool:
        return bool(self.settings["file"])

    @property
    def read(self) -> int:
        return len(self.prompts) + len(self.rejected)

    def of_split(self, split: str) -> pd.DataFrame:
        """The prompts of a split, or of both for ``all``."""
        return self.prompts if split == "all" else self.prompts[self.prompts["split"] == split]

    def more_prompts(self) -> str:
        return "give the file more rows" if self.from_file else "raise per_template"


def counts(data: TaskPrompts) -> dict[str, int]:
    """How many prompts were read, rejected and kept, are on each side, and pass the filter."""
    sides = {split: len(data.of_split(split)) for split in SIDES}
    found = {"read": data.read, "rejected": len(data.rejected), "kept": len(data.prompts)} | sides
    return found | {"pass the filter": int(data.prompts["kept"].sum())} if data.settings["filter"] else found


def score_table(data: TaskPrompts) -> pd.DataFrame:
    """A line for each metric of `METRICS` on all prompts, on each side, and on each wording where there are several.

    Columns ``split``, ``template`` (empty: all), ``metric``, ``value``, ``ci_low``, ``ci_high``, ``prompts``. Prompts
    that do not pass the filter count too, as in clean_summary.parquet.
    """
    parts = [(split, "", data.of_split(split)) for split in ("all", *SIDES)]
    wordings = list(data.prompts.groupby("template", sort=False))
    parts += [("all", str(template), rows) for template, rows in wordings if len(wordings) > 1]
    lines = [
        {"split": split, "template": template, "metric": metric, "prompts": len(rows)}
        | interval_columns(data.bootstrap.mean(rows[metric].to_numpy()))
        for split, template, rows in parts
        if len(rows)
        for metric in METRICS
    ]
    return pd.DataFrame(lines)


def answer_table(prompts: pd.DataFrame) -> pd.DataFrame:
    """How many prompts of each side have each answer, the most common first: ``answer``, ``search``, ``held_out``."""
    table = pd.crosstab(prompts["answer"].str.strip(" "), prompts["split"]).reindex(columns=list(SIDES), fill_value=0)
    order = table.sum(axis=1).sort_values(ascending=False, kind="stable").index
    return table.loc[order].rename_axis("answer").reset_index().rename_axis(columns=None)


def row_of(scores: pd.DataFrame, metric: str, split: str = "all", template: str = "") -> dict[str, Any]:
    """One line of `score_table`."""
    at = (scores["metric"] == metric) & (scores["split"] == split) & (scores["template"] == template)
    found: dict[str, Any]
    (found,) = scores[at].to_dict("records")
    return found


def remedy_of(reason: str) -> str:
    """What to do about prompts that were rejected for this reason."""
    return rejections.REMEDIES[reason]
