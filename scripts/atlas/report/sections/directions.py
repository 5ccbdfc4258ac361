"""Which directions of what heads and MLPs write matter, which write the next member, and what they read and write."""

from typing import Any

import pandas as pd

from atlas.core.multiple import ALPHA
from atlas.report.pages import Section
from atlas.report.sections.study import Study, led, prompts_of
from atlas.report.wording import count, interval, listing, number, p_value, words

TITLE = "Directions of heads and MLPs"
WHOLE = -1  # in place of a direction (`geometry.directions`)
NAMED = 3


def called(component: str, direction: int) -> str:
    """`direction 0 of 4.3`."""
    return f"direction {direction} of {component}"


def tested(ablations: pd.DataFrame) -> pd.DataFrame:
    """The direction that attribution puts first, of each task and component; ``whole``: what the component costs."""
    whole = ablations[ablations["direction"] == WHOLE].set_index(["task", "component"])
    rows = ablations[ablations["rank"] == 1]
    at = pd.MultiIndex.from_frame(rows[["task", "component"]])
    ends = whole.loc[at, ["value", "ci_low", "ci_high"]].to_dict("records")
    return rows.assign(whole=[interval(row, 2) for row in ends])


def ablation_findings(ablations: pd.DataFrame, prompts: str) -> list[str]:
    """How much of a component one direction carries: of all tests, and task by task the largest share."""
    rows = tested(ablations)
    if rows.empty:
        return ["No head or MLP of the circuits writes anything at the answer position, so no direction was ablated."]
    held = rows[rows["p_holm"] < ALPHA]
    how = (
        f"ablated at the answer position on at most {rows['prompts'].max()} {prompts}, where attribution on other "
        f"prompts puts it first, beside {rows['draws'].max()} random directions of the same output"
    )
    first = (
        f"One direction of what a component writes, {how}, costs surely more than these in {len(held)} of "
        f"{count(len(rows), 'case')} (corrected within a task)"
    )
    if held.empty:
        return [f"{first}."]
    top = held.loc[held["share"].fillna(0).idxmax()]  # no share of a component that costs nothing as a whole
    sentences = [
        f"{first}; most, {called(top['component'], top['direction'])} on {words(top['task'])}: {interval(top, 2)} of "
        f"the {top['whole']} logits that the whole costs."
    ]
    for task in dict.fromkeys(rows["task"]):
        own = held[held["task"] == task].nlargest(NAMED, "share")
        parts = [
            f"{called(row['component'], row['direction'])} {interval(row, 2)} of {row['whole']} logits (random "
            f"{number(row['random'], 2)} [{number(row['random_low'], 2)}, {number(row['random_high'], 2)}], "
            f"{p_value(row['p_holm'])})"
            for _, row in own.iterrows()
        ]
        said = listing(parts) if parts else "no direction costs surely more than random ones"
        sentences.append(f"{words(task).capitalize()}: {said}.")
    return sentences


def next_findings(table: pd.DataFrame) -> list[str]:
    """Which heads write the next member from the weights alone, and which directions carry that."""
    if table.empty:
        return []
    whole = table[(table["direction"] == WHOLE)]
    sure = whole[(whole["p_holm"] < ALPHA) & (whole["value"] > 0)]
    n = whole["class"].nunique()
    of_heads = count(whole["component"].nunique(), "head")
    begins = f"From the weights alone, of {of_heads} on {n} class{'es' if n != 1 else ''} of members"
    if sure.empty:
        return [f"{begins}, none surely writes the next member more than other members (members permuted, corrected)."]
    groups = [
        f"{component} ({listing(words(name) for name in sure.loc[sure['component'] == component, 'class'])})"
        for component in dict.fromkeys(sure["component"])
    ]
    sentences = [f"{begins}, surely more next members than other ones are written by {listing(groups)}."]
    lead = table[(table["direction"] != WHOLE) & (table["p_holm"] < ALPHA) & table["share"].notna()]
    if len(lead):
        top = lead.nlargest(NAMED, "share")
        parts = [
            f"{called(row['component'], row['direction'])} {number(100 * row['share'], 0)} % on {words(row['class'])}"
            for _, row in top.iterrows()
        ]
        sentences.append(
            f"Single directions that surely carry it, against the largest of all directions with members permuted: of "
            f"the head's whole, {listing(parts)}{'' if len(lead) <= NAMED else f', and {len(lead) - NAMED} more'}."
        )
    else:
        sentences.append("No single direction surely carries it.")
    return sentences


def label_findings(table: pd.DataFrame) -> list[str]:
    """Which lists of tokens are of one kind more than those of random directions."""
    parts, n, most = [], 0, 0
    for verb, tokens, label, p in (
        ("read", "reads", "read_label", "read_p_holm"),
        ("written", "writes", "label", "label_p_holm"),
    ):
        rows = table[table[tokens] != ""]
        alike = rows[rows[label] != "mixed"]
        sure, n, most = alike[alike[p] < ALPHA], n + len(rows), most + len(alike)
        named = [
            f"{called(r['component'], r['direction'])} ({words(r[label])})" for _, r in sure.head(NAMED).iterrows()
        ]
        more = f" and {len(sure) - NAMED} more" if len(sure) > NAMED else ""
        parts.append(f"{verb}: {', '.join(named)}{more}" if named else f"{verb}: none")
    if not n:
        return []
    return [
        f"Of {count(n, 'list')} of top tokens, in both signs, {most} are for the most part of one kind; those that are "
        f"so surely more than lists of random directions, {'; '.join(parts)}."
    ]


def table_of(ablations: pd.DataFrame) -> dict[str, Any] | None:
    """The direction that attribution puts first, of each component and task."""
    rows = [
        [
            row["component"],
            words(row["task"]),
            row["whole"],
            str(row["direction"]),
            interval(row, 2),
            f"{number(row['random'], 2)} [{number(row['random_low'], 2)}, {number(row['random_high'], 2)}]",
            p_value(row["p_holm"], ""),
        ]
        for _, row in tested(ablations).iterrows()
    ]
    header = ["component", "task", "whole", "direction", "it alone", "random directions", "p (corrected)"]
    return {"header": header, "rows": rows} if rows else None


def section(study: Study) -> Section:
    """Directions; empty where the study has not read any."""
    ablations = study.tables.get("direction_ablations")
    if ablations is None:
        return Section(title=TITLE)
    found = ablation_findings(ablations, prompts_of(study.tables["cross"]))
    found += next_findings(study.tables["direction_next"]) + label_findings(study.tables["directions"])
    return Section(
        title=TITLE,
        anchor="directions",
        **led(found),
        table=table_of(ablations),
        note="Logits lost at the answer position, with 95 % intervals over prompts; behind random directions the "
        "middle 95 % of their means. Directions are singular vectors of a head's OV or of an MLP's last map, by "
        "falling singular value from 0.",
    )
