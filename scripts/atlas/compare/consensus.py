"""What the searches of a task agree on, and what the searches of several tasks share (methods: consensus).

A search is one order on the task's own prompts, or the order of the reported circuit on other prompts; all are taken
alike, at one threshold. Nothing here runs a model: circuits come from `stability.json`.
"""

from collections import Counter
from collections.abc import Mapping, Set
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from atlas.circuit.chosen import OWN_RUN
from atlas.core.chance import shared_by_all, shared_by_all_layers, tail
from atlas.core.components import Circuit, columns, heads, mlps, parse, profile, to_json
from atlas.core.graph import Edge
from atlas.core.graph import parse as edges_named
from atlas.core.multiple import TOGETHER, corrected

CORE, CONTINGENT, NOISE = "core", "contingent", "noise"
Key = tuple[str, str]  # family and name of a search
Searches = Mapping[Key, Circuit]

SHARED_COLUMNS = (
    "family",
    "run",
    "tasks",
    "level",
    "sizes",
    "shared",
    "expected",
    "p",
    "p_smallest",
    "members",
    *TOGETHER,
)
EDGE_COLUMNS = ("task", "edge", "sender", "receiver", "kept", "runs", "share", "class")
MEMBER_COLUMNS = ("component", "layer", "head", "tasks", "share", "runs", "core")


# ---- one task ------------------------------------------------------------------------------------------------
def searches_of(content: Mapping[str, Any]) -> dict[Key, Circuit]:
    """Every search of components in a task's `stability.json`, once: its own circuit opens each family of others."""
    return {
        (run["family"], run["run"]): frozenset(map(parse, run["members"]))
        for run in content["runs"]
        if run["level"] == "component" and run["run"] != OWN_RUN
    }


def edge_searches_of(content: Mapping[str, Any]) -> dict[Key, frozenset[Edge]]:
    """The same of its edges: the highest-scored ones on the task's own prompts, once, and on other data; no orders."""
    found: dict[Key, frozenset[Edge]] = {}
    for run in content["runs"]:
        if run["level"] == "edge":
            own = run["run"] == OWN_RUN
            found[("own", OWN_RUN) if own else (run["family"], run["run"])] = edges_named(run["members"])
    return found


def edge_agreement(searches: Mapping[Key, Set[Edge]]) -> list[dict[str, Any]]:
    """Rows of `consensus_edges`: each edge that any search keeps, in how many, and its class."""
    found, runs = list(searches.values()), len(searches)
    kept = Counter(edge for circuit in found for edge in circuit)
    return [
        {"edge": str(edge), "sender": edge.sender, "receiver": edge.receiver, "kept": kept[edge], "runs": runs}
        | {"share": kept[edge] / runs, "class": class_of(kept[edge], runs)}
        for edge in sorted(kept)
    ]


def class_of(kept: int, runs: int) -> str:
    """Of a component that ``kept`` of ``runs`` searches keep: core from 90 % on, contingent from 10 %, else noise."""
    if 10 * kept >= 9 * runs:
        return CORE
    return CONTINGENT if 10 * kept >= runs else NOISE


def agreement(searches: Searches) -> list[dict[str, Any]]:
    """Rows of `consensus`: each component that any search keeps, in how many, and its class."""
    found, runs = list(searches.values()), len(searches)
    rows = []
    for component in sorted(frozenset[Any]().union(*found)):
        count = sum(component in circuit for circuit in found)
        row = columns(component) | {"kept": count, "runs": runs, "share": count / runs}
        rows.append(row | {"class": class_of(count, runs)})
    return rows


def parts_of(searches: Searches) -> dict[str, Circuit]:
    """CORE, CONTINGENT, NOISE -> the components of that class."""
    rows = agreement(searches)
    return {
        name: frozenset(parse(row["component"]) for row in rows if row["class"] == name)
        for name in (CORE, CONTINGENT, NOISE)
    }


# ---- several tasks -------------------------------------------------------------------------------------------
def sharing(circuits: Mapping[str, Circuit], n_layers: int, n_heads: int) -> list[dict[str, Any]]:
    """What the circuits of two tasks or more all hold, heads and MLPs apart, beside chance.

    Heads: random ones with as many in every layer as each circuit has. MLPs: as many of the model's. p: the chance of
    at least as many in all of them; p_smallest: of the most that could be. ``circuits``: task -> its circuit.
    """
    rows = []
    for level, pick in (("heads", heads), ("mlps", mlps)):
        sets = [frozenset(pick(circuit)) for circuit in circuits.values()]
        shared, sizes = sorted(frozenset.intersection(*sets)), list(map(len, sets))
        if level == "heads":
            chance = shared_by_all_layers(n_heads, [profile(one, n_layers) for one in sets])
        else:
            chance = shared_by_all(n_layers, sizes)
        row = {"tasks": " ".join(circuits), "level": level, "sizes": " ".join(map(str, sizes)), "shared": len(shared)}
        row |= {"expected": float(chance @ np.arange(len(chance))), "p": tail(chance, len(shared))}
        rows.append(row | {"p_smallest": float(chance[-1]), "members": " ".join(map(str, shared))})
    return rows


def groups_of(tasks: list[str]) -> list[tuple[str, ...]]:
    """All tasks together, then each pair of them where there are more than two; none of a single task."""
    pairs = list(combinations(tasks, 2)) if len(tasks) > 2 else []
    return [tuple(tasks), *pairs] if len(tasks) > 1 else []


def shared_rows(searches: Mapping[str, Searches], n_layers: int, n_heads: int) -> list[dict[str, Any]]:
    """Rows of `shared`: `sharing` of the cores (family `core`), and search by search of those that all tasks have.

    searches: task -> its searches. Searches of one family and name belong together: the same order, or the same change
    of the prompts.
    """
    found = {(CORE, ""): {task: parts_of(own)[CORE] for task, own in searches.items()}}
    found |= {key: {task: own[key] for task, own in searches.items()} for key in common(searches)}
    rows = [
        {"family": family, "run": run} | row
        for group in groups_of(list(searches))
        for (family, run), circuits in found.items()
        for row in sharing({task: circuits[task] for task in group}, n_layers, n_heads)
    ]
    if not rows:
        return rows
    table = pd.DataFrame(rows)
    by_search = table["level"] + ", search by search, " + table["tasks"]
    claim = by_search.where(table["family"] != CORE, table["level"] + " of the cores")
    return [dict(row) for row in corrected(table, claim).to_dict("records")]


def common(searches: Mapping[str, Searches]) -> list[Key]:
    """The searches that every task has, in the order of the first."""
    first, *others = searches.values()
    return [key for key in first if all(key in other for other in others)]


def member_rows(searches: Mapping[str, Searches]) -> list[dict[str, Any]]:
    """Rows of `shared_members`: in which share of the searches that all tasks have a component is in the circuits of
    all of them, or of a pair; whether it is in their cores. Components that no search shares have no row."""
    rows, keys = [], common(searches)
    cores = {task: parts_of(own)[CORE] for task, own in searches.items()}
    for group in groups_of(list(searches)):
        found = [frozenset.intersection(*(searches[task][key] for task in group)) for key in keys]
        core = frozenset.intersection(*(cores[task] for task in group))
        for component in sorted(frozenset[Any]().union(core, *found)):
            row = columns(component) | {"tasks": " ".join(group), "runs": len(keys)}
            share = sum(component in one for one in found) / len(keys) if keys else np.nan
            rows.append(row | {"share": share, "core": component in core})
    return rows


def to_content(
    searches: Mapping[str, Searches], edges: Mapping[str, Mapping[Key, Set[Edge]]] | None = None
) -> dict[str, Any]:
    """`consensus.json`: of each task its number of searches and its parts, and what all cores share; ``edges``: task ->
    its searches of edges, where they were searched on other data."""
    parts = {task: parts_of(own) for task, own in searches.items()}
    tasks: dict[str, Any] = {
        task: {"runs": len(searches[task])} | {name: to_json(circuit) for name, circuit in own.items()}
        for task, own in parts.items()
    }
    for task, own_edges in (edges or {}).items():
        rows = edge_agreement(own_edges)
        named = {name: [row["edge"] for row in rows if row["class"] == name] for name in (CORE, CONTINGENT)}
        tasks[task] |= {"edges": {"runs": len(own_edges)} | named}
    shared = frozenset.intersection(*(own[CORE] for own in parts.values()))
    return {"tasks": tasks, "shared": to_json(shared)}
