"""Find edge circuits (methods: edges): by removing edges one after another, or by taking the highest-scored ones.

Everything here sees scores only, and asks for them through `percents` (percent of full of edge circuits).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from atlas.circuit.search import CLOSE, Order, Percents, Rule, Step, node_search
from atlas.core.graph import Edge, EdgeCircuit, Graph
from atlas.edges.methods import CHANGES

if TYPE_CHECKING:
    from atlas.edges.engine import EdgeAblator

GRID = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # shares of all edges


def percents(ablator: EdgeAblator, drop_without_path: bool) -> Percents:
    """Percent of full of edge circuits; with ``drop_without_path`` of what is left of them without edges that lie on no
    path from the embeddings to the logits."""
    if not drop_without_path:
        return ablator.percents_of_full
    return lambda circuits: ablator.percents_of_full([ablator.graph.on_paths(circuit) for circuit in circuits])


def by_receivers(graph: Graph) -> Order:
    """Backward sweeps go from the last receiver to the first, and from the last sender to the first; forward ones the
    other way round."""
    place = {edge: i for i, edge in enumerate(graph.edges)}

    def order(sweep: int, direction: str, kept: EdgeCircuit) -> list[Edge]:
        return sorted(kept, key=place.__getitem__, reverse=direction == "backward")

    return order


def iterative(graph: Graph, start: EdgeCircuit, threshold: float, percents: Percents) -> Iterator[Step]:
    """Cumulative removal under the floor of the node search: an edge goes if the rest stays strictly above 100 - T
    percent of the full model; sweeps alternate until one changes nothing. The last step's ``left`` is the circuit."""
    return node_search(start, Rule(threshold=threshold), by_receivers(graph), percents)


def acdc(graph: Graph, start: EdgeCircuit, tau: float, percents: Percents, change: str = "signed") -> Iterator[Step]:
    """One sweep, receivers last to first: an edge goes if that costs less than ``tau`` percentage points of full.

    The cost is counted from the circuit before this removal, so that small costs may add up (Conmy et al. 2023). With
    ``change`` `signed` a removal that raises the score is always taken, with `absolute` a rise counts like a fall.
    """
    if change not in CHANGES:
        raise ValueError(f"unknown change {change!r}; one of {', '.join(CHANGES)}")
    kept, (before,) = start, percents([start])
    for edge in by_receivers(graph)(1, "backward", start):
        (percent,) = percents([kept - {edge}])
        cost = before - percent if change == "signed" else abs(before - percent)
        removed, close = cost < tau, abs(cost - tau) <= CLOSE
        if removed:
            kept, before = kept - {edge}, percent
        yield Step(1, "backward", (edge,), percent, removed, kept, close)


def path_patching(ablator: EdgeAblator, edges: Iterable[Edge]) -> Iterator[tuple[Edge, np.ndarray]]:
    """(edge, effect per prompt [N]) with that edge alone ablated in the whole model: M(without the edge) - M(full) of
    the logit difference, so that the effect of an edge that helps is negative."""
    full = ablator.logit_diff(ablator.everything)
    for edge, scores in ablator.without_each(edges):
        yield edge, scores["logit_diff"] - full


def top(ranking: list[Edge], count: int) -> frozenset[Edge]:
    """The first ``count`` edges of a ranking; all where it has fewer."""
    return frozenset(ranking[:count])


def grid_sizes(total: int, grid: Sequence[float] = GRID) -> list[int]:
    """Numbers of edges at shares of all of them, at least one each."""
    return [max(1, round(share * total)) for share in grid]


def area(shares: Sequence[float], values: np.ndarray) -> np.ndarray:
    """Area under ``values`` [sizes, ...] over ``shares`` of the edges, linear x, trapezoid."""
    found: np.ndarray = np.trapezoid(values, np.asarray(shares, dtype=float), axis=0)
    return found


def cpr(shares: Sequence[float], faithfulness: np.ndarray) -> np.ndarray:
    """Area under the faithfulness curve [sizes, ...] over ``shares`` (Mueller et al. 2025); higher is better."""
    return area(shares, np.asarray(faithfulness))


def cmd(shares: Sequence[float], faithfulness: np.ndarray) -> np.ndarray:
    """Area between the faithfulness curve [sizes, ...] and 1 (Mueller et al. 2025); 0 is best."""
    return area(shares, np.abs(1 - np.asarray(faithfulness)))


def auroc(scores: Any, truth: Any) -> float:
    """Chance that a true edge has a higher score than a false one; equal scores count half.

    ``scores``, ``truth`` [edges], truth boolean with both values present.
    """
    scores, truth = np.asarray(scores, dtype=float), np.asarray(truth, dtype=bool)
    true, false = scores[truth], np.sort(scores[~truth])
    if not len(true) or not len(false):
        raise ValueError("AUROC needs both true and false edges")
    below, not_above = (np.searchsorted(false, true, side=side) for side in ("left", "right"))
    return float((below + not_above).mean() / (2 * len(false)))
