"""Where components matter, position by position."""

import pandas as pd

from atlas.report.pages import Section
from atlas.report.sections.study import Study, led, prompts_of
from atlas.report.wording import interval, is_mlp, listing, place, words


def findings(positions: pd.DataFrame, tasks: list[str], where: str) -> list[str]:
    """Where components are kept in the position-level circuits, and where they matter most; ``where``: the prompts
    that losses are measured on."""
    table = positions[positions["task"].isin(tasks)]
    if table.empty:
        return []
    roles = list(dict.fromkeys(table["role"]))
    parts = [
        f"{table.loc[table['role'] == role, 'kept'].sum()} of {(table['role'] == role).sum()} at {role}"
        for role in roles
    ]
    of_heads = table[~table["component"].map(is_mlp)]  # an MLP that makes what all others read tells little
    best = table.loc[(of_heads if len(of_heads) else table)["value"].idxmax()]
    sentences = [
        f"Position by position, the search keeps {listing(parts)} (components counted once a task, prompts searched "
        f"on); alone in the full model, {best['component']} at {best['role']} costs most, {interval(best)} points of "
        f"% of full ({words(best['task'])}, {where})."
    ]
    for task in tasks:
        rows = table[table["task"] == task]
        if rows.empty:
            continue
        top = rows.sort_values("value", ascending=False, kind="stable").head(3)
        strongest = listing(f"{row['component']} at {row['role']} ({interval(row)})" for _, row in top.iterrows())
        text = f"{words(task).capitalize()}: the largest losses, in points of % of full, are {strongest}."
        kept = rows[rows["kept"]].groupby("component")["role"].agg(list)
        for role in roles:
            alone = sorted((c for c, held in kept.items() if held == [role]), key=place)
            if alone:
                text += f" Kept at {role} only: {listing(alone)}."
        sentences.append(text)
    return sentences


def section(study: Study) -> Section:
    """The position-level circuits."""
    where = prompts_of(study.tables["evaluation"])  # those that the same job reports on
    return Section(title="Positions", **led(findings(study.tables["positions"], study.main, where)))
