"""OPT: LayerNorm, learned positions of which the first two stand for no position, sequential blocks."""

from typing import Any

from atlas.model.block import Block, Weights
from atlas.model.checkpoint import Checkpoint
from atlas.model.mlp import Mlp
from atlas.model.reading import Names, activation_of, unembedding

OFFSET = 2  # the row of the first position
EPS = 1e-5  # of all norms; no option of OPT


def read(checkpoint: Checkpoint, config: Any) -> Weights | None:
    """The weights; None where a norm stands after what it is of, has no weight, or is missing at the end; where
    embeddings are narrower than the residual stream; or where `reading` does not know the activation."""
    activation, h = activation_of(config.activation_function), config.num_attention_heads
    last = "model.decoder.final_layer_norm.weight" in checkpoint  # none by options, or by a norm without a weight
    if activation is None or not (config.do_layer_norm_before and config.layer_norm_elementwise_affine and last):
        return None
    if config.word_embed_proj_dim != config.hidden_size:
        return None
    body = Names(checkpoint, "model.decoder")
    embedding = body("embed_tokens.weight")

    def block(layer: int) -> Block:
        own = Names(checkpoint, f"model.decoder.layers.{layer}")
        return Block(
            norm1=own.norm("self_attn_layer_norm", EPS),
            norm2=own.norm("final_layer_norm", EPS),
            **own.attention("self_attn", h, h, "out_proj"),
            mlp=Mlp(own.linear("fc1"), own.linear("fc2"), activation),
        )

    return Weights(
        w_e=embedding,
        w_pos=body("embed_positions.weight")[OFFSET:],
        blocks=[block(layer) for layer in range(config.num_hidden_layers)],
        norm_final=body.norm("final_layer_norm", EPS),
        **unembedding(checkpoint, config, "lm_head", embedding),
    )
