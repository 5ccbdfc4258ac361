"""Granite: a Llama with factors of embeddings, scores, logits, and of what attention and MLPs write.

The last is put into the maps that write, so that what a head or an MLP writes is what reaches the residual stream.
"""

from dataclasses import replace
from typing import Any

from atlas.model.block import Block, Weights
from atlas.model.checkpoint import Checkpoint
from atlas.model.families import llama
from atlas.model.mlp import Linear


def read(checkpoint: Checkpoint, config: Any) -> Weights | None:
    """The weights; None as for a Llama."""
    weights = llama.read(checkpoint, config)
    if weights is None:
        return None
    for layer, block in enumerate(weights.blocks):  # one after another, so that one layer at most is held twice
        weights.blocks[layer] = with_factors(block, config.attention_multiplier, config.residual_multiplier)
    return replace(weights, embed_scale=config.embedding_multiplier, logit_factor=1 / config.logits_scaling)


def with_factors(block: Block, scores: float, writes: float) -> Block:
    """The layer with its scores, and what it writes to the residual stream, times a factor each."""
    if writes == 1:
        return replace(block, scale=scores)
    w_o, b_o = scaled((block.w_o, block.b_o), writes)
    return replace(block, scale=scores, w_o=w_o, b_o=b_o, mlp=replace(block.mlp, down=scaled(block.mlp.down, writes)))


def scaled(linear: Linear, factor: float) -> Linear:
    """A linear map (weight and bias of any shape) times a factor."""
    weight, bias = linear
    return weight * factor, bias * factor
