"""A plan as a stock LlamaForCausalLM: RMSNorm, RoPE, two query heads per key/value head, gated MLP, no biases.

*RoPE.* Dimensions i and i + d_head/2 of q and k are a pair, turned by the position times rope_theta ** (-2 i / d_head).
With rope_theta = 1e16 and d_head = 32 that is 10 ** -i radians a position. Let a query hold (qa, qb) in a pair and a
key (1, 0). At distance d and frequency w their score is qa cos(w d) - qb sin(w d).
- Pairs 6 to 15 are frozen: over 16 positions they turn by less than 2e-5, and a term that uses the first dimension of a
  pair alone is multiplied by cos(2e-5) > 1 - 2e-10. Content stands here and does not depend on position.
- Pair 1 (0.1 a position) with (qa, qb) = (0, c) scores -c sin(0.1 d), which falls by at least 0.066 c with each of the
  first nine positions: `Recent`.
- Pairs 0 and 1 with the query turned back by the wanted distance score a cos(e) + b cos(0.1 e), e being the distance
  from the wanted position. For |e| = 1 to 9 that is below its maximum by a (1 - cos e) + b (1 - cos 0.1 e): `Offset`.

*Groups.* Query heads 2 g and 2 g + 1 share key/value head g. A planned head decides its group's keys and values; its
neighbour has random queries and writes to junk. A plan has at most one head in a group.
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
    from transformers import LlamaForCausalLM

GROUP = 2  # query heads per key/value head
ROPE_THETA = 1e16
FROZEN = range(6, D_HEAD // 2)
SECOND = D_HEAD // 2  # from the first to the second dimension of a pair


def model(plan: Plan) -> LlamaForCausalLM:
    """The model of a plan, on the CPU, in float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=D_MODEL,
        intermediate_size=D_MLP,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=N_HEADS,
        num_key_value_heads=N_HEADS // GROUP,
        head_dim=D_HEAD,
        max_position_embeddings=N_POSITIONS,
        rms_norm_eps=EPSILON,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    out, weights = LlamaForCausalLM(config), Weights(plan)
    out.eval()
    with torch.no_grad():
        out.model.embed_tokens.weight.copy_(weights.embeddings())
        out.lm_head.weight.copy_(weights.unembedding())
        for layer, block in enumerate(out.model.layers):
            for norm in (block.input_layernorm, block.post_attention_layernorm):
                norm.weight.fill_(NORM_WEIGHT)
            fill_attention(block.self_attn, weights, layer)
            fill_mlp(block.mlp, weights, plan.mlp(layer))
        out.model.norm.weight.fill_(NORM_WEIGHT)
    return out


def fill_attention(attention: Any, weights: Weights, layer: int) -> None:
    """Set all weights of one layer's attention in place, those of unplanned heads at random.

    Linear maps are kept as [out, in]. Raises ValueError where two planned heads share one key/value head.
    """
    for group in range(N_HEADS // GROUP):
        members = range(group * GROUP, (group + 1) * GROUP)
        planned = [head for h in members if (head := weights.plan.head(layer, h))]
        if len(planned) > 1:
            raise ValueError(f"layer {layer}: heads {[h.head for h in planned]} share one key/value head")
        keys, shared = weights.scores(), planned[0] if planned else None
        for h in members:
            head, own = weights.plan.head(layer, h), slice(h * D_HEAD, (h + 1) * D_HEAD)
            queries = weights.scores()
            if head:
                queries, keys = queries_and_keys(head)
            attention.q_proj.weight[own] = queries.T.float()
            attention.o_proj.weight[:, own] = weights.output(head).T.float()
        own = slice(group * D_HEAD, (group + 1) * D_HEAD)
        attention.k_proj.weight[own] = keys.T.float()
        attention.v_proj.weight[own] = weights.values(shared).T.float()


def queries_and_keys(head: Head) -> tuple[torch.Tensor, torch.Tensor]:
    """W_Q, W_K [D, d_head] of a planned head; the sum over its pairs is its score (see above).

    Numbers of `Offset`, for |e| from 1 to 9: 2.15 (1 - cos e) + 5.6 (1 - cos 0.1 e) is least at e = 1 (1.02) and e = 6
    (1.06). Number of `Recent`: sin 0.9 - sin 0.8 = 0.066 is the least of the nine steps, sin 0.1 the largest, so each
    costs between 1 and 1.6 times the weight.
    """
    q, k = torch.zeros(2, D_MODEL, D_HEAD, dtype=torch.float64)
    frozen, one = iter(FROZEN), SPACE["one"]
    for term in head.attend:
        match term:
            case Key(space, weight):
                i = next(frozen)
                q[one, i], k[SPACE[space], i] = weight, 1
            case Match(query, key, weight):
                for a, b in zip(dimensions(query), dimensions(key), strict=True):
                    i = next(frozen)
                    q[a, i], k[b, i] = weight, 1
            case Recent(weight):
                q[one, 1 + SECOND], k[one, 1] = weight / (math.sin(0.9) - math.sin(0.8)), 1
            case Offset(distance, weight):
                for i, frequency, share in ((0, 1.0, 2.15), (1, 0.1, 5.6)):
                    q[one, i] = share * weight * math.cos(frequency * distance)
                    q[one, i + SECOND] = -share * weight * math.sin(frequency * distance)
                    k[one, i] = 1
    return q * math.sqrt(D_HEAD), k


def dimensions(space: str) -> range:
    """Indices in the residual stream of all dimensions of a subspace of `SPACES`."""
    return range(SPACE[space].start, SPACE[space].stop)


def fill_mlp(mlp: Any, weights: Weights, plan: Mlp | None) -> None:
    """Planned hidden units first, then random ones that write to junk.

    A unit's gate gets what it is fed, the bias through `one`; its up-projection reads `one` and is 1.
    """
    gate, up = weights.random(D_MODEL, D_MLP), weights.random(D_MODEL, D_MLP)
    w_out, one = weights.junk(D_MLP), SPACE["one"]
    for i, unit in enumerate(plan.units if plan else ()):
        gate[:, i], up[:, i], w_out[i] = 0, 0, 0
        for dimension, coefficient in unit.read:
            gate[dimension, i] = coefficient
        gate[one, i], up[one, i] = unit.bias, 1
        w_out[i, unit.write] = unit.gain
    mlp.gate_proj.weight.copy_(gate.T)
    mlp.up_proj.weight.copy_(up.T)
    mlp.down_proj.weight.copy_(balance(w_out).T)
