"""Our values beside published ones: agreement, and why some cannot be compared."""

from typing import Any

import pandas as pd

from atlas.compare.published import COMPARED, NOT_COMPARABLE, NOT_COMPUTED
from atlas.report.pages import Section
from atlas.report.sections.study import Study, led
from atlas.report.wording import count, listing, number, words

NAMED = 3  # items named in a sentence


def findings(table: pd.DataFrame | None) -> list[str]:
    """How many published values ours agree with, which do not, why others cannot be compared; nothing without it."""
    if table is None:
        return []
    compared, others = (table[table["status"] == status] for status in (COMPARED, NOT_COMPARABLE))
    missing = table[table["status"] == NOT_COMPUTED]
    within = int(compared["within"].sum())
    rest = []
    if len(others):
        rest.append(f"{len(others)} have ours beside them but are not comparable")
    if len(missing):
        rest.append(f"{len(missing)} have none of ours")
    if len(compared):
        first = f"{within} of {count(len(compared), 'published value')} compared lie within the stated tolerance"
    else:
        first = f"None of {count(len(table), 'published value')} can be held against this run"
    sentences = [f"{first}; {listing(rest)}." if rest else f"{first}."]
    sentences += _circuits(table)
    for (_, title), rows in compared[compared["figure"] != "circuit"].groupby(["figure", "title"], sort=False):
        off = rows[~rows["within"].astype(bool)]
        if off.empty:
            continue
        worst = off.loc[off["difference"].abs().sort_values(ascending=False, kind="stable").index].head(NAMED)
        named = listing(
            f"{words(row.task)} {row.item} ({number(row.ours, 2)} against {number(row.published, 2)})"
            for row in worst.itertuples()
        )
        verb = "lies" if len(off) == 1 else "lie"
        sentences.append(f"{title}: {len(off)} of {len(rows)} {verb} outside the tolerance, most {named}.")
    for note, rows in others.groupby("note", sort=False):
        titles = listing(dict.fromkeys(f"{row.title} ({words(row.task)})" for row in rows.itertuples()))
        sentences.append(f"{note[:1].upper()}{note[1:]}: {titles}.")
    for note, rows in missing.groupby("note", sort=False):
        names = list(dict.fromkeys(words(title) for title in rows["title"]))
        sentences.append(f"Not computed ({note}): {count(len(rows), 'value')} of {listing(names)}.")
    return sentences


def _circuits(table: pd.DataFrame) -> list[str]:
    """What each circuit has in common with the published one, also where the two are not comparable."""
    sentences = []
    rows = table[(table["figure"] == "circuit") & (table["status"] != NOT_COMPUTED)]
    for task, of_task in rows.groupby("task", sort=False):
        both = of_task[(of_task["ours"] == 1) & (of_task["published"] == 1)]
        ours, theirs = (of_task[of_task["difference"] == sign] for sign in (1, -1))
        text = f"{words(task).capitalize()}: {count(len(both), 'component')} in our circuit and in the published one"
        for only, name in ((ours, "ours"), (theirs, "the published one")):
            text += f"; in {name} alone {listing(only['item'])}" if len(only) else f"; none in {name} alone"
        sentences.append(f"{text}.")
    return sentences


def table(compared: pd.DataFrame) -> dict[str, Any]:
    """A row for every figure and task: values, how many within tolerance, and how far the others are off."""
    rows = []
    for (title, task), part in compared.groupby(["title", "task"], sort=False):
        ours = part[part["status"] != NOT_COMPUTED]
        held = part[part["status"] == COMPARED]
        cells = [words(title), words(task) or "\u2013", str(len(part)), str(len(ours))]
        cells.append(f"{int(held['within'].sum())} of {len(held)}" if len(held) else "\u2013")
        cells.append(number(part["tolerance"].max(), 3).rstrip("0").rstrip("."))
        if len(ours):
            worst = ours.loc[ours["difference"].abs().idxmax()]
            cells += [
                number(ours["difference"].abs().median(), 3),
                f"{number(worst['difference'], 3)} ({worst['item']})",
            ]
        else:
            cells += ["\u2013"] * 2
        notes = part["note"].fillna("").loc[lambda note: note != ""]
        cells.append(notes.value_counts().index[0] if len(notes) else "")
        rows.append([*cells[:2], part["unit"].iloc[0], *cells[2:]])
    header = ["figure", "task", "unit", "published", "ours", "within", "tolerance", "median difference"]
    return {"header": [*header, "largest difference", "note (the most frequent)"], "rows": rows}


def section(study: Study) -> Section:
    """The comparison with a publication; empty in a study without one."""
    compared = study.tables.get("published")
    return Section(
        title="Beside published figures",
        **led(findings(compared)),
        table=None if compared is None else table(compared),
        note="Difference: ours minus published, also of values that are not comparable. Tolerances and what agreement "
        "needs: docs/published.md.",
    )
