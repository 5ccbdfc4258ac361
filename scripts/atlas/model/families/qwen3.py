"""Qwen 3: a Llama whose heads norm their queries and keys, with sliding windows in some layers by an option."""

from dataclasses import replace
from typing import Any

from atlas.model.block import Weights
from atlas.model.checkpoint import Checkpoint
from atlas.model.families import llama
from atlas.model.reading import Names, windows


def norms(own: Names, eps: float) -> dict[str, Any]:
    """Those of a Llama, and of each head's queries and keys."""
    of_heads = {f"norm_{part}": own.rms_norm(f"self_attn.{part}_norm", eps) for part in "qk"}
    return llama.norms_before(own, eps) | of_heads


def read(checkpoint: Checkpoint, config: Any) -> Weights | None:
    """The weights; None as for a Llama, or where a layer's attention is neither full nor sliding."""
    weights, window = llama.read(checkpoint, config, norms), windows(config)
    if weights is None or window is None:
        return None
    return replace(weights, blocks=[replace(b, window=w) for b, w in zip(weights.blocks, window, strict=True)])
