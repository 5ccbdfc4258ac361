"""A page to look at the data of every task before a search: counts, scores, answers, tokens, and what looks wrong."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from atlas.prompts.clean_scores import SIDES
from atlas.report import frame
from atlas.report.data_check import Look
from atlas.report.data_tables import remedy_of, row_of
from atlas.report.wording import count, interval, number, percent, words

MOST_ANSWERS = 24  # shown; the table has them all
EXAMPLES = 6  # prompts shown token by token
REJECTED_EXAMPLES = 2  # of each reason
ROLES = {"bos": "BOS", "members": "member", "separators": "other text", "last": "last token, answers here"}
ROLES |= {"answer": "answer", "incorrect": "incorrect answer"}
HELD_OUT = {
    "prompts": "prompts at random",
    "sequences": "whole member sequences, which the search never sees",
    "templates": "whole wordings, which the search never sees",
}


def visible(string: str) -> str:
    """The characters of a token, with spaces and line breaks to be seen; a middle dot where it adds none."""
    for character, shown in ((" ", "\u2423"), ("\n", "\u23ce"), ("\t", "\u21e5"), ("\r", "\u240d")):
        string = string.replace(character, shown)
    return string or "\u00b7"


# ---- tokens --------------------------------------------------------------------------------------------------
def examples(tokens: pd.DataFrame) -> list[dict[str, Any]]:
    """Of each prompt of tokens.parquet: ``prompt``, ``template`` and ``lines``, each a name and its tokens."""
    found = []
    for prompt, rows in list(tokens.groupby("prompt", sort=False))[:EXAMPLES]:
        clean = rows[(rows["run"] == "clean") & (rows["role"] != "incorrect")]
        incorrect = rows[rows["role"] == "incorrect"]
        corrupted = rows[rows["run"] == "corrupted"]
        lines = [("clean", clean), ("incorrect answer", incorrect), ("corrupted", corrupted)]
        shown = [(name, [_box(token) for token in table.to_dict("records")]) for name, table in lines if len(table)]
        found.append({"prompt": prompt, "template": rows["template"].iloc[0], "lines": shown})
    return found


def _box(token: Mapping[str, Any]) -> dict[str, str]:
    """A token as it is drawn: text, class, and what stands beside the pointer."""
    role = str(token["role"])
    about = f"{ROLES.get(role, role)}; position {token['position']}, id {token['id']}, {token['piece']}"
    return {"text": "BOS" if role == "bos" else visible(token["string"]), "role": role, "about": about}


def rejected_examples(rejected: pd.DataFrame) -> list[dict[str, Any]]:
    """The first prompts of each reason, the commonest reason first: ``reason``, ``n``, ``remedy``, ``prompts``."""
    found = []
    for reason, n in rejected["reason"].value_counts().items():
        rows = rejected[rejected["reason"] == reason].head(REJECTED_EXAMPLES)
        shown = [
            {
                "prompt": row["prompt"],
                "lines": [
                    ("with answer", list(map(visible, row["clean_strings"]))),
                    ("with incorrect one", list(map(visible, row["incorrect_strings"]))),
                    ("corrupted", list(map(visible, row["corrupted_strings"]))),
                ],
            }
            for row in rows.to_dict("records")
        ]
        found.append({"reason": reason, "n": n, "remedy": remedy_of(str(reason)), "prompts": shown})
    return found


# ---- tables --------------------------------------------------------------------------------------------------
def overview(looks: Sequence[Look]) -> list[dict[str, Any]]:
    """A line for each task."""
    return [
        {
            "task": words(found.data.task),
            "anchor": found.data.task,
            "cells": [str(found.counts[name]) for name in ("read", "kept", "search", "held_out")]
            + [interval(row_of(found.scores, "top1"), 1, 100), interval(row_of(found.scores, "logit_diff"), 2)],
            "stops": any(warned.stops for warned in found.warnings),
            "warnings": sum(not warned.stops for warned in found.warnings),
        }
        for found in looks
    ]


def score_rows(scores: pd.DataFrame) -> list[dict[str, Any]]:
    """A line for all prompts, for each side and for each wording: its name, and cells."""
    rows = []
    for (split, template), part in scores.groupby(["split", "template"], sort=False):
        cells = part.set_index("metric").to_dict("index")
        rows.append(
            {
                "name": template or {"all": "all prompts"}.get(split, SIDES.get(split, split)),
                "wording": bool(template),
                "cells": [
                    number(part["prompts"].iloc[0]),
                    interval(cells["top1"], 1, 100),
                    interval(cells["logit_diff"], 2),
                    interval(cells["probability"], 3),
                    interval(cells["corrupted_top1"], 1, 100),
                    interval(cells["corrupted_logit_diff"], 2),
                ],
            }
        )
    return rows


def answer_bars(answers: pd.DataFrame) -> dict[str, Any]:
    """The commonest answers: ``bars``, each with its numbers of prompts and widths in percent, and a ``rest``."""
    shown, most = answers.head(MOST_ANSWERS), int(answers[list(SIDES)].sum(axis=1).max())
    bars = [
        {
            "answer": visible(row["answer"]),
            "counts": [row[s] for s in SIDES],
            "widths": [100 * row[s] / most for s in SIDES],
        }
        for row in shown.to_dict("records")
    ]
    left = answers.iloc[MOST_ANSWERS:]
    rest = f"{count(len(left), 'more answer')} of {count(left[list(SIDES)].to_numpy().sum(), 'prompt')}"
    return {"bars": bars, "rest": f"and {rest}" if len(left) else "", "different": len(answers)}


def sentence(found: Look) -> str:
    """What a task's data come to."""
    n, right = found.counts, row_of(found.scores, "top1")
    passed = f" {n['pass the filter']} pass the filter." if "pass the filter" in n else ""
    return (
        f"{n['kept']} of {count(n['read'], 'prompt')} can be used: {n['search']} to search on, {n['held_out']} held "
        f"out.{passed} Unharmed, the model's first choice is the answer on {percent(right, 100)} of them; the logit "
        f"difference is {interval(row_of(found.scores, 'logit_diff'), 2)}."
    )


def notes(found: Look) -> list[str]:
    """What else is known of the prompts: what is held out, their layouts, fillers that were left out."""
    info, said = found.data.info, []
    if info.get("hold_out"):
        said.append(f"Held out: {HELD_OUT.get(info['hold_out'], info['hold_out'])}.")
    layouts = info.get("layouts") or [info["layout"] | {"prompts": found.counts["kept"]}]
    sizes = ", ".join(f"{layout['prompts']} of {layout['tokens']} tokens" for layout in layouts[:8])
    rest = f" and {count(len(layouts) - 8, 'more layout')}" if len(layouts) > 8 else ""
    said.append(f"Prompts by layout: {sizes}{rest}.")
    for kind, left_out in info["dropped_fillers"].items():
        if left_out:
            said.append(f"Not used as {kind}, since more than one token: {', '.join(left_out)}.")
    return said


def page(
    looks: Sequence[Look], tokens: Mapping[str, pd.DataFrame], title: str, warning: str, main: Sequence[str]
) -> str:
    """The data of one model's tasks. ``tokens``: tokens.parquet by task; ``main``: the tasks that are searched."""
    sections = [
        {
            "anchor": found.data.task,
            "title": words(found.data.task),
            "kind": "searched" if found.data.task in main else "evaluated only",
            "sentence": sentence(found),
            "warnings": found.warnings,
            "reasons": [(reason, n, remedy_of(reason)) for reason, n in found.reasons.items()],
            "counts": found.counts,
            "notes": notes(found),
            "scores": score_rows(found.scores),
            "answers": answer_bars(found.answers),
            "examples": examples(tokens[found.data.task]),
            "roles": [role for role in ROLES if (tokens[found.data.task]["role"] == role).any()],
            "rejected": rejected_examples(found.data.rejected),
        }
        for found in looks
    ]
    wrong = sum(len(found.warnings) for found in looks)
    lead = (
        "What the model reads, before anything is searched. "
        + (f"{count(wrong, 'warning')}, each with what to change." if wrong else "Nothing looks wrong.")
        + " Brackets hold 95 % bootstrap intervals over prompts."
    )
    shown = {"overview": overview(looks), "sections": sections, "names": ROLES}
    return frame.render(__file__, title, lead, warning, **shown)
