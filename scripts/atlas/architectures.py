"""Weights of three model families in one shape, taken from a loaded bridge, for the engine.

GPT-2 (LayerNorm, learned positions), GPT-NeoX / Pythia (partial rotary, parallel blocks) and Llama (RMSNorm, rotary,
grouped key/value heads, gated MLP). Anything else has no engine and runs through TransformerLens hooks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Block:
    """One layer. H query heads, G key/value heads (H a multiple of G), D the width of the residual stream."""

    norm1: Callable  # of the residual before attention
    norm2: Callable  # of the residual before the MLP
    w_q: torch.Tensor  # [D, H, d_head]
    w_k: torch.Tensor  # [D, G, d_head]
    w_v: torch.Tensor  # [D, G, d_head]
    b_q: torch.Tensor  # [H, d_head]; zeros where the model has none, likewise below
    b_k: torch.Tensor  # [G, d_head]
    b_v: torch.Tensor  # [G, d_head]
    w_o: torch.Tensor  # [H, d_head, D]
    b_o: torch.Tensor  # [D]
    mlp: Callable  # normed residual -> what the MLP writes, biases included
    parallel: bool = False  # attention and MLP both read the residual that enters the layer


@dataclass(frozen=True)
class Weights:
    """A model: ``embed(tokens)`` [N, S] -> [N, S, D], blocks, final norm, W_U [d_vocab, D] and b_U (or None).

    ``rope``: (cos, sin), each [n_positions, d_rotary], or None; the first d_rotary entries of q and k are rotated.
    """

    embed: Callable
    blocks: list[Block]
    norm_final: Callable
    w_u: torch.Tensor
    b_u: torch.Tensor | None
    rope: tuple[torch.Tensor, torch.Tensor] | None
    mlp_flops: int  # multiply-adds of one MLP at one position, for benchmarks

    @property
    def n_heads(self) -> int:
        return self.blocks[0].w_q.shape[1]


def layer_norm(module, eps: float) -> Callable:
    weight, bias = module.weight.detach(), module.bias.detach()
    return lambda x: F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def rms_norm(module, eps: float) -> Callable:
    """In float32 whatever the model's dtype, as in the Hugging Face implementation."""
    weight = module.weight.detach()

    def norm(x):
        y = x.float()
        return weight * (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)

    return norm


def linear(module):
    """(weight [in, out], bias [out]) of a linear module; zeros where it has no bias."""
    weight = module.weight.detach().T
    bias = getattr(module, "bias", None)
    return weight, weight.new_zeros(weight.shape[1]) if bias is None else bias.detach()


def two_layer_mlp(w_in, b_in, w_out, b_out, activation) -> Callable:
    def mlp(x):
        hidden = activation(torch.addmm(b_in, x.flatten(0, 1), w_in))
        return torch.addmm(b_out, hidden, w_out).view(*x.shape[:-1], -1)

    return mlp


def gated_mlp(gate, up, down, activation) -> Callable:
    (w_gate, b_gate), (w_up, b_up), (w_down, b_down) = linear(gate), linear(up), linear(down)

    def mlp(x):
        return (activation(x @ w_gate + b_gate) * (x @ w_up + b_up)) @ w_down + b_down

    return mlp


def rotary(module, n_positions: int, dtype):
    """cos and sin for positions 0..n_positions-1, computed in float32 as the model does."""
    frequencies = module.inv_freq.float()
    angles = torch.arange(n_positions, device=frequencies.device).float()[:, None] * frequencies
    angles = torch.cat((angles, angles), dim=-1)
    return tuple((f(angles) * module.attention_scaling).to(dtype) for f in (torch.cos, torch.sin))


ACTIVATIONS = {
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
}


def gpt2(model, config) -> Weights | None:
    if not config.scale_attn_weights or config.scale_attn_by_inverse_layer_idx or config.add_cross_attention:
        return None
    body, d, h, eps = model.transformer, config.n_embd, config.n_head, config.layer_norm_epsilon
    activation = ACTIVATIONS[config.activation_function]

    def block(b):
        attn, mlp = b.attn, b.mlp  # Conv1D modules: weight [in, out]
        qkv, bias = attn.c_attn.weight.detach().view(d, 3, h, d // h), attn.c_attn.bias.detach().view(3, h, d // h)
        layers = (p.detach() for m in (mlp.c_fc, mlp.c_proj) for p in (m.weight, m.bias))
        return Block(
            norm1=layer_norm(b.ln_1, eps),
            norm2=layer_norm(b.ln_2, eps),
            **{f"w_{name}": qkv[:, i].contiguous() for i, name in enumerate("qkv")},
            **{f"b_{name}": bias[i] for i, name in enumerate("qkv")},
            w_o=attn.c_proj.weight.detach().view(h, d // h, d),
            b_o=attn.c_proj.bias.detach(),
            mlp=two_layer_mlp(*layers, activation),
        )

    wte, wpe = body.wte.weight.detach(), body.wpe.weight.detach()
    return Weights(
        embed=lambda tokens: wte[tokens] + wpe[: tokens.shape[1]],
        blocks=[block(b) for b in body.h],
        norm_final=layer_norm(body.ln_f, eps),
        **unembedding(model),
        rope=None,
        mlp_flops=2 * d * (config.n_inner or 4 * d),
    )


def gpt_neox(model, config) -> Weights | None:
    body, d, h, eps = model.gpt_neox, config.hidden_size, config.num_attention_heads, config.layer_norm_eps
    if body.rotary_emb.rope_type != "default":
        return None
    activation = ACTIVATIONS[config.hidden_act]

    def block(b):
        w_qkv, b_qkv = linear(b.attention.query_key_value)  # [D, 3 D], head by head q, k, v
        w_qkv, b_qkv = w_qkv.reshape(d, h, 3, d // h), b_qkv.view(h, 3, d // h)
        w_o, b_o = linear(b.attention.dense)
        layers = (*linear(b.mlp.dense_h_to_4h), *linear(b.mlp.dense_4h_to_h))
        return Block(
            norm1=layer_norm(b.input_layernorm, eps),
            norm2=layer_norm(b.post_attention_layernorm, eps),
            **{f"w_{name}": w_qkv[:, :, i] for i, name in enumerate("qkv")},
            **{f"b_{name}": b_qkv[:, i] for i, name in enumerate("qkv")},
            w_o=w_o.reshape(h, d // h, d),
            b_o=b_o,
            mlp=two_layer_mlp(*layers, activation),
            parallel=config.use_parallel_residual,
        )

    embedding = body.embed_in.weight.detach()
    return Weights(
        embed=lambda tokens: embedding[tokens],
        blocks=[block(b) for b in body.layers],
        norm_final=layer_norm(body.final_layer_norm, eps),
        **unembedding(model),
        rope=rotary(body.rotary_emb, config.max_position_embeddings, embedding.dtype),
        mlp_flops=2 * d * config.intermediate_size,
    )


def llama(model, config) -> Weights | None:
    body, d, h, eps = model.model, config.hidden_size, config.num_attention_heads, config.rms_norm_eps
    if body.rotary_emb.rope_type not in ("default", "linear", "llama3"):  # others change with the length of the text
        return None
    groups = config.num_key_value_heads
    d_head = getattr(config, "head_dim", None) or d // h
    activation = ACTIVATIONS[config.hidden_act]

    def block(b):
        attn, heads = b.self_attn, {"q": h, "k": groups, "v": groups}
        maps = {name: linear(getattr(attn, f"{name}_proj")) for name in heads}
        w_o, b_o = linear(attn.o_proj)
        return Block(
            norm1=rms_norm(b.input_layernorm, eps),
            norm2=rms_norm(b.post_attention_layernorm, eps),
            **{f"w_{name}": w.reshape(d, heads[name], d_head) for name, (w, _) in maps.items()},
            **{f"b_{name}": bias.view(heads[name], d_head) for name, (_, bias) in maps.items()},
            w_o=w_o.reshape(h, d_head, d),
            b_o=b_o,
            mlp=gated_mlp(b.mlp.gate_proj, b.mlp.up_proj, b.mlp.down_proj, activation),
        )

    embedding = body.embed_tokens.weight.detach()
    return Weights(
        embed=lambda tokens: embedding[tokens],
        blocks=[block(b) for b in body.layers],
        norm_final=rms_norm(body.norm, eps),
        **unembedding(model),
        rope=rotary(body.rotary_emb, config.max_position_embeddings, embedding.dtype),
        mlp_flops=3 * d * config.intermediate_size,
    )


def unembedding(model) -> dict:
    head = model.get_output_embeddings()
    bias = getattr(head, "bias", None)
    return {"w_u": head.weight.detach(), "b_u": None if bias is None else bias.detach()}


FAMILIES = {"GPT2LMHeadModel": gpt2, "GPTNeoXForCausalLM": gpt_neox, "LlamaForCausalLM": llama}


def weights_of(bridge) -> Weights | None:
    """The weights of a loaded bridge, or None where its architecture or one of its options has no engine."""
    model = getattr(bridge, "original_model", None)
    read = FAMILIES.get(type(model).__name__)
    if read is None:
        return None
    activation = getattr(model.config, "activation_function", None) or getattr(model.config, "hidden_act", None)
    return read(model, model.config) if activation in ACTIVATIONS else None
