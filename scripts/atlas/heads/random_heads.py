"""Random heads: what a head of the model would do if what it reads and writes were turned at random.

A random head is a head of the model whose weights keep their sizes and lose their directions: what its W_Q, W_K and W_V
read is turned by a rotation of the residual stream each, what its W_O writes by another, all four uniform over
orientations (Haar). It sees the same prompts in the same places, through its layer's own norm. Nothing else differs, so
a score that random heads reach too says nothing about what a head was trained for.

A rotation serves all heads of a layer, and another is drawn for each of ``draws``: a draw is as many random heads as
the model has. Where a model's weights are random and have no direction of their own, its heads and those of every draw
are alike, so the chance that some head exceeds all random ones in a score is 1 / (draws + 1); Holm's correction over
the heads of the model keeps below 0.05 just those that do, or nearly so (`p_values`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from atlas.model.models import Model


@dataclass(frozen=True)
class Turn:
    """Rotations of the residual stream [D, D], of what queries, keys and values read and of what heads write."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    o: torch.Tensor


def turns(width: int, draws: int, seed: int, device: torch.device | str = "cpu") -> Iterator[Turn]:
    """``draws`` random rotations of ``width`` dimensions, the same ones for the same ``seed`` on every device."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(draws):
        yield Turn(*(rotation(width, generator).to(device) for _ in range(4)))


def rotation(width: int, generator: torch.Generator) -> torch.Tensor:
    """[width, width] orthonormal, uniform over orientations (reflections among them); float32."""
    q, r = torch.linalg.qr(torch.randn(width, width, generator=generator))
    found: torch.Tensor = q * r.diagonal().sign()
    return found


def turned(x: torch.Tensor, turn: Turn | None, part: str) -> torch.Tensor:
    """x [..., D] as ``part`` (`q`, `k` or `v`) of random heads reads it; as it is without a ``turn``. Halves are turned
    in float32 and rounded once."""
    if turn is None:
        return x
    rotation: torch.Tensor = getattr(turn, part)
    wide = torch.promote_types(x.dtype, rotation.dtype)
    return (x.to(wide) @ rotation.to(wide)).to(x.dtype)


# ---- what they see --------------------------------------------------------------------------------------------
def residuals(model: Model, tokens: torch.Tensor) -> list[torch.Tensor]:
    """[L + 1] the residual [N, S, D] that enters each layer, and that after the last."""
    found: list[torch.Tensor] = []

    def keep(x: torch.Tensor, hook: object) -> None:
        found.append(x)

    names = [f"blocks.{layer}.hook_resid_pre" for layer in range(model.n_layers)]
    model.run(tokens, [(name, keep) for name in [*names, f"blocks.{model.n_layers - 1}.hook_resid_post"]])
    return found


# ---- against random heads ------------------------------------------------------------------------------------
def p_values(values: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """[L, H] share of random heads whose score is at least a head's, that head counted in: (1 + those) / (1 + all).

    ``values`` [L, H] of the model's heads, ``drawn`` [draws, L, H] of random ones, all layers together; nan where a
    head has no score. The smallest is 1 / (1 + draws L H), which Holm's correction over L H heads leaves below
    1 / draws.
    """
    pool = np.sort(drawn[~np.isnan(drawn)])
    above = len(pool) - np.searchsorted(pool, values, side="left")
    return np.where(np.isnan(values), np.nan, (1 + above) / (1 + len(pool)))


def standardised(values: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same scores in units of what a head's own random versions spread, so that heads of all sizes compare.

    Of ``values`` [L, H] and ``drawn`` [draws, L, H]: each less the mean of all draws + 1 of its head, over their
    standard deviation, the head itself among them, so that none is treated apart; 0 where nothing varies.
    """
    together = np.concatenate([values[None], drawn])
    spread = together.std(0)
    found = np.divide(together - together.mean(0), spread, out=np.zeros_like(together), where=spread > 0)
    return found[0], found[1:]
