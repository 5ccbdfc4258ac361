"""SmolLM3: a Llama that rotates no queries and keys in some layers, with sliding windows there by an option."""

from dataclasses import replace
from typing import Any

from atlas.model.block import Weights
from atlas.model.checkpoint import Checkpoint
from atlas.model.families import qwen2


def read(checkpoint: Checkpoint, config: Any) -> Weights | None:
    """The weights; None as for a Qwen 2."""
    weights = qwen2.read(checkpoint, config)
    if weights is None:
        return None
    layers = zip(weights.blocks, config.no_rope_layers, strict=False)  # which may say more than there are layers
    return replace(weights, blocks=[block if turned else replace(block, rope=None) for block, turned in layers])
