"""The reported circuits on metrics beside the logit difference, and whether they are complete and minimal."""

from typing import Any

import pandas as pd

from atlas.core.multiple import ALPHA
from atlas.report.pages import Section
from atlas.report.sections.study import Study, cell, ends, led, prompts_of, reported, surely
from atlas.report.wording import count, interval, listing, number, percent, place, words

INCOMPLETE = 0.1  # a difference of faithfulness surely above it counts against completeness
CIRCUITS = {"nodes": "node circuit", "edges": "edge circuit"}


def findings(
    evaluation: pd.DataFrame, completeness: pd.DataFrame, minimality: pd.DataFrame, tasks: list[str]
) -> list[str]:
    """What the reported circuits do beside the logit difference; whether they miss something or hold too much."""
    table = reported(evaluation)
    if table.empty:
        return []
    top = table[(table["metric"] == "top1") & table["task"].isin(tasks)]
    parts = [
        f"{ends(rows, 100)} with the {name}"
        for circuit, name in (("nodes", "node circuits"), ("edges", "edge circuits"), ("full", "full model"))
        if len(rows := top[top["circuit"] == circuit])
    ]
    sentences = [f"The answer is the first choice on this share of the {prompts_of(table)}: {listing(parts)}."]
    for task in tasks:
        rows = table[table["task"] == task]
        names = {c: CIRCUITS.get(c, f"circuit {words(c)}") for c in rows["circuit"] if c not in ("full", "empty")}
        for circuit, name in names.items():
            kl, rank = (cell(rows, circuit=circuit, metric=metric) for metric in ("kl", "answer_rank"))
            if kl is None:
                continue
            empty = cell(rows, circuit="empty", metric="kl")
            text = f"{words(task).capitalize()}, {name}: {interval(kl, 2)} nats of KL divergence from the full model"
            text += f" ({number(empty['value'], 2)} with everything ablated)" if empty is not None else ""
            text += f", and the answer has mean rank {interval(rank, 2)}." if rank is not None else "."
            noising, denoising = (
                cell(rows, circuit=circuit, metric=metric) for metric in ("noising_heads", "denoising_heads")
            )
            if noising is not None and denoising is not None:
                text += (
                    f" With its heads alone taken from the corrupted run, the model keeps "
                    f"{percent(noising, 100)} of the way from corrupted to clean; with them alone taken from the clean "
                    f"run, it regains {percent(denoising, 100)}."
                )
            sentences.append(text)
        for circuit, name in names.items():
            sentences += _complete(
                completeness[(completeness["task"] == task) & (completeness["circuit"] == circuit)], name
            )
            sentences += _minimal(minimality[(minimality["task"] == task) & (minimality["circuit"] == circuit)], name)
    return sentences


def _complete(rows: pd.DataFrame, name: str) -> list[str]:
    if rows.empty:
        return []
    worst = rows.loc[rows["value"].idxmax()]
    off = int((surely(rows, INCOMPLETE) & (rows["value"] > INCOMPLETE)).sum())
    text = (
        f"{words(rows['task'].iloc[0]).capitalize()}, completeness of the {name}: without the same random parts of it, "
        f"circuit and full model differ in faithfulness by {number(rows['value'].mean(), 2)} in the mean of "
        f"{count(len(rows), 'draw')} and by {interval(worst, 2)} at most"
    )
    if off:
        return [f"{text}; in {off} of them surely by more than {INCOMPLETE}, so parts outside do some of the work."]
    return [f"{text}; in none surely by more than {INCOMPLETE}."]


def _minimal(rows: pd.DataFrame, name: str) -> list[str]:
    if rows.empty:
        return []
    free = list(rows.loc[~((rows["value"] > 0) & (rows["p_holm"] < ALPHA)), "name"])
    edges = any("->" in n for n in rows["name"])
    noun = "edge" if edges else "component"
    task = words(rows["task"].iloc[0]).capitalize()
    if not free:
        return [
            f"{task}, minimality of the {name}: removing any one of its {len(rows)} {noun}s alone surely costs score."
        ]
    named = f": {listing(sorted(free, key=place))}" if not edges else ""
    return [
        f"{task}, minimality of the {name}: {len(free)} of {len(rows)} {noun}s can go alone at no sure cost{named}."
    ]


def table(evaluation: pd.DataFrame, tasks: list[str]) -> dict[str, Any] | None:
    """Every circuit on every metric, on held-out prompts where there are any."""
    held_out = evaluation[evaluation["split"] == "held_out"]
    table = (held_out if len(held_out) else evaluation).set_index(["task", "circuit", "metric"])
    metrics = list(dict.fromkeys(evaluation["metric"]))
    rows = [
        [words(task), words(circuit)]
        + [
            interval(table.loc[(task, circuit, metric)], 2) if (task, circuit, metric) in table.index else "\u2013"
            for metric in metrics
        ]
        for task in tasks
        for circuit in dict.fromkeys(evaluation["circuit"])
        if (task, circuit) in table.index.droplevel("metric")
    ]
    return {"header": ["task", "circuit", *map(words, metrics)], "rows": rows} if rows else None


def section(study: Study) -> Section:
    """Every reported circuit on every metric."""
    evaluation, completeness, minimality = (study.tables[n] for n in ("evaluation", "completeness", "minimality"))
    return Section(
        title="The circuits on other metrics",
        **led(findings(evaluation, completeness, minimality, study.main)),
        table=table(evaluation, study.main),
        note="Noising: the circuit's components from the corrupted run, all else clean; denoising: the other way "
        "round; both 0 as the corrupted run, 1 as the clean one. Full: nothing ablated; empty: everything.",
    )
