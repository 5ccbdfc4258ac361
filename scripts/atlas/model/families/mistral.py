"""Mistral: a Llama with a sliding window of attention in every layer, or none."""

from dataclasses import replace
from typing import Any

from atlas.model.block import Weights
from atlas.model.checkpoint import Checkpoint
from atlas.model.families import llama


def read(checkpoint: Checkpoint, config: Any) -> Weights | None:
    """The weights; None as for a Llama."""
    weights = llama.read(checkpoint, config)
    if weights is None:
        return None
    return replace(weights, blocks=[replace(block, window=config.sliding_window) for block in weights.blocks])
