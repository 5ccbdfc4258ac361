"""Gemma 3: a Gemma 2 whose heads norm their queries and keys in place of a cap, with two rotary bases."""

from typing import Any

from atlas.model.block import Weights
from atlas.model.checkpoint import Checkpoint
from atlas.model.families import gemma2
from atlas.model.reading import Names, rotary, windows


def norms(own: Names, eps: float) -> dict[str, Any]:
    """Those of a Gemma 2, and of each head's queries and keys."""
    of_heads = {f"norm_{part}": own.offset_norm(f"self_attn.{part}_norm", eps) for part in "qk"}
    return gemma2.norms_around(own, eps) | of_heads


def read(checkpoint: Checkpoint, config: Any) -> Weights | None:
    """The weights; None as for a Gemma 2. The model itself ignores `attn_logit_softcapping`."""
    if windows(config) is None:
        return None
    like = checkpoint["model.norm.weight"]
    ropes = {layer_type: rotary(config, like, layer_type) for layer_type in dict.fromkeys(config.layer_types)}
    return gemma2.uncapped(checkpoint, config, norms, [ropes[layer_type] for layer_type in config.layer_types])
