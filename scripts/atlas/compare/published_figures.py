"""Our values of figures that others published: which rows of a study's tables a figure is made of.

A figure is a function of the tables (name -> rows of all main tasks) and of what is chosen: the ``threshold`` of
the compared circuits. It gives a row for each value: ``task``, ``item``, and ours with its interval.
"""

import re
from collections.abc import Callable
from typing import Any

import pandas as pd

OURS = ["ours", "ours_low", "ours_high"]
HEADED = re.compile(r"\d+\.(\d+)")  # items that name a head
Tables = dict[str, pd.DataFrame]
Figure = Callable[[Tables, dict[str, Any]], pd.DataFrame]  # rows of a figure, of the tables and the chosen circuit


def _values(table: pd.DataFrame, item: str | pd.Series, factor: float = 1) -> pd.DataFrame:
    """Rows of a figure: task, item, ours and its interval, from a table with value, ci_low, ci_high."""
    columns = dict(zip(OURS, ("value", "ci_low", "ci_high"), strict=True))
    found = pd.DataFrame({name: factor * table[column] for name, column in columns.items()})
    found.insert(0, "task", table["task"])
    found.insert(1, "item", item)
    return found.astype({"item": str})


def _circuit(tables: Tables, chosen: dict[str, Any]) -> pd.DataFrame:
    members = tables["membership"].rename(columns={"circuit": "task"})
    members = members.assign(value=1.0, ci_low=float("nan"), ci_high=float("nan"))
    return _values(members, members["component"])


def _percent_of_full(tables: Tables, chosen: dict[str, Any]) -> pd.DataFrame:
    table = tables["choice"]
    table = table[(table["split"] == "search") & (table["metric"] == "percent_of_full")]
    table = table[table["reported"] & (table["threshold"] == chosen["threshold"])]
    return _values(table, "circuit")


def _cross(tables: Tables, chosen: dict[str, Any]) -> pd.DataFrame:
    table = tables["cross"][tables["cross"]["metric"] == "percent_of_full"]
    return _values(table, table["circuit"])


def _given_circuit(tables: Tables, chosen: dict[str, Any]) -> pd.DataFrame:
    table = tables["evaluation"][tables["evaluation"]["metric"] == "percent_of_full"]
    return _values(table, table["circuit"])


def _single(mlps: bool) -> Figure:
    def found(tables: Tables, chosen: dict[str, Any]) -> pd.DataFrame:
        table = tables["effects"]
        table = table[(table["kind"] == "mean") & (table["metric"] == "percent_of_full")]
        table = table[(table["head"] < 0) == mlps]
        return _values(table, table["component"])

    return found


def _removal(tables: Tables, chosen: dict[str, Any]) -> pd.DataFrame:
    """Percent of full that is left: the circuit's less what it loses, with the interval of the loss."""
    table = tables["evaluation"]
    whole = table[(table["circuit"] == "nodes") & (table["metric"] == "percent_of_full")].set_index("task")["value"]
    lost = tables["minimality"][tables["minimality"]["circuit"] == "nodes"]
    own = lost["task"].map(whole)
    left = {"value": own - lost["value"], "ci_low": own - lost["ci_high"], "ci_high": own - lost["ci_low"]}
    return _values(lost.assign(**left), lost["name"])


def _clean_logit_diff(tables: Tables, chosen: dict[str, Any]) -> pd.DataFrame:
    table = tables["clean"]
    table = table[(table["split"] == "all") & (table["metric"] == "logit_diff") & (table["run"] == "clean")]
    return _values(table, "mean")


def _corrupted_over_clean(tables: Tables, chosen: dict[str, Any]) -> pd.DataFrame:
    """The ratio of two means; it has no interval of its own."""
    table = tables["clean"]
    table = table[(table["split"] == "all") & (table["metric"] == "logit_diff")]
    table = table.pivot(index="task", columns="run", values="value").reset_index()
    nothing = float("nan")
    return _values(table.assign(value=table["corrupted"] / table["clean"], ci_low=nothing, ci_high=nothing), "ratio")


def _ov(score: str) -> Figure:
    def found(tables: Tables, chosen: dict[str, Any]) -> pd.DataFrame:
        table = tables["ov"]
        table = table[(table["norm"] == "block1") & (table["k"] == 5) & (table["score"] == score)]
        return _values(table, table["layer"].astype(str) + "." + table["head"].astype(str), 100)

    return found


def _lens_increment(tables: Tables, chosen: dict[str, Any]) -> pd.DataFrame:
    table = tables["lens_increments"].rename(columns={"share": "value"})
    table = table[table["lens"] == "raw"]
    return _values(table, "block " + (table["from_point"] // 2).astype(str), 100)


def _attribution(part: str) -> Figure:
    def found(tables: Tables, chosen: dict[str, Any]) -> pd.DataFrame:
        table = tables["attribution"]
        table = table[table["part"] == part]
        return _values(table, table["name"])

    return found


def _attribution_writes(tables: Tables, chosen: dict[str, Any]) -> pd.DataFrame:
    """As published, a layer's attention with its output bias, where it has one; a sum of two rows has no interval."""
    table = _attribution("write")(tables, chosen)
    bias = table["item"].str.startswith("bias ")
    layers = table["item"][bias].str.replace("bias ", "attn ")
    added = dict(zip(zip(table["task"][bias], layers, strict=True), table["ours"][bias], strict=True))
    table = table[~bias]
    rows = list(zip(table["task"], table["item"], strict=True))
    table = table.assign(ours=table["ours"] + [added.get(row, 0.0) for row in rows])
    table.loc[[row in added for row in rows], OURS[1:]] = float("nan")
    return table


def _heads_only(found: Figure) -> Figure:
    def heads(tables: Tables, chosen: dict[str, Any]) -> pd.DataFrame:
        table = found(tables, chosen)
        return table[table["item"].str.fullmatch(HEADED.pattern)]

    return heads


def _patching(site: str, positional: bool) -> Figure:
    def found(tables: Tables, chosen: dict[str, Any]) -> pd.DataFrame:
        table = tables["patching"]
        table = table[(table["direction"] == "denoising") & (table["site"] == site)]
        place = "@" + table["position"].astype(str) if positional else "." + table["head"].astype(str)
        return _values(table, table["layer"].astype(str) + place)

    return found


# By the names of `figures` in study.json
FIGURES: dict[str, Figure] = {
    "circuit": _circuit,
    "percent_of_full": _percent_of_full,
    "cross": _cross,
    "given_circuit": _given_circuit,
    "single_head": _single(mlps=False),
    "single_mlp": _single(mlps=True),
    "removal": _removal,
    "clean_logit_diff": _clean_logit_diff,
    "corrupted_over_clean": _corrupted_over_clean,
    "ov_copy": _ov("copy"),
    "ov_next": _ov("next"),
    "lens_increment": _lens_increment,
    "attribution_points": _attribution("accumulated"),
    "attribution_writes": _attribution_writes,
    "attribution_heads": _heads_only(_attribution("head")),
    **{f"patching_{site}": _patching(site, True) for site in ("resid_pre", "attn_out", "mlp_out")},
    **{f"patching_{site}": _patching(site, False) for site in ("z", "v", "pattern")},
}
