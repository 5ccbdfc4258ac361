"""What all searches of a task agree on, and what the tasks share by that: the finding that no single search decides."""

from typing import Any

import pandas as pd

from atlas.circuit.verdicts import of_parts
from atlas.core.multiple import ALPHA
from atlas.report.pages import Section
from atlas.report.sections.study import Study, cell, led, prompts_of, span
from atlas.report.wording import (
    count,
    heads_and_mlps,
    interval,
    is_mlp,
    listing,
    number,
    p_of_tests,
    p_value,
    percent,
    place,
    words,
)

FAMILIES = {  # one of it, several
    "orders": ("search order", "search orders"),
    "bootstrap": ("resample of the prompts", "resamples of the prompts"),
    "seeds": ("other seed", "other seeds"),
    "templates": ("other set of templates", "other sets of templates"),
    "corruption": ("other corruption", "other corruptions"),
}
PARTS = ("core", "core and contingent")


def findings(
    consensus: pd.DataFrame,
    shared: pd.DataFrame,
    members: pd.DataFrame,
    scores: pd.DataFrame,
    tests: pd.DataFrame,
    tasks: list[str],
    basis: str,
    all_mlps: int,
) -> list[str]:
    """The headline, then what carries it; ``basis``: which searches and prompts it rests on (`basis_of`)."""
    sentences = shared_findings(shared, tasks, basis, all_mlps) if len(tasks) > 1 else []
    sentences += [_task(consensus, scores, tests, task, all_mlps) for task in tasks]
    if len(tasks) > 1:
        sentences += _by_search(shared, members, tasks) + _ablated(scores, tests, tasks)
    return sentences


def basis_of(consensus: pd.DataFrame, summary: pd.DataFrame, threshold: float) -> str:
    """`T = 20 %, 10 searches of each task: 3 search orders, 2 resamples of the prompts, ...`.

    summary: `stability_summary`, whose families of other data count the task's own circuit too.
    """
    runs = sorted(set(consensus["runs"]))
    families = summary[summary["level"] == "component"].groupby("family", sort=False)["runs"].max()
    counts = {name: int(families[name]) - (name != "orders") for name in FAMILIES if name in families}
    parts = [f"{n} {FAMILIES[name][n > 1]}" for name, n in counts.items()]
    number_of = f"{runs[0]}" if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
    noun = "search" if runs == [1] else "searches"
    return f"T = {threshold:g} %, {number_of} {noun} of each task" + (f": {listing(parts)}" if parts else "")


def shared_findings(shared: pd.DataFrame, tasks: list[str], basis: str, all_mlps: int) -> list[str]:
    """What the cores of all tasks share, against chance, heads and MLPs apart; and pair by pair."""
    everyone = "both main tasks" if len(tasks) == 2 else f"all {len(tasks)} main tasks"
    rows = shared[(shared["family"] == "core") & (shared["tasks"] == " ".join(tasks))].set_index("level")
    heads, mlps = rows.loc["heads"], rows.loc["mlps"]
    named = f" ({listing(heads['members'].split())})" if heads["shared"] else ""
    both = f"{count(heads['shared'], 'shared head')}{named} and {mlps['shared']} of {count(all_mlps, 'MLP')}"
    first = f"In at least 90 % of the searches ({basis}) the circuits of {everyone} keep {both}; "
    first += f"{_versus(heads, 'heads')}; {_versus(mlps, 'MLPs')}."
    sentences = [first]
    for name in dict.fromkeys(shared["tasks"]):
        if name != " ".join(tasks):
            pair = shared[(shared["family"] == "core") & (shared["tasks"] == name)].set_index("level").loc["heads"]
            named = listing(map(words, name.split()))
            both = count(pair["shared"], "head")
            sentences.append(f"The cores of {named} share {both}; {_versus(pair, 'heads')}.")
    return sentences


def _versus(row: pd.Series, noun: str) -> str:
    """What chance gives of heads or of MLPs."""
    where = " in the same layers" if noun == "heads" else ""
    sizes = listing(row["sizes"].split())
    text = f"as many random {noun}{where} ({sizes}) would share {number(row['expected'], 1)}"
    return f"{text}, {chance(row)}"


def chance(row: pd.Series) -> str:
    """`p = 0.0063`, of a row of `shared`; or that no overlap of these sizes could tell anything."""
    if row["p_smallest"] >= ALPHA:
        return f"and no overlap of these sizes could have p below {row['p_smallest']:.2g}, so it says nothing"
    return p_of_tests(row)


def _task(consensus: pd.DataFrame, scores: pd.DataFrame, tests: pd.DataFrame, task: str, all_mlps: int) -> str:
    rows = consensus[consensus["task"] == task]
    sizes = {}
    for name in ("core", "contingent"):
        found = [c for c in rows.loc[rows["class"] == name, "component"]]
        sizes[name] = (sum(not is_mlp(c) for c in found), sum(is_mlp(c) for c in found))
    core, contingent = sizes["core"], sizes["contingent"]
    text = f"{words(task).capitalize()}: {heads_and_mlps(*core, all_mlps)} are core"
    kept = cell(scores, task=task, circuit="core", metric="percent_of_full")
    if kept is not None:
        text += f" and keep {percent(kept)} of the full model alone on {prompts_of(scores)}"
        text += _controls(tests, task, "core")
    if not sum(contingent):
        return f"{text}; nothing is contingent."
    text += f"; with the contingent ones, {count(contingent[0], 'head')} and {count(contingent[1], 'MLP')},"
    kept = cell(scores, task=task, circuit="core and contingent", metric="percent_of_full")
    return f"{text} {percent(kept)}{_controls(tests, task, 'core and contingent')}." if kept is not None else f"{text}."


def _controls(tests: pd.DataFrame, task: str, circuit: str) -> str:
    row = cell(tests, task=task, circuit=circuit, question="sufficiency")
    if row is None or not row["controls"]:
        return " (no control: no other heads of these layers)" if row is not None else ""
    return f" (random heads {number(row['control_median'], 1)} %, {p_of_tests(row, row['controls'])})"


def _by_search(shared: pd.DataFrame, members: pd.DataFrame, tasks: list[str]) -> list[str]:
    """Search by search, and how often each head is shared."""
    together = " ".join(tasks)
    rows = shared[(shared["tasks"] == together) & (shared["family"] != "core") & (shared["level"] == "heads")]
    if rows.empty:
        return []
    everyone = "both tasks" if len(tasks) == 2 else f"all {len(tasks)} tasks"
    sentences = [
        f"Search by search, the circuits of {everyone} share {span(rows['shared'], 0)} heads, where random heads in "
        f"the same layers would share {span(rows['expected'], 1)}; more than chance (p < {ALPHA}, "
        f"corrected for all of these) in {(rows['p_holm'] < ALPHA).sum()} of {len(rows)}."
    ]
    own = members[(members["tasks"] == together) & (members["head"] >= 0)]
    often = own.sort_values("share", ascending=False, kind="stable")
    named = [f"{row.component} ({100 * row.share:.0f} %)" for row in often.itertuples() if row.share >= 0.5]
    if named:
        sentences.append(f"Shared by {everyone} in at least half of the searches: {listing(named)}.")
    pairs = members[(members["tasks"] != together) & (members["head"] >= 0) & (members["share"] >= 0.5)]
    for name, found in pairs.groupby("tasks", sort=False):
        heads = sorted(found["component"], key=place)
        sentences.append(f"By {listing(map(words, str(name).split()))}: {listing(heads)}.")
    return sentences


def _ablated(scores: pd.DataFrame, tests: pd.DataFrame, tasks: list[str]) -> list[str]:
    """What is left of each task without the shared core's heads, beside random heads of the same layers."""
    parts = []
    for task in dict.fromkeys(tests["task"]):
        row = cell(tests, task=task, circuit="shared", question="necessity")
        if row is None or not row["controls"]:
            continue
        beside = f"random heads {number(row['control_median'], 1)} %, {p_of_tests(row, row['controls'])}"
        transfer = "" if task in tasks else ", a transfer task"
        parts.append(f"{percent(row)} of {words(task)} ({beside}{transfer})")
    if parts:
        return [f"Without the heads that all cores share the model keeps {listing(parts)}."]
    row = cell(tests, circuit="shared", question="necessity")
    return [f"What the shared heads are needed for is not tested: {row['note']}."] if row is not None else []


def table(consensus: pd.DataFrame, scores: pd.DataFrame, tests: pd.DataFrame, tasks: list[str]) -> dict[str, Any]:
    """A row for each task and part: its members, what it keeps, and what random sets of its shape keep."""
    rows = []
    for task in tasks:
        own = consensus[consensus["task"] == task]
        for part, classes in zip(PARTS, (("core",), ("core", "contingent")), strict=True):
            found = sorted(own.loc[own["class"].isin(classes), "component"], key=place)
            heads, mlps = ([c for c in found if is_mlp(c) == kind] for kind in (False, True))
            cells = [words(task), part, str(len(heads)), " ".join(heads), str(len(mlps)), " ".join(mlps)]
            for metric, digits in (("percent_of_full", 1), ("faithfulness", 2)):
                row = cell(scores, task=task, circuit=part, metric=metric)
                cells.append("\u2013" if row is None else interval(row, digits))
            test = cell(tests, task=task, circuit=part, question="sufficiency")
            if test is None or not test["controls"]:
                cells += ["\u2013", "\u2013"]
            else:
                cells += [f"{number(test['control_median'], 1)} %", p_value(test["p_holm"], name="")]
            rows.append(cells)
    header = ["task", "part", "heads", "which", "MLPs", "which", "% of full", "faithfulness"]
    header += ["random heads", "p, corrected"]
    return {"header": header, "rows": rows}


def section(study: Study) -> Section:
    """Core and contingent components, and what the tasks share."""
    names = ("consensus", "shared", "shared_members", "consensus_scores", "consensus_tests")
    agreed, shared, members, scores, tests = (study.tables[name] for name in names)
    tests = of_parts(tests, study.main)
    basis = basis_of(agreed, study.tables["stability_summary"], study.settings["threshold"])
    return Section(
        title="Consensus of the searches, and what the tasks share",
        anchor="consensus",
        **led(findings(agreed, shared, members, scores, tests, study.main, basis, study.all_mlps)),
        table=table(agreed, scores, tests, study.main),
        note="Core: in at least 90 % of a task's searches; contingent: in 10 to 90 %; what fewer keep is noise. % of "
        "full: that part alone, on held-out prompts where there are any; random heads: as many in every layer, with "
        "the part's MLPs. A search on other prompts takes the order that found the reported circuit.",
    )
