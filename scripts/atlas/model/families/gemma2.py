"""Gemma 2: a Gemma with norms behind attention and MLP too, capped scores and logits, and sliding windows by layer."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from atlas.model.attention import Rotary
from atlas.model.block import Weights
from atlas.model.checkpoint import Checkpoint
from atlas.model.families import gemma
from atlas.model.reading import Names, windows

NORMS = {
    "norm1": "input_layernorm",
    "norm_attn_out": "post_attention_layernorm",
    "norm2": "pre_feedforward_layernorm",
    "norm_mlp_out": "post_feedforward_layernorm",
}


def norms_around(own: Names, eps: float) -> dict[str, Any]:
    """The fields of `Block` for a layer's norms."""
    return {field: own.offset_norm(name, eps) for field, name in NORMS.items()}


def read(checkpoint: Checkpoint, config: Any) -> Weights | None:
    """The weights; None as for `uncapped`."""
    weights = uncapped(checkpoint, config)
    if weights is None:
        return None
    return replace(weights, blocks=[replace(block, cap=config.attn_logit_softcapping) for block in weights.blocks])


def uncapped(
    checkpoint: Checkpoint,
    config: Any,
    norms: Callable[[Names, float], dict[str, Any]] = norms_around,
    ropes: list[Rotary | None] | None = None,
) -> Weights | None:
    """All but the cap of scores, which Gemma 3 does not have, with its ``norms`` and ``ropes``; None as for a Gemma, or
    where a layer's attention is neither full nor sliding."""
    named = SimpleNamespace(**vars(config) | {"hidden_act": config.hidden_activation})
    weights, window = gemma.read(checkpoint, named, norms, ropes), windows(config)
    if weights is None or window is None:
        return None
    scale = config.query_pre_attn_scalar**-0.5
    blocks = [replace(block, scale=scale, window=w) for block, w in zip(weights.blocks, window, strict=True)]
    return replace(weights, blocks=blocks, logit_cap=config.final_logit_softcapping)
