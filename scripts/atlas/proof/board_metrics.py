"""How well a ranking of components or edges finds a known circuit, and how much of the model its top keeps.

A *ranking* gives every element an importance, higher first; equal ones keep the order of the elements. Two conventions
stand beside this project's own, so that a row can be compared with a published one (docs/leaderboard.md says what each
gets wrong): that of MIB (Mueller et al. 2025) and that of EAP-IG (Hanna et al. 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from atlas.circuit.search import Step
from atlas.core.components import AnyCircuit
from atlas.edges.searches import GRID, cmd, cpr, grid_sizes

Element = TypeVar("Element", bound=Hashable)
FIFTH = 0.2  # of all elements: where faithfulness is read if no truth says how many there are


def importance_of_scores(scores: Mapping[Element, float], ranking: str) -> dict[Element, float]:
    """Importance from scores M(without) - M(full): by minus the score (`signed`), or by its size (`absolute`)."""
    return {element: abs(score) if ranking == "absolute" else -score for element, score in scores.items()}


def importance_of_search(elements: Iterable[Element], steps: Iterable[Step]) -> dict[Element, float]:
    """Importance from the steps of a search that starts from all elements.

    What the search ends with stands above all else, by what its last test alone would have cost, in percentage points
    (0 where it rose or was not tested alone). What was removed stands below 0, in the order of removal, the last
    removed first; what went together is equal.
    """
    elements = list(elements)
    gone: dict[Any, int] = {}
    cost, before, number = dict.fromkeys(elements, 0.0), 100.0, 0
    kept: Any = frozenset(elements)
    for number, step in enumerate(steps, start=1):
        kept = step.left
        if step.removed:
            before = step.percent
            gone |= dict.fromkeys(step.components, number)
        elif len(step.components) == 1:
            cost[step.components[0]] = max(0.0, before - step.percent)
    return {e: cost[e] if e in kept else float(gone.get(e, 0) - number - 1) for e in elements}


def importance_of_order(order: Iterable[Element], scores: Mapping[Element, float]) -> dict[Element, float]:
    """Importance from an order, most important first; neighbours in it whose scores are of one size are equal."""
    found: dict[Element, float] = {}
    number, before = 0, float("nan")
    for element in order:
        number -= abs(scores[element]) != before
        before = abs(scores[element])
        found[element] = float(number)
    return found


def ordered(importance: Mapping[Element, float]) -> list[Element]:
    """Elements, most important first; equal ones in the order of the mapping."""
    return sorted(importance, key=lambda element: -importance[element])


def precision_at(importance: Mapping[Element, float], truth: Iterable[Element]) -> float:
    """Share of true elements among as many of the top as there are true ones.

    The mean over all orders of equal elements: of a tie that the size cuts, the share that is true counts.
    """
    truth = frozenset(truth)
    if not truth:
        raise ValueError("precision at the true size needs true elements")
    cut = sorted(importance.values(), reverse=True)[len(truth) - 1]
    above = [element for element, value in importance.items() if value > cut]
    tied = [element for element, value in importance.items() if value == cut]
    share = sum(element in truth for element in tied) / len(tied)
    return (sum(element in truth for element in above) + share * (len(truth) - len(above))) / len(truth)


def areas(
    importance: Mapping[Element, float],
    mean_of: Callable[[AnyCircuit], float],
    on_paths: Callable[[AnyCircuit], AnyCircuit] | None,
    size: int,
    corrupted: float,
) -> dict[str, Any]:
    """CPR, CMD and the faithfulness of the top ``size`` elements, in this project's convention and in published ones.

    mean_of: mean logit difference of a circuit. on_paths: what is left of edges without those on no path from the
    embeddings to the logits; None for components. corrupted: mean logit difference of the corrupted prompts.

    `cpr`, `cmd`, `faithfulness`: of (M(C) - M(empty)) / (M(full) - M(empty)), at shares GRID of all elements, rounded,
    one at least. `mib_cpr`, `mib_cmd`: the same with sizes rounded down, to none where there are few, and edges
    without a path dropped first. `eap_ig_faithfulness`: of what such dropping leaves at ``size``, with M(corrupted
    prompts) in place of M(empty). The published ones are nan for components.
    """
    order, known = ordered(importance), dict[int, float]()
    full, empty = mean_of(frozenset(order)), mean_of(frozenset())

    def kept(count: int) -> AnyCircuit:
        return frozenset(order[:count])

    def faithfulness(value: float, base: float = empty) -> float:
        return (value - base) / (full - base)

    def at(count: int) -> float:
        if count not in known:
            known[count] = faithfulness(mean_of(kept(count)))
        return known[count]

    own = np.array([at(count) for count in grid_sizes(len(order))])
    found = {"size": size, "cpr": float(cpr(GRID, own)), "cmd": float(cmd(GRID, own)), "faithfulness": at(size)}
    names = ("mib_cpr", "mib_cmd", "eap_ig_faithfulness")
    if on_paths is None:
        return found | dict.fromkeys(names, float("nan"))
    pruned = on_paths
    theirs = np.array([faithfulness(mean_of(pruned(kept(int(share * len(order)))))) for share in GRID])
    there = faithfulness(mean_of(pruned(kept(size))), corrupted)
    return found | dict(zip(names, (float(cpr(GRID, theirs)), float(cmd(GRID, theirs)), there), strict=True))


def ranks(values: Sequence[float], higher_is_better: bool) -> np.ndarray:
    """[n] ranks from 1, the best; equal values share the mean of their ranks; nan stays nan and has no rank."""
    given = np.asarray(values, dtype=float) * (1 if higher_is_better else -1)
    known = given[~np.isnan(given)]
    better = (known[None, :] > given[:, None]).sum(1)
    same = (known[None, :] == given[:, None]).sum(1)
    found: np.ndarray = np.where(np.isnan(given), np.nan, better + (same + 1) / 2)
    return found
