"""SmolLM3: Llama with layers whose queries and keys are not rotated, and windows of attention by an option."""

from dataclasses import replace
from typing import Any

from atlas.model.block import Block, Weights
from atlas.model.checkpoint import Checkpoint
from atlas.model.families import llama


def read(checkpoint: Checkpoint, config: Any) -> Weights | None:
    """The weights; None where `llama` has no place for an option."""
    if "sliding_attention" in config.layer_types:
        return None

    def change(layer: int, block: Block) -> Block:
        return block if config.no_rope_layers[layer] else replace(block, rope=None)

    return llama.read(checkpoint, config, change)
