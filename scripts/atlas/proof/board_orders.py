"""Orders of edges beside those of single methods on the leaderboard: choices from one method's scores, and ensembles.

They are made from scores that methods of the board gave, and ask for no further run of the model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from atlas.core.graph import Edge, Graph
from atlas.core.statistics import Bootstrap
from atlas.edges import ensembles
from atlas.edges.methods import BY_SCORE
from atlas.edges.rankings import greedy
from atlas.proof import board_metrics

CHOSEN_FROM = "eap_ig"  # the method from whose scores `consistent` and `helping_75` choose
BEST = 0.1  # share of all edges: what the first method of `sequential` proposes, where `consistent` edges must stay
HELPING = 0.75  # share of edges that help, of `helping_75`
# Ensembles: the methods whose scores they are made of; the first of `sequential` proposes, the second refines
MEMBERS = {"mean_of_ranks": ("eap", "eap_ig", "relp"), "sequential": ("eap_ig", "path_patching")}
BOOTSTRAP = Bootstrap()

Importances = dict[str, list[dict[Any, float]]]  # ranking -> importance of every edge, in a list of one
Scores = Mapping[str, Mapping[Edge, np.ndarray]]  # method -> edge -> score per prompt [N], 0 where it is rounding


def possible(ran: Collection[str]) -> list[str]:
    """The ensembles all of whose members are among these methods."""
    return [name for name, members in MEMBERS.items() if set(members) <= set(ran)]


def of_method(method: str, scores: Mapping[Edge, np.ndarray], graph: Graph) -> Importances:
    """Beside `signed` and `absolute`, from a method's scores per prompt [N]: `greedy`; of CHOSEN_FROM also `consistent`
    (`ensembles.consistent_first`, of the best BEST of all edges) and `helping_75` (`ensembles.mixed`)."""
    means = {edge: float(values.mean()) for edge, values in scores.items()}
    found: Importances = {"greedy": [board_metrics.importance_of_order(greedy(means, graph), means)]}
    if method == CHOSEN_FROM:
        per_prompt = np.stack(list(scores.values()), axis=1)
        kept = ensembles.consistent_first(per_prompt, _best(len(scores)), BOOTSTRAP)
        found["consistent"] = [_named(scores, kept)]
        found["helping_75"] = [_named(scores, ensembles.mixed(np.array(list(means.values())), HELPING))]
    return found


def of_ensemble(name: str, scores: Scores) -> Importances:
    """`signed` and `absolute` of an ensemble, from the scores of its members, which all have the same edges."""
    first, *_ = members = [scores[member] for member in MEMBERS[name]]
    means = [np.array([values[edge].mean() for edge in first]) for values in members]
    found: Importances = {}
    for ranking in BY_SCORE:
        given = [ensembles.importance(values, ranking) for values in means]
        of_all = ensembles.mean_of_ranks if name == "mean_of_ranks" else _sequential
        found[ranking] = [_named(first, of_all(given))]
    return found


def _sequential(given: list[np.ndarray]) -> np.ndarray:
    proposes, refines = given
    return ensembles.sequential(proposes, refines, _best(len(proposes)))


def _best(edges: int) -> int:
    return max(1, round(BEST * edges))


def _named(edges: Collection[Edge], importance: np.ndarray) -> dict[Any, float]:
    return dict(zip(edges, importance.tolist(), strict=True))
