"""Granite: Llama with factors of the embedding, the scores, what a layer writes, and the logits.

A factor is put into the weights that make what it scales, so that what a head or an MLP writes is what reaches the
residual stream.
"""

from dataclasses import replace
from typing import Any

from atlas.model.block import Block, Weights
from atlas.model.checkpoint import Checkpoint
from atlas.model.families import llama
from atlas.model.mlp import Linear


def read(checkpoint: Checkpoint, config: Any) -> Weights | None:
    """The weights; None where `llama` has no place for an option."""

    def change(layer: int, block: Block) -> Block:
        queries = config.attention_multiplier * block.w_q.shape[2] ** 0.5  # beside `block`'s own 1 / sqrt(d_head)
        w_q, b_q = scaled((block.w_q, block.b_q), queries)
        w_o, b_o = scaled((block.w_o, block.b_o), config.residual_multiplier)
        mlp = replace(block.mlp, down=scaled(block.mlp.down, config.residual_multiplier))
        return replace(block, w_q=w_q, b_q=b_q, w_o=w_o, b_o=b_o, mlp=mlp)

    found = llama.read(checkpoint, config, change)
    if found is None:
        return None
    norm = replace(found.norm_final, weight=found.norm_final.weight / config.logits_scaling)
    return replace(found, w_e=found.w_e * config.embedding_multiplier, norm_final=norm)


def scaled(linear: Linear, factor: float) -> Linear:
    """A linear map, of any shape, times a factor."""
    weight, bias = linear
    return weight * factor, bias * factor
