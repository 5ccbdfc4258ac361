"""Qwen 2 and 2.5: a Llama with biases of queries, keys and values, and sliding windows in some layers by an option."""

from dataclasses import replace
from typing import Any

from atlas.model.block import Weights
from atlas.model.checkpoint import Checkpoint
from atlas.model.families import llama
from atlas.model.reading import windows


def read(checkpoint: Checkpoint, config: Any) -> Weights | None:
    """The weights; None as for a Llama, or where a layer's attention is neither full nor sliding."""
    weights, window = llama.read(checkpoint, config), windows(config)
    if weights is None or window is None:
        return None
    return replace(weights, blocks=[replace(b, window=w) for b, w in zip(weights.blocks, window, strict=True)])
