"""How much two sets share, and how much they would share by chance (methods: comparison)."""

import functools
from collections.abc import Iterable, Sequence, Set
from typing import Any

import numpy as np


def jaccard(a: Set[Any], b: Set[Any]) -> float:
    """|A and B| / |A or B|; two empty sets are equal, so 1."""
    return len(a & b) / len(a | b) if a | b else 1.0


def overlap_coefficient(a: Set[Any], b: Set[Any]) -> float:
    """|A and B| / min(|A|, |B|); 1 if either is empty, since it lies within the other."""
    return len(a & b) / min(len(a), len(b)) if a and b else 1.0


# ---- chance --------------------------------------------------------------------------------------------------
def hypergeometric(population: int, a: int, b: int) -> np.ndarray:
    """[min(a, b) + 1] P(k shared), k from 0, when a of ``population`` are fixed and b are drawn without replacement.

    Made of the ratios of neighbours, outward from the mode: binomial coefficients of thousands of edges overflow.
    """
    low, top = max(0, a + b - population), min(a, b)
    k = np.arange(low, top, dtype=float)
    ratios = np.log((a - k) * (b - k)) - np.log((k + 1) * (population - a - b + k + 1))  # log P(k + 1) / P(k)
    mode = int((ratios > 0).sum())  # ratios fall with k
    logs = np.concatenate([-np.cumsum(ratios[:mode][::-1])[::-1], [0.0], np.cumsum(ratios[mode:])])
    weights = np.exp(logs)
    return np.concatenate([np.zeros(low), weights / weights.sum()])


block_chance = functools.cache(hypergeometric)  # blocks are small, and recur from pair to pair


def blockwise(blocks: Iterable[tuple[int, int, int]]) -> np.ndarray:
    """[largest k + 1] P(k shared) in all of (population, a, b) together, each drawn on its own: their convolution."""
    out = np.ones(1)
    for population, a, b in blocks:
        out = np.convolve(out, block_chance(population, a, b))
    return out


def layer_matched(n_heads: int, profile_a: list[int], profile_b: list[int]) -> np.ndarray:
    """[largest k + 1] P(k shared) when each circuit's number of heads per layer, its profile [L], is held fixed."""
    return blockwise((n_heads, a, b) for a, b in zip(profile_a, profile_b, strict=True))


def shared_by_all(population: int, sizes: Sequence[int]) -> np.ndarray:
    """[min(sizes) + 1] P(k in all of them), k from 0, of independent random sets of these sizes.

    What the first sets share is a random set of its size, which the next one meets as `hypergeometric` says.
    """
    out = np.zeros(sizes[0] + 1)
    out[-1] = 1.0
    for size in sizes[1:]:
        after = np.zeros(min(len(out) - 1, size) + 1)
        for shared, probability in enumerate(out):
            if probability:
                meets = block_chance(population, shared, size)
                after[: len(meets)] += probability * meets
        out = after
    return out


def shared_by_all_layers(n_heads: int, profiles: Sequence[Sequence[int]]) -> np.ndarray:
    """[largest k + 1] P(k heads in all circuits) with each one's number of heads per layer, its profile [L], fixed."""
    out = np.ones(1)
    for sizes in zip(*profiles, strict=True):
        out = np.convolve(out, shared_by_all(n_heads, sizes))
    return out


def tail(distribution: np.ndarray, shared: int) -> float:
    """P(at least ``shared``) of a ``distribution`` [k]."""
    return float(min(1.0, distribution[shared:].sum()))
