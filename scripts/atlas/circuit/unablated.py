"""Runs of the whole model, nothing ablated, on the clean or corrupted prompts of a task."""

from pathlib import Path
from typing import Any

import torch

from atlas.model import activations
from atlas.model.models import Model
from atlas.prompts.batch import Prompts, Rows


def collected(
    model: Model, rows: Rows, run: str, dtype: torch.dtype = torch.float32, folder: Path | str | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Activations and means (`activations.collect`) of the ``clean`` or ``corrupted`` run of rows."""
    tokens = rows.tokens if run == "clean" else rows.corrupted_tokens
    return activations.collect(model, tokens, rows.group, dtype, rows.length, folder)


def answer_logits(model: Model, prompts: Prompts, run: str) -> torch.Tensor:
    """Logits of the ``clean`` or ``corrupted`` run, unablated, for `metrics.per_prompt`, on the CPU.

    [N, d_vocab] at the answer position; [2 N, K, d_vocab] of answers of several tokens, as there.
    """
    rows = prompts.rows()
    tokens = rows.tokens if run == "clean" else rows.corrupted_tokens
    logits = activations.last_logits(model, tokens, rows.position)
    return logits if rows.targets is not None or rows.position is None else logits[:, 0]
