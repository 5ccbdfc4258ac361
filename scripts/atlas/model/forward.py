"""A plain forward pass with hooks, under TransformerLens's names, on weights read from the checkpoint.

For jobs that only look at a model, or change a few of its activations: they need not build it, nor import
TransformerLens, which takes longer than most of their work. TransformerLens is the oracle of every hook.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import torch

from atlas.model.block import Weights

Edit = tuple[str, Callable[..., Any]]  # `models.Hook`

OF_BLOCKS: tuple[str, ...] = ("hook_resid_pre", "ln1.hook_out", "attn.hook_v", "attn.hook_pattern", "attn.hook_z")
OF_BLOCKS += ("hook_attn_out", "hook_mlp_out", "hook_resid_post")
EMBED, POSITIONS = "hook_embed", "pos_embed.hook_out"
BLOCK_HOOK = re.compile(rf"blocks\.(\d+)\.({'|'.join(map(re.escape, OF_BLOCKS))})")


def knows(name: str, n_layers: int) -> bool:
    """Whether a hook of this name is called here; raises ValueError on a layer that the model does not have."""
    found = BLOCK_HOOK.fullmatch(name)
    if found and int(found[1]) >= n_layers:
        raise ValueError(f"{name}: the model has layers 0 to {n_layers - 1}")
    return name in (EMBED, POSITIONS) or found is not None


def final_residual(weights: Weights, tokens: torch.Tensor, edits: Iterable[Edit] = ()) -> torch.Tensor:
    """[N, S, D] after the last block, of tokens [N, S].

    ``edits``: (hook name, function) pairs. A function takes an activation in TransformerLens's shape and a hook with
    its ``name``, and returns what replaces it, or None.
    """
    functions = defaultdict(list)
    for name, function in edits:
        functions[name].append(function)

    def at(name: str, x: torch.Tensor) -> torch.Tensor:
        for function in functions.get(name, ()):
            changed = function(x, hook=SimpleNamespace(name=name))
            x = x if changed is None else changed
        return x

    x = at(EMBED, weights.embed_tokens(tokens))
    if weights.w_pos is not None:
        x = x + at(POSITIONS, weights.w_pos[: tokens.shape[1]].expand_as(x))
    for layer, block in enumerate(weights.blocks):
        name = f"blocks.{layer}."
        x = at(f"{name}hook_resid_pre", x)
        normed = at(f"{name}ln1.hook_out", block.norm1(x))
        q, (k, v) = block.queries(normed), block.keys_values(normed)
        v = at(f"{name}attn.hook_v", v.transpose(1, 2)).transpose(1, 2)
        z = at(f"{name}attn.hook_z", block.mix(at(f"{name}attn.hook_pattern", block.pattern(q, k)), v))
        after = x + at(f"{name}hook_attn_out", block.attn_out(block.head_writes(z)))
        mlp_out = at(f"{name}hook_mlp_out", block.mlp_out(block.mlp_reads(x, after)))
        x = at(f"{name}hook_resid_post", after + mlp_out)
    return x
