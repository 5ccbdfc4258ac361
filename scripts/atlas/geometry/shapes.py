"""Shapes of classes: are members laid out in their order, on a line, around a circle, on a helix, at each point?

Every statistic is of members that its fit has not seen, in contexts that it has not seen, and stands beside the same
statistic under random orders of the members (p: how many orders reach it, itself among them). In D dimensions, D >> P,
a plane can be fitted through any order of P members, so nothing less would tell an order from none.

- *line*, *circle*: a ridge regression reads each member's index, or cosine and sine of its angle 2 pi i / n, off the
  residual, from the other members' in the contexts to fit (penalty: `RIDGE` of their mean variance); the member itself
  is then read in the held-out contexts. line: Spearman's rank correlation of what is read with the index; circle: mean
  cosine of the angle's error, 1 for none and near 0 by chance. n: the class's size; of a class that is not cyclic, a
  control, as many as its members span.
- *closed*: Spearman's correlation of members' distances with the steps between them around the circle, less that with
  the steps along the line. Members on an arc too are read well as a circle, but for them this is negative.
- *helix* (arXiv 2502.00873): [a, cos and sin of 2 pi a / T, T = 2, 5, 10, 100] of the number a that a member stands for
  predict its residual, by a regression on the other members (penalty `PENALTY`); the value is the share of variance
  explained. Against random orders, and against random periods (four, uniform in their logarithm between 2 and 100, with
  as many columns); beside it, as ``bound``, what as many principal components explain. From `HELIX_FROM` members on.

Circles of days and months: arXiv 2405.14860. Frequencies of tokens alone make peaks of spectra (arXiv 2604.20817), so
no spectrum is shown here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from atlas.core.multiple import holm
from atlas.geometry.classes import Members
from atlas.geometry.residuals import Residuals

LINE, CIRCLE, CLOSED, HELIX = "line", "circle", "closed", "helix"
ORDERS, OF_PERIODS = "random orders", "random periods"
RIDGE, PENALTY = 0.1, 0.01
PERIODS, HELIX_FROM = (2.0, 5.0, 10.0, 100.0), 20
PCS = 3
OF = ["class", "at", "task", "point"]
PCA_COLUMNS = [*OF, "place", "word", *(f"pc{i + 1}" for i in range(PCS)), *(f"share{i + 1}" for i in range(PCS))]
COLUMNS = [*OF, "shape", "null", "control", "members", "value", "value_fit", "null_mean", "null_low", "null_high"]
COLUMNS += ["bound", "p", "tests", "p_holm"]


# ---- what a member stands for --------------------------------------------------------------------------------
def numbers(members: Members) -> np.ndarray:
    """[P] the number that each member stands for: a numeral its own, any other its place in the class, from 1."""
    if all(word.removeprefix("-").isdigit() for word in members.words):
        return np.array([int(word) for word in members.words], dtype=float)
    return np.array(members.places, dtype=float) + 1


def around(members: Members) -> int:
    """Steps around the circle: the size of a cyclic class; else as many as the members span."""
    return members.size if members.cyclic else members.places[-1] - members.places[0] + 1


def angles(members: Members) -> np.ndarray:
    """[P] of the members on their circle."""
    found: np.ndarray = 2 * np.pi * np.array(members.places, dtype=float) / around(members)
    return found


def helix(a: np.ndarray, periods: tuple[float, ...] = PERIODS) -> np.ndarray:
    """[P, K] a and, of each period, its cosine and sine; of the first period, 2, whose sine is 0, the cosine alone."""
    turns = 2 * np.pi * a[:, None] / np.array(periods)
    return np.column_stack([a, np.cos(turns), np.sin(turns[:, 1:])])


def basis(shape: str, members: Members) -> np.ndarray:
    """[P, K] what a shape says of each member: its index, its point on the circle, or on the helix."""
    if shape == LINE:
        return np.array(members.places, dtype=float)[:, None]
    if shape == CIRCLE:
        return np.column_stack([np.cos(angles(members)), np.sin(angles(members))])
    return helix(numbers(members))


# ---- reading members that a fit has not seen -----------------------------------------------------------------
def readers(fit: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """[P, P] M: M @ y is what ridge regressions of y on the residuals ``fit`` [P, D] of all other members say of each
    member's ``held_out`` [P, D]. The halves are centred by the other members' means, each by its own."""
    n = len(fit) - 1
    found = np.zeros((n + 1, n + 1))
    for member in range(n + 1):
        others = np.delete(np.arange(n + 1), member)
        z = fit[others] - fit[others].mean(0)
        gram = z @ z.T
        scale = np.trace(gram) / n
        if scale == 0:  # no member differs from another: each is read as the mean
            found[member, others] = 1 / n
            continue
        own = held_out[member] - held_out[others].mean(0)
        weights = np.linalg.solve(gram + RIDGE * scale * np.eye(n), z @ own)
        found[member, others] = 1 / n + weights - weights.mean()
    return found


def ranks(x: np.ndarray) -> np.ndarray:
    """[P, n] rank of each value in its column, equal values sharing the mean of theirs."""
    found = np.empty(x.shape)
    for column in range(x.shape[1]):
        _, inverse, counts = np.unique(x[:, column], return_inverse=True, return_counts=True)
        found[:, column] = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return found


def correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[n] Pearson's correlation of the columns of a and b [P, n]; 0 where one does not vary."""
    a, b = a - a.mean(0), b - b.mean(0)
    norm = np.sqrt((a * a).sum(0) * (b * b).sum(0))
    found: np.ndarray = np.divide((a * b).sum(0), norm, out=np.zeros_like(norm), where=norm > 1e-300)
    return found


def line(reader: np.ndarray, members: Members, orders: np.ndarray) -> np.ndarray:
    """[n] of each order [n, P] of the members: rank correlation of what is read with the index."""
    y = np.array(members.places, dtype=float)[orders].T
    return correlations(ranks(reader @ y), ranks(y))


def circle(reader: np.ndarray, members: Members, orders: np.ndarray) -> np.ndarray:
    """[n] of each order [n, P]: mean cosine of the angle between what is read and what is right."""
    turn = angles(members)[orders].T
    x, y = reader @ np.cos(turn), reader @ np.sin(turn)
    length = np.hypot(x, y)
    right = x * np.cos(turn) + y * np.sin(turn)
    found: np.ndarray = np.divide(right, length, out=np.zeros_like(length), where=length > 1e-300).mean(0)
    return found


def closed(fit: np.ndarray, held_out: np.ndarray, members: Members, orders: np.ndarray) -> np.ndarray:
    """[n] of each order [n, P]: rank correlation of distances with steps around, less that with steps along.

    Distances are between a member in the contexts to fit and another in the held-out ones, so that what contexts add
    to all members alike, or to one by chance, does not count.
    """
    a, b = fit - fit.mean(0), held_out - held_out.mean(0)
    square = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T
    first, second = np.triu_indices(len(a), 1)
    places = np.array(members.places)
    along = np.abs(places[first] - places[second])
    steps = np.column_stack([np.minimum(along, around(members) - along), along]).astype(float)
    steps = ranks(steps) - ranks(steps).mean(0)
    steps /= np.maximum(np.sqrt((steps * steps).sum(0)), 1e-300)
    lifted = np.zeros((len(a), len(a)))
    of_pairs = ranks(np.maximum(square + square.T, 0)[first, second][:, None])[:, 0]
    lifted[first, second] = lifted[second, first] = of_pairs - of_pairs.mean()
    norm = max(np.linalg.norm(of_pairs - of_pairs.mean()), 1e-300)
    return np.array([lifted[order[first], order[second]] @ (steps[:, 0] - steps[:, 1]) / norm for order in orders])


# ---- helix ---------------------------------------------------------------------------------------------------
def predictor(columns: np.ndarray) -> np.ndarray:
    """[P, P] A: A @ x is what regressions of x on ``columns`` [P, K] of all other members say of each member.

    With an intercept; columns are standardised, and their coefficients penalised by `PENALTY` times P.
    """
    z = columns - columns.mean(0)
    deviation = z.std(0)
    z = np.column_stack([np.ones(len(z)), z / np.where(deviation > 0, deviation, 1)])
    penalty = PENALTY * len(z) * np.eye(z.shape[1])
    penalty[0, 0] = 0
    hat = z @ np.linalg.solve(z.T @ z + penalty, z.T)
    own = np.diag(hat)
    found: np.ndarray = (hat - np.diag(own)) / (1 - own)[:, None]
    return found


@dataclass(frozen=True)
class Explained:
    """Share of variance that predictors explain; of ``fit`` and ``held_out`` [P, D]."""

    fit: np.ndarray
    held_out: np.ndarray

    def __call__(self, predict: np.ndarray, orders: np.ndarray) -> np.ndarray:
        """[n] 1 - sum |x - predicted|^2 / sum |x - mean of the others|^2, of each order [n, P] of the members.

        A member's prediction is from the others' ``fit``, moved by as much as their means of both halves differ.
        """
        n = len(self.fit)
        a, b = self.fit - self.fit.mean(0), (self.held_out - self.held_out.mean(0)) * n / (n - 1)
        predict = predict + np.eye(n) / (n - 1)
        inner, cross, total = a @ a.T, a @ b.T, (b * b).sum()
        both = predict.T @ predict
        error = [
            total - 2 * (predict.T * cross[np.ix_(o, o)]).sum() + (both * inner[np.ix_(o, o)]).sum() for o in orders
        ]
        found: np.ndarray = 1 - np.array(error) / max(total, 1e-300)
        return found

    def components(self, k: int) -> float:
        """What k principal components of ``fit`` explain of ``held_out``."""
        a, b = self.fit - self.fit.mean(0), self.held_out - self.held_out.mean(0)
        axes = np.linalg.svd(a, full_matrices=False)[2][:k]
        return float(((b @ axes.T) ** 2).sum() / max((b * b).sum(), 1e-300))


# ---- tables --------------------------------------------------------------------------------------------------
def p_value(value: float, null: np.ndarray) -> float:
    """(k + 1) / (n + 1) of k of n values that reach ``value``, to rounding."""
    return float((1 + (null >= value - 1e-12).sum()) / (1 + len(null)))


def orders_of(members: Members, permutations: int, seed: int) -> np.ndarray:
    """[1 + permutations, P] the order itself, and random ones."""
    rng, n = np.random.default_rng([seed, len(members)]), len(members)
    return np.stack([np.arange(n), *(rng.permutation(n) for _ in range(permutations))])


def table(of: Residuals, permutations: int, seed: int, task: str = "") -> pd.DataFrame:
    """Rows of `COLUMNS`, of a class: each shape at each point. ``p_holm``: over the points of one class and shape."""
    orders = orders_of(of.members, permutations, seed)
    rows = []
    for place, point in enumerate(of.points):
        fit, held_out = of.fit[place], of.held_out[place]
        for shape, null, found, value_fit, bound in at_point(of.members, fit, held_out, orders, seed):
            row = {"class": of.members.name, "at": of.at, "task": task, "point": point, "shape": shape, "null": null}
            row |= {"control": shape in (CIRCLE, CLOSED) and not of.members.cyclic, "members": len(of.members)}
            row |= {"value": found[0], "value_fit": value_fit, "null_mean": found[1:].mean(), "bound": bound}
            row |= dict(zip(("null_low", "null_high"), np.percentile(found[1:], [2.5, 97.5]), strict=True))
            rows.append(row | {"p": p_value(found[0], found[1:])})
    found = pd.DataFrame(rows)
    family = found.groupby(["shape", "null"])["p"]
    return found.assign(tests=family.transform("count"), p_holm=family.transform(holm))[COLUMNS]


def at_point(
    members: Members, fit: np.ndarray, held_out: np.ndarray, orders: np.ndarray, seed: int
) -> list[tuple[str, str, np.ndarray, float, float]]:
    """(shape, null, values [1 + n] of the order itself and of the null, value in the contexts to fit, bound)."""
    reader, own = readers(fit, held_out), readers(fit, fit)
    statistics: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
        LINE: lambda m, o: line(m, members, o),
        CIRCLE: lambda m, o: circle(m, members, o),
    }
    found = [
        (name, ORDERS, of(reader, orders), float(of(own, orders[:1])[0]), np.nan) for name, of in statistics.items()
    ]
    both = closed(fit, held_out, members, orders), float(closed(fit, fit, members, orders[:1])[0])
    found.append((CLOSED, ORDERS, *both, np.nan))
    if len(members) >= HELIX_FROM:
        columns, explained, itself = helix(numbers(members)), Explained(fit, held_out), orders[:1]
        predict, bound = predictor(columns), explained.components(columns.shape[1])
        in_fit = float(Explained(fit, fit)(predict, itself)[0])
        found.append((HELIX, ORDERS, explained(predict, orders), in_fit, bound))
        drawn = of_random_periods(tuple(numbers(members).tolist()), len(orders) - 1, seed)
        others = np.concatenate([explained(p, itself) for p in [predict, *drawn]])
        found.append((HELIX, OF_PERIODS, others, in_fit, bound))
    return found


@lru_cache(maxsize=2)  # the same at every point
def of_random_periods(of: tuple[float, ...], draws: int, seed: int) -> tuple[np.ndarray, ...]:
    """`predictor` of the helices of random periods of the numbers ``of``."""
    return tuple(predictor(helix(np.array(of), periods)) for periods in random_periods(draws, seed))


def random_periods(draws: int, seed: int) -> list[tuple[float, ...]]:
    """Four periods a draw, as many as `PERIODS`, uniform in their logarithm over the same range."""
    drawn = np.random.default_rng([seed, 1]).uniform(np.log(PERIODS[0]), np.log(PERIODS[-1]), (draws, len(PERIODS)))
    return [tuple(row) for row in np.exp(drawn).tolist()]


def pca(of: Residuals, task: str = "") -> pd.DataFrame:
    """Rows of `PCA_COLUMNS`: coordinates of members on the first components of their mean residuals, by point.

    Components are those of the members of one class, centred; each points where later members are. ``share1`` and so
    on: of the variance.
    """
    rows: list[dict[str, Any]] = []
    places = np.array(of.members.places, dtype=float)
    for place, point in enumerate(of.points):
        x = of.mean[place] - of.mean[place].mean(0)
        u, s, _ = np.linalg.svd(x, full_matrices=False)
        k = min(PCS, len(s))
        at = u[:, :k] * s[:k]
        at *= np.where((places - places.mean()) @ at < 0, -1, 1)
        shares = np.pad(s[:k] ** 2 / max((s**2).sum(), 1e-300), (0, PCS - k))
        at = np.pad(at, ((0, 0), (0, PCS - k)))
        same = {"class": of.members.name, "at": of.at, "task": task, "point": point}
        same |= {f"share{i + 1}": share for i, share in enumerate(shares)}
        for word, own, line_of in zip(of.members.words, of.members.places, at, strict=True):
            rows.append(same | {"place": own, "word": word} | {f"pc{i + 1}": x for i, x in enumerate(line_of)})
    return pd.DataFrame(rows)[PCA_COLUMNS]
