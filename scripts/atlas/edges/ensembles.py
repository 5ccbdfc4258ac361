"""Orders of edges made from several orders, or from scores on many prompts (methods: edges).

Arrays stand for edges in one fixed order, E of them. A score is M(without the edge) - M(full) or an estimate of it, so
negative where the edge helps. An *importance* is a number for each edge, higher first; equal ones are equal. Nothing
here depends on the order in which edges are given, but for `mixed`, where equal scores keep it. No model is run.
"""

from collections.abc import Iterable

import numpy as np

from atlas.core.accuracy import ranks
from atlas.core.statistics import Bootstrap

NUMBERS = 2**22  # resampled scores that are held at a time
KEPT = 0.95  # share of resamples in which a consistent edge keeps its sign and place


def importance(scores: np.ndarray, ranking: str) -> np.ndarray:
    """[E] of mean scores [E]: minus the score (`signed`) or its size (`absolute`); KeyError on any other ranking."""
    found: np.ndarray = {"signed": np.negative, "absolute": np.abs}[ranking](np.asarray(scores, dtype=float))
    return found


def mean_of_ranks(importances: Iterable[np.ndarray]) -> np.ndarray:
    """[E] mean over several importances [E] of an edge's rank in each, the least having rank 0 and equal ones sharing
    the mean of theirs."""
    found: np.ndarray = ranks(np.stack(list(importances))).mean(0)
    return found


def best(importances: np.ndarray, count: int) -> np.ndarray:
    """[..., E] boolean: which are the best ``count`` along the last axis; fewer where those at the end of them are
    equal to the first beyond, which are all left out.

    Raises ValueError on a ``count`` below 1.
    """
    if count < 1:
        raise ValueError(f"count is {count}; give at least 1")
    given = np.asarray(importances, dtype=float)
    size = given.shape[-1]
    if count >= size:
        return np.ones(given.shape, dtype=bool)
    beyond = np.partition(given, size - count - 1, axis=-1)[..., size - count - 1]  # the largest but ``count``
    found: np.ndarray = given > beyond[..., None]
    return found


def sequential(proposes: np.ndarray, refines: np.ndarray, count: int) -> np.ndarray:
    """[E] importance: the `best` ``count`` by the importance ``proposes`` first, in the order of ``refines`` and where
    that has equal ones in their own; then the rest in their own order."""
    proposed = best(proposes, count)
    return _by(proposed, np.where(proposed, refines, 0), proposes)


def consistent(scores: np.ndarray, count: int, bootstrap: Bootstrap, kept: float = KEPT) -> np.ndarray:
    """[E] boolean: edges that in at least a share ``kept`` of the resamples of the prompts both have the sign of their
    mean score and are among the `best` ``count`` by the size of theirs.

    ``scores`` [N, E]: per prompt. An edge whose mean score is 0 has no sign, and is none of them.
    """
    given = np.asarray(scores, dtype=float)
    sign, weights = np.sign(given.mean(0)), bootstrap.weights(len(given))
    at_once, times = max(1, NUMBERS // given.shape[1]), np.zeros(given.shape[1])
    for start in range(0, len(weights), at_once):
        means = weights[start : start + at_once] @ given
        times += ((np.sign(means) == sign) & best(np.abs(means), count)).sum(0)
    found: np.ndarray = (times >= kept * len(weights)) & (sign != 0)
    return found


def consistent_first(scores: np.ndarray, count: int, bootstrap: Bootstrap, kept: float = KEPT) -> np.ndarray:
    """[E] importance: the `consistent` edges by the size of their mean score, then all others by that of theirs."""
    return _by(consistent(scores, count, bootstrap, kept), np.abs(np.asarray(scores, dtype=float).mean(0)))


def mixed(scores: np.ndarray, helping: float) -> np.ndarray:
    """[E] importance by which a share ``helping`` of the first n edges help, that is, n x helping of them, rounded half
    up, for every n while edges of both signs last.

    ``scores`` [E]: means. Of each sign the largest scores come first, equal ones as they are given; where one sign is
    used up the other follows, and edges that score 0 come last, all equal. Raises ValueError on a share outside 0 to 1.
    """
    if not 0 <= helping <= 1:
        raise ValueError(f"helping is {helping}; give a share from 0 to 1")
    given = np.asarray(scores, dtype=float)
    order = np.argsort(-np.abs(given), kind="stable")
    helps, harms = ([i for i in order if sign * given[i] > 0] for sign in (-1, 1))
    found, taken = np.zeros(len(given)), [0, 0]
    for n in range(1, len(helps) + len(harms) + 1):
        wanted = taken[0] < np.floor(n * helping + 0.5)
        first = taken[0] < len(helps) and (wanted or taken[1] == len(harms))
        found[helps[taken[0]] if first else harms[taken[1]]] = len(given) + 1 - n
        taken[not first] += 1
    return found


def _by(*keys: np.ndarray) -> np.ndarray:
    """[E] importance: by the first key [E], equal ones by the next, and so on; 0 for the least."""
    given = np.stack([np.asarray(key, dtype=float) for key in reversed(keys)])
    order = np.lexsort(given)
    differs = (np.diff(given[:, order], axis=1) != 0).any(0)
    found = np.empty(given.shape[1])
    found[order] = np.concatenate([[0], np.cumsum(differs)])
    return found
