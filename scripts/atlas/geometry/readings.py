"""What directions of the residual stream write, read through the end of the model.

A direction goes through the linear part of the final norm (centred where the norm centres, times its weight) and the
unembedding. The scale of the norm, which depends on all that is written beside, is left out, and so are the norm's bias
and b_U, which no direction writes: what is left is in no unit but orders tokens, and is linear in the direction.
"""

from __future__ import annotations

import numpy as np
import torch

from atlas.heads.attribution import Readout

AT_ONCE = 2**24  # logits that are held at a time: 64 MB


def written(readout: Readout, x: torch.Tensor) -> torch.Tensor:
    """[n, V] of directions x [n, D], in the readout's dtype."""
    return passed(readout, x) @ readout.w_u


def passed(readout: Readout, x: torch.Tensor) -> torch.Tensor:
    """[n, D] directions x [n, D] behind the linear part of the final norm."""
    found: torch.Tensor = readout.centre(x.to(readout.w_u)) * readout.weight
    return found


def top_tokens(readout: Readout, x: torch.Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(ids, values) [n, k] of the tokens that directions x [n, D] raise most; of -x, those that they lower most.

    Never more than `AT_ONCE` logits at a time. Of equal values lower ids come first.
    """
    size, k = max(1, AT_ONCE // readout.w_u.shape[1]), min(k, readout.w_u.shape[1])
    ids, values = [], []
    for part in x.split(size):
        logits = written(readout, part).cpu()
        chosen = logits.topk(k, dim=-1).indices.sort(-1).values
        held = logits.gather(-1, chosen)
        place = held.sort(dim=-1, descending=True, stable=True).indices
        ids.append(chosen.gather(-1, place))
        values.append(held.gather(-1, place))
    return torch.cat(ids).numpy(), torch.cat(values).double().numpy()


def random_directions(width: int, n: int, seed: int) -> torch.Tensor:
    """[n, width] unit vectors, uniform over directions; float32, the same for the same ``seed``."""
    x = torch.randn(n, width, generator=torch.Generator().manual_seed(seed))
    found: torch.Tensor = x / x.norm(dim=-1, keepdim=True)
    return found


def random_lists(readout: Readout, n: int, k: int, seed: int) -> np.ndarray:
    """[n, k] top tokens of random directions of the residual stream: the null of `labels.label`."""
    x = random_directions(readout.w_u.shape[0], n, seed).to(readout.w_u)
    return top_tokens(readout, x, k)[0]
