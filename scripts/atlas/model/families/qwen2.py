"""Qwen 2 and 2.5: Llama with biases of queries, keys and values, and windows of attention in some layers by an option."""

from typing import Any

from atlas.model.block import Weights
from atlas.model.checkpoint import Checkpoint
from atlas.model.families import llama


def read(checkpoint: Checkpoint, config: Any) -> Weights | None:
    """The weights; None where `llama` has no place for an option."""
    if "sliding_attention" in config.layer_types:
        return None
    return llama.read(checkpoint, config)
