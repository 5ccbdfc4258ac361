"""A page to look through attention patterns of the circuits' heads on real prompts, offline and by itself."""

import json
from typing import Any

from markupsafe import Markup

from atlas.report import frame
from atlas.report.wording import count, words


def compact(page: dict[str, Any], circuit: list[str], labels: dict[str, str]) -> dict[str, Any]:
    """One task's patterns.json as the page holds it: weights in thousandths, row by row up to the query itself."""
    return {
        "title": words(page["task"]),
        "heads": [[name, name in circuit, labels.get(name, "")] for name in page["heads"]],
        "prompts": [
            {
                "tokens": example["tokens"],
                "patterns": {
                    head: [[round(1000 * weight) for weight in row] for row in rows]
                    for head, rows in example["patterns"].items()
                },
            }
            for example in page["examples"]
        ],
    }


def page(
    patterns: dict[str, dict[str, Any]],
    circuits: dict[str, list[str]],
    labels: dict[str, Any],
    title: str,
    colour: str,
    note: str,
) -> str:
    """`patterns`: patterns.json by task; `circuits`: names of each circuit's heads; `labels`: task -> head -> label.

    `note`: which circuits these are.
    """
    data = [compact(found, circuits[task], labels.get(task, {})) for task, found in patterns.items()]
    shown = sum(len(task["prompts"]) for task in data)
    heads = count(len({h[0] for t in data for h in t["heads"]}), "head")
    lead = f"{heads} of the circuits on {count(shown, 'prompt')}. {note}."
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return frame.render(__file__, title, lead, colour=colour, data=Markup(text))
