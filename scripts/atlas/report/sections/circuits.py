"""Size of the compared circuits, what they keep, and what the prompts held out can show."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from atlas.prompts import splits
from atlas.report.pages import Section
from atlas.report.sections.study import Study, led
from atlas.report.wording import count, interval, listing, percent, words


def against(row: Mapping[str, Any], floor: float) -> str:
    """Where an interval lies: `above`, `below` or `around` the floor."""
    return "above" if row["ci_low"] > floor else "below" if row["ci_high"] < floor else "around"


def new_to_the_search(info: dict[str, Any]) -> str:
    """What held-out prompts hold that the search never saw; ``info`` is prompts.json."""
    if info["hold_out"] in ("sequences", "templates"):
        return f"{splits.UNITS[info['hold_out']]} that the search never saw"
    text, known = "texts that the search never saw", info["counts"]["known_sequences"]
    if not known:
        return text
    all_known = known == info["counts"]["held_out"]
    return f"{text}, {'but' if all_known else f'{known} of them'} with member sequences that it saw"


def held_out_prompts(clean: pd.DataFrame, info: dict[str, dict[str, Any]], tasks: list[str]) -> str:
    """`144 held-out prompts of member sequences that the search never saw`, of each task where they differ."""
    said: dict[str, list[str]] = {}
    table = clean[clean["split"] == "held_out"].drop_duplicates("task").set_index("task")
    for task in table.index.intersection(tasks):
        kept = round(table.loc[task, "prompts"] * table.loc[task, "share_kept"])
        said.setdefault(f"{kept} held-out prompts of {new_to_the_search(info[task])}", []).append(words(task))
    if len(said) == 1:
        return next(iter(said))
    return "; ".join(f"{text} ({listing(names)})" for text, names in said.items())


def circuit_rows(faithfulness: pd.DataFrame, task: str, threshold: float, order: str) -> pd.DataFrame:
    """The compared circuit of a task: one row for each (split, metric)."""
    rows = faithfulness[(faithfulness["task"] == task) & (faithfulness["threshold"] == threshold)]
    return rows[rows["order"] == order].set_index(["split", "metric"])


def findings(
    faithfulness: pd.DataFrame, tasks: list[str], threshold: float, order: str, all_heads: int, where: str
) -> list[str]:
    """Size of the compared circuits, and what they keep; ``where``: `held_out_prompts`."""
    rows = {task: circuit_rows(faithfulness, task, threshold, order) for task in tasks}
    sizes = {task: int(table["heads"].iloc[0]) for task, table in rows.items()}
    shares = [
        f"{size} of {all_heads} heads ({100 * size / all_heads:.0f} %) for {words(task)}"
        for task, size in sizes.items()
    ]
    held_out = {
        task: table.loc[("held_out", "percent_of_full")]
        for task, table in rows.items()
        if ("held_out", "percent_of_full") in table.index
    }
    given = [f"{percent(row)} ({words(task)})" for task, row in held_out.items()]
    rest = f"; on {where} they give {listing(given)} of the full model's logit difference" if given else ""
    sentences = [f"The circuits keep {listing(shares)}{rest}."]
    floor = 100 - threshold
    for task, table in rows.items():
        search = table.loc[("search", "percent_of_full")]
        text = (
            f"{words(task).capitalize()}: {count(search['heads'], 'head')} and {count(search['mlps'], 'MLP')} give "
            f"{percent(search)} of the full model's logit difference on the prompts searched on"
        )
        if task not in held_out:
            sentences.append(f"{text}; no prompts were held out.")
            continue
        held, faith = held_out[task], table.loc[("held_out", "faithfulness")]
        text += f", and {percent(held)} on the prompts held out (faithfulness {interval(faith, 2)})."
        sentences.append(
            text
            + {
                "above": f" That is above the floor of {floor:g} %.",
                "around": f" That interval includes the floor of {floor:g} %.",
                "below": f" That is below the floor of {floor:g} %: part of it fits only the prompts searched on.",
            }[against(held, floor)]
        )
    return sentences


def split_findings(prompts: pd.DataFrame, tasks: list[str]) -> list[str]:
    """What the held-out prompts can show: whether their sequences of members are new, or only their texts."""
    sentences = []
    for task in tasks:
        rows = prompts[(prompts["task"] == task) & (prompts["members"].map(len) > 0)]
        search, held_out = (set(map(tuple, rows.loc[rows["split"] == s, "members"])) for s in ("search", "held_out"))
        if not held_out:
            continue
        seen = len(held_out & search)
        text = (
            f"{words(task).capitalize()}: {seen} of the {len(held_out)} member sequences held out were also searched on"
        )
        means = {
            0: ", so these prompts test new sequences, though neighbouring ones share members",
            len(held_out): ", so these prompts test new texts, not new sequences",
        }
        sentences.append(f"{text}{means.get(seen, '')}.")
    return sentences


def half_findings(searched: dict[str, dict[str, Any]], tasks: list[str], threshold: float, order: str) -> list[str]:
    """Of compared circuits that were searched in a half: how many decisions were taken again in float32, and flipped.

    searched: task -> the content of its `circuits.json`.
    """
    parts, dtypes = [], set()
    for task in tasks:
        for entry in searched.get(task, {"circuits": []})["circuits"]:
            if (entry["order"], entry["threshold"]) == (order, threshold) and "in_half" in entry:
                found = entry["in_half"]
                dtypes.add(found["dtype"])
                again = f"{found['again']} of {entry['evaluations']} decisions were too close for it"
                parts.append(f"{again} and {found['flipped']} came out otherwise in float32 ({words(task)})")
    if not parts:
        return []
    return [
        f"The searches ran in {listing(sorted(dtypes))}: {listing(parts)}. Close decisions are those of float32, and "
        "so are the scores."
    ]


def table(faithfulness: pd.DataFrame, tasks: list[str], threshold: float, order: str, all_heads: int) -> dict[str, Any]:
    """A row a task, the circuit that ``order`` found at ``threshold``; ``all_heads``: of the model, for percent."""
    rows = []
    for task in tasks:
        table = circuit_rows(faithfulness, task, threshold, order)
        heads, mlps = (int(table[kind].iloc[0]) for kind in ("heads", "mlps"))
        cells = [words(task), str(heads), f"{100 * heads / all_heads:.0f} %", str(mlps)]
        for key in (("search", "percent_of_full"), ("held_out", "percent_of_full")):
            cells.append(interval(table.loc[key]) if key in table.index else "\u2013")
        for key in (("search", "faithfulness"), ("held_out", "faithfulness")):
            cells.append(interval(table.loc[key], 2) if key in table.index else "\u2013")
        rows.append(cells)
    header = [
        "task",
        "heads",
        "of all heads",
        "MLPs",
        "% of full, search",
        "% of full, held out",
        "faithfulness, search",
        "faithfulness, held out",
    ]
    return {"header": header, "rows": rows}


def section(study: Study) -> Section:
    """The circuit of every main task at the compared threshold and order."""
    faithfulness, threshold, order = study.tables["faithfulness"], study.settings["threshold"], study.settings["order"]
    where = held_out_prompts(study.tables["clean"], study.info, study.main)
    said = findings(faithfulness, study.main, threshold, order, study.all_heads, where)
    said += half_findings(study.searched, study.main, threshold, order)
    return Section(
        title=f"Circuits (threshold {threshold:g} %, order {words(order)})",
        **led(said + split_findings(study.tables["prompts"], study.main)),
        table=table(faithfulness, study.main, threshold, order, study.all_heads),
        note="% of full: logit difference of the circuit over that of the full model. Faithfulness: the same, counted "
        "from the model with all heads and MLPs ablated.",
    )
