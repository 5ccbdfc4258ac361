"""StableLM: LayerNorm, partial rotary positions, gated MLP; by options biases, or parallel blocks with one norm."""

from typing import Any

from atlas.model.block import Block, Weights
from atlas.model.checkpoint import Checkpoint
from atlas.model.reading import Names, activation_of, rotary, unembedding


def read(checkpoint: Checkpoint, config: Any) -> Weights | None:
    """The weights; None where queries and keys are normed head by head, or `reading` does not know an option."""
    body, eps = Names(checkpoint, "model"), config.layer_norm_eps
    embedding, activation = body("embed_tokens.weight"), activation_of(config.hidden_act)
    rope = rotary(config, embedding)
    if rope is None or activation is None or config.qk_layernorm:
        return None

    def block(layer: int) -> Block:
        own, parallel = Names(checkpoint, f"model.layers.{layer}"), config.use_parallel_residual
        norm = own.norm("input_layernorm", eps)
        return Block(
            norm1=norm,
            norm2=norm if parallel else own.norm("post_attention_layernorm", eps),
            **own.attention("self_attn", config.num_attention_heads, config.num_key_value_heads),
            mlp=own.gated_mlp("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", activation),
            rope=rope,
            parallel=parallel,
        )

    return Weights(
        w_e=embedding,
        w_pos=None,
        blocks=[block(layer) for layer in range(config.num_hidden_layers)],
        norm_final=body.norm("norm", eps),
        **unembedding(checkpoint, config, "lm_head", embedding),
    )
