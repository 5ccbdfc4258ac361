"""A plan as a stock GPT2LMHeadModel with untied unembedding.

Positions are in the residual stream: `position` holds p/8 and `square` its square, so that a key can favour the nearest
position or the one at a given distance. Random components have random biases, planned ones have none but those of
their hidden units; b_O and the MLPs' output biases write to junk.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from atlas.proof.planted import (
    D_HEAD,
    D_MLP,
    D_MODEL,
    EPSILON,
    N_HEADS,
    N_LAYERS,
    N_POSITIONS,
    NORM_WEIGHT,
    POSITION_UNIT,
    SPACE,
    VOCABULARY,
    Head,
    Key,
    Match,
    Mlp,
    Offset,
    Plan,
    Recent,
    Weights,
    balance,
)

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel


def model(plan: Plan) -> GPT2LMHeadModel:
    """The model of a plan, on the CPU, in float32."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=len(VOCABULARY),
        n_positions=N_POSITIONS,
        n_embd=D_MODEL,
        n_layer=N_LAYERS,
        n_head=N_HEADS,
        n_inner=D_MLP,
        layer_norm_epsilon=EPSILON,
        tie_word_embeddings=False,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    out, weights = GPT2LMHeadModel(config), Weights(plan)
    out.eval()
    with torch.no_grad():
        out.transformer.wte.weight.copy_(weights.embeddings())
        out.transformer.wpe.weight.copy_(positions())
        out.lm_head.weight.copy_(weights.unembedding())
        for layer, block in enumerate(out.transformer.h):
            for norm in (block.ln_1, block.ln_2):
                fill_norm(norm)
            fill_attention(block.attn, weights, layer)
            fill_mlp(block.mlp, weights, plan.mlp(layer))
        fill_norm(out.transformer.ln_f)
    return out


def fill_norm(norm: Any) -> None:
    """Set a LayerNorm's weight to NORM_WEIGHT and its bias to 0, in place."""
    norm.weight.fill_(NORM_WEIGHT)
    norm.bias.zero_()


def positions() -> torch.Tensor:
    """[N_POSITIONS, D]: p/8 and its square."""
    p = torch.arange(N_POSITIONS, dtype=torch.float64) / POSITION_UNIT
    rows = torch.zeros(N_POSITIONS, D_MODEL, dtype=torch.float64)
    rows[:, SPACE["position"]], rows[:, SPACE["square"]] = p[:, None], p[:, None] ** 2
    return balance(rows)


def fill_attention(attention: Any, weights: Weights, layer: int) -> None:
    """Set all weights of one layer's attention in place, those of unplanned heads at random.

    Queries, keys and values lie side by side in ``c_attn``, [D, 3 D], head by head within each.
    """
    d, w_o = D_MODEL, []
    for h in range(N_HEADS):
        head = weights.plan.head(layer, h)
        q, k = queries_and_keys(head) if head else (weights.scores(), weights.scores())
        for part, w in enumerate((q, k, weights.values(head))):
            own = slice(part * d + h * D_HEAD, part * d + (h + 1) * D_HEAD)
            attention.c_attn.weight[:, own] = w.float()
            attention.c_attn.bias[own] = 0.0 if head else weights.random(D_HEAD, fan_in=4).float()
        w_o.append(weights.output(head))
    attention.c_proj.weight.copy_(torch.cat(w_o))
    attention.c_proj.bias.copy_(weights.junk(1, fan_in=4)[0])


def queries_and_keys(head: Head) -> tuple[torch.Tensor, torch.Tensor]:
    """W_Q, W_K [D, d_head] of a planned head; the sum over the dimensions of its terms is its score.

    A term's own dimensions of q and k hold its two factors. `Offset`: with a, b the attending and the other position,
    2 (a - distance) b - b^2 = (a - distance)^2 - (b - (a - distance))^2, so each step away from the wanted position
    costs at least 1; the first summand is the same for all b and does not matter.
    """
    q, k = torch.zeros(2, D_MODEL, D_HEAD, dtype=torch.float64)
    free, one, position, u = 0, SPACE["one"], SPACE["position"], POSITION_UNIT
    for term in head.attend:
        size = 1
        match term:
            case Key(space, weight):
                q[one, free], k[SPACE[space], free] = weight, 1
            case Recent(weight):
                q[one, free], k[position, free] = weight, u
            case Match(query, key, weight):
                size = SPACE[query].stop - SPACE[query].start
                eye = torch.eye(size, dtype=torch.float64)
                q[SPACE[query], free : free + size] = weight * eye
                k[SPACE[key], free : free + size] = eye
            case Offset(distance, weight):
                size = 2
                q[position, free], q[one, free], k[position, free] = 2 * weight * u, -2 * weight * distance, u
                q[one, free + 1], k[SPACE["square"], free + 1] = -weight, u * u
        free += size
    return q * math.sqrt(D_HEAD), k


def fill_mlp(mlp: Any, weights: Weights, plan: Mlp | None) -> None:
    """Planned hidden units first, then random ones that write to junk."""
    w_in, b_in = weights.random(D_MODEL, D_MLP), weights.random(D_MLP, fan_in=4)
    w_out = weights.junk(D_MLP)
    for i, unit in enumerate(plan.units if plan else ()):
        w_in[:, i], w_out[i], b_in[i] = 0, 0, unit.bias
        for dimension, coefficient in unit.read:
            w_in[dimension, i] = coefficient
        w_out[i, unit.write] = unit.gain
    mlp.c_fc.weight.copy_(w_in)
    mlp.c_fc.bias.copy_(b_in)
    mlp.c_proj.weight.copy_(balance(w_out))
    mlp.c_proj.bias.copy_(weights.junk(1, fan_in=4)[0])
