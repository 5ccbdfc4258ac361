"""How few neurons carry what MLPs do for the answer, which ones several tasks share, and what they are active on."""

from typing import Any

import pandas as pd

from atlas.core.multiple import ALPHA
from atlas.report.pages import Section
from atlas.report.sections.study import Study, led, prompts_of
from atlas.report.wording import count, interval, listing, number, p_value, words

TITLE = "Neurons of the circuits' MLPs"
NAMED = 3


def set_findings(sets: pd.DataFrame, prompts: str) -> list[str]:
    """The smallest sets beside random ones: of all the smallest sure one first, then task by task."""
    rows, whole = sets[sets["set"] == "smallest"], sets[sets["set"] == "whole"]
    if whole.empty:
        return ["The circuits have no MLP, so no neuron was looked at."]
    if rows.empty:
        return ["No MLP of the circuits has an effect at the answer position that neurons could carry."]
    of_whole = whole.set_index(["task", "component"])
    held = rows[rows["p_holm"] < ALPHA]

    def said(row: pd.Series) -> str:
        all_of_it = of_whole.loc[(row["task"], row["component"])]
        return (
            f"{row['neurons']} of {count(row['of'], 'neuron')} of {row['component']}, {interval(row, 2)} of "
            f"{interval(all_of_it, 2)} logits (random sets {number(row['random'], 2)} [{number(row['random_low'], 2)}, "
            f"{number(row['random_high'], 2)}], {p_value(row['p_holm'])})"
        )

    how = f"ablated by their means at the answer position on at most {rows['prompts'].max()} {prompts}"
    tests = f"beside {rows['draws'].max()} random sets as large; corrected within a task"
    first = (
        f"Sets of neurons chosen by attribution on other prompts, {how} ({tests}), cost surely more than random ones "
        f"in {len(held)} of {count(len(rows), 'case')}"
    )
    if held.empty:
        return [f"{first}."]
    top = held.sort_values(["neurons", "share"], ascending=[True, False], kind="stable").iloc[0]
    sentences = [f"{first}; the smallest, on {words(top['task'])}: {said(top)}."]
    for task in dict.fromkeys(rows["task"]):
        own = held[held["task"] == task].sort_values("neurons", kind="stable")
        parts = [said(row) for _, row in own.iterrows()] or ["no set costs surely more than random ones"]
        sentences.append(f"{words(task).capitalize()}: {'; '.join(parts)}.")
    rest = sets[sets["set"] == "rest"]
    costly = rest[rest["ci_low"] > 0]
    low, high = (number(100 * end, 0) for end in (rest["share"].min(), rest["share"].max()))
    sentences.append(
        f"Ablating all neurons but such a set instead costs {low} to {high} % of what the whole MLP costs, with an "
        f"interval above 0 in {len(costly)} of {count(len(rest), 'case')}; where that is much, the rest is needed too."
    )
    return sentences


def neuron_findings(neurons: pd.DataFrame) -> list[str]:
    """Neurons that head the ranking of several tasks, how activations differ between answers, and what they write."""
    sentences = []
    name = neurons["component"] + ":" + neurons["neuron"].astype(str)
    costly = neurons.assign(name=name)[neurons["ci_low"] > 0]
    if neurons["task"].nunique() > 1:
        by_name = costly.groupby("name", sort=False).agg(tasks=("task", "nunique"), value=("value", "max"))
        shared = by_name[by_name["tasks"] > 1].sort_values(["tasks", "value"], ascending=False, kind="stable")
        parts = []
        for one in shared.index[:NAMED]:
            rows = costly[costly["name"] == one]
            each = listing(f"{words(r['task'])} {interval(r, 2)}" for _, r in rows.iterrows())
            parts.append(f"{one} ({each} logits)")
        more = f", and {len(shared) - NAMED} more" if len(shared) > NAMED else ""
        found = f"{listing(parts)}{more}" if parts else "none"
        sentences.append(
            f"Among the first neurons of several tasks, each ablated alone with an interval above 0: {found}."
        )
    tested = neurons[neurons["p"].notna()]
    sure = tested[tested["p_holm"] < ALPHA]
    sentences.append(
        f"The activations of {len(sure)} of {count(len(tested), 'neuron')} surely differ between answers (variance "
        f"between them, activations permuted over prompts, corrected)."
    )
    labelled = neurons.assign(name=name)[(neurons["label_p_holm"] < ALPHA) & (neurons["label"] != "mixed")]
    said = [f"{r['name']} ({words(r['label'])})" for _, r in labelled.drop_duplicates("name").head(NAMED).iterrows()]
    sentences.append(
        f"Of the lists of tokens that they raise on the prompts, those of one kind surely more than lists of random "
        f"directions: {listing(said) if said else 'none'}."
    )
    return sentences


def table_of(neurons: pd.DataFrame) -> dict[str, Any] | None:
    """The first neurons of each MLP and task."""
    rows = [
        [
            words(row["task"]),
            f"{row['component']}:{row['neuron']}",
            number(row["attribution"], 2),
            interval(row, 2),
            f"{number(row['activation'], 2)} ({number(row['ablated'], 2)})",
            f"{words(row['label'])}{'*' if row['label_p_holm'] < ALPHA else ''}",
        ]
        for _, row in neurons[neurons["rank"] <= NAMED].iterrows()
    ]
    header = ["task", "neuron", "attribution", "ablated alone", "activation (mean of corrupted)", "writes"]
    return {"header": header, "rows": rows} if rows else None


def section(study: Study) -> Section:
    """Neurons; empty where the study has not looked at any."""
    neurons = study.tables.get("neurons")
    if neurons is None:
        return Section(title=TITLE)
    found = set_findings(study.tables["neuron_sets"], prompts_of(study.tables["cross"]))
    found += neuron_findings(neurons) if len(neurons) else []
    return Section(
        title=TITLE,
        anchor="neurons",
        **led(found),
        table=table_of(neurons),
        note="Logits lost at the answer position, with 95 % intervals over prompts. A neuron is m3:17, by its number "
        "in its MLP. A star: a label that lists of random directions surely have less of.",
    )
