"""Roles of heads in words: what each means, what its scores are called, and how a score stands beside its nulls."""

from collections.abc import Mapping
from typing import Any

from atlas.core.multiple import ALPHA
from atlas.heads.labels import UNLABELLED
from atlas.report.wording import interval, number, p_value

MEANING = {
    "previous token": "repeated random tokens: mean weight on the token before",
    "induction": "repeated random tokens: mean weight on the token after the earlier copy",
    "duplicate": "repeated random tokens: mean weight on the earlier copy",
    "successor": "share of instances in which, of all members of the task, it raises the next one most",
    "copy": "the same of the member itself",
    "inhibitor": "what its direct attribution takes from the logit difference, as a share of it",
    "same-type detector": "attention to members, in order or shuffled, less that to other words in their places",
    "suppressor": "by how much it lowers shown members against others, as a share of the logit difference",
    "answer writer": "what its direct attribution adds to the logit difference, as a share of it",
    "previous member": "attention to the last member before the query",
    "earlier members": "attention to all members before that one",
    "same slot": "attention to the same place of earlier clauses",
    "delimiter": "attention to what follows a member in earlier clauses",
    "own clause": "attention to the rest of the query's own clause",
    "first token": "attention to the first token, where it is no member",
    "self": "attention to the query's own position",
}
SHADES = {  # of label chips; the label itself is always written out
    "previous token": "#cfe3f5",
    "induction": "#d9d2ee",
    "duplicate": "#f3d3e6",
    "successor": "#c9e8cd",
    "copy": "#f7e3b5",
    "inhibitor": "#f8cdc8",
    "same-type detector": "#cdeae8",
    "suppressor": "#f5d9c4",
    "answer writer": "#dcecb8",
    "previous member": "#dbe7f7",
    "earlier members": "#d3dcf0",
    "same slot": "#e4dff2",
    "delimiter": "#e9e4da",
    "own clause": "#e2e8e0",
    "first token": "#ececec",
    "self": "#f1e8ee",
}
SCORE_NAMES = {
    "previous": "the token before",
    "duplicate": "the earlier copy",
    "induction": "the token after the earlier copy",
    "ov next": "next member raised most, from a member alone",
    "in place next": "next member raised most, at the answer position",
    "ov copy": "member itself raised most, from a member alone",
    "in place copy": "last member raised most, at the answer position",
    "against": "taken from the logit difference",
    "attribution": "added to the logit difference",
    "suppression": "shown members lowered against others",
    "type from last": "to members for being members, from the answer position",
    "type from members": "to members for being members, from members",
}


def name_of(score: str) -> str:
    """A score in words."""
    query, _, key = score.partition(" to ")
    if not key:
        return SCORE_NAMES.get(score, score)
    return f"to {'itself' if key == 'self' else key}, from {'the answer position' if query == 'last' else 'members'}"


def evidence(row: Mapping[str, Any]) -> str:
    """`to previous member, from the answer position: 0.97 [0.96, 0.98]`, of a row of `roles` or `role_tests`; empty
    where nothing was scored."""
    return f"{name_of(row['score'])}: {interval(row, 2)}" if _is_text(row["score"]) else ""


def null(row: Mapping[str, Any]) -> str:
    """`random heads 0.01 to 0.11; p = 0.016 corrected for 96 tests; floor 0.50`, of the same row.

    With what the head scores with members shuffled, where that is known; `not tested` where there were no random heads.
    """
    if row["p"] != row["p"]:
        return "not tested against random heads"
    parts = [f"random heads {span(row, 'null')}"]
    if row["shuffled_high"] == row["shuffled_high"]:
        parts.append(f"members shuffled {span(row, 'shuffled')}")
    parts.append(f"{p_value(row['p_holm'])} corrected for {row['tests']:.0f} tests")
    return "; ".join([*parts, f"floor {number(row['floor'], 2)}"])


def lacking(row: Mapping[str, Any]) -> str:
    """Why an unlabelled head is one, of its row of `roles`: what the score that comes nearest lacks; else empty."""
    if row["label"] != UNLABELLED:
        return ""
    if not _is_text(row["score"]) or row["p"] != row["p"]:
        return "not tested against random heads"
    if not row["p_holm"] < ALPHA:
        return "no score is more than random heads reach"
    if row["value"] <= row["shuffled_high"]:
        return "more than random heads reach, but no more than with members shuffled"
    return "more than random heads reach, but below its floor"


def span(row: Mapping[str, Any], of: str) -> str:
    """`0.01 to 0.11`: the 95 % of a null, `null` or `shuffled`."""
    return f"{number(row[f'{of}_low'], 2)} to {number(row[f'{of}_high'], 2)}"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)
