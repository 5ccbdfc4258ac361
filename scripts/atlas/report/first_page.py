"""The first page of a study, before it is finished: the circuit of one task, as a picture and in a few sentences."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from atlas.report import frame, wording
from atlas.report.figures import circuit_diagram
from atlas.report.style import one_kind

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def page(
    task: str,
    title: str,
    info: Mapping[str, Any],
    clean: pd.DataFrame,
    entry: Mapping[str, Any],
    choice: pd.DataFrame,
    effects: pd.DataFrame,
    kind: str,
    colours: dict[str, str],
    warning: str = "",
) -> str:
    """The page of a main task whose circuit was found and chosen.

    info: `prompts.json`. clean, choice, effects: the tables `clean_summary`, `choice` and `component_effects`. entry:
    what `chosen.json` reports at the threshold of comparisons. kind: of ablation, of which effects are shown.
    """
    names = [*entry["heads"], *entry["mlps"]]
    alone = effects[(effects["kind"] == one_kind(effects, kind)) & (effects["metric"] == "percent_of_full")]
    alone = alone.set_index("component")
    membership = alone.loc[names, ["layer"]].reset_index().assign(circuit=task)
    figure = circuit_diagram.draw(membership, effects, task, [task], kind, colours)
    members = sorted(names, key=lambda name: (alone["value"][name], wording.place(name)))
    lines = [[name, wording.interval(alone.loc[name])] for name in members]
    return frame.render(
        __file__,
        title,
        f"A first look at {wording.words(task)}: what the study has found so far.",
        warning,
        sentences=[*model_sentences(info, clean, entry["split"]), *circuit_sentences(entry, choice, len(alone))],
        picture=Markup(svg(figure)),
        table={"header": ["component", "percent left with it alone ablated"], "rows": lines},
        ablated=f"{one_kind(effects, kind)}-ablated",
    )


def model_sentences(info: Mapping[str, Any], clean: pd.DataFrame, split: str) -> list[str]:
    """How well the model does the task, on a split of its prompts."""
    own = clean[(clean["run"] == "clean") & (clean["split"] == split)].set_index("metric")
    right, difference = (own.loc[metric] for metric in ("top1", "logit_diff"))
    kind = "held-out prompts" if split == "held_out" else "prompts searched on"
    return [
        f"Of {wording.count(info['counts']['prompts'], 'prompt')} {info['counts']['search']} are searched on. On "
        f"{right['prompts']} {kind} the model's first choice is right in {wording.percent(right, 100)}, and the answer "
        f"leads the incorrect one by {wording.interval(difference, 2)} logits."
    ]


def circuit_sentences(entry: Mapping[str, Any], choice: pd.DataFrame, components: int) -> list[str]:
    """What the circuit keeps, where it is from, and whether that is enough."""
    mine = choice[choice["reported"] & (choice["threshold"] == entry["threshold"])]
    kept = mine[(mine["metric"] == "percent_of_full") & (mine["split"] == entry["split"])].iloc[0]
    size = f"{wording.count(len(entry['heads']), 'head')} and {wording.count(len(entry['mlps']), 'MLP')}"
    kind = "held-out prompts" if entry["split"] == "held_out" else "the prompts it was searched on"
    floor = 100 - entry["threshold"]
    said = f"{size}, of {components} components, keep {wording.percent(kept)} of that lead on {kind} with all others "
    said += "ablated. "
    said += (
        f"The floor is {floor:g} %."
        if entry["passes"]
        else f"That is below the floor of {floor:g} %: no search found a circuit that passes it on them."
    )
    order = f"It was found by the order {wording.words(entry['order'])}"
    if entry["candidates"] > 1:
        order += f", and is the smallest of {entry['candidates']} candidates that passes"
    return [said, f"{order}." if entry["passes"] else f"It was found by the order {wording.words(entry['order'])}."]


def svg(figure: Figure) -> str:
    """The picture as part of a page: without the head of a file of its own."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None}, bbox_inches="tight", pad_inches=0.04)
    return text.getvalue()[text.getvalue().index("<svg") :]
