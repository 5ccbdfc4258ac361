"""Llama: RMSNorm, rotary positions, grouped key/value heads, gated MLP, biases by options, sequential blocks."""

from collections.abc import Callable
from typing import Any

from atlas.model.block import Block, Weights
from atlas.model.checkpoint import Checkpoint
from atlas.model.reading import Names, activation_of, rotary, unembedding


def read(
    checkpoint: Checkpoint, config: Any, change: Callable[[int, Block], Block] = lambda layer, block: block
) -> Weights | None:
    """The weights; None where rotary positions or the activation are none that `reading` knows.

    ``change``: what families that are built on this one make of each layer, called with its number as it is read.
    """
    body, eps = Names(checkpoint, "model"), config.rms_norm_eps
    embedding, activation = body("embed_tokens.weight"), activation_of(config.hidden_act)
    rope = rotary(config, embedding)
    if rope is None or activation is None:
        return None

    def block(layer: int) -> Block:
        own = Names(checkpoint, f"model.layers.{layer}")
        heads = own.attention("self_attn", config.num_attention_heads, config.num_key_value_heads)
        made = Block(
            norm1=own.rms_norm("input_layernorm", eps),
            norm2=own.rms_norm("post_attention_layernorm", eps),
            **heads,
            mlp=own.gated_mlp("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", activation),
            rope=rope,
        )
        return change(layer, made)

    return Weights(
        w_e=embedding,
        w_pos=None,
        blocks=[block(layer) for layer in range(config.num_hidden_layers)],
        norm_final=body.rms_norm("norm", eps),
        **unembedding(checkpoint, config, "lm_head", embedding),
    )
