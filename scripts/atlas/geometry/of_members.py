"""What directions of a head read of members and of other tokens, and whether they write the next member.

What is read of a token is its effective embedding: the embedding with what MLP 0 makes of it alone (arXiv 2312.09230),
or of a head of layer 0 the embedding; through the linear part of the head's own norm, with the scale that the norm has
there. Positions, attention of layer 0 and biases are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from atlas.geometry import readings
from atlas.model.models import slices

if TYPE_CHECKING:
    from atlas.geometry.classes import Members
    from atlas.geometry.svd import Directions
    from atlas.heads.attribution import Readout
    from atlas.model.block import Weights

SAMPLE = 8192  # tokens that readings are compared over, at most
AT_ONCE = 4096  # tokens that pass through MLP 0 together


def embedded(weights: Weights, tokens: np.ndarray, layer: int) -> torch.Tensor:
    """[n, D] effective embeddings of token ids [n] as a head of ``layer`` reads them; float64 on the CPU. Normed, but
    for the norm's weight, so that u_j of `svd` reads them by an inner product."""
    block, first, found = weights.blocks[layer], weights.blocks[0], []
    with torch.no_grad():
        for part in slices(len(tokens), AT_ONCE):
            ids = torch.as_tensor(tokens[part], device=weights.w_e.device)
            x = weights.embed_tokens(ids[:, None])
            x = x if layer == 0 else first.after_mlp(x, x)
            found.append((x * block.norm1.scale(x))[:, 0].double().cpu())
    return torch.cat(found)


def sampled(size: int, always: np.ndarray, seed: int) -> np.ndarray:
    """Token ids, rising: all ``size`` where they are no more than `SAMPLE`; else ``always`` and others drawn evenly."""
    if size <= SAMPLE:
        return np.arange(size)
    others = np.setdiff1d(np.arange(size), always)
    drawn = np.random.default_rng(seed).choice(others, max(0, SAMPLE - len(always)), replace=False)
    return np.sort(np.concatenate([always, drawn]))


def top_read(x: torch.Tensor, tokens: np.ndarray, directions: torch.Tensor, k: int) -> np.ndarray:
    """[n, k] ids of the tokens, of those [T] whose embeddings are x [T, D], along which directions [D, n] read most."""
    found: np.ndarray = tokens[(x @ directions).topk(min(k, len(tokens)), dim=0).indices.T.numpy()]
    return found


# ---- next -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Next:
    """What directions add to the next member's logit over the mean of the other members', in the mean over the members
    that have a next one; in logits, but for the scale of the final norm. ``values`` [r]; their sum is that of the
    head's OV. ``drawn`` [n, r] the same of other members in place of the next."""

    values: np.ndarray
    drawn: np.ndarray
    members: int

    def p(self, direction: int | None = None) -> float:
        """Of one direction, against the largest of all directions for each draw; None: of their sum."""
        drawn = self.drawn.sum(1) if direction is None else self.drawn.max(1)
        value = self.values.sum() if direction is None else self.values[direction]
        return float((1 + (drawn >= value - 1e-12 * abs(value)).sum()) / (1 + len(drawn)))


def next_of(
    directions: Directions, x: torch.Tensor, members: Members, readout: Readout, draws: int, seed: int
) -> Next | None:
    """Of the members of a class whose `embedded` are x [P, D]; None where none has a next one.

    In a draw members are permuted at random, and what follows a member is the image of its next one.
    """
    pairs = members.steps()
    if not pairs:
        return None
    reads = (x @ directions.read * directions.values).numpy()  # [P, r]
    to_logits = readings.passed(readout, directions.write.to(readout.w_u)).double().cpu()
    of_members = readout.w_u[:, list(members.ids)].double().cpu()
    logits = (to_logits @ of_members).numpy()  # [r, P]
    above = (logits - logits.mean(1, keepdims=True)) * len(members) / (len(members) - 1)  # over the mean of the others
    read, following = reads[list(pairs)], np.array(list(pairs.values()))
    rng = np.random.default_rng(seed)
    drawn = np.empty((draws, len(directions)))
    for i in range(draws):
        drawn[i] = (read * above[:, rng.permutation(len(members))[following]].T).mean(0)
    return Next((read * above[:, following].T).mean(0), drawn, len(pairs))
