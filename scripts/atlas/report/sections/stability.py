"""How far the circuits depend on the order of the search and on the prompts."""

from typing import Any

import pandas as pd

from atlas.report.pages import Section
from atlas.report.sections.study import Study, led, span
from atlas.report.wording import listing, number, words

FAMILIES = {
    "orders": "search orders",
    "bootstrap": "resamples of the prompts",
    "seeds": "seeds of the prompts",
    "templates": "sets of templates",
    "corruption": "corruptions",
}


def findings(summary: pd.DataFrame, tasks: list[str]) -> list[str]:
    """How far the circuits depend on the order of the search and on the prompts."""
    table = summary[summary["task"].isin(tasks)]
    compared = table[table["runs"] > 1]
    heads = compared[compared["level"] == "head"]
    if heads.empty:
        return ["No search was repeated, so how much the circuits depend on order and prompts is unknown."]
    sentences = [
        f"Two searches of one task, with another order or other prompts, end in circuits whose heads have a mean "
        f"Jaccard index of {span(heads['jaccard'])}; random heads, as many in every layer, have "
        f"{span(heads['expected'])}."
    ]
    chance = heads[heads["jaccard_high"] <= heads["expected"]]
    if len(chance):
        cases = listing(f"{words(row.task)} ({FAMILIES[row.family]})" for row in chance.itertuples())
        sentences.append(f"No pair of runs agrees on heads more than chance: {cases}.")
    for task in tasks:
        for level, noun in (("head", "head"), ("mlp", "MLP"), ("edge", "edge")):
            rows = compared[(compared["task"] == task) & (compared["level"] == level)]
            parts = [
                f"{row.intersection} of the {row.union} that any of {row.runs} {FAMILIES[row.family]} keeps ("
                f"{span([row.size_min, row.size_max], 0)} in each, Jaccard index {number(row.jaccard, 2)})"
                for row in rows.itertuples()
            ]
            if parts:
                sentences.append(f"{words(task).capitalize()}, {noun}s kept by all: {listing(parts)}.")
    return sentences


def table(summary: pd.DataFrame, tasks: list[str]) -> dict[str, Any] | None:
    """A row for each task, level and family of runs; None where there is none."""
    rows = [
        [
            words(row["task"]),
            row["level"],
            row["family"],
            *(f"{row[key]:.0f}" for key in ("runs", "size_min", "size_max", "intersection", "union")),
            f"{number(row['jaccard'], 2)} [{number(row['jaccard_low'], 2)}, {number(row['jaccard_high'], 2)}]",
            number(row["expected"], 2),
        ]
        for _, row in summary[summary["task"].isin(tasks)].iterrows()
    ]
    header = [
        "task",
        "level",
        "runs over",
        "runs",
        "smallest",
        "largest",
        "kept by all",
        "by any",
        "Jaccard",
        "expected",
    ]
    return {"header": header, "rows": rows} if rows else None


def section(study: Study) -> Section:
    """Repeated searches of each task."""
    summary = study.tables["stability_summary"]
    return Section(
        title="Stability",
        **led(findings(summary, study.main)),
        table=table(summary, study.main),
        note="Jaccard index: mean over pairs of runs [least, largest]. Expected: random circuits with the same numbers "
        "per layer; for edges not computed.",
    )
