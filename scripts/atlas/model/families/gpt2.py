"""GPT-2: LayerNorm, learned positions, sequential blocks; its linear maps are kept as [in, out]."""

from typing import Any

from atlas.model.block import Block, Weights
from atlas.model.checkpoint import Checkpoint
from atlas.model.mlp import Mlp
from atlas.model.reading import Names, activation_of, unembedding


def read(checkpoint: Checkpoint, config: Any) -> Weights | None:
    """The weights; None where there is cross-attention, or an activation that `reading` does not know."""
    activation = activation_of(config.activation_function)
    if config.add_cross_attention or activation is None:
        return None
    body, d, h, eps = Names(checkpoint, "transformer"), config.n_embd, config.n_head, config.layer_norm_epsilon

    def query_scale(layer: int) -> float:
        """What the scores are multiplied by besides 1 / sqrt(d_head), which `block` always applies."""
        scale = 1.0 if config.scale_attn_weights else (d // h) ** 0.5
        return scale / (layer + 1) if config.scale_attn_by_inverse_layer_idx else scale

    def block(layer: int) -> Block:
        own = Names(checkpoint, f"transformer.h.{layer}")
        qkv, bias = own("attn.c_attn.weight").view(d, 3, h, d // h), own("attn.c_attn.bias").view(3, h, d // h)
        scale = query_scale(layer)
        if scale != 1:  # of the query, which nothing but the scores reads
            qkv, bias = qkv.clone(), bias.clone()
            qkv[:, 0] *= scale
            bias[0] *= scale
        heads: dict[str, Any] = {f"w_{name}": qkv[:, i].contiguous() for i, name in enumerate("qkv")}
        heads |= {f"b_{name}": bias[i] for i, name in enumerate("qkv")}
        up, down = ((own(f"mlp.{name}.weight"), own(f"mlp.{name}.bias")) for name in ("c_fc", "c_proj"))
        return Block(
            norm1=own.norm("ln_1", eps),
            norm2=own.norm("ln_2", eps),
            **heads,
            w_o=own("attn.c_proj.weight").view(h, d // h, d),
            b_o=own("attn.c_proj.bias"),
            mlp=Mlp(up, down, activation),
        )

    embedding = body("wte.weight")
    return Weights(
        w_e=embedding,
        w_pos=body("wpe.weight"),
        blocks=[block(layer) for layer in range(config.n_layer)],
        norm_final=body.norm("ln_f", eps),
        **unembedding(checkpoint, config, "lm_head", embedding),
    )
