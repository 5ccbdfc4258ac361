"""Phi-3: a Llama whose queries, keys and values have one map, as the gate and the MLP's first one have, with a
sliding window by an option."""

from typing import Any

from atlas.model.block import Block, Weights
from atlas.model.checkpoint import Checkpoint
from atlas.model.mlp import Mlp
from atlas.model.reading import Names, activation_of, rotary, unembedding


def read(checkpoint: Checkpoint, config: Any) -> Weights | None:
    """The weights; None where rotary positions, as those for long texts, or the activation are none of `reading`'s."""
    body, eps = Names(checkpoint, "model"), config.rms_norm_eps
    embedding, activation = body("embed_tokens.weight"), activation_of(config.hidden_act)
    rope = rotary(config, embedding)
    if rope is None or activation is None:
        return None
    sizes = [config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads]

    def block(layer: int) -> Block:
        own = Names(checkpoint, f"model.layers.{layer}")
        w_qkv, b_qkv = (x.unflatten(-1, (sum(sizes), -1)) for x in own.linear("self_attn.qkv_proj"))
        heads: dict[str, Any] = {f"w_{name}": w for name, w in zip("qkv", w_qkv.split(sizes, 1), strict=True)}
        heads |= {f"b_{name}": b for name, b in zip("qkv", b_qkv.split(sizes), strict=True)}
        gate, up = zip(*(x.chunk(2, -1) for x in own.linear("mlp.gate_up_proj")), strict=True)
        return Block(
            norm1=own.rms_norm("input_layernorm", eps),
            norm2=own.rms_norm("post_attention_layernorm", eps),
            **heads,
            **own.heads("self_attn.o_proj", "o", sizes[0]),
            mlp=Mlp(up, own.linear("mlp.down_proj"), activation, gate),
            rope=rope,
            window=config.sliding_window,
        )

    return Weights(
        w_e=embedding,
        w_pos=None,
        blocks=[block(layer) for layer in range(config.num_hidden_layers)],
        norm_final=body.rms_norm("norm", eps),
        **unembedding(checkpoint, config, "lm_head", embedding),
    )
