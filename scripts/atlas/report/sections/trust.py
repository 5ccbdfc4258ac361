"""Whether circuits stand up to doubt: hypothesis tests, what no search saw, unrelated tasks; and what survives all."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from atlas.circuit.cells import NEW
from atlas.circuit.doubts import EQUIVALENCE, INDEPENDENCE, KEPT, NEEDED, REJECTED
from atlas.circuit.verdicts import BEYOND, UNTESTABLE, of_parts
from atlas.compare.edge_parts import BOTH, CORE
from atlas.compare.specificity import ALL_UNRELATED
from atlas.core.multiple import ALPHA
from atlas.report.pages import Section
from atlas.report.sections.study import Study, cell, ends, led
from atlas.report.wording import count, interval, is_mlp, listing, number, p_of_tests, p_value, percent, words

Tables = Mapping[str, pd.DataFrame]
ASKED = {  # test -> what is said of a circuit for which its null is rejected, and of one for which it is not
    EQUIVALENCE: (
        "{circuit} is not the full model's equal on {tasks}",
        "{circuit} cannot be told from the full model by its signs on {tasks}",
    ),
    INDEPENDENCE: (
        "without {circuit} the model's answers still depend on those of the full model on {tasks}, so that something "
        "outside computes part of them",
        "without {circuit} nothing of the full model's answers is found in what is left on {tasks}",
    ),
}
CIRCUITS = {"reported": "the reported circuit", "core": "the core alone"}
CIRCUITS["core and contingent"] = "the core with what is contingent"


# ---- the shared sub-circuit ------------------------------------------------------------------------------------
def survival(tables: Tables, tasks: list[str]) -> str:
    """One sentence: which tests what all cores share has passed, which not, and which cannot be made.

    ``tables``: by the names of `Study.tables`; ``tasks``: the main ones.
    """
    rows = tables["shared"]
    rows = rows[(rows["family"] == "core") & (rows["tasks"] == " ".join(tasks))].set_index("level")
    members = rows.loc["heads", "members"].split() + rows.loc["mlps", "members"].split()
    heads = [name for name in members if not is_mlp(name)]
    mlps = len(members) - len(heads)
    if not heads:
        return "The cores of all tasks share no head, so there is no shared sub-circuit that could survive anything."
    runs = sorted(set(tables["consensus"]["runs"]))
    parts: dict[str, list[str]] = {BEYOND: [], REJECTED: [], UNTESTABLE: []}
    parts[BEYOND].append(f"other searches (nine in ten or more of the {number(runs[0])} of each task keep it)")
    chance = rows.loc["heads"]
    if chance["p_smallest"] >= ALPHA:
        parts[UNTESTABLE].append("sharing by chance")
    else:
        said = f"chance ({p_value(chance['p_holm'])}, corrected)"
        parts[BEYOND if chance["p_holm"] < ALPHA else REJECTED].append(said)
    necessity = of_parts(tables["consensus_tests"], tasks)
    necessity = necessity[(necessity["circuit"] == "shared") & necessity["task"].isin(tasks)]
    _sorted(parts, necessity, "being ablated beside random heads")
    new = newest(tables["unseen"])
    _sorted(parts, new[new["circuit"] == "shared"], "the same on new sequences in new wordings")
    needed = tables["member_tests"]
    needed = needed[needed["component"].isin(heads)]
    without = sorted(set(needed.loc[needed["state"] != NEEDED, "component"]) | (set(heads) - set(needed["component"])))
    said = "the comparison of its heads with components added at random"
    said += "" if not without else f" ({listing(without)} not, in some circuit)"
    parts[REJECTED if without else BEYOND].append(said)
    tests = tables["specificity"]
    tests = tests[(tests["task"] == ALL_UNRELATED) & (tests["circuit"] == "shared")]
    for row in tests.to_dict("records"):
        gap = f"unrelated tasks keep {number(row['difference'], 1)} points more than its own without it"
        parts[_kind(row["state"])].append(f"unrelated tasks ({gap})")
    if tests.empty:
        parts[UNTESTABLE].append("unrelated tasks, of which none is named")
    return _sentence(f"{'head' if len(heads) == 1 else 'heads'} {listing(heads)}, and {count(mlps, 'MLP')}", parts)


def _kind(state: str) -> str:
    return state if state in (BEYOND, UNTESTABLE) else REJECTED


def _sorted(parts: dict[str, list[str]], rows: pd.DataFrame, said: str) -> None:
    """Add a test of several tasks under each outcome that it has."""
    for kind in parts:
        tasks = [words(task) for task, state in zip(rows["task"], rows["state"], strict=True) if _kind(state) == kind]
        if tasks:
            parts[kind].append(f"{said} ({'all tasks' if len(tasks) == len(rows) else listing(tasks)})")


def _sentence(what: str, parts: dict[str, list[str]]) -> str:
    text = f"What the cores of all tasks share ({what}) survives {listing(parts[BEYOND])}"
    text += f"; it does not survive {listing(parts[REJECTED])}" if parts[REJECTED] else ""
    return f"{text}{f'; it cannot be tested for {listing(parts[UNTESTABLE])}' if parts[UNTESTABLE] else ''}."


# ---- each test -------------------------------------------------------------------------------------------------
def whole(tests: pd.DataFrame) -> list[str]:
    """Equivalence and independence of each kind of circuit, over tasks."""
    sentences = []
    for (test, circuit), rows in tests.groupby(["test", "circuit"], sort=False):
        for state, said in zip((REJECTED, KEPT), ASKED[str(test)], strict=True):
            found = rows[rows["state"] == state]
            named = [f"{words(row['task'])} ({_said(row)})" for row in found.to_dict("records")]
            if named:
                text = said.format(circuit=CIRCUITS[str(circuit)], tasks=listing(named))
                sentences.append(f"{str(test).capitalize()}: {text}.")
        cannot = [words(task) for task in rows.loc[rows["state"] == UNTESTABLE, "task"]]
        if cannot:
            few = f"{str(test).capitalize()} of {CIRCUITS[str(circuit)]} cannot be tested on {listing(cannot)}: too few"
            sentences.append(f"{few} {'prompts' if test == EQUIVALENCE else 'random pairings'}.")
    return sentences


def _said(row: dict[str, Any]) -> str:
    if row["test"] == EQUIVALENCE:
        return f"better on {percent(row, 100)} of {row['prompts']:.0f} prompts, {p_of_tests(row)}"
    return f"HSIC {number(row['value'], 3)}, {p_of_tests(row, row['draws'], noun='random pairing')}"


def minimal(members: pd.DataFrame) -> list[str]:
    """How many members cost more than what is added at random, and which do not."""
    parts = []
    for task, rows in members.groupby("task", sort=False):
        if (rows["state"] == UNTESTABLE).all():
            parts.append(f"nothing is outside the circuit of {words(str(task))}")
            continue
        like = rows.loc[rows["state"] != NEEDED, "component"]
        text = f"{len(rows) - len(like)} of {count(len(rows), 'member')} of {words(str(task))}"
        parts.append(text + (f" (not {listing(like)})" if len(like) else ""))
    said = (
        "Minimality: surely more than 95 % of the components outside lose again once they are added, the circuit loses"
    )
    return [f"{said} without {listing(parts)}."] if parts else []


def newest(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `unseen` with random sets."""
    return table[table["state"] != ""]


def unseen(table: pd.DataFrame) -> list[str]:
    """What is kept and left where no search looked, beside what was searched on."""
    found, sentences = newest(table), []
    if found.empty:
        return ["No other wording is named for these tasks (stability.templates), so none was tried."]
    what = "new sequences in new wordings" if (found["sequences"] == NEW).all() else "new wordings"
    known = table[(table["sequences"] != NEW) & (table["wordings"] != NEW)]
    for question, circuit, doing in (
        ("sufficiency", "reported", "Kept alone on {what}, a task's circuit keeps"),
        ("necessity", "reported", "Without its heads {what} keep"),
        ("necessity", "shared", "Without the heads that all cores share {what} keep"),
    ):
        rows, base = (part[(part["question"] == question) & (part["circuit"] == circuit)] for part in (found, known))
        for task, own in rows.groupby("task", sort=False):
            row = own.iloc[0].to_dict()
            before = base[base["task"] == task].iloc[0]
            beside = row["reason"] if row["state"] == UNTESTABLE else _beside(row)
            text = f"{doing.format(what=what)} {percent(row)} of full on {words(str(task))}"
            sentences.append(f"{text} (searched ones {number(before['value'], 1)} %; {beside}).")
    return sentences


def _beside(row: dict[str, Any]) -> str:
    return f"random heads {number(row['control_median'], 1)} %, {p_of_tests(row, row['controls'])}"


def specific(table: pd.DataFrame) -> list[str]:
    """What circuits do to unrelated tasks, ablated and kept alone."""
    tests = table[table["task"] == ALL_UNRELATED]
    if tests.empty:
        return ["No unrelated task is named (study.unrelated_tasks), so nothing says whether circuits are specific."]
    sentences = []
    for question, doing, verb in (("necessity", "Ablated", "leaves"), ("sufficiency", "Kept alone", "keeps")):
        for row in tests[tests["question"] == question].to_dict("records"):
            of = table[(table["question"] == question) & (table["circuit"] == row["circuit"])]
            own = of[of["kind"] == "own"]
            name = "what all cores share" if row["circuit"] == "shared" else f"the {words(row['circuit'])} circuit"
            text = f"{doing}, {name} {verb} {ends(own)} of its own, {percent(row)} of unrelated tasks"
            gap = f"{number(row['difference'], 1)} points [{number(row['low'], 1)}, {number(row['high'], 1)}]"
            beside = row["reason"] or (
                f"random heads {number(row['control_median'], 1)}, {p_of_tests(row, row['controls'])}"
            )
            sentences.append(f"{text}: specific by {gap} ({beside}).")
    return sentences


def edges(tables: Tables, tasks: Sequence[str]) -> list[str]:
    """How many edges the searches on other data agree on, and what they keep alone, beside exchanged heads."""
    agreed, sentences = tables["consensus_edges"], []
    tests = of_parts(tables["consensus_tests"], tasks)
    for task in tasks:
        own = agreed[agreed["task"] == task]
        core, contingent = ((own["class"] == name).sum() for name in ("core", "contingent"))
        rows = [cell(tests, task=task, circuit=name, question="sufficiency") for name in (CORE, BOTH)]
        kept = [f"{percent(row)} ({_of_edges(row)})" for row in rows if row is not None]
        if own.empty or len(kept) < len(rows):
            continue
        sentences.append(
            f"Of edges, {core} are core and {contingent} contingent in {own['runs'].iloc[0]} searches "
            f"of {words(task)}; kept alone the core scores {kept[0]}, with what is contingent {kept[1]}."
        )
    return sentences


def _of_edges(row: Any) -> str:
    if not row["controls"]:
        return str(row["note"])
    return f"heads exchanged within layers {number(row['control_median'], 1)} %, {p_of_tests(row, row['controls'])}"


# ---- all of it -------------------------------------------------------------------------------------------------
def table(tables: Tables, members: bool = True) -> dict[str, Any]:
    """A row for each test; ``members``: also of single members."""
    rows: list[list[Any]] = []
    for row in tables["hypotheses"].to_dict("records"):
        value = interval(row, 1, 100) + " %" if row["test"] == EQUIVALENCE else number(row["value"], 3)
        rows.append([row["test"], row["circuit"], words(row["task"]), row["null"], row["statistic"], value, row])
    null = "a member costs no more than 95 % of what is added"
    for row in tables["member_tests"].to_dict("records") if members else []:
        about = f"points of full above {number(row['bar'], 1)}"
        rows.append(
            [f"minimality of {row['component']}", "reported", words(row["task"]), null, about, interval(row), row]
        )
    for row in newest(tables["unseen"]).to_dict("records"):
        test = f"{row['question']}, {row['sequences']} sequences, new wordings"
        null, about = "as random heads of its layers", f"% of full; random {number(row['control_median'], 1)}"
        rows.append([test, row["circuit"], words(row["task"]), null, about, interval(row), row])
    tests = tables["specificity"]
    for row in tests[tests["task"] == ALL_UNRELATED].to_dict("records"):
        about = f"points of full; random {number(row['control_median'], 1)}"
        value = f"{number(row['difference'], 1)} [{number(row['low'], 1)}, {number(row['high'], 1)}]"
        test = f"specificity, {'ablated' if row['question'] == 'necessity' else 'kept alone'}"
        rows.append([test, words(row["circuit"]), "unrelated", "as random heads of its layers", about, value, row])
    header = ["test", "circuit", "task", "null", "statistic", "value", "p", "p, corrected", "of tests", "outcome"]
    return {"header": header, "rows": [[*cells, *_outcome(row)] for *cells, row in rows]}


def _outcome(row: dict[str, Any]) -> list[str]:
    tests = f"{row['tests']:.0f}" if row["p_holm"] == row["p_holm"] else "\u2013"
    reason = f": {row['reason']}" if isinstance(row.get("reason"), str) and row["reason"] else ""
    return [p_value(row["p"], ""), p_value(row["p_holm"], ""), tests, f"{row['state']}{reason}"]


def findings(study: Study) -> list[str]:
    """What the shared sub-circuit survives (of several tasks), then every test."""
    tables = study.tables
    first: Sequence[str] = [survival(tables, study.main)] if len(study.main) > 1 else []
    return [
        *first,
        *whole(tables["hypotheses"]),
        *minimal(tables["member_tests"]),
        *unseen(tables["unseen"]),
        *specific(tables["specificity"]),
        *edges(tables, study.main),
    ]


def section(study: Study) -> Section:
    """Every test that doubts the circuits, and what is left of them."""
    return Section(
        title="Doubts: tests of the circuits",
        anchor="trust",
        **led(findings(study)),
        table=table(study.tables),
        note="Equivalence: two-sided sign test over prompts, ties left out. Independence: HSIC of the logits of all "
        "answers, with and without the circuit, against random pairings of prompts. A test that does not reject proves "
        "nothing by itself. Minimality: against every component outside, added alone. Specific: percent of full on "
        "unrelated tasks less that on its own (ablated), or the reverse (kept alone), beside the same random sets of "
        "heads on all. Corrected: Holm, over the tests of one kind.",
    )
