"""From which layer on the answer can be read, by a lens that is tuned to the model beside the logit lens."""

from typing import Any

import pandas as pd

from atlas.geometry.read_names import CONSTANT, HALF, LEADS_FROM, LESS_LOGIT, LOGIT, NO_POINT, TUNED
from atlas.report.order_words import nearer
from atlas.report.pages import Section
from atlas.report.sections.study import Study, cell, led, surely
from atlas.report.wording import count, interval, listing, words

TITLE = "Tuned lens"


def findings(lens: pd.DataFrame, training: pd.DataFrame, tasks: list[str]) -> list[str]:
    """Where the answer leads by either lens, of which prompts; then how near both are to it, task by task."""
    prompts = "every other prompt" if (lens["split"] == HALF).any() else "prompts held out"
    parts = []
    for task in tasks:
        tuned, logit = (_row(lens, task, name, LEADS_FROM) for name in (TUNED, LOGIT))
        if tuned["value"] != tuned["value"]:
            parts.append(f"{words(task)}: never first in the end")
        else:
            parts.append(f"{words(task)} {interval(tuned, 1)} (logit lens {interval(logit, 1)})")
    sizes = training.iloc[0]
    first = (
        f"By a lens tuned to the model, the answer leads to the end after so many of {len(training)} layers, on "
        f"average over prompts that the model gets right ({prompts}): {listing(parts)}."
    )
    basis = (
        f"The lens is trained on {count(sizes['texts'], 'text')} of the study's own, clean and corrupted prompts that "
        f"circuits are searched on, at {count(sizes['trained'] + sizes['aside'], 'position')}; no more is claimed."
    )
    return [first, *(_task(lens, task, len(training)) for task in tasks), basis]


def _row(lens: pd.DataFrame, task: str, name: str, metric: str, point: int = NO_POINT) -> Any:
    found = cell(lens, task=task, lens=name, metric=metric, point=point)
    assert found is not None, f"{task}: no {metric} of {name}"
    return found


def _task(lens: pd.DataFrame, task: str, layers: int) -> str:
    """How near both lenses are half way through the model, and from which layer on the tuned one reads the prompt."""
    half, own = layers // 2, lens[lens["task"] == task]
    tuned, logit = (_row(lens, task, name, "kl", half) for name in (TUNED, LOGIT))
    constant = _row(lens, task, CONSTANT, "kl")
    below = nearer(own)
    since = next((point for point in range(layers + 1) if set(range(point, layers + 1)) <= below), None)
    reads = "it is never surely nearer than that"
    if since is not None:
        reads = f"it is surely nearer than that from {count(since, 'layer')} on"
    less = own[(own["lens"] == LESS_LOGIT) & (own["point"] < layers)]
    nearer_than_logit = less[surely(less) & (less["value"] < 0)]
    return (
        f"{words(task).capitalize()}: after {half} of {layers} layers the tuned lens is {interval(tuned, 2)} nats (KL) "
        f"from the model's answer, the logit lens {interval(logit, 2)}, and the best that is the same for every "
        f"prompt {interval(constant, 2)}; {reads}, and than the logit lens at {len(nearer_than_logit)} of "
        f"{count(len(less), 'point')}."
    )


def section(study: Study) -> Section:
    """Where the answer can be read; empty where a study tunes no lens."""
    lens = study.tables.get("tuned_lens")
    if lens is None:
        return Section(title=TITLE)
    tasks = list(dict.fromkeys(lens["task"]))
    return Section(
        title=TITLE,
        anchor="tuned_lens",
        **led(findings(lens, study.tables["tuned_lens_training"], tasks)),
        note="An affine map for each point of the residual stream, trained so that final norm and unembedding come "
        "near the model's own distribution over tokens (KL); states are chosen on texts put aside. Intervals over "
        "prompts; what surely differs is corrected over the points of a task.",
    )
