"""Whether the circuits do more than random sets of the same shape, and where that cannot be tested."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from atlas.circuit.verdicts import BEYOND, LIKE, UNTESTABLE
from atlas.report.pages import Section
from atlas.report.sections.study import Study, led, prompts_of
from atlas.report.wording import count, interval, listing, number, p_of_tests, p_value, percent, words

# (question, state) -> what is said of {heads} for {tasks}
SAID = {
    ("sufficiency", BEYOND): "{heads}, kept alone with the circuit's MLPs, keep more than random heads in the same "
    "layers for {tasks}",
    ("sufficiency", LIKE): "{heads}, kept alone with the circuit's MLPs, keep no more than random heads in the same "
    "layers, and so are not special, for {tasks}",
    ("sufficiency", UNTESTABLE): "whether {heads} suffice, kept alone with its MLPs, cannot be tested for {tasks}",
    ("necessity", BEYOND): "without {heads}, MLPs left in place, less is left than without other heads in the same "
    "layers for {tasks}",
    ("necessity", LIKE): "without {heads}, MLPs left in place, no less is left than without other heads in the same "
    "layers, so that they are not special, for {tasks}",
    ("necessity", UNTESTABLE): "whether {heads} are necessary, MLPs left in place, cannot be tested for {tasks}",
}


def findings(summary: pd.DataFrame, where: str) -> list[str]:
    """Of each task whether its circuit's heads suffice and are necessary; then the same of the shared heads.

    summary: `controls_summary`; where: the prompts, as `prompts held out`.
    """
    own = summary[summary["circuit"] == summary["task"]]
    sentences = [" ".join(_said(own, "a circuit's heads", where))] if len(own) else []
    for circuit, rows in summary[summary["circuit"] != summary["task"]].groupby("circuit", sort=False):
        sentences += _said(rows, f"the {words(str(circuit))} heads", where)
    return sentences or ["No random control was asked for, so nothing says that these circuits are special."]


def _said(summary: pd.DataFrame, heads: str, where: str) -> list[str]:
    """A sentence for each question and state: every task with its numbers, and behind them what tasks share."""
    sentences = []
    for (question, state), text in SAID.items():
        rows = summary[(summary["question"] == question) & (summary["state"] == state)]
        groups: dict[str, list[str]] = {}
        for _, row in rows.iterrows():
            about = row["reason"] if state == UNTESTABLE else p_of_tests(row, row["controls"])
            groups.setdefault(about, []).append(f"{words(row['task'])} ({_numbers(row)})")
        cases = [
            f"{listing(names)}: {'each ' if len(names) > 1 and state != UNTESTABLE else ''}{about}"
            for about, names in groups.items()
        ]
        if cases:
            said = text.format(heads=heads, tasks="; for ".join(cases))
            sentences.append(f"{said[:1].upper()}{said[1:]} (% of full, {where}).")
    return sentences


def _numbers(row: Mapping[str, Any]) -> str:
    """`82.0 % [80.0, 84.0], random sets 20.0 % [5.0, 40.0]`: what is left of full."""
    return percent(row) + (f", random sets {_controls(row, ' %')}" if row["controls"] else "")


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
        anchor="controls",
        **led(findings(summary, prompts_of(study.tables["cross"]))),
        table=table(summary),
        note="Sufficiency: only the set's heads are kept, with the circuit's MLPs. Necessity: they are ablated, and "
        f"all MLPs stay; controls are drawn from heads outside the set.{floor} Corrected: Holm, over the tests of one "
        "question and circuit; untestable ones count for nothing.",
    )
