"""OLMo 2: norms behind attention and MLP and none before them, one norm of all heads' queries together, one of keys."""

from typing import Any

from atlas.model.block import Weights
from atlas.model.checkpoint import Checkpoint
from atlas.model.families import llama
from atlas.model.logits import at_least_float32
from atlas.model.norm import NoNorm, Norm
from atlas.model.reading import Names, rotary


def late_norm(own: Names, name: str, eps: float) -> Norm:
    """RMSNorm that multiplies with its weight in float32."""
    return own.rms_norm(name, eps, late=True)


def read(checkpoint: Checkpoint, config: Any) -> Weights | None:
    """The weights; None as for a Llama."""
    heads = {"q": config.num_attention_heads, "k": config.num_key_value_heads}

    def norms(own: Names, eps: float) -> dict[str, Any]:
        behind = late_norm(own, "post_attention_layernorm", eps)
        found = {"norm1": NoNorm.like(behind.weight), "norm2": NoNorm.like(behind.weight), "norm_attn_out": behind}
        found["norm_mlp_out"] = late_norm(own, "post_feedforward_layernorm", eps)
        for part, number in heads.items():
            weight = own(f"self_attn.{part}_norm.weight").view(number, -1)
            found[f"norm_{part}"] = Norm(weight, None, eps, centred=False, late=True)
        return found

    like = at_least_float32(checkpoint["model.norm.weight"])  # queries and keys are rotated in float32
    ropes = [rotary(config, like)] * config.num_hidden_layers
    return llama.read(checkpoint, config, norms, late_norm, ropes)
