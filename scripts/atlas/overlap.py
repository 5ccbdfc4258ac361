"""How much circuits share, and how much they would share by chance (methods: comparison)."""

from itertools import combinations
from math import comb

import numpy as np

from atlas.components import Circuit, heads, mlps, profile

COLUMNS = (
    "circuit_a",
    "circuit_b",
    "level",
    "size_a",
    "size_b",
    "shared",
    "jaccard",
    "overlap_coefficient",
    "expected",
    "p_hypergeometric",
    "p_layer_matched",
)


def jaccard(a: Circuit, b: Circuit) -> float:
    """|A and B| / |A or B|; two empty sets are equal, so 1."""
    return len(a & b) / len(a | b) if a | b else 1.0


def overlap_coefficient(a: Circuit, b: Circuit) -> float:
    """|A and B| / min(|A|, |B|); 1 if either is empty, since it lies within the other."""
    return len(a & b) / min(len(a), len(b)) if a and b else 1.0


def hypergeometric(population: int, a: int, b: int) -> np.ndarray:
    """P(k shared), k = 0..min(a, b), when a of ``population`` are fixed and b are drawn without replacement."""
    top = min(a, b)
    return np.array([comb(a, k) * comb(population - a, b - k) for k in range(top + 1)], dtype=float) / comb(
        population, b
    )


def layer_matched(n_heads: int, profile_a: list[int], profile_b: list[int]) -> np.ndarray:
    """P(k shared) when each circuit's number of heads per layer is held fixed: the convolution over layers."""
    out = np.ones(1)
    for a, b in zip(profile_a, profile_b, strict=True):
        out = np.convolve(out, hypergeometric(n_heads, a, b))
    return out


def tail(distribution: np.ndarray, shared: int) -> float:
    """P(at least ``shared``)."""
    return float(min(1.0, distribution[shared:].sum()))


def compare(circuits: dict[str, Circuit], n_layers: int, n_heads: int) -> list[dict]:
    """One row per pair of circuits and level (heads, mlps, components); see docs/artifacts.md for the columns.

    ``expected`` and both p-values hold for heads: shared heads expected for random circuits with the same numbers of
    heads per layer, and the chance of at least as many shared, ignoring layers and with layers held fixed.
    """
    rows = []
    for (name_a, a), (name_b, b) in combinations(circuits.items(), 2):
        for level, pick in (("heads", heads), ("mlps", mlps), ("components", sorted)):
            one, two = frozenset(pick(a)), frozenset(pick(b))
            row = {
                "circuit_a": name_a,
                "circuit_b": name_b,
                "level": level,
                "size_a": len(one),
                "size_b": len(two),
                "shared": len(one & two),
                "jaccard": jaccard(one, two),
                "overlap_coefficient": overlap_coefficient(one, two),
                "expected": np.nan,
                "p_hypergeometric": np.nan,
                "p_layer_matched": np.nan,
            }
            if level == "heads":
                matched = layer_matched(n_heads, profile(one, n_layers), profile(two, n_layers))
                row["expected"] = float(matched @ np.arange(len(matched)))
                row["p_hypergeometric"] = tail(hypergeometric(n_layers * n_heads, len(one), len(two)), row["shared"])
                row["p_layer_matched"] = tail(matched, row["shared"])
            rows.append(row)
    return rows
