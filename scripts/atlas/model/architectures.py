"""Weights of three model families in one shape, read from a checkpoint, for the engine.

GPT-2 (LayerNorm, learned positions), GPT-NeoX / Pythia (partial rotary, parallel blocks) and Llama (RMSNorm, rotary,
grouped key/value heads, gated MLP). Anything else has no engine and runs through TransformerLens hooks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F

from atlas.model import models
from atlas.model.checkpoint import Checkpoint

Linear = tuple[torch.Tensor, torch.Tensor]  # weight [in, out], bias [out]
Activation = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Norm:
    """LayerNorm, or, where it does not centre, RMSNorm.

    RMSNorm runs in float32 whatever the model's dtype, as in the Hugging Face implementation.
    """

    weight: torch.Tensor  # [D]
    bias: torch.Tensor | None  # [D]; of LayerNorm alone
    eps: float
    centred: bool = True

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.centred:
            return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)
        y = x.float()
        return self.weight * (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype)


@dataclass(frozen=True)
class Block:
    """One layer. H query heads, G key/value heads (H a multiple of G), D the width of the residual stream."""

    norm1: Norm  # of the residual before attention
    norm2: Norm  # of the residual before the MLP
    w_q: torch.Tensor  # [D, H, d_head]
    w_k: torch.Tensor  # [D, G, d_head]
    w_v: torch.Tensor  # [D, G, d_head]
    b_q: torch.Tensor  # [H, d_head]; zeros where the model has none, likewise below
    b_k: torch.Tensor  # [G, d_head]
    b_v: torch.Tensor  # [G, d_head]
    w_o: torch.Tensor  # [H, d_head, D]
    b_o: torch.Tensor  # [D]
    mlp: Activation  # normed residual -> what the MLP writes, biases included
    parallel: bool = False  # attention and MLP both read the residual that enters the layer


@dataclass(frozen=True)
class Weights:
    """A model: embeddings, blocks, final norm, W_U [d_vocab, D] and b_U (or None).

    ``rope``: (cos, sin), each [n_positions, d_rotary], or None; the first d_rotary entries of q and k are rotated.
    """

    w_e: torch.Tensor  # [d_vocab, D]
    w_pos: torch.Tensor | None  # [n_positions, D]; None for models with rotary positions
    blocks: list[Block]
    norm_final: Norm
    w_u: torch.Tensor
    b_u: torch.Tensor | None
    rope: tuple[torch.Tensor, torch.Tensor] | None
    mlp_flops: int  # multiply-adds of one MLP at one position, for benchmarks

    @property
    def n_heads(self) -> int:
        return self.blocks[0].w_q.shape[1]

    def embed(self, tokens: torch.Tensor, start: int = 0) -> torch.Tensor:
        """Tokens [N, S], the first at position ``start`` -> [N, S, D]."""
        x = self.w_e[tokens]
        return x if self.w_pos is None else x + self.w_pos[start : start + tokens.shape[1]]


class Names:
    """Tensors of a checkpoint below a prefix, in the shapes of `Block`."""

    def __init__(self, checkpoint: Checkpoint, prefix: str) -> None:
        self.checkpoint, self.prefix = checkpoint, prefix

    def __call__(self, name: str) -> torch.Tensor:
        return self.checkpoint[f"{self.prefix}.{name}"]

    def norm(self, name: str, eps: float) -> Norm:
        return Norm(self(f"{name}.weight"), self(f"{name}.bias"), eps)

    def rms_norm(self, name: str, eps: float) -> Norm:
        return Norm(self(f"{name}.weight"), None, eps, centred=False)

    def linear(self, name: str) -> Linear:
        """(weight [in, out], bias [out]) of a linear module; zeros where it has no bias."""
        weight, bias = self(f"{name}.weight").T, self.checkpoint.optional(f"{self.prefix}.{name}.bias")
        return weight, weight.new_zeros(weight.shape[1]) if bias is None else bias


def two_layer_mlp(
    w_in: torch.Tensor, b_in: torch.Tensor, w_out: torch.Tensor, b_out: torch.Tensor, activation: Activation
) -> Activation:
    def mlp(x: torch.Tensor) -> torch.Tensor:
        hidden = activation(torch.addmm(b_in, x.flatten(0, 1), w_in))
        return torch.addmm(b_out, hidden, w_out).view(*x.shape[:-1], -1)

    return mlp


def gated_mlp(gate: Linear, up: Linear, down: Linear, activation: Activation) -> Activation:
    (w_gate, b_gate), (w_up, b_up), (w_down, b_down) = gate, up, down

    def mlp(x: torch.Tensor) -> torch.Tensor:
        return (activation(x @ w_gate + b_gate) * (x @ w_up + b_up)) @ w_down + b_down

    return mlp


def rotary(config: Any, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin for every position, in ``like``'s dtype, computed in float32 as the model does."""
    rope = config.rope_parameters
    if rope["rope_type"] == "default":
        d_head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        d_rotary = int(d_head * rope.get("partial_rotary_factor", 1.0))
        frequencies = 1.0 / rope["rope_theta"] ** (torch.arange(0, d_rotary, 2).float() / d_rotary)
        scaling = 1.0
    else:
        from transformers import AutoConfig
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        full = AutoConfig.for_model(**vars(config))
        frequencies, scaling = ROPE_INIT_FUNCTIONS[rope["rope_type"]](full, device="cpu")
    angles = torch.arange(config.max_position_embeddings).float()[:, None] * frequencies
    angles = torch.cat((angles, angles), dim=-1)
    cos, sin = ((f(angles) * scaling).to(like) for f in (torch.cos, torch.sin))
    return cos, sin


ACTIVATIONS: dict[str, Activation] = {
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
}


def activation_of(name: str) -> Activation | None:
    """The activation function that transformers has under a name; None where it has none, or one with parameters."""
    if name in ACTIVATIONS:
        return ACTIVATIONS[name]
    from transformers.activations import ACT2FN

    if name not in ACT2FN:
        return None
    function = ACT2FN[name]
    if isinstance(function, torch.nn.Module) and function.state_dict():
        return None
    found: Activation = function
    return found


def gpt2(checkpoint: Checkpoint, config: Any) -> Weights | None:
    activation = activation_of(config.activation_function)
    if config.add_cross_attention or activation is None:
        return None
    body, d, h, eps = Names(checkpoint, "transformer"), config.n_embd, config.n_head, config.layer_norm_epsilon

    def query_scale(layer: int) -> float:
        """What the scores are multiplied by besides 1 / sqrt(d_head), which the engine always applies."""
        scale = 1.0 if config.scale_attn_weights else (d // h) ** 0.5
        return scale / (layer + 1) if config.scale_attn_by_inverse_layer_idx else scale

    def block(layer: int) -> Block:
        own = Names(checkpoint, f"transformer.h.{layer}")  # its linear maps are kept as [in, out]
        qkv, bias = own("attn.c_attn.weight").view(d, 3, h, d // h), own("attn.c_attn.bias").view(3, h, d // h)
        scale = query_scale(layer)
        if scale != 1:  # of the query, which nothing but the scores reads
            qkv, bias = qkv.clone(), bias.clone()
            qkv[:, 0] *= scale
            bias[0] *= scale
        w_in, b_in = (own(f"mlp.c_fc.{part}") for part in ("weight", "bias"))
        w_out, b_out = (own(f"mlp.c_proj.{part}") for part in ("weight", "bias"))
        return Block(
            norm1=own.norm("ln_1", eps),
            norm2=own.norm("ln_2", eps),
            **{f"w_{name}": qkv[:, i].contiguous() for i, name in enumerate("qkv")},
            **{f"b_{name}": bias[i] for i, name in enumerate("qkv")},
            w_o=own("attn.c_proj.weight").view(h, d // h, d),
            b_o=own("attn.c_proj.bias"),
            mlp=two_layer_mlp(w_in, b_in, w_out, b_out, activation),
            parallel=False,
        )

    embedding = body("wte.weight")
    return Weights(
        w_e=embedding,
        w_pos=body("wpe.weight"),
        blocks=[block(layer) for layer in range(config.n_layer)],
        norm_final=body.norm("ln_f", eps),
        **unembedding(checkpoint, config, "lm_head", embedding),
        rope=None,
        mlp_flops=2 * d * (config.n_inner or 4 * d),
    )


def gpt_neox(checkpoint: Checkpoint, config: Any) -> Weights | None:
    activation = activation_of(config.hidden_act)
    if config.rope_parameters["rope_type"] not in FIXED_ROPE or activation is None:
        return None
    d, h, eps = config.hidden_size, config.num_attention_heads, config.layer_norm_eps
    body = Names(checkpoint, "gpt_neox")

    def block(layer: int) -> Block:
        own = Names(checkpoint, f"gpt_neox.layers.{layer}")
        w_qkv, b_qkv = own.linear("attention.query_key_value")  # [D, 3 D], head by head q, k, v
        w_qkv, b_qkv = w_qkv.reshape(d, h, 3, d // h), b_qkv.view(h, 3, d // h)
        w_o, b_o = own.linear("attention.dense")
        return Block(
            norm1=own.norm("input_layernorm", eps),
            norm2=own.norm("post_attention_layernorm", eps),
            **{f"w_{name}": w_qkv[:, :, i] for i, name in enumerate("qkv")},
            **{f"b_{name}": b_qkv[:, i] for i, name in enumerate("qkv")},
            w_o=w_o.reshape(h, d // h, d),
            b_o=b_o,
            mlp=two_layer_mlp(*own.linear("mlp.dense_h_to_4h"), *own.linear("mlp.dense_4h_to_h"), activation),
            parallel=config.use_parallel_residual,
        )

    embedding = body("embed_in.weight")
    return Weights(
        w_e=embedding,
        w_pos=None,
        blocks=[block(layer) for layer in range(config.num_hidden_layers)],
        norm_final=body.norm("final_layer_norm", eps),
        **unembedding(checkpoint, config, "embed_out" if "embed_out.weight" in checkpoint else "lm_head", embedding),
        rope=rotary(config, embedding),
        mlp_flops=2 * d * config.intermediate_size,
    )


def llama(checkpoint: Checkpoint, config: Any) -> Weights | None:
    activation = activation_of(config.hidden_act)
    if config.rope_parameters["rope_type"] not in FIXED_ROPE or activation is None:
        return None
    body, d, h, eps = Names(checkpoint, "model"), config.hidden_size, config.num_attention_heads, config.rms_norm_eps
    groups = config.num_key_value_heads
    d_head = getattr(config, "head_dim", None) or d // h

    def block(layer: int) -> Block:
        own, heads = Names(checkpoint, f"model.layers.{layer}"), {"q": h, "k": groups, "v": groups}
        maps = {name: own.linear(f"self_attn.{name}_proj") for name in heads}
        w_o, b_o = own.linear("self_attn.o_proj")
        gate, up, down = (own.linear(f"mlp.{name}_proj") for name in ("gate", "up", "down"))
        return Block(
            norm1=own.rms_norm("input_layernorm", eps),
            norm2=own.rms_norm("post_attention_layernorm", eps),
            **{f"w_{name}": w.reshape(d, heads[name], d_head) for name, (w, _) in maps.items()},
            **{f"b_{name}": bias.view(heads[name], d_head) for name, (_, bias) in maps.items()},
            w_o=w_o.reshape(h, d_head, d),
            b_o=b_o,
            mlp=gated_mlp(gate, up, down, activation),
            parallel=False,
        )

    embedding = body("embed_tokens.weight")
    return Weights(
        w_e=embedding,
        w_pos=None,
        blocks=[block(layer) for layer in range(config.num_hidden_layers)],
        norm_final=body.rms_norm("norm", eps),
        **unembedding(checkpoint, config, "lm_head", embedding),
        rope=rotary(config, embedding),
        mlp_flops=3 * d * config.intermediate_size,
    )


def unembedding(checkpoint: Checkpoint, config: Any, name: str, embedding: torch.Tensor) -> dict[str, Any]:
    w_u = embedding if config.tie_word_embeddings else checkpoint[f"{name}.weight"]
    return {"w_u": w_u, "b_u": checkpoint.optional(f"{name}.bias")}


FIXED_ROPE = ("default", "linear", "llama3")  # other scalings of rotary positions change with the length of the text
FAMILIES = {"GPT2LMHeadModel": gpt2, "GPTNeoXForCausalLM": gpt_neox, "LlamaForCausalLM": llama}


def weights_of(
    folder: Path | str, device: str = "cpu", dtype: torch.dtype = torch.float32, settings: dict[str, Any] | None = None
) -> Weights | None:
    """The weights in a checkpoint folder, or None where its architecture or one of its options has no engine.

    ``settings``: what `models.settings_of` finds in the folder, if it is at hand; finding it imports transformers.
    """
    config = SimpleNamespace(**(settings or models.settings_of(folder)))
    read = FAMILIES.get((config.architectures or [None])[0])
    if read is None or getattr(config, "quantization_config", None):
        return None
    return read(Checkpoint(folder, device, dtype), config)
