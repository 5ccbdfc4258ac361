"""The pages about a model's heads: their cards, their attention patterns, and the logit lens of a few prompts."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from atlas.report import head_cards, lens_page, maps, pattern_page


def written(
    tables: Mapping[str, pd.DataFrame], patterns: dict[str, dict[str, Any]], settings: Mapping[str, Any], model: str
) -> dict[str, str]:
    """Name of a page -> HTML: ``heads``, and ``patterns`` and ``lens_tokens`` where the study makes them.

    ``tables``: name -> rows of all tasks, as far as they are made; ``patterns``: patterns.json by task; ``settings``:
    those of `head_cards.page`, and ``kind``, ``clean`` and ``pattern_prompts``. Patterns and lens show the same
    prompts.
    """
    title, main = settings["title"], settings["main_tasks"]
    pages = {"heads": head_cards.page(head_cards.chosen(tables, settings["kind"]), settings, model)}
    shown = {task: [example["prompt"] for example in found["examples"]] for task, found in patterns.items()}
    if patterns:
        circuits = {task: maps.circuit_heads(tables["membership"], task) for task in main}
        of_tasks = tables["roles"].groupby("task")
        labels = {task: dict(zip(rows["component"], rows["label"], strict=True)) for task, rows in of_tasks}
        said = f"{title}: attention patterns of {model}"
        pages["patterns"] = pattern_page.page(patterns, circuits, labels, said, settings["clean"], settings["note"])
    if "lens_tokens" in tables:
        tokens, prompts = (
            {task: tables[name][tables[name]["task"] == task] for task in main} for name in ("lens_tokens", "prompts")
        )
        most = settings["pattern_prompts"]
        shown = shown or {task: sorted(set(rows["prompt"]))[:most] for task, rows in tokens.items()}
        said = f"{title}: logit lens of {model}"
        pages["lens_tokens"] = lens_page.page(tokens, prompts, tables["lens_lead"], shown, said)
    return pages
