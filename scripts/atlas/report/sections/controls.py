"""Whether the circuits do more than random sets of the same shape, and where that cannot be tested."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from atlas.circuit.verdicts import BEYOND, LIKE, UNTESTABLE
from atlas.report.pages import Section
from atlas.report.sections.study import Study, led, prompts_of
from atlas.report.wording import count, interval, listing, number, p_of_tests, p_value, percent, words

# (question, state) -> what is said of a task's circuit, of the shared heads; {} is a list of tasks
SAID = {
    ("sufficiency", BEYOND): "kept alone with the circuit's MLPs, its heads keep more than random heads in the same "
    "layers for {}",
    ("sufficiency", LIKE): "kept alone with the circuit's MLPs, its heads keep no more than random heads in the same "
    "layers for {}, so they are not special there",
    ("sufficiency", UNTESTABLE): "whether its heads suffice is untestable for {}",
    ("necessity", BEYOND): "ablating {heads}, MLPs left in place, leaves less than ablating other heads in the same "
    "layers for {}",
    ("necessity", LIKE): "ablating {heads}, MLPs left in place, leaves no less than ablating other heads in the same "
    "layers for {}, so they are not special there",
    ("necessity", UNTESTABLE): "whether {heads} are necessary is untestable for {}",
}


def findings(summary: pd.DataFrame, where: str) -> list[str]:
    """Of each task whether its circuit's heads suffice and are necessary; then the same of the shared heads.

    summary: `controls_summary`; where: the prompts, as `held-out prompts`.
    """
    own = summary[summary["circuit"] == summary["task"]]
    sentences = [f"On {where}: {'; '.join(_said(own, 'its heads'))}."] if len(own) else []
    for circuit, rows in summary[summary["circuit"] != summary["task"]].groupby("circuit", sort=False):
        sentences += [f"On {where}, {text}." for text in _said(rows, f"the {words(str(circuit))} heads")]
    return sentences or ["No random control was asked for, so nothing says that these circuits are special."]


def _said(summary: pd.DataFrame, heads: str) -> list[str]:
    """One part for each question and state, with the numbers of every task and what all of them have in common."""
    parts = []
    for (question, state), text in SAID.items():
        rows = summary[(summary["question"] == question) & (summary["state"] == state)]
        groups: dict[str, list[str]] = {}
        for _, row in rows.iterrows():
            about = row["reason"] if state == UNTESTABLE else p_of_tests(row, row["controls"])
            groups.setdefault(about, []).append(_numbers(row))
        cases = [
            f"{listing(names)} ({'each ' if len(names) > 1 and 'p ' in about else ''}{about})"
            for about, names in groups.items()
        ]
        if cases:
            parts.append(text.replace("{heads}", heads).replace("{}", "; for ".join(cases)))
    return parts


def _numbers(row: Mapping[str, Any]) -> str:
    """`months 82.0 % [80.0, 84.0], random sets 20.0 % [5.0, 40.0]`: what is left of full."""
    said = f"{words(row['task'])} {percent(row)}"
    return f"{said}, random sets {_controls(row, ' %')}" if row["controls"] else said


def _controls(row: Mapping[str, Any], unit: str = "") -> str:
    low, high = (number(row[key], 1) for key in ("control_low", "control_high"))
    return f"{number(row['control_median'], 1)}{unit} [{low}, {high}]"


def table(summary: pd.DataFrame) -> dict[str, Any]:
    """A row for each question, circuit and task of `controls_summary.parquet`."""
    rows = [
        [
            row["question"],
            words(row["circuit"]),
            words(row["task"]),
            interval(row),
            _controls(row) if row["controls"] else "\u2013",
            f"{row['controls']:.0f}",
            *(p_value(row[key], name="") for key in ("p", "p_holm")),
            f"{row['tests']:.0f}" if row["p_holm"] == row["p_holm"] else "\u2013",
            row["state"] + (f": {row['reason']}" if row["reason"] else ""),
        ]
        for _, row in summary.iterrows()
    ]
    header = ["question", "circuit", "task", "% of full", "controls: median [95 % of them]", "controls"]
    return {"header": [*header, "p", "p, corrected", "of tests", "state"], "rows": rows}


def section(study: Study) -> Section:
    """Sufficiency and necessity beside random controls."""
    summary = study.tables["controls_summary"]
    most = summary["controls"].max()
    floor = f" With {count(most, 'control')} no p lies below {1 / (1 + most):.2g}." if most else ""
    return Section(
        title="Random controls",
        **led(findings(summary, prompts_of(study.tables["cross"]))),
        table=table(summary),
        note="Sufficiency: only the set's heads are kept, with the circuit's MLPs. Necessity: they are ablated, and "
        f"all MLPs stay; controls are drawn from heads outside the set.{floor} Corrected: Holm, over the tests of one "
        "question and circuit; untestable ones count for nothing.",
    )
