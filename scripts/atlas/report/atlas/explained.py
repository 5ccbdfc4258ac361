"""What is known of heads and MLPs on a task: roles, attribution, patching, OV scores, backup, what they write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from atlas.report.atlas.packing import Numbering, mean, rounded
from atlas.report.wording import interval, number, p_value

if TYPE_CHECKING:
    import pandas as pd

BACKUPS = 5  # of each ablated head, those that change most surely
SCORE = "score: "  # before a label, in columns of roles.parquet


def attribution(table: pd.DataFrame, numbering: Numbering) -> dict[str, Any]:
    """Direct attribution of each component, in logits, mean over prompts; positive for the answer."""
    rows = table[(table["part"] == "head") & table["name"].isin(set(numbering.of_name))]
    return numbering.intervals(rows)


def patching(table: pd.DataFrame, numbering: Numbering) -> dict[str, list[Any]]:
    """Direction -> share of the score that patching a head's output restores or leaves; None for MLPs.

    1 is the clean run, 0 the corrupted one.
    """
    rows = table[(table["site"] == "z") & (table["position"] == -1)]
    return {str(direction): numbering.spread(own, "value") for direction, own in rows.groupby("direction", sort=False)}


def ov(table: pd.DataFrame, numbering: Numbering, k: int) -> dict[str, Any] | None:
    """Share of members whose next one a head writes into the top k, through its own norm, and the same of members
    themselves (``copy``) and at the answer position (``in place``)."""
    found = {}
    for name, norm, score in (
        ("next", "own", "next"),
        ("copy", "own", "copy"),
        ("in place next", "in place", "next"),
        ("in place copy", "in place", "copy"),
    ):
        rows = table[(table["norm"] == norm) & (table["score"] == score) & (table["k"] == k)]
        if len(rows):
            found[name] = numbering.intervals(rows) | {"baseline": numbering.spread(rows, "baseline")}
    return found or None


def backup(table: pd.DataFrame, numbering: Numbering) -> list[list[Any]]:
    """[ablated head, head, change of its direct attribution (logits), low, high, corrected p], of each ablated head
    those whose p is smallest."""
    rows = table[table["p_holm"].notna()]
    out = []
    for name, own in rows.groupby("ablated", sort=False):
        order = own.assign(size=-own["change"].abs()).sort_values(["p_holm", "size", "layer", "head"])
        for row in order.head(BACKUPS).to_dict("records"):
            ends = [rounded(row[f"change{end}"]) for end in ("", "_ci_low", "_ci_high")]
            other = numbering.place[int(row["layer"]), int(row["head"])]
            out.append([numbering.of_name[str(name)], other, *ends, rounded(row["p_holm"])])
    return out


def detectors(table: pd.DataFrame, numbering: Numbering) -> dict[str, list[Any]]:
    """Detector -> each head's score on repeated random tokens."""
    return {str(name): numbering.spread(rows, "value") for name, rows in table.groupby("detector", sort=False)}


def roles(table: pd.DataFrame, numbering: Numbering, thresholds: Mapping[str, float]) -> list[dict[str, Any]]:
    """What each head is called on a task, with the evidence for it and what that is held against, in words."""
    return [
        {
            "id": numbering.of_name[row["component"]],
            "label": row["label"],
            "labels": [name for name in str(row["labels"]).split("; ") if name],
            "evidence": evidence(row),
            "null": null_of(row, thresholds),
            "differs": bool(row["differs"]),
        }
        for row in table.to_dict("records")
    ]


def evidence(row: Mapping[str, Any]) -> str:
    """The score that a head's label rests on, with its interval; empty where it has none."""
    return f"{row['score']} {interval(row, 2)}" if row["value"] == row["value"] else ""


def null_of(row: Mapping[str, Any], thresholds: Mapping[str, float]) -> str:
    """What that score is held against: random heads and shuffled members where it was tested, and its threshold."""
    said = []
    if row["null_high"] == row["null_high"]:
        said.append(f"random heads {number(row['null_low'], 2)} to {number(row['null_high'], 2)}")
    if row["shuffled_high"] == row["shuffled_high"]:
        said.append(f"with members shuffled {number(row['shuffled_low'], 2)} to {number(row['shuffled_high'], 2)}")
    if row["p_holm"] == row["p_holm"]:
        said.append(f"{p_value(row['p_holm'])} corrected for {row['tests']:.0f} tests")
    if row["label"] in thresholds:
        said.append(f"its floor is {thresholds[row['label']]:g}")
    return "; ".join(said)


def scores(table: pd.DataFrame, numbering: Numbering) -> dict[str, dict[str, Any]]:
    """Label -> by how much each head has it, of a task's roles: a metric that the page can show of all of them."""
    names = [column.removeprefix(SCORE) for column in table.columns if column.startswith(SCORE)]
    return {
        name: {
            "title": f"Role score: {name}",
            "value": numbering.spread(table, f"{SCORE}{name}"),
            "unit": "",
            "about": f"The score by which a head is called {name} (docs/methods.md, roles).",
        }
        for name in names
        if table[f"{SCORE}{name}"].notna().any()
    }


def written(found: Mapping[str, Any], numbering: Numbering) -> dict[str, Any]:
    """Number of a component -> ``top`` and ``bottom``: [token, logits], by `traces.json`."""
    return {
        str(numbering.of_name[name]): {
            side: [[token, rounded(value)] for token, value in tokens[side]] for side in ("top", "bottom")
        }
        for name, tokens in found.items()
    }


def prompts(traces: Mapping[str, Any], numbering: Numbering) -> list[dict[str, Any]]:
    """The sampled prompts of `traces.json`, with rounded numbers."""
    heads = [numbering.of_name[name] for name in traces["heads"]]
    return [_prompt(entry, heads) for entry in traces["prompts"]]


def _prompt(entry: Mapping[str, Any], heads: list[int]) -> dict[str, Any]:
    names = ("prompt", "split", "template", "tokens", "roles", "answer", "incorrect", "corrupted")
    out = {name: entry[name] for name in names}
    out["clean"] = rounded(entry["clean"])
    kinds = entry.get("ablated", {})
    out["ablated"] = {kind: [rounded(value) for value in values] for kind, values in kinds.items()}
    if "top" in entry:
        out["top"] = [[token, rounded(value)] for token, value in entry["top"]]
    if "attribution" in entry:
        out["attribution"] = [rounded(value) for value in entry["attribution"]]
        out["rest"] = [[name, rounded(value)] for name, value in entry["rest"]]
    if "lens" in entry:
        out["lens"] = entry["lens"] | {"value": [rounded(value) for value in entry["lens"]["value"]]}
    if "attention" in entry:
        out["attention"] = {"heads": heads, "bits": entry["attention"]}
    return out


def full(clean_summary: pd.DataFrame) -> list[Any]:
    """[value, low, high] of the unablated logit difference, on the prompts that results are reported on."""
    rows = clean_summary[(clean_summary["run"] == "clean") & (clean_summary["metric"] == "logit_diff")]
    held_out = rows[rows["split"] == "held_out"]
    return mean((held_out if len(held_out) else rows[rows["split"] == "search"]).iloc[0])
