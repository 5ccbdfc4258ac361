"""A plain forward pass with hooks, under TransformerLens's names, on weights read from the checkpoint.

For jobs that only look at a model, or change a few of its activations: they need not build it, nor import
TransformerLens, which takes longer than most of their work. TransformerLens is the oracle of every hook.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from types import SimpleNamespace

import torch

from atlas.model.architectures import Block, Weights
from atlas.model.engine import project, rotate
from atlas.model.models import Hook

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


def final_residual(weights: Weights, tokens: torch.Tensor, edits: Iterable[Hook] = ()) -> torch.Tensor:
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

    x = at(EMBED, weights.w_e[tokens])
    if weights.w_pos is not None:
        x = x + at(POSITIONS, weights.w_pos[: tokens.shape[1]].expand_as(x))
    for layer, block in enumerate(weights.blocks):
        name = f"blocks.{layer}."
        x = at(f"{name}hook_resid_pre", x)
        z = at(f"{name}attn.hook_z", mixed(weights, block, at(f"{name}ln1.hook_out", block.norm1(x)), name, at))
        attn_out = at(f"{name}hook_attn_out", z.flatten(2) @ block.w_o.flatten(0, 1) + block.b_o)
        after = x + attn_out
        mlp_out = at(f"{name}hook_mlp_out", block.mlp(block.norm2(x if block.parallel else after)))
        x = at(f"{name}hook_resid_post", after + mlp_out)
    return x


def mixed(
    weights: Weights, block: Block, normed: torch.Tensor, name: str, at: Callable[[str, torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """z [N, S, H, d_head] of the normed residual [N, S, D]."""
    maps = ((block.w_q, block.b_q), (block.w_k, block.b_k), (block.w_v, block.b_v))
    q, k, v = (project(normed, w, b) for w, b in maps)
    v = at(f"{name}attn.hook_v", v.transpose(1, 2)).transpose(1, 2)
    if weights.rope:
        cos, sin = (table[: q.shape[2]] for table in weights.rope)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    group = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(group, 1) if group > 1 else x for x in (k, v))
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    softmax = scores.masked_fill(future, -torch.inf).softmax(-1, torch.promote_types(scores.dtype, torch.float32))
    pattern = at(f"{name}attn.hook_pattern", softmax.to(v.dtype))
    return (pattern @ v).transpose(1, 2)
