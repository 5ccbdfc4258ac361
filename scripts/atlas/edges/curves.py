"""Faithfulness of edge circuits of every size, and the areas that sum it up (methods: metrics)."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from atlas.core.graph import Edge, EdgeCircuit, parse
from atlas.core.statistics import Bootstrap, interval_columns
from atlas.edges.chosen import reported_entry
from atlas.edges.engine import EdgeAblator
from atlas.edges.methods import CHOSEN, RANDOM
from atlas.edges.rankings import ranked
from atlas.edges.searches import cmd, cpr, grid_sizes, top
from atlas.store.job import progress


def rankings(scores: pd.DataFrame, ablator: EdgeAblator, names: Sequence[str]) -> dict[tuple[str, str], list[Edge]]:
    """(method, ranking) -> all edges, most important first, for every method that scored all of them.

    ``scores``: columns method, sender, receiver, value (M without the edge - M full).
    """
    place = {edge: i for i, edge in enumerate(ablator.graph.edges)}
    found: dict[tuple[str, str], list[Edge]] = {}
    for method, rows in scores.groupby("method", sort=False):
        values = {Edge(*pair): v for *pair, v in zip(rows.sender, rows.receiver, rows.value, strict=True)}
        if len(values) == len(place):
            values = {edge: values[edge] for edge in sorted(values, key=place.__getitem__)}
            found |= {(method, ranking): ranked(values, ranking, ablator.graph) for ranking in names}
    return found


def random_rankings(ablator: EdgeAblator, draws: int, seed: int) -> list[list[Edge]]:
    """``draws`` orders of all edges, the same for the same ``seed``; fewer draws are the first of more."""
    edges = ablator.graph.edges
    return [[edges[i] for i in np.random.default_rng([seed, d]).permutation(len(edges))] for d in range(draws)]


class Curves:
    """Collects rows of `edge_curves` and `edge_areas` for one task."""

    def __init__(
        self, ablator: EdgeAblator, bootstrap: Bootstrap, identity: dict[str, Any], shares: Iterable[float]
    ) -> None:
        self.ablator, self.bootstrap, self.identity, self.shares = ablator, bootstrap, identity, list(shares)
        self.full, self.empty = ablator.logit_diff(ablator.everything), ablator.logit_diff(frozenset())
        self.points: list[dict[str, Any]] = []
        self.areas: list[dict[str, Any]] = []

    def circuit(self, method: str, ranking: str, setting: float, edges: EdgeCircuit) -> np.ndarray:
        """Add one circuit; returns its logit differences [N]."""
        found, total = self.ablator.logit_diff(edges), len(self.ablator.everything)
        row = self.identity | {"method": method, "ranking": ranking, "setting": float(setting)}
        row |= {"edges": len(edges), "share": len(edges) / total, "nodes": len(self.ablator.graph.nodes(edges))}
        for metric, estimate in (
            ("faithfulness", self.bootstrap.faithfulness(found, self.full, self.empty)),
            ("percent_of_full", self.bootstrap.percent(found, self.full)),
        ):
            self.points.append(row | {"metric": metric} | interval_columns(estimate))
        return found

    def ranked(self, method: str, ranking: str, orders: list[list[Edge]]) -> None:
        """Add circuits of every size from one ranking, or from several random ones, and their areas."""
        sizes, found = grid_sizes(len(self.ablator.everything), self.shares), []
        for draw, order in enumerate(orders):
            settings = [draw] * len(sizes) if method == RANDOM else sizes
            for size, setting in zip(sizes, settings, strict=True):
                found.append(self.circuit(method, ranking, setting, top(order, size)))
        for metric, area in (("cpr", cpr), ("cmd", cmd)):

            def of_means(
                full: np.ndarray, empty: np.ndarray, *means: np.ndarray, area: Callable[..., np.ndarray] = area
            ) -> np.ndarray:
                f = (np.stack(means) - empty) / (full - empty)
                draws = f.reshape(len(orders), len(sizes), *f.shape[1:])
                mean: np.ndarray = np.mean([area(self.shares, draw) for draw in draws], axis=0)
                return mean

            estimate = self.bootstrap.statistic(of_means, self.full, self.empty, *found)
            row = self.identity | {"method": method, "ranking": ranking, "metric": metric}
            self.areas.append(row | interval_columns(estimate))


def searched(content: dict[str, Any]) -> list[tuple[str, str, float, EdgeCircuit]]:
    """(method, ranking, setting, edges) of the circuits in `edge_circuits.json` that no ranking gave; the reported one
    is the last."""
    entries = [c for c in content["circuits"] if not c["ranking"]] + [reported_entry(content) | {"method": CHOSEN}]
    return [(c["method"], c["ranking"], c["setting"], parse(c["edges"])) for c in entries]


def draw(
    ablator: EdgeAblator,
    content: dict[str, Any],
    scores: pd.DataFrame,
    names: Sequence[str],
    random: tuple[int, int],
    bootstrap: Bootstrap,
    identity: dict[str, Any],
    shares: Iterable[float],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`edge_curves` and `edge_areas` of a task: of what searches found, of every ranking, and of random ones.

    content, scores: `edge_circuits.json` and `edge_scores`. names: of rankings. random: how many random rankings, and
    their seed. shares: sizes of circuits, as shares of all edges.
    """
    drawn = Curves(ablator, bootstrap, identity, shares)
    for method, ranking, setting, edges in searched(content):
        drawn.circuit(method, ranking, setting, edges)
    orders = {key: [order] for key, order in rankings(scores, ablator, names).items()}
    orders[RANDOM, ""] = random_rankings(ablator, *random)
    for (method, ranking), found in progress(orders.items(), "curves"):
        drawn.ranked(method, ranking, found)
    return pd.DataFrame(drawn.points), pd.DataFrame(drawn.areas)
