"""Size of the compared circuits, what they keep, and what the prompts held out can show."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from atlas.prompts import splits
from atlas.report.pages import Section
from atlas.report.sections.study import Study, led
from atlas.report.wording import count, heads_and_mlps, interval, listing, number, percent, words


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


def reported_rows(choice: pd.DataFrame, task: str, threshold: float) -> pd.DataFrame:
    """The reported circuit of a task in `choice`: one row for each (split, metric)."""
    rows = choice[(choice["task"] == task) & (choice["threshold"] == threshold) & choice["reported"]]
    return rows.set_index(["split", "metric"])


def found_by(choice: pd.DataFrame, tasks: list[str], threshold: float) -> str:
    """`T = 20 %, found by the orders layers (months) and random 0 (days)`, of the reported circuits."""
    orders: dict[str, list[str]] = {}
    for task in tasks:
        orders.setdefault(words(reported_rows(choice, task, threshold)["order"].iloc[0]), []).append(words(task))
    if len(orders) == 1:
        return f"T = {threshold:g} %, found by the order {next(iter(orders))}"
    return f"T = {threshold:g} %, found by the orders {listing(f'{o} ({listing(t)})' for o, t in orders.items())}"


def sizes_of(rows: pd.DataFrame, all_mlps: int) -> str:
    """`8 heads and 6 of 6 MLPs`, of the circuit of these rows."""
    return heads_and_mlps(rows["heads"].iloc[0], rows["mlps"].iloc[0], all_mlps)


def findings(
    choice: pd.DataFrame, tasks: list[str], threshold: float, all_heads: int, all_mlps: int, where: str
) -> list[str]:
    """Size of the reported circuits, and what they keep; ``where``: `held_out_prompts`."""
    rows = {task: reported_rows(choice, task, threshold) for task in tasks}
    shares = []
    for task, table in rows.items():
        heads, mlps = (int(table[kind].iloc[0]) for kind in ("heads", "mlps"))
        share = f"{heads} of {all_heads} heads ({100 * heads / all_heads:.0f} %)"
        shares.append(f"{share} and {mlps} of {count(all_mlps, 'MLP')} for {words(task)}")
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
            f"{words(task).capitalize()}: {sizes_of(table, all_mlps)} give "
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


def choice_findings(choice: pd.DataFrame, tasks: list[str], threshold: float, all_mlps: int) -> list[str]:
    """Which circuit is reported of those that a task's orders found, why, and what the choice does to its score."""
    return [_chosen(choice[choice["task"] == task], words(task), threshold, all_mlps) for task in tasks]


def _chosen(choice: pd.DataFrame, task: str, threshold: float, all_mlps: int) -> str:
    tried = choice[(choice["threshold"] == threshold) & (choice["metric"] == "percent_of_full")]
    split = "held_out" if (tried["split"] == "held_out").any() else "search"
    tried = tried[tried["split"] == split]
    row, others = tried[tried["reported"]].iloc[0], tried[~tried["reported"]]
    left_out = row["dropped"].split()
    by = words(row["order"]) + " found" + at_floor(row["searched"], threshold)
    text = f"{task.capitalize()}: reported is what the order {by}"
    if left_out:
        text += (
            f", without {listing(left_out)}, which together cost nothing sure on the prompts searched on; "
            f"{heads_and_mlps(row['heads'], row['mlps'], all_mlps)} are left"
        )
    if others.empty:
        return f"{text}; there was no other candidate."
    sizes = [
        f"{r.heads + r.mlps:.0f} ({words(r.order)}{at_floor(r.searched, threshold)}"
        f"{', some dropped' if r.dropped else ''})"
        for r in others.itertuples()
    ]
    prompts = "held-out prompts" if split == "held_out" else "the prompts searched on, as none were held out"
    why = f"Of {len(tried)} candidates it is the smallest that keeps more than {100 - threshold:g} % on {prompts}"
    if not row["passes"]:
        why = f"None of {len(tried)} candidates keeps more than {100 - threshold:g} % on {prompts}; it is the smallest "
        why += "of those that cannot be told from the best"
    return (
        f"{text}. {why}; the others have {listing(sizes)} components. The choice was made on these prompts: by "
        f"bootstrap it raises the score by {number(row['optimism'], 1)} points, and "
        f"{100 * row['chosen_again']:.0f} % of the resamples choose the same circuit."
    )


def at_floor(searched: float, threshold: float) -> str:
    """Where a circuit was searched at another threshold than the one that it is reported at: at which."""
    return "" if searched == threshold else f" at T = {searched:g} %"


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


def half_findings(
    searched: dict[str, dict[str, Any]], choice: pd.DataFrame, tasks: list[str], threshold: float
) -> list[str]:
    """Of reported circuits that were searched in a half: how many decisions were taken again in float32, and flipped.

    searched: task -> the content of its `circuits.json`.
    """
    parts, dtypes = [], set()
    for task in tasks:
        order = reported_rows(choice, task, threshold)["order"].iloc[0]
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


def table(choice: pd.DataFrame, tasks: list[str], threshold: float, all_heads: int, all_mlps: int) -> dict[str, Any]:
    """A row a task, the circuit that it reports at ``threshold``; ``all_heads``, ``all_mlps``: of the model."""
    rows = []
    for task in tasks:
        table = reported_rows(choice, task, threshold)
        heads, mlps = (int(table[kind].iloc[0]) for kind in ("heads", "mlps"))
        dropped = table["dropped"].iloc[0].split()
        cells = [words(task), words(table["order"].iloc[0]), listing(dropped) or "\u2013"]
        cells += [str(heads), f"{100 * heads / all_heads:.0f} %", f"{mlps} of {all_mlps}"]
        for key in (("search", "percent_of_full"), ("held_out", "percent_of_full")):
            cells.append(interval(table.loc[key]) if key in table.index else "\u2013")
        for key in (("search", "faithfulness"), ("held_out", "faithfulness")):
            cells.append(interval(table.loc[key], 2) if key in table.index else "\u2013")
        rows.append(cells)
    header = [
        "task",
        "found by order",
        "dropped",
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
    """The circuit that every main task reports at the compared threshold."""
    choice, threshold, sizes = study.tables["choice"], study.settings["threshold"], (study.all_heads, study.all_mlps)
    where = held_out_prompts(study.tables["clean"], study.info, study.main)
    said = findings(choice, study.main, threshold, *sizes, where)
    said += choice_findings(choice, study.main, threshold, study.all_mlps)
    said += half_findings(study.searched, choice, study.main, threshold)
    return Section(
        title=f"Circuits (threshold {threshold:g} %)",
        anchor="circuits",
        **led(said + split_findings(study.tables["prompts"], study.main)),
        table=table(choice, study.main, threshold, *sizes),
        note="% of full: logit difference of the circuit over that of the full model. Faithfulness: the same, counted "
        "from the model with all heads and MLPs ablated. How each is chosen: docs/methods.md.",
    )
