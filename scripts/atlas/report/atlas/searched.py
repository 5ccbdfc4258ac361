"""What was searched on a main task: circuits, the steps of their searches, edges, and what single components cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from atlas.circuit.search import jumps
from atlas.core.components import from_json
from atlas.core.graph import EMBED, LOGITS, Edge, Graph
from atlas.edges.chosen import reported_edges
from atlas.edges.methods import preferred_scores, title
from atlas.report.atlas.packing import Number, Numbering, mean, rounded

if TYPE_CHECKING:
    import pandas as pd

EDGES = 3000  # drawn at most
EMBEDDINGS, LOGITS_ID = -1, -2  # in place of a component's number
REPORTED = "reported"


def circuits(
    found: dict[str, Any],
    chosen: dict[str, Any],
    tables: dict[str, pd.DataFrame],
    numbering: Numbering,
    threshold: float,
) -> list[dict[str, Any]]:
    """The circuits that are reported, at each threshold, then those that each search found.

    ``found``, ``chosen``: circuits.json and chosen.json; ``tables``: `faithfulness` and `choice`, whose reported split
    the percents of full (with intervals) are of. ``reported``: is it the one that the study compares?
    """
    out = []
    for entry in chosen["circuits"]:
        rows = tables["choice"]
        rows = rows[rows["reported"] & (rows["threshold"] == entry["threshold"])]
        out.append(
            _circuit(entry, rows, numbering)
            | {
                "label": REPORTED,
                "searched": rounded(rows["searched"].iloc[0]),
                "dropped": [numbering.of_name[name] for name in entry["dropped"]],
                "reported": entry["threshold"] == threshold,
            }
        )
    for entry in found["circuits"]:
        rows = tables["faithfulness"]
        rows = rows[(rows["order"] == entry["order"]) & (rows["threshold"] == entry["threshold"])]
        own = {"label": entry["order"], "searched": rounded(entry["threshold"]), "dropped": [], "reported": False}
        out.append(_circuit(entry, rows, numbering) | own)
    return out


def _circuit(entry: dict[str, Any], rows: pd.DataFrame, numbering: Numbering) -> dict[str, Any]:
    percents = rows[rows["metric"] == "percent_of_full"]
    held_out = percents[percents["split"] == "held_out"]
    row = (held_out if len(held_out) else percents).iloc[0]
    return {
        "order": entry["order"],
        "threshold": rounded(entry["threshold"]),
        "members": numbering.circuit(from_json(entry)),
        "split": row["split"],
        "percent": mean(row),
    }


def traces(trace: pd.DataFrame, numbering: Numbering) -> list[dict[str, Any]]:
    """Every search, step by step: [numbers tried, percent of full without them, 1 where they were removed].

    A search starts from the full model; the circuit after a step is all less what was removed until then. Searches
    whose steps are no list of removals (`jumps`) are left out.
    """
    out = []
    for (order, threshold), rows in trace.groupby(["order", "threshold"], sort=False):
        if jumps(str(order)):
            continue
        tried = [[numbering.of_name[name] for name in names.split(" ")] for names in rows["component"]]
        steps = zip(tried, map(rounded, rows["percent"]), rows["removed"].astype(int).tolist(), strict=True)
        out.append({"order": order, "threshold": rounded(threshold), "steps": list(map(list, steps))})
    return out


def effects(table: pd.DataFrame, numbering: Numbering) -> dict[str, dict[str, list[Any]]]:
    """Kind of ablation -> percent of full with each component alone ablated, on the prompts searched on."""
    percents = table[table["metric"] == "percent_of_full"]
    return {str(kind): numbering.intervals(rows) for kind, rows in percents.groupby("kind", sort=False)}


def positions(table: pd.DataFrame, numbering: Numbering) -> dict[str, Any] | None:
    """Points of percent of full that a component of the position-level circuit's start costs at a role's positions.

    ``kept``: 1 where the position-level circuit has it there.
    """
    if not len(table):
        return None
    roles = list(dict.fromkeys(table["role"]))
    of_role = [table[table["role"] == role] for role in roles]
    found: dict[str, Any] = {"roles": roles}
    for key, column in (("value", "value"), ("low", "ci_low"), ("high", "ci_high"), ("kept", "kept")):
        found[key] = [numbering.spread(rows.astype({column: float}), column) for rows in of_role]
    return found


# ---- edges ---------------------------------------------------------------------------------------------------
def edges(
    content: dict[str, Any],
    scores: pd.DataFrame,
    graph: Graph,
    numbering: Numbering,
    classes: Mapping[str, str] | None = None,
) -> tuple[dict[str, Any], str]:
    """The edges that are drawn, the strongest first, and a sentence on those that are left out.

    Those of the reported edge circuit, and of the others the strongest, EDGES in all. ``content``: edge_circuits.json;
    ``scores``: edge_scores.parquet, of which those by the preferred method are taken; where none scores edges, values
    are None. A shared key or value input stands as an edge to every query head that reads it, with the same value.
    ``classes``: edge -> its class in the searches on other data, by name.
    """
    inside, method = reported_edges(content), preferred_scores(scores["method"].unique().tolist())
    rows = scores[scores["method"] == method]
    names = zip(rows["sender"], rows["receiver"], strict=True)
    intervals = zip(rows["value"], rows["ci_low"], rows["ci_high"], strict=True)
    known = {Edge(*pair): ends for pair, ends in zip(names, intervals, strict=True)}

    def strength(edge: Edge) -> tuple[bool, float, str]:
        return edge not in inside, -abs(known[edge][0]) if edge in known else 0.0, str(edge)

    order, drawn, used = sorted({*known, *inside}, key=strength), [], 0
    for edge in order:
        used += len(graph.readers(edge.receiver))
        if used > EDGES:
            break
        drawn.append(edge)
    drawn.sort(key=lambda edge: strength(edge)[1:])
    out: dict[str, list[Any]] = {key: [] for key in ("sender", "receiver", "port", "value", "low", "high", "circuit")}
    out["class"] = []
    for edge in drawn:
        for reader in graph.readers(edge.receiver):
            value, low, high = known.get(edge, (float("nan"),) * 3)
            cells: list[Any] = [_sender(edge, numbering), _receiver(reader, numbering), _port(edge)]
            cells += [rounded(value), rounded(low), rounded(high), int(edge in inside)]
            cells.append((classes or {}).get(str(edge)))
            for column, cell in zip(out.values(), cells, strict=True):
                column.append(cell)
    said = "" if len(drawn) == len(order) else f"the {len(drawn)} strongest of {len(order)} edges that were scored"
    own = {"method": title(method) if method else "", "total": int(content["total_edges"]), "scored": len(known)}
    return own | {"inside": len(inside)} | out, said


def _sender(edge: Edge, numbering: Numbering) -> int:
    return EMBEDDINGS if edge.sender == EMBED else numbering.of_name[edge.sender]


def _receiver(reader: str, numbering: Numbering) -> int:
    return LOGITS_ID if reader == LOGITS else numbering.of_name[reader]


def _port(edge: Edge) -> str:
    return edge.receiver[-1] if edge.receiver != LOGITS and "." in edge.receiver else ""


def share(consensus: pd.DataFrame, numbering: Numbering) -> dict[str, Any]:
    """``share`` of a task's searches that keep each component, and its ``class``; None of what none keeps.

    ``runs``: how many searches.
    """
    runs: Number = int(consensus["runs"].iloc[0]) if len(consensus) else 0
    return {
        "share": numbering.spread(consensus, "share"),
        "class": numbering.spread(consensus, "class", text=True),
        "runs": runs,
    }
