"""What a head is called: labels by stated thresholds, from the evidence of the other analyses.

Each label has one score, and applies where the score reaches its threshold in ``heads.labels``. Several may apply;
`LABELS` is the order of precedence, and a head's label is the first that applies.

- `previous token`, `induction`, `duplicate`: the detector's score. General patterns of attention come first: an
  induction head copies too, but that is not all there is to say of it.
- `successor`: share of instances whose next member the head writes into the top k, if in most of them it writes the
  next member more than the member itself; the larger of OV score (own norm) and in place. In place does not tell a head
  that makes the next member from one that moves what others have made. `copy`: the same of the member itself, if in
  most instances it does not write the next one more.
- `inhibitor`: minus the direct attribution, as a share of the logit difference: what the head takes from the answer. A
  copying head takes from it too, by raising the last member; that is called copying.
- `same-type detector`: attention that members attract by being members: weight on the shown members, in order or
  shuffled (the smaller), less that on the same positions when they hold words that are no members; from the answer
  position or from members to earlier ones (the larger). A head that goes by position has 0.

What a head copies within the residual stream, to a place that the unembedding does not read, no score of its own can
tell: another head may read that place as anything. Such a head is known by what it attends to.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from atlas.core import components
from atlas.core.components import Circuit, Component

log = logging.getLogger("atlas")

LABELS = ("previous token", "induction", "duplicate", "successor", "copy", "inhibitor", "same-type detector")
UNLABELLED = "unlabelled"


# ---- evidence ------------------------------------------------------------------------------------------------
def evidence(heads: Sequence[Component], tables: dict[str, pd.DataFrame], k: int) -> pd.DataFrame:
    """One row for each of ``heads`` (components) on one task, one column for each piece of evidence.

    ``tables``, as far as there are any: `detectors` of the model; `attribution`, `attention_members`, `ov`, `patching`
    and `component_effects` (one kind of ablation) of the task. ``k``: of the OV scores. What a
    task lacks is nan: effects where only the circuits of other tasks are evaluated, variants of prompts that could not
    be made.

    Columns: component, layer, head; effect (percentage points of full that the head's ablation costs);
    patching_denoising, patching_noising (of z); attribution (logits), attribution_share (of the logit difference);
    previous, duplicate, induction; ov_next, ov_copy, in_place_next, in_place_copy, each with `_baseline`;
    ov_next_over_copy, in_place_next_over_copy; last_to_last_member, previous_member_maximum; last_to_members,
    member_to_members and the same with `_shuffled` and `_words`; own_type, other_type (on interleaved members).
    """
    out = pd.DataFrame(
        {"component": map(str, heads), "layer": [h.layer for h in heads], "head": [h.head for h in heads]}
    )

    def add(column: str, table: str, *, value: str = "value", **where: object) -> None:
        found = cells(tables.get(table), where, value)
        out[column] = [found.get((h.layer, h.head), np.nan) for h in heads]

    add("percent_of_full", "component_effects", metric="percent_of_full")
    out["effect"] = 100 - out.pop("percent_of_full")
    for direction in ("denoising", "noising"):
        add(f"patching_{direction}", "patching", direction=direction, site="z", position=-1)
    add("attribution", "attribution", part="head")
    attribution = tables.get("attribution")
    whole = np.nan if attribution is None else attribution.value[attribution.part == "head"].sum()
    out["attribution_share"] = out.attribution / whole
    for detector in ("previous", "duplicate", "induction"):
        add(detector, "detectors", detector=detector)
    for source, norm in (("ov", "own"), ("in_place", "in place")):
        for score in ("next", "copy"):
            where: dict[str, Any] = {"norm": norm, "score": score, "k": k}
            add(f"{source}_{score}", "ov", **where)
            add(f"{source}_{score}_baseline", "ov", value="baseline", **where)
        add(f"{source}_next_over_copy", "ov", norm=norm, score="next over copy")
    members = "attention_members"
    add("last_to_last_member", members, statistic="last to last member", variant="in order")
    add("previous_member_maximum", members, statistic="previous member is the maximum", variant="in order")
    for query in ("last", "member"):
        for ending, variant in (("", "in order"), ("_shuffled", "shuffled"), ("_words", "words")):
            add(f"{query}_to_members{ending}", members, statistic=f"{query} to members", variant=variant)
    for kind in ("own", "other"):
        add(f"{kind}_type", members, statistic=f"member to {kind} type", variant="interleaved")
    return out


def cells(table: pd.DataFrame | None, where: dict[str, Any], value: str) -> dict[tuple[int, int], float]:
    """(layer, head) -> value of the rows of a table where these columns hold these values."""
    if table is None or not len(table):
        return {}
    for column, wanted in where.items():
        table = table[table[column] == wanted]
    return dict(zip(zip(table.layer, table["head"], strict=True), table[value], strict=True))


# ---- labels --------------------------------------------------------------------------------------------------
def scores(row: pd.Series) -> dict[str, float]:
    """Label -> its score, from one row of evidence; nan where the evidence is missing."""

    def written(score: str, leads: bool) -> float:
        """The larger share over both sources, of those where the next member leads in most instances, or does not."""
        shares = [(row[f"{source}_{score}"], row[f"{source}_next_over_copy"] > 0.5) for source in ("ov", "in_place")]
        return max((x if lead == leads else 0.0 for x, lead in shares if not np.isnan(x)), default=np.nan)

    def attracted(query: str) -> float:
        least = np.minimum(row[f"{query}_to_members"], row[f"{query}_to_members_shuffled"])
        more: float = least - row[f"{query}_to_members_words"]
        return more

    same_type = [x for x in (attracted("last"), attracted("member")) if not np.isnan(x)]
    return {
        "previous token": row["previous"],
        "induction": row["induction"],
        "duplicate": row["duplicate"],
        "successor": written("next", True),
        "copy": written("copy", False),
        "inhibitor": -row["attribution_share"],
        "same-type detector": max(same_type, default=np.nan),
    }


def labelled(found: pd.DataFrame, thresholds: dict[str, float]) -> pd.DataFrame:
    """Evidence with columns ``label``, ``labels`` (all that apply, joined by `; `) and a score for each label.

    ``thresholds``: label -> the smallest score for which it applies; a label that is not named never applies.
    """
    columns = [scores(row) for row in found.to_dict("records")]
    out = found.copy()
    for label in LABELS:
        out[f"score: {label}"] = [c[label] for c in columns]
    applying = [[x for x in LABELS if x in thresholds and c[x] >= thresholds[x]] for c in columns]
    out["label"] = [a[0] if a else UNLABELLED for a in applying]
    out["labels"] = ["; ".join(a) for a in applying]
    return out


def label_tasks(
    circuits: Mapping[str, Circuit], tables: Mapping[str, dict[str, pd.DataFrame]], k: int, thresholds: dict[str, float]
) -> pd.DataFrame:
    """`comparison/roles.parquet` less its model: the heads of all ``circuits`` on every task, labelled.

    ``circuits``: name -> circuit; a head's column ``circuits`` names those that have it. ``tables``: task -> its tables
    (`evidence`).
    """
    heads, pieces = components.heads(frozenset().union(*circuits.values())), []
    of_circuits = [", ".join(name for name, circuit in circuits.items() if head in circuit) for head in heads]
    for task, found in tables.items():
        piece = labelled(evidence(heads, found, k), thresholds)
        piece.insert(0, "task", task)
        piece.insert(4, "circuits", of_circuits)
        pieces.append(piece)
        counts = piece["label"].value_counts()
        log.info("%s: %s", task, ", ".join(f"{n} {label}" for label, n in counts.items()))
    return compared(pd.concat(pieces, ignore_index=True))


def compared(found: pd.DataFrame) -> pd.DataFrame:
    """Labels of all tasks with ``differs``: has the head another label in another task?"""
    different = found.groupby(["layer", "head"]).label.transform("nunique") > 1
    return found.assign(differs=different)
