"""How order is laid out in a model: the tables `pca`, `shapes`, `displacements` and `shape_patches` of its classes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from atlas.core.errors import StudyError
from atlas.core.multiple import ALPHA
from atlas.geometry import classes, displacements, residuals, shape_patches, shapes
from atlas.prompts import layouts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from atlas.core.positions import Layout
    from atlas.core.statistics import Bootstrap
    from atlas.geometry.residuals import Residuals
    from atlas.model.models import Model

log = logging.getLogger("atlas")


@dataclass(frozen=True)
class Settings:
    """Of the configuration: `geometry.classes`, `geometry.shapes`, and what contexts are made from (`prompts`)."""

    classes: Mapping[str, Mapping[str, Any] | None]
    contexts: int  # that each member is seen in; half of them to fit, half held out
    points: int  # of the residual stream, at most
    permutations: int  # random orders behind each p-value
    prompts: int  # of a task that are patched; and, for each answer, twice as many as contexts are read
    draws: int  # random orders behind each patch
    templates: Sequence[str]
    fillers: Mapping[str, Sequence[str]]
    random_words: Sequence[str]
    prepend_bos: bool


def find(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    settings: Settings,
    tasks: Iterable[tuple[str, pd.DataFrame, Layout]],
    bootstrap: Bootstrap,
) -> dict[str, pd.DataFrame]:
    """The four tables; ``tasks``: name, prompts and layout of each explained task, main tasks first, all of
    a task of one layout.

    A class stands for the first task whose answers are its members: there its members are patched, and residuals are
    read at the answer too.
    """
    points = residuals.points_of(model.n_layers, settings.points)
    refuse_few(len(points), settings.permutations)
    found = classes.of(settings.classes, tokenizer)
    if not found:
        raise StudyError(
            f"geometry.classes: none has {classes.LEAST} members of one token in this model; add one, or leave shapes "
            "out of geometry.analyses"
        )
    texts = residuals.contexts(
        settings.templates, settings.fillers, settings.random_words, found, settings.contexts, bootstrap.seed
    )
    of = [residuals.at_members(model, tokenizer, one, texts, settings.prepend_bos, points) for one in found]
    log.info("residuals of %d members at %d points, in %d contexts", sum(map(len, found)), len(points), len(texts))
    seen = [(one, "") for one in of]
    patched, asked = [], list(tasks)
    at_members = {one.members.name: shapes.table(one, settings.permutations, bootstrap.seed) for one in of}
    made = list(at_members.values())
    for one in of:
        for task, frame, layout, answers in answered(model, one, asked, settings.contexts):
            seen.append((answers, task))
            made.append(shapes.table(answers, settings.permutations, bootstrap.seed, task))
            own = patches(model, one, (frame, layout), at_members[one.members.name], settings, bootstrap)
            patched.append(own.assign(task=task))
            log.info("%s: patched on the prompts of %s", one.members.name, task)
    return {
        "pca": pd.concat([shapes.pca(one, task) for one, task in seen], ignore_index=True),
        "shapes": pd.concat(made, ignore_index=True),
        "displacements": displacements.table(of, settings.permutations, bootstrap.seed),
        "shape_patches": joined(patched),
    }


def refuse_few(points: int, permutations: int) -> None:
    """Raise StudyError where no p-value could be small enough, once corrected for the points."""
    least = int(np.floor(points / ALPHA))
    if permutations < least:
        raise StudyError(
            f"geometry.shapes.permutations: {permutations} give no p below {ALPHA} over {points} points; give at least "
            f"{least}, or fewer points"
        )


def answered(
    model: Model, of: Residuals, tasks: Iterable[tuple[str, pd.DataFrame, Layout]], contexts: int
) -> Iterator[tuple[str, pd.DataFrame, Layout, Residuals]]:
    """Of the first task whose answers are a class's members: name, prompts, layout, and residuals at the answers."""
    for task, frame, layout in tasks:
        if "answer_token" in frame:
            points = of.points[1:]  # point 0 holds the last token alone, whatever the answer
            found = residuals.at_answers(model, few_of_each(frame, contexts), of.members, points)
            if found is not None:
                yield task, frame, layout, found
                return


def few_of_each(frame: pd.DataFrame, number: int) -> pd.DataFrame:
    """At most so many prompts of each answer, spread over their templates."""
    few = [layouts.spread(own, number) for _, own in frame.groupby("answer_token", sort=True)]
    return pd.concat(few).sort_values("prompt", ignore_index=True)


def patches(
    model: Model,
    of: Residuals,
    prompts: tuple[pd.DataFrame, Layout],
    own_shapes: pd.DataFrame,
    settings: Settings,
    bootstrap: Bootstrap,
) -> pd.DataFrame:
    """`shape_patches` of one class, less task; empty where its prompts cannot be moved."""
    frame, layout = prompts
    at = [last for _, last in layout.members]
    moved = shape_patches.moved(frame, at, of.members, settings.prompts, bootstrap.seed)
    if moved is None:
        return pd.DataFrame(columns=shape_patches.COLUMNS)
    return shape_patches.table(model, of, moved, own_shapes, settings.draws, bootstrap)


def joined(pieces: list[pd.DataFrame]) -> pd.DataFrame:
    """The tables under one another, less the empty ones."""
    full = [piece for piece in pieces if len(piece)]
    return (
        pd.concat(full, ignore_index=True)[shape_patches.COLUMNS]
        if full
        else pd.DataFrame(columns=shape_patches.COLUMNS)
    )
