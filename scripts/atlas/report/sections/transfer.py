"""What circuits keep on tasks they were not searched on, and what their shared part does."""

from typing import Any

import numpy as np
import pandas as pd

from atlas.report.pages import Section
from atlas.report.sections.study import Study, ends, led, prompts_of, surely
from atlas.report.wording import COMBINED, count, interval, listing, percent, words


def against(rows: pd.DataFrame, floor: float) -> pd.DataFrame:
    """The rows with ``where`` each lies: `above` or `below` the floor surely, or `around` it (`study.surely`)."""
    side = np.where(rows["value"] > floor, "above", "below")
    return rows.assign(where=np.where(surely(rows, floor), side, "around"))


def findings(cross: pd.DataFrame, tasks: list[str], main_tasks: list[str], threshold: float) -> list[str]:
    """What circuits keep on tasks they were not searched on, and what the shared part does."""
    table = cross[(cross["metric"] == "percent_of_full") & cross["task"].isin(tasks)]
    if len(tasks) == 1:
        return ["Only one task is in the study, so no circuit was evaluated on another one."]
    floor, sentences = 100 - threshold, []
    elsewhere = table[table["circuit"].isin(main_tasks) & (table["task"] != table["circuit"])]
    elsewhere = against(elsewhere, floor)
    for circuit in main_tasks:
        rows = elsewhere[elsewhere["circuit"] == circuit]
        groups: dict[str, list[str]] = {}
        for _, row in rows.iterrows():
            groups.setdefault(row["where"], []).append(f"{words(row['task'])} ({percent(row)})")
        said = [
            f"{verb} {listing(groups[where])}"
            for where, verb in (
                ("above", "keeps more on"),
                ("below", "less on"),
                ("around", "cannot be told from it on"),
            )
            if where in groups
        ]
        sentences.append(f"Kept alone, the {words(circuit)} circuit, against {floor:g} %: {'; '.join(said)}.")
    pairs = elsewhere.assign(task=elsewhere["circuit"] + " on " + elsewhere["task"])
    above = f"{(elsewhere['where'] == 'above').sum()} of {count(len(elsewhere), 'case')}"
    sentences.insert(
        0,
        f"Kept alone on {prompts_of(table)} of another task, a task's circuit keeps {ends(pairs)} of full; surely "
        f"more than {floor:g} % in {above}, corrected for all of them.",
    )
    for circuit, doing in (
        ("shared", "Only the shared components kept"),
        ("all but shared", "Only the shared components ablated"),
        ("union", "All circuits' components kept together"),
    ):
        rows = table[table["circuit"] == circuit].set_index("task")
        if len(rows) and len(main_tasks) > 1:
            low, high = rows["value"].idxmin(), rows["value"].idxmax()
            sentences.append(
                f"{doing}, the model is left with {percent(rows.loc[low])} ({words(low)}) to "
                f"{percent(rows.loc[high])} ({words(high)})."
            )
    return sentences


def table(cross: pd.DataFrame, tasks: list[str], main_tasks: list[str]) -> dict[str, Any]:
    """Percent of full, a row for each circuit kept alone, a column for each task."""
    table = cross[cross["metric"] == "percent_of_full"].set_index(["circuit", "task"])
    circuits = [c for c in (*main_tasks, *COMBINED) if c in table.index.get_level_values(0)]
    rows = [[words(circuit), *(interval(table.loc[(circuit, task)], 0) for task in tasks)] for circuit in circuits]
    return {"header": ["circuit, kept alone", *map(words, tasks)], "rows": rows}


def section(study: Study) -> Section:
    """Every circuit on every task."""
    cross = study.tables["cross"]
    return Section(
        title="From task to task",
        **led(findings(cross, study.tasks, study.main, study.settings["threshold"])),
        table=table(cross, study.tasks, study.main),
        note="% of full with 95 % interval. All but shared: the full model, only the shared components ablated.",
    )
