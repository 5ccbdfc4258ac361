"""Llama: RMSNorm, rotary positions, grouped key/value heads, gated MLP, biases by options, sequential blocks."""

from typing import Any

from atlas.model.block import Block, Weights
from atlas.model.checkpoint import Checkpoint
from atlas.model.reading import Names, activation_of, rotary, unembedding


def read(checkpoint: Checkpoint, config: Any) -> Weights | None:
    """The weights; None where rotary positions or the activation are none that `reading` knows."""
    body, eps = Names(checkpoint, "model"), config.rms_norm_eps
    embedding, activation = body("embed_tokens.weight"), activation_of(config.hidden_act)
    rope = rotary(config, embedding)
    if rope is None or activation is None:
        return None
    numbers = dict.fromkeys("qo", config.num_attention_heads) | dict.fromkeys("kv", config.num_key_value_heads)

    def block(layer: int) -> Block:
        own = Names(checkpoint, f"model.layers.{layer}")
        heads: dict[str, Any] = {}
        for part, number in numbers.items():
            heads |= own.heads(f"self_attn.{part}_proj", part, number)
        return Block(
            norm1=own.rms_norm("input_layernorm", eps),
            norm2=own.rms_norm("post_attention_layernorm", eps),
            **heads,
            mlp=own.gated_mlp("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", activation),
            rope=rope,
        )

    return Weights(
        w_e=embedding,
        w_pos=None,
        blocks=[block(layer) for layer in range(config.num_hidden_layers)],
        norm_final=body.rms_norm("norm", eps),
        **unembedding(checkpoint, config, "lm_head", embedding),
    )
