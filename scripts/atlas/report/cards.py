"""Cards of the summary: what a study found, one number and one picture at a time, with links into its atlas page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import pandas as pd
from markupsafe import Markup

from atlas.circuit.verdicts import BEYOND, UNTESTABLE
from atlas.heads.labels import UNLABELLED
from atlas.report import pictures
from atlas.report.sections.circuits import against, reported_rows
from atlas.report.sections.consensus import chance
from atlas.report.sections.study import Study, cell, prompts_of
from atlas.report.wording import count, heads_and_mlps, interval, is_mlp, listing, number, percent, place, words

NAMED = 8  # heads that a card names
SIDE = {"above": "above", "below": "below", "around": "not told from"}  # where an interval lies
QUESTIONS = {"sufficiency": "kept alone", "necessity": "ablated"}
MORE = {"sufficiency": "keep more", "necessity": "are missed more"}


@dataclass(frozen=True)
class Card:
    """What is found about one thing. ``facts``: (number, of what); ``view``: what the atlas page is opened with;
    ``section``: the anchor of what is written about it.

    ``below``: what the picture shows, for those who see it: (class of the marks, or empty; what they are).
    """

    title: str
    facts: Sequence[tuple[str, str]]
    picture: Markup | None = None
    below: Sequence[tuple[str, str]] = ()
    view: Mapping[str, str] | None = None
    is_map: bool = False
    section: str = ""

    def link(self, atlas: str) -> str:
        """The address of its view on the atlas page."""
        return f"{atlas}#{urlencode(dict(self.view or {}))}"


def cards(study: Study) -> list[Card]:
    """One for each main task, one for what they share, for random controls and for roles, in this order."""
    found = [task_card(study, task) for task in study.main]
    found += [shared_card(study)] if len(study.main) > 1 else []
    found.append(controls_card(study))
    return found + ([roles_card(study)] if "roles" in study.tables else [])


def task_card(study: Study, task: str) -> Card:
    """Size of the reported circuit, its score on held-out prompts, and what the searches agree on."""
    rows = reported_rows(study.tables["choice"], task, study.settings["threshold"])
    heads, mlps = (int(rows[kind].iloc[0]) for kind in ("heads", "mlps"))
    split = "held_out" if ("held_out", "faithfulness") in rows.index else "search"
    where = "held out" if split == "held_out" else "on the prompts searched on, as none were held out"
    score, share = rows.loc[(split, "faithfulness")], rows.loc[(split, "percent_of_full")]
    floor = 100 - study.settings["threshold"]
    facts = [
        (f"{heads} of {study.all_heads}", f"heads and {mlps} of {count(study.all_mlps, 'MLP')} in the circuit"),
        (
            interval(score, 2),
            f"faithfulness, {where}; {percent(share)} of full, {SIDE[against(share, floor)]} the floor of {floor:g} %",
        ),
        _agreed(study, task),
    ]
    core, kept = _core(study, task), _members(study.tables["membership"], task)
    marks = dict.fromkeys(kept, "most") | dict.fromkeys(core - kept, "some") | dict.fromkeys(core & kept, "whole")
    title = f"Map of the {words(task)} circuit: {heads_and_mlps(heads, mlps, study.all_mlps)}; core: "
    title += heads_and_mlps(*_sizes(core), study.all_mlps)
    return Card(
        title=words(task).capitalize(),
        facts=facts,
        picture=_map(study, marks, title),
        below=[
            ("whole", "core"),
            ("most", "in the circuit, not core"),
            *([("some", "core, not in the circuit")] if core - kept else []),
        ],
        view={"view": "graph", "task": task},
        is_map=True,
        section="circuits",
    )


def _agreed(study: Study, task: str) -> tuple[str, str]:
    """How many heads and MLPs nearly all searches keep, and what these do alone."""
    rows = study.tables["consensus"][study.tables["consensus"]["task"] == task]
    heads, mlps = _sizes(_core(study, task))
    runs = rows["runs"].max() if len(rows) else 0
    searches = "1 search" if runs == 1 else f"{runs} searches"
    text = (
        f"{'head' if heads == 1 else 'heads'} and {mlps} of {count(study.all_mlps, 'MLP')} core (in at least 90 % of "
    )
    text += f"{searches})"
    alone = cell(study.tables["consensus_scores"], task=task, circuit="core", metric="faithfulness")
    if alone is not None:
        text += f"; alone, faithfulness {interval(alone, 2)}"
    return f"{heads}", text


def shared_card(study: Study) -> Card:
    """What the cores of all main tasks share, against chance."""
    shared, everyone = study.tables["shared"], " ".join(study.main)
    rows = shared[(shared["family"] == "core") & (shared["tasks"] == everyone)].set_index("level")
    heads, mlps = rows.loc["heads"], rows.loc["mlps"]
    named = heads["members"].split()
    rest = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
    names = (", ".join(named[:NAMED]) + rest) if rest else listing(named)
    tasks = "both tasks" if len(study.main) == 2 else f"all {len(study.main)} tasks"
    noun = "head is" if heads["shared"] == 1 else "heads are"
    facts = [
        (f"{heads['shared']:.0f}", f"{noun} core for {tasks}{f': {names}' if named else ''}"),
        (
            number(heads["expected"], 1 if heads["expected"] >= 1 else 2),
            f"expected of as many random heads in the same layers, {chance(heads)}",
        ),
        (f"{mlps['shared']:.0f} of {study.all_mlps}", f"MLPs are core for {tasks}"),
    ]
    cores = [_core(study, task) for task in study.main]
    held = {c: sum(c in core for core in cores) for c in set().union(*cores)}
    marks = {c: "whole" if n == len(cores) else "most" if n > 1 else "some" for c, n in held.items()}
    meant = {"whole": "core for all tasks", "most": "for several", "some": "for one"}
    title = f"Map of what is core: for all tasks {count(sum(n == len(cores) for n in held.values()), 'component')}, "
    title += f"for any {count(len(held), 'component')}"
    return Card(
        title="Shared",
        facts=facts,
        picture=_map(study, marks, title),
        below=[(name, text) for name, text in meant.items() if name in marks.values()],
        view={"view": "graph", "task": study.main[0], "colour": "sharing"},
        is_map=True,
        section="consensus",
    )


def controls_card(study: Study) -> Card:
    """Whether the heads of each task's circuit do more than random heads, kept alone and ablated."""
    summary = study.tables["controls_summary"]
    own = summary[(summary["circuit"] == summary["task"]) & summary["task"].isin(study.main)]
    if own.empty:
        facts = [("None", "was asked for, so nothing says that these circuits are special")]
        return Card("Controls", facts, section="controls")
    facts = []
    drawn: dict[str, list[dict[str, Any]]] = {}
    for question, doing in QUESTIONS.items():
        rows = own[own["question"] == question]
        if rows.empty:
            continue
        beyond, open_ = (int((rows["state"] == state).sum()) for state in (BEYOND, UNTESTABLE))
        text = f"circuits\u2019 heads, {doing}, {MORE[question]} than random heads" + (
            f"; {open_} cannot be tested" if open_ else ""
        )
        facts.append((f"{beyond} of {len(rows)}", text))
        drawn[doing] = [{**row, "label": _label(row["task"])} for row in rows.to_dict("records")]
    shown = [f"{words(row['task'])} {doing} {percent(row)}" for doing, group in drawn.items() for row in group]
    return Card(
        title="Controls",
        facts=facts,
        picture=pictures.ranges(drawn, f"% of full, circuits beside random sets: {', '.join(shown)}"),
        below=[
            ("", f"% of full, {prompts_of(study.tables['cross'])}."),
            ("whole", "circuit\u2019s heads, with their interval"),
            ("some", "random heads of the same layers, the middle 95 %; p < 0.05, corrected"),
        ],
        view={"view": "compare"},
        section="controls",
    )


def roles_card(study: Study) -> Card:
    """How many heads of the main tasks' circuits have a label on a main task, and which."""
    roles, membership = study.tables["roles"], study.tables["membership"]
    inside = {c for task in study.main for c in _members(membership, task) if not is_mlp(c)}
    found = roles[roles["task"].isin(study.main) & roles["component"].isin(inside) & (roles["label"] != UNLABELLED)]
    held = found.groupby("label")["component"].nunique().sort_values(ascending=False, kind="stable")
    labelled = found["component"].nunique()
    if not inside:
        return Card("Roles", [("No", "circuit holds a head, so there is none to explain")], section="heads")
    facts = [(f"{labelled} of {len(inside)}", "heads of the circuits have a role on a main task")]
    rest = sorted(inside - set(found["component"]), key=place)
    if rest and labelled:
        more = f" and {len(rest) - NAMED} more" if len(rest) > NAMED else ""
        facts.append((f"{len(rest)}", f"{'has' if len(rest) == 1 else 'have'} none: {', '.join(rest[:NAMED])}{more}"))
    counts = {str(label): int(n) for label, n in held.items()}
    title = f"Heads by role: {', '.join(f'{label} {n}' for label, n in counts.items())}"
    return Card(
        title="Roles",
        facts=facts,
        picture=pictures.bars(counts, title) if counts else None,
        below=[("", "Heads by role; a head may have several, on different tasks.")] if counts else [],
        view={"view": "graph", "task": study.main[0], "colour": "role"},
        section="heads",
    )


def _label(task: str, most: int = 18) -> str:
    """A task's name as it fits beside a line of a picture."""
    name = words(task)
    return name if len(name) <= most else f"{name[: most - 1]}\u2026"


def _members(membership: pd.DataFrame, circuit: str) -> set[str]:
    return set(membership.loc[membership["circuit"] == circuit, "component"])


def _core(study: Study, task: str) -> set[str]:
    rows = study.tables["consensus"]
    return set(rows.loc[(rows["task"] == task) & (rows["class"] == "core"), "component"])


def _sizes(components: set[str]) -> tuple[int, int]:
    """Heads and MLPs of them."""
    mlps = sum(map(is_mlp, components))
    return len(components) - mlps, mlps


def _map(study: Study, marks: Mapping[str, str], title: str) -> Markup:
    return pictures.mapped(int(study.model["n_layers"]), int(study.model["n_heads"]), marks, title)
