"""All of steering in one go: pairs of sequences, prompts, vectors, controls, side effects and samples."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from atlas.core.errors import StudyError
from atlas.geometry import sequences, steering, steering_effects

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

    from atlas.core.components import Circuit
    from atlas.core.statistics import Bootstrap
    from atlas.model.models import Model

log = logging.getLogger("atlas")


@dataclass(frozen=True)
class Wanted:
    """Of the configuration: pairs, main tasks, blocks of all tasks and classes, and how many samples of how many
    tokens."""

    pairs: str | Sequence[Sequence[str]]
    main: Sequence[str]
    tasks: Mapping[str, Mapping[str, Any]]
    classes: Mapping[str, Mapping[str, Any] | None]
    samples: int
    tokens: int


@dataclass(frozen=True)
class Texts:
    """A tokenizer, how its texts begin and how long they may be, and tables `prompts.parquet` by task: of the tasks,
    and of unrelated ones."""

    tokenizer: PreTrainedTokenizerBase
    prepend_bos: bool
    max_tokens: int | None
    prompts: Mapping[str, pd.DataFrame]
    unrelated: Mapping[str, pd.DataFrame]


def matched_pairs(wanted: Wanted, texts: Texts, settings: steering.Settings) -> list[sequences.Matched]:
    """The pairs with their prompts; of `auto` without those that the tokenizer leaves too few, which the log names."""
    found = []
    making = sequences.Making(settings.prompts, settings.seed, texts.prepend_bos)
    for pair in sequences.pairs_of(wanted.pairs, wanted.tasks, wanted.main, wanted.classes):
        frame = texts.prompts.get(pair.source.name)
        sides = {} if frame is None else sequences.sides_of(frame["members"], frame["split"])
        try:
            found.append(sequences.matched(pair, wanted.tasks[pair.source.name], sides, texts.tokenizer, making))
        except StudyError as error:
            if wanted.pairs != sequences.AUTO:
                raise
            log.warning("left out: %s", error)
    return found


def tables(
    model: Model,
    wanted: Wanted,
    texts: Texts,
    circuits: Mapping[str, Circuit],
    settings: steering.Settings,
    bootstrap: Bootstrap,
) -> dict[str, pd.DataFrame]:
    """`steering`, `steering_side_effects` and `steering_samples` (docs/artifacts.md), less their model."""
    tokenizer, most = texts.tokenizer, texts.max_tokens
    unrelated = steering_effects.texts_of(texts.unrelated, tokenizer, texts.prepend_bos, most)
    pairs = matched_pairs(wanted, texts, settings)
    effects = steering_effects.SideEffects(model, unrelated if pairs else {}, bootstrap, settings.seed)
    rows: list[dict[str, Any]] = []
    written: list[dict[str, Any]] = []

    def beside(steered: steering.Steered) -> None:
        rows.extend(effects.rows(steered, settings.coefficients, settings.random))
        written.extend(
            steering_effects.samples(model, steered, tokenizer, wanted.samples, wanted.tokens, texts.max_tokens)
        )

    table = steering.steer(model, pairs, circuits, settings, bootstrap, beside)
    return {"steering": table} | steering_effects.tables(rows, written)
