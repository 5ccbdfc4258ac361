"""Cards of MLPs: what each writes at the answer position, for which answers, and what its ablation costs."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from atlas.report import card_pictures
from atlas.report.lens_page import visible
from atlas.report.wording import interval, listing, number, place, words

DASH, SHOWN = "\u2013", 5  # tokens of each end


def cards(
    tables: Mapping[str, pd.DataFrame],
    main: Sequence[str],
    tasks: Sequence[str],
    colours: Sequence[str],
) -> list[dict[str, Any]]:
    """One card for each MLP of the model; none where the study does not attribute.

    ``tables``: `mlp_answers`, `mlp_tokens`, `membership`, and `effects` (percent of full with a component alone
    ablated, one kind).
    """
    names = ("mlp_answers", "mlp_tokens", "effects", "membership")
    answers, tokens, effects, membership = (tables[name] for name in names)
    whole, single = answers[answers["answer"].isna()], answers[answers["answer"].notna()]
    found = []
    for name in sorted(answers["component"].unique(), key=place):
        layer = place(name)[0]
        own, cost = whole[whole["component"] == name], effects[(effects["layer"] == layer) & (effects["head"] < 0)]
        inside = [task for task in main if ((membership["circuit"] == task) & (membership["component"] == name)).any()]
        of_tokens = tokens[tokens["component"] == name]
        rows = {
            "ablated alone, points of % of full lost": [_lost(cost[cost["task"] == task]) for task in tasks],
            "direct attribution, logits": [
                _cell(own[own["task"] == task], ("value", "ci_low", "ci_high"), 2) for task in tasks
            ],
            "direct share of the logit difference, %": [
                _cell(own[own["task"] == task], ("share", "share_low", "share_high"), 1, 100) for task in tasks
            ],
            "tokens it raises most": [_tokens(of_tokens, task, "top") for task in tasks],
            "tokens it lowers most": [_tokens(of_tokens, task, "bottom") for task in tasks],
        }
        pictures = [
            (words(task), Markup(card_pictures.answers_picture(of_task, task, colour)), colour)
            for task, colour in zip(main, colours, strict=True)
            if len(of_task := single[(single["component"] == name) & (single["task"] == task)])
        ]
        circuits = listing(map(words, inside))
        found.append(
            {"name": name, "inside": inside, "circuits": circuits, "rows": list(rows.items()), "pictures": pictures}
        )
    return found


def _cell(rows: pd.DataFrame, columns: tuple[str, str, str], digits: int, factor: float = 1) -> str:
    if rows.empty:
        return DASH
    row = rows.iloc[0]
    values = dict(zip(("value", "ci_low", "ci_high"), (row[c] for c in columns), strict=True))
    return interval(values, digits, factor)


def _lost(rows: pd.DataFrame) -> str:
    if rows.empty:
        return DASH
    row = rows.iloc[0]
    return interval({"value": 100 - row["value"], "ci_low": 100 - row["ci_high"], "ci_high": 100 - row["ci_low"]}, 1)


def _tokens(rows: pd.DataFrame, task: str, end: str) -> str:
    """The first tokens of one end, each with its logit, `·four 2.1`, on a line of its own."""
    own = rows[(rows["task"] == task) & (rows["end"] == end)].sort_values("place").head(SHOWN)
    shown = [f"{visible(row['token'])} {number(row['logit'], 1)}" for row in own.to_dict("records")]
    return "\n".join(shown) or DASH
