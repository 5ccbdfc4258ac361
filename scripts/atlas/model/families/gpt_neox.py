"""GPT-NeoX and Pythia: LayerNorm, partial rotary positions, parallel blocks (or sequential ones, by an option)."""

from typing import Any

from atlas.model.block import Block, Weights
from atlas.model.checkpoint import Checkpoint
from atlas.model.mlp import Mlp
from atlas.model.reading import Names, activation_of, rotary, unembedding


def read(checkpoint: Checkpoint, config: Any) -> Weights | None:
    """The weights; None where rotary positions or the activation are none that `reading` knows."""
    body, eps = Names(checkpoint, "gpt_neox"), config.layer_norm_eps
    d, h = config.hidden_size, config.num_attention_heads
    embedding, activation = body("embed_in.weight"), activation_of(config.hidden_act)
    rope = rotary(config, embedding)
    if rope is None or activation is None:
        return None

    def block(layer: int) -> Block:
        own = Names(checkpoint, f"gpt_neox.layers.{layer}")
        w_qkv, b_qkv = own.linear("attention.query_key_value")  # [D, 3 D], head by head q, k, v
        w_qkv, b_qkv = w_qkv.reshape(d, h, 3, d // h), b_qkv.view(h, 3, d // h)
        heads: dict[str, Any] = {f"w_{name}": w_qkv[:, :, i] for i, name in enumerate("qkv")}
        heads |= {f"b_{name}": b_qkv[:, i] for i, name in enumerate("qkv")}
        return Block(
            norm1=own.norm("input_layernorm", eps),
            norm2=own.norm("post_attention_layernorm", eps),
            **heads,
            **own.heads("attention.dense", "o", h),
            mlp=Mlp(own.linear("mlp.dense_h_to_4h"), own.linear("mlp.dense_4h_to_h"), activation),
            rope=rope,
            parallel=config.use_parallel_residual,
        )

    head = "embed_out" if "embed_out.weight" in checkpoint else "lm_head"  # its older and its newer name
    return Weights(
        w_e=embedding,
        w_pos=None,
        blocks=[block(layer) for layer in range(config.num_hidden_layers)],
        norm_final=body.norm("final_layer_norm", eps),
        **unembedding(checkpoint, config, head, embedding),
    )
