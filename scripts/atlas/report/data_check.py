"""A look at the prompts of a task before hours are spent: what was kept, how the model does on it, what looks wrong.

Tables only: no model runs here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from atlas.prompts.clean_scores import SIDES
from atlas.report.data_tables import TaskPrompts, answer_table, counts, remedy_of, row_of, score_table
from atlas.report.data_warnings import CHECKS, Warned
from atlas.report.wording import count, interval, percent

COLUMNS = ("part", "name", "split", "template", "value", "ci_low", "ci_high", "prompts", "text", "remedy")


@dataclass(frozen=True)
class Look:
    """What a look at a task shows: ``counts``, ``reasons`` (with how many prompts), ``scores`` (`score_table`),
    ``answers`` (`answer_table`), and what looks wrong, what stops the study first."""

    data: TaskPrompts
    counts: dict[str, int]
    reasons: dict[str, int]
    scores: pd.DataFrame
    answers: pd.DataFrame
    warnings: list[Warned]


def look(data: TaskPrompts) -> Look:
    """Look at a task's data."""
    scores = score_table(data)
    found = [warned for check in CHECKS for warned in check(data, scores)]
    return Look(
        data=data,
        counts=counts(data),
        reasons={str(reason): int(n) for reason, n in data.rejected["reason"].value_counts().items()},
        scores=scores,
        answers=answer_table(data.prompts),
        warnings=sorted(found, key=lambda warned: not warned.stops),
    )


def data_table(found: Look) -> pd.DataFrame:
    """A look as a tidy table; columns `COLUMNS`.

    ``part`` is `count`, `rejected` (``name``: the reason), `score` (a metric), `answer` or `warning`; ``value`` is a
    number of prompts, or a mean with its interval, or, of a warning, 1 where it stops the study.
    """
    lines: list[dict[str, Any]] = [{"part": "count", "name": k, "value": n} for k, n in found.counts.items()]
    lines += [
        {"part": "rejected", "name": reason, "value": n, "remedy": remedy_of(reason)}
        for reason, n in found.reasons.items()
    ]
    lines += [{"part": "score", "name": row.pop("metric")} | row for row in found.scores.to_dict("records")]
    lines += [
        {"part": "answer", "name": row["answer"], "split": split, "value": row[split]}
        for row in found.answers.to_dict("records")
        for split in SIDES
    ]
    lines += [
        {"part": "warning", "name": w.name, "value": float(w.stops), "text": w.text, "remedy": w.remedy}
        for w in found.warnings
    ]
    table = pd.DataFrame(lines, columns=list(COLUMNS))
    words = ["part", "name", "split", "template", "text", "remedy"]
    numbers = [name for name in COLUMNS if name not in words]
    return table.fillna(dict.fromkeys(words, "")).astype(dict.fromkeys(words, "str") | dict.fromkeys(numbers, "float"))


def tables(looks: Sequence[Look], model: str) -> pd.DataFrame:
    """The looks at all tasks of a model as one table: ``model``, ``task`` and `COLUMNS`."""
    found = [data_table(look).assign(model=model, task=look.data.task) for look in looks]
    return pd.concat(found, ignore_index=True)[["model", "task", *COLUMNS]]


def digest(looks: Iterable[Look]) -> str:
    """What a look shows, as lines of plain text for a terminal."""
    lines = []
    for found in looks:
        data, n = found.data, found.counts
        right, difference = (row_of(found.scores, metric) for metric in ("top1", "logit_diff"))
        passed = f", {n['pass the filter']} pass the filter" if "pass the filter" in n else ""
        lines += [
            f"{data.task}: {n['kept']} of {count(n['read'], 'prompt')} kept{passed}; {n['search']} to search on, "
            f"{n['held_out']} held out",
            f"  first choice right {percent(right, 100)}, logit difference {interval(difference, 2)}",
        ]
        lines += [f"  rejected: {k} for: {reason} -> {remedy_of(reason)}" for reason, k in found.reasons.items()]
        for warned in found.warnings:
            lines.append(f"  {'STOPS THE STUDY' if warned.stops else 'warning'}: {warned.text} -> {warned.remedy}")
        lines += [] if found.warnings else ["  nothing looks wrong"]
    return "\n".join(lines) + "\n"
