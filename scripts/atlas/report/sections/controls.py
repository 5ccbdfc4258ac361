"""Whether the circuits do more than random sets of the same shape."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from atlas.report.pages import Section
from atlas.report.sections.study import ALPHA, Study, led
from atlas.report.wording import interval, listing, number, p_value, percent, words


def findings(summary: pd.DataFrame) -> list[str]:
    """Whether the circuits do more than random sets of the same shape."""
    tested = summary[summary["controls"] > 0]
    sentences = []
    if tested.empty:
        sentences.append("No random control was possible, so nothing says that these circuits are special.")
    else:
        parts = [
            f"{(rows['p'] < ALPHA).sum()} of {len(rows)} tests of {question}"
            for question, rows in tested.groupby("question", sort=False)
        ]
        sentences.append(
            f"Circuits do more than random sets with as many heads in every layer (p < {ALPHA}) in {listing(parts)}."
        )
    verdicts: dict[str, list[str]] = {}
    for _, row in tested.iterrows():
        numbers = f"{percent(row)}, random sets {number(row['control_median'], 1)} %, {p_value(row['p'])}"
        verdicts.setdefault(_verdict(row), []).append(f"{words(row['task'])} ({numbers})")
    sentences += [f"{verdict}: {listing(cases)}." for verdict, cases in verdicts.items()]
    for note, rows in summary[summary["controls"] == 0].groupby("note", sort=False):
        names = listing(dict.fromkeys(_control_name(row) for _, row in rows.iterrows()))
        sentences.append(f"Not tested: {names} ({note or 'no controls'}).")
    return sentences


def _verdict(row: Mapping[str, Any]) -> str:
    best_p = 1 / (1 + row["controls"])
    if row["p"] >= ALPHA and best_p >= ALPHA:
        return f"So few sets of this shape exist that p cannot fall below {best_p:.2g}, which decides nothing"
    more, rest = ("more", "") if row["p"] < ALPHA else ("no more", ", so these heads are not special there")
    if row["question"] == "sufficiency":
        return f"With only its heads kept, the circuit keeps {more} than random sets{rest}"
    return f"Ablating the {words(row['circuit'])} heads does {more} harm than ablating random sets{rest}"


def _control_name(row: Mapping[str, Any]) -> str:
    if row["circuit"] == row["task"]:
        return f"{row['question']} of the {words(row['circuit'])} circuit"
    return f"{row['question']} of the {words(row['circuit'])} heads for {words(row['task'])}"


def table(summary: pd.DataFrame) -> dict[str, Any]:
    """A row for each question, circuit and task of `controls_summary.parquet`."""
    rows = [
        [
            row["question"],
            words(row["circuit"]),
            words(row["task"]),
            interval(row),
            f"{number(row['control_median'], 1)} [{number(row['control_low'], 1)}, {number(row['control_high'], 1)}]"
            if row["controls"]
            else "\u2013",
            f"{row['controls']:.0f}",
            p_value(row["p"], name=""),
            row["note"] or "",
        ]
        for _, row in summary.iterrows()
    ]
    header = ["question", "circuit", "task", "% of full", "controls: median [95 % of them]", "controls", "p", "note"]
    return {"header": header, "rows": rows}


def section(study: Study) -> Section:
    """Sufficiency and necessity beside random controls."""
    summary = study.tables["controls_summary"]
    return Section(
        title="Random controls",
        **led(findings(summary)),
        table=table(summary),
        note="Sufficiency: only the set's heads are kept, with the circuit's MLPs. Necessity: they are ablated.",
    )
