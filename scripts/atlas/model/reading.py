"""What the files of `families/` share: tensors of a checkpoint in the shapes of `block`, activations, rotary tables."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from atlas.model.attention import Rotary
from atlas.model.checkpoint import Checkpoint
from atlas.model.logits import at_least_float32
from atlas.model.mlp import Activation, Linear, Mlp
from atlas.model.norm import Norm

FIXED_ROPE = ("default", "linear", "llama3")  # other scalings of rotary positions change with the length of the text


class Names:
    """Tensors of a checkpoint below a prefix, in the shapes of `Block`."""

    def __init__(self, checkpoint: Checkpoint, prefix: str) -> None:
        self.checkpoint, self.prefix = checkpoint, prefix

    def __call__(self, name: str) -> torch.Tensor:
        return self.checkpoint[f"{self.prefix}.{name}"]

    def norm(self, name: str, eps: float) -> Norm:
        return Norm(self(f"{name}.weight"), self(f"{name}.bias"), eps)

    def rms_norm(self, name: str, eps: float, late: bool = False) -> Norm:
        return Norm(self(f"{name}.weight"), None, eps, centred=False, late=late)

    def offset_norm(self, name: str, eps: float) -> Norm:
        """RMSNorm with a weight of 1 + w, in float32 at least, as the model adds them."""
        return Norm(1 + at_least_float32(self(f"{name}.weight")), None, eps, centred=False, late=True)

    def linear(self, name: str) -> Linear:
        """(weight [in, out], bias [out]) of a linear module; zeros where it has no bias."""
        weight, bias = self(f"{name}.weight").T, self.checkpoint.optional(f"{self.prefix}.{name}.bias")
        return weight, weight.new_zeros(weight.shape[1]) if bias is None else bias

    def heads(self, name: str, part: str, number: int) -> dict[str, Any]:
        """The fields of `Block` for the part `q`, `k`, `v` or `o`, of a linear module of so many heads.

        w_q, w_k, w_v [D, heads, d_head], their biases [heads, d_head]; w_o [heads, d_head, D], b_o [D].
        """
        weight, bias = self.linear(name)
        if part == "o":
            return {"w_o": weight.reshape(number, -1, weight.shape[1]), "b_o": bias}
        return {f"w_{part}": weight.reshape(len(weight), number, -1), f"b_{part}": bias.view(number, -1)}

    def gated_mlp(self, gate: str, up: str, down: str, activation: Activation) -> Mlp:
        return Mlp(self.linear(up), self.linear(down), activation, self.linear(gate))


def unembedding(checkpoint: Checkpoint, config: Any, name: str, embedding: torch.Tensor) -> dict[str, Any]:
    """The fields w_u [d_vocab, D] and b_u [d_vocab] of `Weights`, of a linear module or, where tied, the embedding."""
    w_u = embedding if config.tie_word_embeddings else checkpoint[f"{name}.weight"]
    return {"w_u": w_u, "b_u": checkpoint.optional(f"{name}.bias")}


ACTIVATIONS: dict[str, Activation] = {
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
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
    found: Callable[[torch.Tensor], torch.Tensor] = function
    return found


def rotary(config: Any, like: torch.Tensor, layer_type: str | None = None) -> Rotary | None:
    """cos and sin [n_positions, d_rotary], in ``like``'s dtype, computed in float32 as the model does.

    ``layer_type``: of which layers, where the configuration has parameters for each type. None where they depend on the
    length of the text, which no table can follow.
    """
    rope = config.rope_parameters if layer_type is None else config.rope_parameters[layer_type]
    if rope["rope_type"] not in FIXED_ROPE:
        return None
    if rope["rope_type"] == "default":
        d_head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        d_rotary = int(d_head * rope.get("partial_rotary_factor", 1.0))
        frequencies = 1.0 / rope["rope_theta"] ** (torch.arange(0, d_rotary, 2).float() / d_rotary)
        scaling = 1.0
    else:
        from transformers import AutoConfig
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        full = AutoConfig.for_model(**vars(config))
        of_type = {} if layer_type is None else {"layer_type": layer_type}
        frequencies, scaling = ROPE_INIT_FUNCTIONS[rope["rope_type"]](full, device="cpu", **of_type)
    angles = torch.arange(config.max_position_embeddings).float()[:, None] * frequencies
    angles = torch.cat((angles, angles), dim=-1)
    cos, sin = ((f(angles) * scaling).to(like) for f in (torch.cos, torch.sin))
    return cos, sin


def windows(config: Any) -> list[int | None] | None:
    """How many keys a query sees at most in each layer, None: all before it; by the configuration's types of layers.

    None where there is a type that is neither full nor sliding.
    """
    known = {"full_attention": None, "sliding_attention": config.sliding_window}
    if not known.keys() >= set(config.layer_types):
        return None
    return [known[layer_type] for layer_type in config.layer_types]
