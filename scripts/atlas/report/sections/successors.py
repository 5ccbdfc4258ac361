"""Successor heads: which head takes members of each class to the next one by its weights alone; is it in a circuit?"""

from typing import Any

import pandas as pd

from atlas.core.multiple import ALPHA
from atlas.report.pages import Section
from atlas.report.sections.study import Study, led
from atlas.report.wording import count, is_mlp, listing, number, p_value, place, words

TITLE = "Successor heads"
WITH, WITHOUT = "mlp0", "without_mlp0"  # of `geometry.successors`, which needs what pages do not
NAMED = 3  # heads of equal score that a sentence names
OTHERS = {
    "previous": "the previous member",
    "next_next": "the next but one",
    "greater": "later members above earlier ones",
}


def name_of(row: Any) -> str:
    """`1.4`."""
    return f"{row['layer']}.{row['head']}"


def share(value: float) -> str:
    """`58.3 %`; a dash where there is none."""
    return f"{number(100 * value, 1)} %" if value == value else number(value)


def best_of(table: pd.DataFrame, source: str = WITH, target: str = "next") -> pd.DataFrame:
    """For each class the head of the largest score, the first of several; with ``tests``, the heads that were tested,
    ``others``, the other heads of that score, and ``sure``, all heads that random ones do not reach."""
    rows = table[(table["input"] == source) & (table["target"] == target) & (table["head"] >= 0)]
    found = []
    for _, own in rows.groupby("class", sort=False):
        top = own[own["value"] == own["value"].max()].sort_values(["layer", "head"])
        sure = [name_of(row) for row in own[own["p_holm"] < ALPHA].to_dict("records")]
        others = [name_of(row) for row in top.iloc[1:].to_dict("records")]
        found.append({**top.iloc[0].to_dict(), "tests": len(own), "others": others, "sure": sure})
    return pd.DataFrame(found)


def score_at(table: pd.DataFrame, kind: str, source: str, layer: int, head: int) -> float:
    """The share `next` of one head, or (-1, -1) of what is written before any; nan where it has none."""
    own = table[(table["class"] == kind) & (table["target"] == "next") & (table["input"] == source)]
    own = own.loc[(own["layer"] == layer) & (own["head"] == head), "value"]
    return float(own.iloc[0]) if len(own) else float("nan")


def circuits_of(membership: pd.DataFrame, main: list[str]) -> dict[str, list[str]]:
    """Head -> the main tasks whose circuits hold it."""
    rows = membership[membership["circuit"].isin(main)]
    return {
        str(name): [task for task in main if task in set(own["circuit"])]
        for name, own in rows.groupby("component")
        if not is_mlp(str(name))
    }


def where(name: str, held: dict[str, list[str]], main: list[str]) -> str:
    """`in the circuits of all main tasks`, `in the circuit of months`, or `in no circuit`."""
    tasks = held.get(name, [])
    if not tasks:
        return "in no circuit"
    if len(tasks) == len(main) > 1:
        return "in the circuits of all main tasks"
    return f"in the {'circuit' if len(tasks) == 1 else 'circuits'} of {listing(map(words, tasks))}"


def of_classes(best: pd.DataFrame) -> str:
    """`1 class`, `7 classes`."""
    return "1 class" if len(best) == 1 else f"{len(best)} classes"


def headline(best: pd.DataFrame) -> str:
    """In how many classes some head is sure, the best of each, and which classes have none."""
    sure, rest = best[best["sure"].map(len) > 0], best[best["sure"].map(len) == 0]
    if sure.empty:
        top = best.loc[best["value"].idxmax()].to_dict()
        return (
            f"By weights alone no head is sure to take members to the next one, in any of {of_classes(best)}: "
            f"the highest score, {share(top['value'])} ({name_of(top)}, {words(top['class'])}), is not beyond random "
            f"heads ({p_value(top['p_holm'])} corrected)."
        )
    parts = [f"{words(row['class'])} {name_of(row)} ({share(row['value'])})" for row in sure.to_dict("records")]
    none = f"; no head is sure for {listing(words(name) for name in rest['class'])}" if len(rest) else ""
    return (
        f"By weights alone some head takes members to the next one more often than random heads in {len(sure)} of "
        f"{of_classes(best)}, best {listing(parts)}{none}."
    )


def of_class(row: dict[str, Any], table: pd.DataFrame, held: dict[str, list[str]], main: list[str]) -> str:
    """The best head of a class with its null, the same without MLP 0 and without a head, and the circuits it is in."""
    name, kind = name_of(row), row["class"]
    others = listing(row["others"]) if len(row["others"]) <= NAMED else f"{len(row['others'])} others"
    also = f" (so {'does' if len(row['others']) == 1 else 'do'} {others})" if row["others"] else ""
    without = score_at(table, kind, WITHOUT, row["layer"], row["head"])
    alone = score_at(table, kind, WITH, -1, -1)
    verdict = "" if name in row["sure"] else ", so this head is not sure"
    more = len(set(row["sure"]) - {name})
    beside = f"; {count(more, 'other head')} {'is' if more == 1 else 'are'} sure" if more else ""
    return (
        f"{words(kind).capitalize()}: {name} takes {share(row['value'])} of {row['members']} members to the next "
        f"one{also}; random heads {share(row['random_median'])} in the median and {share(row['random_hi'])} at their "
        f"97.5th percentile ({p_value(row['p'])}, {p_value(row['p_holm'], '')} corrected for {row['tests']} "
        f"heads{verdict}){beside}. Without MLP 0 it takes {share(without)}, and MLP 0 without a head {share(alone)}. "
        f"{name} is {where(name, held, main)}."
    )


def several(table: pd.DataFrame) -> str:
    """Heads that are sure for several classes, and what else than the next member any head is sure to write."""
    rows = table[(table["input"] == WITH) & (table["head"] >= 0) & (table["p_holm"] < ALPHA)]
    names = rows["layer"].astype(str) + "." + rows["head"].astype(str)
    following = rows[rows["target"] == "next"].groupby(names)["class"].agg(list)
    shared = [name for name in sorted(following.index, key=place) if len(following[name]) > 1]
    parts = [f"{name} ({listing(map(words, following[name]))})" for name in shared]
    text = f"One head for several classes: {listing(parts)}." if parts else "No head is sure for more than one class."
    for target, said in OTHERS.items():
        own = rows.assign(name=names)[rows["target"] == target]
        found = [f"{words(kind)} ({listing(group['name'])})" for kind, group in own.groupby("class", sort=False)]
        text += f" Sure to favour {said}: {listing(found) or 'no head'}."
    return text


def findings(table: pd.DataFrame, membership: pd.DataFrame, main: list[str]) -> list[str]:
    """All sentences; the first stands in the short version."""
    best = best_of(table)
    if best.empty:
        return ["No class of members has four that are one token each, or no head comes after MLP 0: none is scored."]
    held = circuits_of(membership, main)
    records = best.to_dict("records")
    return [headline(best), *(of_class(row, table, held, main) for row in records), several(table)]


def summary(table: pd.DataFrame, membership: pd.DataFrame, main: list[str]) -> dict[str, Any] | None:
    """The best head of each class."""
    held = circuits_of(membership, main)
    header = ["class", "members", "head", "next", "without MLP 0", "no head", "random heads", "p corrected", "circuits"]
    rows = []
    for row in best_of(table).to_dict("records"):
        at = row["layer"], row["head"]
        without, alone = score_at(table, row["class"], WITHOUT, *at), score_at(table, row["class"], WITH, -1, -1)
        random = f"{share(row['random_median'])}, up to {share(row['random_hi'])}"
        scores = [share(row["value"]), share(without), share(alone), random, p_value(row["p_holm"], "")]
        inside = listing(map(words, held.get(name_of(row), []))) or "none"
        rows.append([words(row["class"]), str(row["members"]), name_of(row), *scores, inside])
    return {"header": header, "rows": rows} if rows else None


def section(study: Study) -> Section:
    """Empty in a study that does not score them."""
    table = study.tables.get("successors")
    if table is None:
        return Section(title=TITLE)
    membership = study.tables["membership"]
    return Section(
        title=TITLE,
        anchor="successors",
        **led(findings(table, membership, study.main)),
        table=summary(table, membership, study.main),
        note="Of weights alone: embedding, MLP 0, a head's norm, values and output, final norm, unembedding of the "
        "members of the class (arXiv 2312.09230); no prompts. Random heads are the model's own turned at random; p by "
        "Holm's correction over all heads of the model, for each class and target.",
    )
