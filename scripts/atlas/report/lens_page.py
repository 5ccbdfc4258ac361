"""A page with the logit lens of a few prompts: the top tokens at every point of the residual stream."""

from typing import Any

import pandas as pd

from atlas.report import frame
from atlas.report.wording import number, words


def visible(token: str) -> str:
    """A token as text: a space in front as a dot, a line break as an arrow."""
    text = token.replace("\n", "\u21b5")
    return f"\u00b7{text[1:]}" if text.startswith(" ") else text


def point_name(name: str) -> str:
    """`resid_pre 3` -> `before layer 3`."""
    kind, _, layer = name.partition(" ")
    return {"resid_pre": f"before layer {layer}", "resid_mid": f"after attention {layer}"}.get(
        kind, "after the last layer"
    )


def prompt_rows(tokens: pd.DataFrame) -> list[dict[str, Any]]:
    """One row for each point of one prompt: name, (token, logit, is it the answer?) by place, the answer's place."""
    return [
        {
            "name": point_name(name),
            "tokens": [
                (visible(row.token), number(row.logit, 1), row.place == row.answer_place) for row in rows.itertuples()
            ],
            "answer_place": int(rows["answer_place"].iloc[0]),
        }
        for (_, name), rows in tokens.sort_values(["point", "place"]).groupby(["point", "name"], sort=False)
    ]


def page(
    tokens: dict[str, pd.DataFrame],
    prompts: dict[str, pd.DataFrame],
    lead: pd.DataFrame,
    chosen: dict[str, Any],
    title: str,
) -> str:
    """`tokens` (lens_tokens.parquet) and `prompts` by task, `lead` of all; `chosen`: task -> prompts to show."""
    sections: list[dict[str, Any]] = []
    for task, table in tokens.items():
        texts, leads = prompts[task].set_index("prompt"), lead[lead["task"] == task].set_index("prompt")
        shown = []
        for prompt in chosen[task]:
            rows = prompt_rows(table[table["prompt"] == prompt])
            names = {key: leads.loc[prompt, f"{key}_name"] for key in ("leads", "stays")}
            shown.append(
                {
                    "text": texts.loc[prompt, "text"],
                    "answer": texts.loc[prompt, "answer"].strip(),
                    "rows": rows,
                    "leads": {k: "never" if name == "never" else point_name(name) for k, name in names.items()},
                }
            )
        sections.append({"title": words(task), "prompts": shown})
    places = max((len(r["tokens"]) for s in sections for p in s["prompts"] for r in p["rows"]), default=0)
    return frame.render(__file__, title, sections=sections, places=range(1, places + 1))
