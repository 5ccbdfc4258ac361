"""Falcon: LayerNorm, rotary positions, one map for queries, keys and values, and by options one key/value head for all
heads, one for each, or groups; parallel blocks with one norm or two, or sequential ones."""

from typing import Any

from atlas.model.block import Block, Weights
from atlas.model.checkpoint import Checkpoint
from atlas.model.mlp import Linear, Mlp
from atlas.model.reading import Names, activation_of, rotary, unembedding


def read(checkpoint: Checkpoint, config: Any) -> Weights | None:
    """The weights; None where positions are biases of the scores, or `reading` does not know an option."""
    body, eps = Names(checkpoint, "transformer"), config.layer_norm_epsilon
    embedding, activation = body("word_embeddings.weight"), activation_of(config.activation)
    rope = None if config.alibi else rotary(config, embedding)
    if rope is None or activation is None:
        return None
    parallel = config.new_decoder_architecture or config.parallel_attn

    def block(layer: int) -> Block:
        own = Names(checkpoint, f"transformer.h.{layer}")
        two = f"transformer.h.{layer}.ln_attn.weight" in checkpoint
        norm = own.norm("ln_attn" if two else "input_layernorm", eps)
        second = "ln_mlp" if two else None if parallel else "post_attention_layernorm"
        return Block(
            norm1=norm,
            norm2=own.norm(second, eps) if second else norm,
            **heads(own.linear("self_attention.query_key_value"), config),
            **own.heads("self_attention.dense", "o", config.num_attention_heads),
            mlp=Mlp(own.linear("mlp.dense_h_to_4h"), own.linear("mlp.dense_4h_to_h"), activation),
            rope=rope,
            parallel=parallel,
        )

    return Weights(
        w_e=embedding,
        w_pos=None,
        blocks=[block(layer) for layer in range(config.num_hidden_layers)],
        norm_final=body.norm("ln_f", eps),
        **unembedding(checkpoint, config, "lm_head", embedding),
    )


def heads(joint: Linear, config: Any) -> dict[str, Any]:
    """The fields w_q, w_k, w_v [D, heads, d_head] and b_q, b_k, b_v [heads, d_head] of `Block`, of the one map.

    It has, for each key/value head, the query heads that read it, its key and its value.
    """
    h = config.num_attention_heads
    groups = config.num_kv_heads if config.new_decoder_architecture else 1 if config.multi_query else h
    found: dict[str, Any] = {}
    for kind, x in zip("wb", joint, strict=True):
        x = x.unflatten(-1, (groups, h // groups + 2, -1))
        parts = {"q": x[..., :-2, :], "k": x[..., -2:-1, :], "v": x[..., -1:, :]}
        found |= {f"{kind}_{part}": own.flatten(-3, -2).contiguous() for part, own in parts.items()}
    return found
