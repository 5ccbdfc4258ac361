"""What circuits keep on tasks they were not searched on, and what their shared part does."""

from typing import Any

import pandas as pd

from atlas.report.pages import Section
from atlas.report.sections.circuits import against
from atlas.report.sections.study import Study, led
from atlas.report.wording import COMBINED, interval, listing, percent, words


def grouped(rows: pd.DataFrame, floor: float) -> dict[str, list[str]]:
    """Tasks and their values, by where their intervals lie."""
    groups: dict[str, list[str]] = {}
    for _, row in rows.iterrows():
        groups.setdefault(against(row, floor), []).append(f"{words(row['task'])} ({percent(row)})")
    return groups


def findings(cross: pd.DataFrame, tasks: list[str], main_tasks: list[str], threshold: float) -> list[str]:
    """What circuits keep on tasks they were not searched on, and what the shared part does."""
    table = cross[(cross["metric"] == "percent_of_full") & cross["task"].isin(tasks)]
    if len(tasks) == 1:
        return ["Only one task is in the study, so no circuit was evaluated on another one."]
    floor, sentences, carried, tried = 100 - threshold, [], 0, 0
    for circuit in main_tasks:
        rows = table[(table["circuit"] == circuit) & (table["task"] != circuit)]
        groups = grouped(rows, floor)
        carried, tried = carried + len(groups.get("above", [])), tried + len(rows)
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
    sentences.insert(
        0,
        f"Kept alone on the other tasks, a task's circuit clearly keeps more than {floor:g} % in "
        f"{carried} of {tried} cases.",
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
