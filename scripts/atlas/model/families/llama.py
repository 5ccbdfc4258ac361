"""Llama: RMSNorm, rotary positions, grouped key/value heads, gated MLP, biases by options, sequential blocks."""

from collections.abc import Callable
from typing import Any

from atlas.model.attention import Rotary
from atlas.model.block import Block, Weights
from atlas.model.checkpoint import Checkpoint
from atlas.model.norm import Norm
from atlas.model.reading import Names, activation_of, rotary, unembedding


def norms_before(own: Names, eps: float) -> dict[str, Any]:
    """The fields of `Block` for a layer's norms, from its tensors."""
    return {"norm1": own.rms_norm("input_layernorm", eps), "norm2": own.rms_norm("post_attention_layernorm", eps)}


def read(
    checkpoint: Checkpoint,
    config: Any,
    norms: Callable[[Names, float], dict[str, Any]] = norms_before,
    final_norm: Callable[[Names, str, float], Norm] = Names.rms_norm,
    ropes: list[Rotary | None] | None = None,
) -> Weights | None:
    """The weights; None where rotary positions or the activation are none that `reading` knows.

    For families that differ in them: ``norms`` of a layer, the kind of the ``final_norm``, ``ropes`` of the layers.
    """
    body, eps = Names(checkpoint, "model"), config.rms_norm_eps
    embedding, activation = body("embed_tokens.weight"), activation_of(config.hidden_act)
    ropes = [rotary(config, embedding)] * config.num_hidden_layers if ropes is None else ropes
    if None in ropes or activation is None:
        return None
    numbers = dict.fromkeys("qo", config.num_attention_heads) | dict.fromkeys("kv", config.num_key_value_heads)

    def block(layer: int) -> Block:
        own = Names(checkpoint, f"model.layers.{layer}")
        heads: dict[str, Any] = {}
        for part, number in numbers.items():
            heads |= own.heads(f"self_attn.{part}_proj", part, number)
        return Block(
            **norms(own, eps),
            **heads,
            mlp=own.gated_mlp("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", activation),
            rope=ropes[layer],
        )

    return Weights(
        w_e=embedding,
        w_pos=None,
        blocks=[block(layer) for layer in range(config.num_hidden_layers)],
        norm_final=final_norm(body, "norm", eps),
        **unembedding(checkpoint, config, "lm_head", embedding),
    )
