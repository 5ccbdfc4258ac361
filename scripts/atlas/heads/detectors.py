"""Head detectors on repeated random tokens: previous-token, duplicate-token and induction heads, for all heads.

A text of T different random tokens, twice. At position i of the second half, a duplicate-token head attends to the
same token one half before (i - T), an induction head to the token after it (i - T + 1); at any position a
previous-token head attends to i - 1. A score is the mean of that one weight of the attention pattern over the positions
that have one: in [0, 1], and 1 for a head that does nothing else.

TransformerLens's `detect_head` divides the same sum by the number of all rows instead, so that its duplicate and
induction scores end at about one half; ours = theirs x rows / positions that have the weight.

Beside each score stands what random heads (`random_heads.py`) score on the first `NULL_TEXTS` of the same texts:
``null_low`` to ``null_high`` hold 95 % of them, and ``p`` is how often one reaches the head's score. They are empty
where the architecture has no live engine.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from atlas.core.errors import StudyError
from atlas.core.statistics import Bootstrap, column_means
from atlas.heads import random_heads
from atlas.heads.attention import head_rows, pattern_hook
from atlas.heads.reads import rows
from atlas.model.attention import all_positions
from atlas.model.models import Model
from atlas.store.job import progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger("atlas")
DETECTORS = ("previous", "duplicate", "induction")
COLUMNS = ["detector", "layer", "head", "value", "ci_low", "ci_high", "null_low", "null_high", "p"]
NULL_TEXTS = 4  # a text has a hundred places to look from


def repeated_tokens(
    candidates: Iterable[int], length: int, sequences: int, seed: int, bos: int | None = None
) -> torch.Tensor:
    """[sequences, (1 +) 2 length] random tokens, different ones within a half, twice; after ``bos`` where given."""
    candidates = [c for c in candidates if c != bos]
    if len(candidates) < length:
        raise StudyError(
            f"heads.detectors.length: {length} needs as many different tokens; there are {len(candidates)}"
        )
    rng = np.random.default_rng(seed)
    halves = np.stack([rng.choice(candidates, size=length, replace=False) for _ in range(sequences)])
    start = [] if bos is None else [np.full((sequences, 1), bos)]
    return torch.tensor(np.hstack([*start, halves, halves]))


def half_length(wanted: int, max_tokens: int | None, bos: bool) -> int:
    """The wanted length of a half, or the largest that fits into the model's positions."""
    return wanted if max_tokens is None else min(wanted, (max_tokens - bos) // 2)


@dataclass(frozen=True)
class Settings:
    """Of the configuration: ``sequences`` of twice ``length`` random tokens, after a BOS token if ``prepend_bos``; and
    ``draws`` of random heads."""

    length: int
    sequences: int
    prepend_bos: bool
    seed: int
    draws: int


def detect(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    description: dict[str, Any],
    settings: Settings,
    bootstrap: Bootstrap,
) -> pd.DataFrame:
    """`detectors.parquet` less its model; ``description``: its `model.json`."""
    bos = tokenizer.bos_token_id if settings.prepend_bos else None
    if settings.prepend_bos and bos is None:
        raise StudyError("models: prepend_bos is true but the tokenizer has no BOS token; set it to false")
    candidates = ordinary_tokens(tokenizer, description["d_vocab"])
    length = half_length(settings.length, description["max_tokens"], settings.prepend_bos)
    tokens = repeated_tokens(candidates, length, settings.sequences, settings.seed, bos)
    log.info("%d sequences of %d random tokens, twice", settings.sequences, length)
    found = scores(model, tokens, settings.prepend_bos)
    return table(found, bootstrap, null(model, tokens[:NULL_TEXTS], settings))


def ordinary_tokens(tokenizer: PreTrainedTokenizerBase, d_vocab: int) -> list[int]:
    """Ids of the tokens that are text and that the model has, in order."""
    ordinary = set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids)
    return sorted(i for i in ordinary if i < d_vocab)


def targets(length: int, bos: bool) -> dict[str, tuple[list[int], list[int]]]:
    """Detector -> (query positions, the key position of each)."""
    start = int(bos)
    second = range(start + length, start + 2 * length)
    every = range(1, start + 2 * length)
    return {
        "previous": (list(every), [i - 1 for i in every]),
        "duplicate": (list(second), [i - length for i in second]),
        "induction": (list(second), [i - length + 1 for i in second]),
    }


def scores(model: Model, tokens: torch.Tensor, bos: bool) -> dict[str, np.ndarray]:
    """Detector -> scores per sequence [n, L, H], on tokens from `repeated_tokens`."""
    n, wanted = len(tokens), targets((tokens.shape[1] - bos) // 2, bos)
    out = {name: np.zeros((n, model.n_layers, model.n_heads)) for name in DETECTORS}

    def reader(layer: int, batch: slice) -> Callable[..., torch.Tensor]:
        def hook(pattern: torch.Tensor, hook: object) -> torch.Tensor:
            for name, (queries, keys) in wanted.items():
                out[name][batch, layer] = pattern[:, :, queries, keys].float().mean(-1).cpu().numpy()
            return pattern

        return hook

    for batch in progress(model.batches(n), "detectors"):
        model.run(tokens[batch], [(pattern_hook(layer), reader(layer, batch)) for layer in range(model.n_layers)])
    return out


def null(model: Model, tokens: torch.Tensor, settings: Settings) -> dict[str, np.ndarray]:
    """Detector -> mean scores of random heads [draws, L, H] on tokens from `repeated_tokens`; none of an architecture
    without a live engine."""
    if model.weights is None:
        return {}
    wanted = targets((tokens.shape[1] - settings.prepend_bos) // 2, settings.prepend_bos)
    out = {name: np.zeros((settings.draws, model.n_layers, model.n_heads)) for name in DETECTORS}
    with torch.no_grad():
        stream = random_heads.residuals(model, tokens)
        at = all_positions(tokens.shape[1], stream[0].device)
        drawn = random_heads.turns(model.d_model, settings.draws, settings.seed, model.device)
        for draw, turn in enumerate(progress(drawn, "random heads")):
            for layer, block in enumerate(model.weights.blocks):
                pattern = rows(block, block.norm1(stream[layer]), at, turn)
                for name, (queries, keys) in wanted.items():
                    out[name][draw, layer] = pattern[:, :, queries, keys].float().mean((0, -1)).cpu().numpy()
    return out


def table(found: dict[str, np.ndarray], bootstrap: Bootstrap, drawn: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Rows of `COLUMNS`, of detector -> scores [n, L, H]; intervals over the n random sequences; ``drawn``: `null`."""
    pieces = []
    for name, values in found.items():
        n, n_layers, n_heads = values.shape
        columns = column_means(bootstrap, values.reshape(n, -1))
        piece = head_rows(n_layers, n_heads).assign(**columns, null_low=np.nan, null_high=np.nan, p=np.nan)
        if name in drawn:
            piece["null_low"], piece["null_high"] = np.percentile(drawn[name], [2.5, 97.5])
            piece["p"] = random_heads.p_values(values.mean(0), drawn[name]).ravel()
        piece.insert(0, "detector", name)
        pieces.append(piece)
    return pd.concat(pieces, ignore_index=True)
