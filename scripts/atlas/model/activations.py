"""Collect activations of heads (z, before W_O) and MLPs (their write to the residual stream), and their means."""

import math
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from atlas.model.models import Model, mlp_hook, z_hook
from atlas.store.job import progress


def on_disk(shape: Sequence[int], dtype: torch.dtype, folder: Path | str) -> torch.Tensor:
    """[*shape] empty, in a nameless file of ``folder``; what is put into it leaves memory when that is needed."""
    size = math.prod(shape)
    with tempfile.TemporaryFile(dir=folder) as file:
        try:  # taken now: a mapped page for which the disk has no room would kill the process
            os.posix_fallocate(file.fileno(), 0, max(1, size * dtype.itemsize))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(folder)) from None
        return torch.from_file(f"/dev/fd/{file.fileno()}", shared=True, size=size, dtype=dtype).view(*shape)


def collect(
    model: Model,
    tokens: torch.Tensor,
    groups: torch.Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    lengths: torch.Tensor | None = None,
    folder: Path | str | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run the model on tokens [N, S] in batches, keeping only the hooks that ablation needs.

    Returns (activations, means), on the CPU: ``z`` [L, N, S, H, d_head] and ``mlp_out`` [L, N, S, D] in
    ``dtype``, and their means over the prompts of each group, per position, float32, with axis R in place of N.
    ``groups``: [N] integers 0..R-1, by default one group. ``lengths`` [N]: tokens of each row before its padding on the
    right, which enters no mean: a mean runs over the rows that have its position, and is 0 where none has. ``folder``:
    where to keep activations that may be larger than memory. Sums run in float64 over the model's own values (not the
    stored ``dtype``), so that batch sizes and row order do not change the means.
    """
    n, s = tokens.shape
    groups = torch.zeros(n, dtype=torch.long) if groups is None else groups
    real = torch.ones(n, s, dtype=torch.bool) if lengths is None else torch.arange(s) < lengths[:, None]
    sizes = torch.zeros(int(groups.max()) + 1, s, dtype=torch.long).index_add_(0, groups, real.long())
    shapes = {"z": (s, model.n_heads, model.d_head), "mlp_out": (s, model.d_model)}

    def empty(shape: Sequence[int]) -> torch.Tensor:
        return on_disk(shape, dtype, folder) if folder else torch.empty(shape, dtype=dtype)

    kept = {name: empty((model.n_layers, n, *shape)) for name, shape in shapes.items()}
    sums = {
        name: torch.zeros(model.n_layers, len(sizes), *shape, dtype=torch.float64) for name, shape in shapes.items()
    }

    def saver(name: str, layer: int, batch: slice) -> Callable[..., torch.Tensor]:
        def hook(x: torch.Tensor, hook: object) -> torch.Tensor:
            values = x.detach().cpu()  # once, as it is: from a GPU that is most of the time
            kept[name][layer, batch] = values.to(dtype)
            values = values.to(torch.float64)
            if lengths is not None:
                values = values.where(real[batch].view(*x.shape[:2], *[1] * (x.dim() - 2)), 0)
            sums[name][layer].index_add_(0, groups[batch], values)
            return x

        return hook

    hook_names = {"z": z_hook, "mlp_out": mlp_hook}
    for batch in progress(model.batches(n), "activations"):
        savers = [
            (hook_names[name](layer), saver(name, layer, batch)) for layer in range(model.n_layers) for name in shapes
        ]
        model.run(tokens[batch], savers)
    sizes = sizes.clamp(min=1)
    return kept, {name: (x / sizes.view(*sizes.shape, *[1] * (x.dim() - 3))).float() for name, x in sums.items()}


def last_logits(model: Model, tokens: torch.Tensor, position: torch.Tensor | None = None) -> torch.Tensor:
    """Logits at the last position [N, d_vocab], or [N, K, d_vocab] at ``position`` [N, K], float32, on the CPU."""
    return torch.cat(
        [
            model.run(tokens[batch], position=None if position is None else position[batch]).cpu()
            for batch in model.batches(len(tokens))
        ]
    )


def rows_of(prompt_ids: Iterable[int], wanted: Sequence[int]) -> torch.Tensor | None:
    """[wanted] rows of a cache that hold the wanted prompts, or None if one is missing."""
    row = {int(p): i for i, p in enumerate(prompt_ids)}
    if any(p not in row for p in wanted):
        return None
    return torch.tensor([row[p] for p in wanted])
