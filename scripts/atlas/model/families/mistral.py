"""Mistral: Llama with a window of attention in every layer."""

from typing import Any

from atlas.model.block import Weights
from atlas.model.checkpoint import Checkpoint
from atlas.model.families import llama


def read(checkpoint: Checkpoint, config: Any) -> Weights | None:
    """The weights; None where `llama` has no place for an option."""
    if config.sliding_window is not None and config.sliding_window < config.max_position_embeddings:
        return None
    return llama.read(checkpoint, config)
