"""Gemma: a Llama with norm weights of 1 + w, scaled embeddings and a width of heads of its own."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from atlas.model.attention import Rotary
from atlas.model.block import Weights
from atlas.model.checkpoint import Checkpoint
from atlas.model.families import llama
from atlas.model.reading import Names


def norms_before(own: Names, eps: float) -> dict[str, Any]:
    """The fields of `Block` for a layer's norms."""
    return {"norm1": own.offset_norm("input_layernorm", eps), "norm2": own.offset_norm("post_attention_layernorm", eps)}


def read(
    checkpoint: Checkpoint,
    config: Any,
    norms: Callable[[Names, float], dict[str, Any]] = norms_before,
    ropes: list[Rotary | None] | None = None,
) -> Weights | None:
    """The weights; None as for a Llama, or where attention looks ahead. For later Gemmas: their ``norms``, ``ropes``.

    Embeddings are multiplied by sqrt(D), rounded to their dtype.
    """
    if config.use_bidirectional_attention:
        return None
    weights = llama.read(checkpoint, config, norms, Names.offset_norm, ropes)
    if weights is None:
        return None
    scale = torch.tensor(config.hidden_size**0.5, dtype=torch.float32).to(weights.w_e)
    return replace(weights, embed_scale=scale)
