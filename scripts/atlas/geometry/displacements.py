"""Displacements: is the way from `3` to `4` that from `three` to `four`, and does it lead there?

A displacement is the difference of two members' mean residuals, of a member and of the next. Members of two classes
are matched by the number they stand for (`shapes.numbers`: `three`, `third`, March and C by 3).

- ``cosine``: mean cosine of the displacements of matched steps. Beside it ``unmatched``, of all other pairs of steps of
  the two classes: as large where one direction is *next* for all members, near 0 where each step has its own. Within a
  class: of steps that share no member (those of neighbours do, which by itself gives -1/2), one in each half of the
  contexts.
- ``transfer``: share of the receiving class's members that, moved by the giving class's displacement, have the next
  member as their nearest, themselves left out; within a class they are moved by the mean displacement of the steps that
  share no member with their own. ``unmoved``: the same without a displacement, since the nearest is often the next.

Null: the giving class's members (within a class: its members) in random orders; of transfer, with displacements as
long as the true ones, as a short one alone would leave the nearest members as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from atlas.core.multiple import holm
from atlas.geometry.residuals import Residuals
from atlas.geometry.shapes import numbers, orders_of, p_value

COSINE, TRANSFER = "cosine", "transfer"
LEAST = 3  # steps that two classes must share
COLUMNS = ["class", "other", "point", "measure", "steps", "value", "unmatched", "unmoved"]
COLUMNS += ["null_mean", "null_low", "null_high", "p", "tests", "p_holm"]


@dataclass(frozen=True)
class Steps:
    """Steps of a class (``first``, ``then``) and the matched ones of another: each [K], numbers of members."""

    first: np.ndarray
    then: np.ndarray
    other_first: np.ndarray
    other_then: np.ndarray

    def __len__(self) -> int:
        return len(self.first)

    @classmethod
    def between(cls, of: Residuals, other: Residuals) -> Steps:
        """A cyclic class's step around its end is matched with none, but within the class itself."""
        here, there = ({float(n): i for i, n in enumerate(numbers(r.members))} for r in (of, other))
        if of.members.name == other.members.name:
            pairs = np.array(sorted(of.members.steps().items()))
            return cls(*pairs.T, *pairs.T)
        shared = [n for n in here if n in there and n + 1 in here and n + 1 in there]
        found = np.array([(here[n], here[n + 1], there[n], there[n + 1]) for n in shared]).reshape(-1, 4)
        return cls(*found.T)


@dataclass(frozen=True)
class Moves:
    """Inner products of displacements, of many orders of members at once: all that cosines and arrivals need.

    ``gram`` [P, Q] of the residuals of a class that gives and one that receives; ``own`` [P, P], ``others`` [Q, Q]
    within each; ``orders`` [n, P] of the giving class's members.
    """

    gram: np.ndarray
    own: np.ndarray
    others: np.ndarray
    steps: Steps
    orders: np.ndarray

    @classmethod
    def of(cls, a: np.ndarray, b: np.ndarray, steps: Steps, orders: np.ndarray) -> Moves:
        """Of residuals a [P, D], b [Q, D]."""
        return cls(a @ b.T, a @ a.T, b @ b.T, steps, orders)

    @property
    def with_members(self) -> np.ndarray:
        """[n, K, Q] of each displacement of the giving class with each member of the other."""
        found: np.ndarray = self.gram[self.orders[:, self.steps.then]] - self.gram[self.orders[:, self.steps.first]]
        return found

    @property
    def lengths(self) -> np.ndarray:
        """[n, K] of the giving class's displacements."""
        first, then, diagonal = self.orders[:, self.steps.first], self.orders[:, self.steps.then], np.diag(self.own)
        return _root(diagonal[first] + diagonal[then] - 2 * self.own[first, then])

    @property
    def other_lengths(self) -> np.ndarray:
        """[K] of the receiving class's."""
        a, b, diagonal = self.steps.other_first, self.steps.other_then, np.diag(self.others)
        return _root(diagonal[a] + diagonal[b] - 2 * self.others[a, b])

    @property
    def cosines(self) -> np.ndarray:
        """[n, K, K] of each displacement of the one class with each of the other."""
        with_members = self.with_members
        inner = with_members[..., self.steps.other_then] - with_members[..., self.steps.other_first]
        norm = self.lengths[..., None] * self.other_lengths
        found: np.ndarray = np.divide(inner, norm, out=np.zeros_like(inner), where=norm > 1e-12)
        return found


def _root(square: np.ndarray) -> np.ndarray:
    """Lengths from their squares, which rounding may leave below 0."""
    found: np.ndarray = np.sqrt(np.maximum(square, 0))
    return found


def apart(steps: Steps) -> np.ndarray:
    """[K, K] pairs of a class's steps that share no member."""
    a, b = steps.first, steps.then
    shared = (a[:, None] == a) | (b[:, None] == b) | (a[:, None] == b) | (b[:, None] == a)
    found: np.ndarray = ~shared
    return found


def within(fit: np.ndarray, held_out: np.ndarray, steps: Steps, orders: np.ndarray) -> np.ndarray:
    """[n] of each order of the members of a class, ``fit``, ``held_out`` [P, D]: mean cosine of the steps that share no
    member, one in each half of the contexts."""
    pairs, found = apart(steps), []
    a, b = fit - fit.mean(0), held_out - held_out.mean(0)
    for order in orders:  # both halves in the same order, so one at a time
        inner = Moves.of(a[order], b[order], steps, np.arange(len(order))[None]).cosines[0]
        found.append(inner[pairs].mean())
    return np.array(found)


def between(moves: Moves) -> tuple[np.ndarray, float]:
    """[n] of each order: mean cosine of matched steps; and of the first order that of all others."""
    every, same = moves.cosines, np.eye(len(moves.steps), dtype=bool)
    return every[:, same].mean(1), float(every[0][~same].mean())


def transfer(moves: Moves, inside: bool) -> np.ndarray:
    """[1 + n] share of members that arrive: unmoved, then moved by the displacements of each order.

    A member arrives whose nearest of the receiving class's members, itself left out, is the next one; where another is
    as near, it does not. All moves are as long as those of the first order. ``inside``: within one class, where the
    mean of the steps that share no member moves.
    """
    steps, rows = moves.steps, np.arange(len(moves.steps))
    start, then = steps.other_first, steps.other_then
    move, length = moves.with_members, moves.lengths
    if inside:
        weights = apart(steps) / np.maximum(apart(steps).sum(1, keepdims=True), 1)
        move = np.einsum("jk,nkq->njq", weights, move)
        length = np.stack([_mean_lengths(moves.own, steps, order, weights) for order in moves.orders])
    scale = np.divide(length[:1], length, out=np.zeros_like(length), where=length > 1e-12)
    near = np.diag(moves.others) - 2 * moves.others[start]  # squared distances, less what is the same for all members
    near = np.concatenate([near[None], near - 2 * scale[..., None] * move])
    right = near[:, rows, then].copy()
    near[:, rows, start] = near[:, rows, then] = np.inf
    arrived: np.ndarray = (right < near.min(2) - 1e-9 * np.diag(moves.others).max()).mean(1)
    return arrived


def _mean_lengths(own: np.ndarray, steps: Steps, order: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[K] of the weighted means [K, K] of a class's displacements, from its inner products [P, P]."""
    a, b = order[steps.first], order[steps.then]
    inner = own[np.ix_(b, b)] - own[np.ix_(b, a)] - own[np.ix_(a, b)] + own[np.ix_(a, a)]
    return _root(((weights @ inner) * weights).sum(1))


def table(found: list[Residuals], permutations: int, seed: int) -> pd.DataFrame:
    """Rows of `COLUMNS`: ``class`` gives, ``other`` receives; of the cosine each pair once.

    Classes that share a member, or fewer than `LEAST` steps, are not compared. ``p_holm``: over the points of a pair.
    """
    rows: list[dict[str, Any]] = []
    for i, of in enumerate(found):
        orders = orders_of(of.members, permutations, seed)
        for j, other in enumerate(found):
            steps, inside = Steps.between(of, other), i == j
            if len(steps) < LEAST or (not inside and set(of.members.ids) & set(other.members.ids)):
                continue
            if inside and not apart(steps).any(1).all():
                continue
            for place, point in enumerate(of.points):
                a, b = (r.mean[place] - r.mean[place].mean(0) for r in (of, other))
                moves = Moves.of(a, b, steps, orders)
                same = {"class": of.members.name, "other": other.members.name, "point": point, "steps": len(steps)}
                if inside:
                    rows.append(row_of(same, COSINE, within(of.fit[place], of.held_out[place], steps, orders)))
                elif i < j:
                    values, unmatched = between(moves)
                    rows.append(row_of(same, COSINE, values) | {"unmatched": unmatched})
                shares = transfer(moves, inside)
                rows.append(row_of(same, TRANSFER, shares[1:]) | {"unmoved": shares[0]})
    if not rows:
        return pd.DataFrame(columns=COLUMNS)
    made = pd.DataFrame(rows)
    family = made.groupby(["class", "other", "measure"])["p"]
    return made.assign(tests=family.transform("count"), p_holm=family.transform(holm))[COLUMNS]


def row_of(same: dict[str, Any], measure: str, values: np.ndarray) -> dict[str, Any]:
    """A row of ``values`` [1 + n], the first that of the order itself, the others of random orders."""
    low, high = np.percentile(values[1:], [2.5, 97.5])
    row = same | {"measure": measure, "value": values[0], "unmatched": np.nan, "unmoved": np.nan}
    row |= {"null_mean": values[1:].mean(), "null_low": low, "null_high": high}
    return row | {"p": p_value(float(values[0]), values[1:])}
