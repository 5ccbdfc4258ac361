"""What a head is called: roles that pass a test, from the scores and evidence of the other analyses.

A role has one score or two, each tested for every head of the model, and a head has it where one of them

- is one that random heads do not reach: Holm's p, over the heads of the model and the scores of the role on a task, is
  below 0.05 (`random_heads.py`);
- lies above what 97.5 % of the same scores of the same head give with members shuffled, of what a head writes;
- and is no less than the role's *floor* in ``heads.labels``: smaller ones are no summary of a head, however certain.

Several roles may apply; `LABELS` is the order of precedence, and a head's label is the first that applies. What a head
does on any text comes first, then what it writes, then where it looks, from the telling to the plain.

- `previous token`, `induction`, `duplicate`: the detectors' scores, on repeated random tokens.
- `successor`, `copy`: share of instances in which, of all members of the task, it raises the next one (the one it
  reads) most: from a member alone, or at the answer position.
- `inhibitor`, `answer writer`: what it takes from, or adds to, the logit difference by itself, as a share of it.
  A copying head takes from it too, by raising the last member; that is called copying.
- `same-type detector`: attention that members attract by being members.
- `suppressor`: it lowers the members that have been shown, against those that have not, as a share of the difference.
- `previous member`, `earlier members`, `same slot`, `delimiter`, `own clause`, `first token`, `self`: where most of its
  attention goes, from the answer position or from members (`reads.py`).

What a head copies within the residual stream, to a place that the unembedding does not read, no score of its own can
tell: another head may read that place as anything. Such a head is known by where it looks.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from atlas.core.components import Circuit, Component
from atlas.core.multiple import ALPHA, corrected

log = logging.getLogger("atlas")

SCORES = {  # label -> its scores, of `detectors` and `role_scores`
    "previous token": ("previous",),
    "induction": ("induction",),
    "duplicate": ("duplicate",),
    "successor": ("ov next", "in place next"),
    "copy": ("ov copy", "in place copy"),
    "inhibitor": ("against",),
    "same-type detector": ("type from last", "type from members"),
    "suppressor": ("suppression",),
    "answer writer": ("attribution",),
    "previous member": ("last to previous member", "member to previous member"),
    "earlier members": ("last to earlier members", "member to earlier members"),
    "same slot": ("last to same slot", "member to same slot"),
    "delimiter": ("last to delimiters", "member to delimiters"),
    "own clause": ("last to own clause", "member to own clause"),
    "first token": ("last to first token", "member to first token"),
    "self": ("last to self", "member to self"),
}
LABELS = tuple(SCORES)
UNLABELLED = "unlabelled"
NULLS = ["null_low", "null_high", "shuffled_low", "shuffled_high"]
TESTED = ["component", "layer", "head", "label", "score", "value", "ci_low", "ci_high", *NULLS, "floor", "p"]
TESTED += ["claim", "tests", "p_holm", "holds"]
OF_LABEL = ["score", "value", "ci_low", "ci_high", *NULLS, "floor", "p", "tests", "p_holm"]  # in `roles.parquet`


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


# ---- roles ---------------------------------------------------------------------------------------------------
def tests(tables: Mapping[str, pd.DataFrame], floors: Mapping[str, float]) -> pd.DataFrame:
    """Rows of `TESTED`: every score of every role, for every head of the model on one task.

    ``tables``: `role_scores` of the task and `detectors` of the model, as far as there are any. ``floors``: label ->
    floor; a label without one never holds. Nor does a score that was not tested, whose p is nan.
    """
    found = [pd.DataFrame(columns=["score", "layer", "head"])]
    if "role_scores" in tables:
        found.append(tables["role_scores"])
    if "detectors" in tables:
        found.append(tables["detectors"].rename(columns={"detector": "score"}))
    label_of = {score: label for label, scores in SCORES.items() for score in scores}
    rows = pd.concat([table for table in found if len(table)] or found, ignore_index=True).reindex(
        columns=["score", "layer", "head", "value", "ci_low", "ci_high", *NULLS, "p"]
    )
    rows = rows.assign(label=rows.score.map(label_of), component=list(map(_name, rows.layer, rows["head"])))
    rows = rows[rows.label.notna()].assign(floor=rows.label.map(dict(floors)))
    rows = corrected(rows, rows.label)
    shuffled = rows.shuffled_high.astype(float)
    above = shuffled.isna() | (rows.value > shuffled)
    rows["holds"] = (rows.p_holm < ALPHA) & above & (rows.value >= rows.floor.astype(float))
    order = rows.label.map({label: i for i, label in enumerate(LABELS)})
    return rows.assign(order=order).sort_values(["order", "score", "layer", "head"], ignore_index=True)[TESTED]


def _name(layer: Any, head: Any) -> str:
    return str(Component(int(layer), int(head)))


def labelled(found: pd.DataFrame, tested: pd.DataFrame) -> pd.DataFrame:
    """Evidence with a score for each label, ``label``, ``labels`` (all that apply, joined by `; `), and of the score
    that the label rests on the columns `OF_LABEL`; of an unlabelled head those of the score that comes nearest.

    ``tested``: `tests`. Of a label's scores the one that holds counts, else the one with the smaller p.
    """
    nearest = tested.assign(least=tested.value / tested.floor.astype(float)).sort_values(
        ["holds", "p_holm", "least"], ascending=[False, True, False], kind="stable"
    )
    best = nearest.drop_duplicates(["component", "label"])
    out = found.copy()
    values = best.pivot(index="component", columns="label", values="value").reindex(out.component)
    for label in LABELS:
        out[f"score: {label}"] = values[label].to_numpy() if label in values else np.nan
    held = best[best.holds].groupby("component")["label"].agg(set)
    applying = [[x for x in LABELS if x in held.get(name, ())] for name in out.component]
    out["label"] = [a[0] if a else UNLABELLED for a in applying]
    out["labels"] = ["; ".join(a) for a in applying]
    of_label = best.set_index(["component", "label"])
    first = nearest.drop_duplicates("component").set_index("component")
    rows = [
        of_label.loc[(name, label)] if label != UNLABELLED else first.loc[name] if name in first.index else None
        for name, label in zip(out.component, out.label, strict=True)
    ]
    for column in OF_LABEL:
        out[column] = [None if row is None else row[column] for row in rows]
    numbers = [column for column in OF_LABEL if column != "score"]
    return out.astype(dict.fromkeys(numbers, float))


def label_tasks(
    circuits: Mapping[str, Circuit],
    heads: Sequence[Component],
    tables: Mapping[str, dict[str, pd.DataFrame]],
    k: int,
    floors: Mapping[str, float],
) -> dict[str, pd.DataFrame]:
    """`roles`, one row of each of the model's ``heads`` on every task, and `role_tests`, less their model.

    ``circuits``: name -> circuit; a head's column ``circuits`` names those that have it. ``tables``: task -> its tables
    (`evidence`, `tests`).
    """
    of_circuits = [", ".join(name for name, circuit in circuits.items() if head in circuit) for head in heads]
    roles, all_tests = [], []
    for task, found in tables.items():
        tested = tests(found, floors)
        piece = labelled(evidence(heads, found, k), tested)
        piece.insert(0, "task", task)
        piece.insert(4, "circuits", of_circuits)
        roles.append(piece)
        tested.insert(0, "task", task)
        all_tests.append(tested)
        counts = piece["label"][piece["circuits"] != ""].value_counts()
        log.info("%s, heads of circuits: %s", task, ", ".join(f"{n} {label}" for label, n in counts.items()))
    tested = pd.concat(all_tests, ignore_index=True)
    return {"roles": compared(pd.concat(roles, ignore_index=True)), "role_tests": tested}


def every_head(n_layers: int, n_heads: int) -> list[Component]:
    """All heads of a model, layer by layer."""
    return [Component(layer, head) for layer in range(n_layers) for head in range(n_heads)]


def compared(found: pd.DataFrame) -> pd.DataFrame:
    """Labels of all tasks with ``differs``: has the head another label in another task?"""
    different = found.groupby(["layer", "head"]).label.transform("nunique") > 1
    return found.assign(differs=different)
