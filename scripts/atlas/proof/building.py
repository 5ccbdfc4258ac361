"""Checkpoints of planted models, in either of their two families."""

from pathlib import Path

from atlas.proof import planted_gpt2, planted_llama
from atlas.proof.planted import Plan, tokenizer

MODELS = {"gpt2": planted_gpt2.model, "llama": planted_llama.model}


def build(plan: Plan, family: str, folder: Path | str) -> Path:
    """Write the checkpoint of a plan, tokenizer included, to ``folder``; the same plan gives the same bytes."""
    model = MODELS[family](plan)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return Path(folder)
