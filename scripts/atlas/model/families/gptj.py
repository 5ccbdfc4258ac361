"""GPT-J: LayerNorm, parallel blocks with one norm, rotary positions that turn neighbouring numbers of a head.

`block` turns number i of a head with number i + d_rotary / 2. So the rows of queries and keys are put in that order as
they are read, the even ones first, which changes no score.
"""

from typing import Any

import torch

from atlas.model.block import Block, Weights
from atlas.model.checkpoint import Checkpoint
from atlas.model.mlp import Mlp
from atlas.model.reading import Names, activation_of, rotary_of, unembedding

BASE = 10_000  # of rotary positions; no option of GPT-J


def read(checkpoint: Checkpoint, config: Any) -> Weights | None:
    """The weights; None where no number of a head is rotated, or `reading` does not know the activation."""
    activation, turned, h = activation_of(config.activation_function), config.rotary_dim, config.n_head
    if activation is None or not turned:
        return None
    body, eps = Names(checkpoint, "transformer"), config.layer_norm_epsilon
    embedding = body("wte.weight")
    rope = rotary_of(1.0 / BASE ** (torch.arange(0, turned, 2).float() / turned), config.n_positions, embedding)
    whole = torch.arange(config.n_embd // h, device=embedding.device)
    order = torch.cat((whole[:turned:2], whole[1:turned:2], whole[turned:]))

    def block(layer: int) -> Block:
        own = Names(checkpoint, f"transformer.h.{layer}")
        norm, heads = own.norm("ln_1", eps), own.attention("attn", h, h, "out_proj")
        return Block(
            norm1=norm,
            norm2=norm,
            **(heads | {name: heads[name][..., order] for name in ("w_q", "w_k", "b_q", "b_k")}),
            mlp=Mlp(own.linear("mlp.fc_in"), own.linear("mlp.fc_out"), activation),
            rope=rope,
            parallel=True,
        )

    return Weights(
        w_e=embedding,
        w_pos=None,
        blocks=[block(layer) for layer in range(config.n_layer)],
        norm_final=body.norm("ln_f", eps),
        **unembedding(checkpoint, config, "lm_head", embedding),
    )
