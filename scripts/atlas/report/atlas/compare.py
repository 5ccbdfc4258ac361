"""What tasks and models have in common: overlap with chance, circuits on every task, random controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from atlas.report.atlas.packing import Numbering, rounded

if TYPE_CHECKING:
    import pandas as pd


def overlap(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Members that two circuits share, and how many random circuits with as many heads in each layer would.

    Of edges, chance is that of circuits whose heads change places within their layers. p is of at least as many shared.
    """
    out = []
    for row in table.to_dict("records"):
        edges = row["level"] == "edges"
        out.append(
            {
                "a": row["circuit_a"],
                "b": row["circuit_b"],
                "level": row["level"],
                "sizes": [int(row["size_a"]), int(row["size_b"])],
                "shared": int(row["shared"]),
                "expected": rounded(row["expected_exchanged" if edges else "expected"]),
                "p": rounded(row["p_exchanged" if edges else "p_layer_matched"]),
                "p_holm": rounded(row["p_holm"]),
                "jaccard": rounded(row["jaccard"]),
            }
            | ({"task": row["task"]} if "task" in row else {})
        )
    return out


def cross(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Percent of full of each circuit on each task."""
    return [
        {
            "circuit": row["circuit"],
            "task": row["task"],
            "split": row["split"],
            "value": rounded(row["value"]),
            "low": rounded(row["ci_low"]),
            "high": rounded(row["ci_high"]),
        }
        for row in table[table["metric"] == "percent_of_full"].to_dict("records")
    ]


def controls(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Each circuit kept (sufficiency) or ablated (necessity), beside random sets of as many heads in each layer."""
    names = {"value": "value", "low": "ci_low", "high": "ci_high", "median": "control_median"}
    names |= {"control_low": "control_low", "control_high": "control_high", "controls": "controls"}
    names |= {"p": "p", "p_holm": "p_holm"}
    return [
        {key: row[key] for key in ("question", "circuit", "task", "state", "reason")}
        | {key: rounded(row[column]) for key, column in names.items()}
        for row in table.fillna({"reason": ""}).to_dict("records")
    ]


def shared(
    tasks: Sequence[str], consensus: pd.DataFrame, tests: pd.DataFrame, members: pd.DataFrame, numbering: Numbering
) -> dict[str, Any]:
    """What the cores of all main ``tasks`` hold, with a sentence.

    ``consensus``: consensus.parquet; ``tests``: shared.parquet; ``members``: shared_members.parquet.
    """
    core = consensus[consensus["class"] == "core"]
    cores = [set(core.loc[core["task"] == task, "component"]) for task in tasks]
    ids = sorted(numbering.of_name[name] for name in set.intersection(*cores))
    heads = [i for i in ids if not numbering.components[i].is_mlp]
    out: dict[str, Any] = {"tasks": list(tasks), "heads": heads, "mlps": [i for i in ids if i not in heads]}

    def of_all(table: pd.DataFrame) -> pd.DataFrame:
        return table[table["tasks"].map(lambda names: set(names.split(" ")) == set(tasks)).astype(bool)]

    row = of_all(tests[(tests["family"] == "core") & (tests["level"] == "heads")])
    out |= {"expected": None, "p": None, "p_holm": None}
    if len(row):
        out |= {name: rounded(row[name].iloc[0]) for name in ("expected", "p", "p_holm")}
    out["share"] = numbering.spread(of_all(members), "share")
    return out | {"sentence": sentence(out, numbering.n_layers)}


def sentence(found: dict[str, Any], mlps: int) -> str:
    """What the cores share, in words."""
    n, tasks = len(found["heads"]), len(found["tasks"])
    if tasks < 2:
        return "One task was searched: nothing to share."
    said = f"The cores of all {tasks} tasks share {n} head{'' if n == 1 else 's'}"
    if found["expected"] is not None:
        said += f"; {found['expected']:g} are expected by chance in circuits with as many heads in each layer"
    if found["p_holm"] is not None:
        said += f" (corrected p = {found['p_holm']:g})"
    return f"{said}. They share {len(found['mlps'])} of {mlps} MLPs."
