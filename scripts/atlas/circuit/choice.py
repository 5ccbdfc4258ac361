"""Which circuit of a task is reported, of those that the orders of its search end in (methods: the reported circuit).

Searched circuits hold members that the floor alone kept: without one of them the score would fall just below it, by no
more than chance between prompts. They are dropped first, on the prompts searched on. Of what was found and what is left
of it, the smallest circuit that passes the floor on held-out prompts is reported, and its selection by these named.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from atlas.circuit.ablation import Ablator
from atlas.circuit.node_circuits import kept
from atlas.circuit.search import CLOSE, Rule, SearchSettings
from atlas.core.components import EMPTY, AnyCircuit, Circuit, from_json, to_json
from atlas.core.statistics import Bootstrap

log = logging.getLogger("atlas")

COLUMNS: tuple[str, ...] = (
    "order",
    "threshold",
    "searched",
    "candidate",
    "dropped",
    "passes",
    "reported",
    "split",
    "metric",
)
COLUMNS += ("value", "ci_low", "ci_high", "heads", "mlps", "optimism", "chosen_again")
FOUND, LEFT = "found", "left"  # a circuit as its search found it, and what is left of it without its droppable members


# ---- what costs nothing --------------------------------------------------------------------------------------
def droppable(ablator: Ablator, circuit: Circuit, rule: Rule, bootstrap: Bootstrap) -> Circuit:
    """Members of a circuit that can all go at no sure cost, on the prompts of ``ablator``.

    The cost of a removal is in percentage points of full, its interval that of the paired difference over prompts; it
    is sure where the interval lies above 0 by more than rounding (CLOSE). Members without a sure cost of their own are
    tried in order of it, the least first, and go where (1) all that went until then, with them, costs nothing sure; (2)
    the floor of ``rule`` is not surely missed, its interval reaching above it; (3) `Rule.relative_tolerance` allows
    their own cost. What `Rule.tests` spares stays.

    (2) cannot ask for a score above the floor: a search ends where no member can go without falling to it.
    """
    full, own = ablator.logit_diff(ablator.everything), ablator.logit_diff(circuit)

    def cost(left: Circuit, before: np.ndarray = own) -> tuple[float, float, float]:
        return bootstrap.statistic(lambda b, m, f: 100 * (b - m) / f, before, ablator.logit_diff(left), full)

    alone = {c: cost(circuit - {c}) for c in sorted(circuit) if rule.tests(c)}
    free = sorted((c for c, (_, low, _) in alone.items() if low <= CLOSE), key=lambda c: (alone[c][0], c))
    left = circuit
    for member in free:
        without = left - {member}
        holds = bootstrap.percent(ablator.logit_diff(without), full)[2] > 100 - rule.threshold
        step = cost(without, ablator.logit_diff(left))[0]
        tolerated = rule.relative_tolerance is None or step <= rule.relative_tolerance
        if holds and tolerated and cost(without)[1] <= CLOSE:
            left = without
    return circuit - left


# ---- the choice ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Candidate:
    """A circuit that could be reported. ``order``, ``searched``: order and threshold of the search that found it;
    ``dropped``: found members that it lacks."""

    order: str
    searched: float
    circuit: Circuit
    dropped: Circuit = EMPTY

    @property
    def kind(self) -> str:
        return LEFT if self.dropped else FOUND


def passing(percent: float, threshold: float) -> bool:
    """Whether a percent of full lies strictly above the floor, as a search asks (`Rule.allows`)."""
    return bool(100 - percent < threshold)


def best(
    sizes: Sequence[int], percents: Sequence[float] | np.ndarray, threshold: float, margins: np.ndarray | None = None
) -> int:
    """The number of the candidate that is reported: the smallest of those that pass the floor; if none passes, the
    smallest of those that cannot be told from the one with the highest percent. Of equal sizes the highest percent, and
    of percents that rounding alone tells apart (CLOSE) the first.

    sizes, percents [n]: components and percent of full of each; one that is not a number is below all others.
    margins [n, n]: by how many points i must be above j to be told from it (`margins_of`); none: 0.
    """
    known = [percent if percent == percent else -np.inf for percent in percents]
    pool = [i for i, percent in enumerate(known) if passing(percent, threshold)]
    if not pool:
        top = int(np.argmax(known))
        margin = np.zeros(len(known)) if margins is None else margins[top]
        pool = [i for i, percent in enumerate(known) if percent >= known[top] - margin[i] - CLOSE]
    smallest = [i for i in pool if sizes[i] == min(sizes[j] for j in pool)]
    highest = max(known[i] for i in smallest)
    return next(i for i in smallest if known[i] >= highest - CLOSE)


def margins_of(percents: np.ndarray, resampled: np.ndarray) -> np.ndarray:
    """[n, n]: how far candidate i is above j (``percents`` [n]) less the lower end of the interval of that difference,
    paired over prompts (``resampled`` [B, n]): i is surely above j where it is so by more than this."""
    difference = percents[:, None] - percents[None, :]
    return np.asarray(difference - np.percentile(resampled[:, :, None] - resampled[:, None, :], 2.5, axis=0))


def selected(
    circuits: Sequence[AnyCircuit], values: np.ndarray, full: np.ndarray, threshold: float, bootstrap: Bootstrap
) -> tuple[int, float, float]:
    """(number of the reported one, optimism, share of resamples that choose alike), by `best`.

    The choice is made again on every resample of the prompts it is made on. Optimism, in percentage points of full: by
    how much the score of what a resample chooses is higher on it than on all prompts, in the mean (Efron 1983).
    values [n, N]: logit differences of each circuit; full [N]: those of the full model.
    """
    sizes, weights = list(map(len, circuits)), bootstrap.weights(len(full))
    whole = 100 * values.mean(1) / full.mean()
    resampled = 100 * (weights @ values.T) / (weights @ full)[:, None]
    margins = margins_of(whole, resampled)
    number = best(sizes, whole, threshold, margins)
    picks = np.array([best(sizes, row, threshold, margins) for row in resampled])
    optimism = (resampled[np.arange(len(picks)), picks] - whole[picks]).mean()
    return number, float(optimism), float(np.mean([circuits[pick] == circuits[number] for pick in picks]))


def candidates(found: Iterable[Candidate], ablator: Ablator, rule: Rule, bootstrap: Bootstrap) -> list[Candidate]:
    """Each found circuit, and what is left of it where members can be dropped; from the lowest floor, then by name."""
    out = []
    for one in sorted(found, key=lambda one: (-one.searched, one.order)):
        out.append(one)
        dropped = droppable(ablator, one.circuit, rule, bootstrap)
        if dropped:
            out.append(Candidate(one.order, one.searched, one.circuit - dropped, dropped))
    return out


def choose(
    task: str,
    ablators: Mapping[str, Ablator],
    found: Sequence[dict[str, Any]],
    settings: SearchSettings,
    fixed_order: str | None,
    bootstrap: Bootstrap,
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Rows of `choice`, and the entries of `chosen.json`, one a threshold, without ``model`` and ``task``.

    ablators: split -> ablator; the last split is the one that is reported on and chosen by. found: the entries of
    `circuits.json`. fixed_order: the circuit of this order is reported as it was found; None: by the rule.
    """
    rows: list[dict[str, Any]] = []
    entries: list[dict[str, Any]] = []
    every = [Candidate(entry["order"], entry["threshold"], from_json(entry)) for entry in found]
    for threshold in dict.fromkeys(one.searched for one in every):
        if fixed_order is None:
            here = [one for one in every if one.searched <= threshold]
            tried = candidates(here, ablators["search"], settings.rule(threshold), bootstrap)
        else:
            tried = [one for one in every if (one.order, one.searched) == (fixed_order, threshold)]
        more, entry = chosen_at(threshold, tried, ablators, bootstrap)
        rows, entries = rows + more, [*entries, entry]
        sizes = f"{len(entry['heads'])} heads, {len(entry['mlps'])} MLPs"
        said = "%s, T = %s: %s reported, found by %s at T = %s (dropped: %s); %d candidates"
        by = entry["order"], entry["searched"], " ".join(entry["dropped"]) or "none"
        log.info(said, task, threshold, sizes, *by, len(tried))
        if not entry["passes"]:
            log.warning("%s, T = %s: no candidate passes the floor on %s prompts", task, threshold, entry["split"])
        if entry["close"]:
            log.warning("%s, T = %s: a candidate is so close to the floor that rounding decides", task, threshold)
    return pd.DataFrame(rows, columns=list(COLUMNS)), entries


def chosen_at(
    threshold: float, tried: Sequence[Candidate], ablators: Mapping[str, Ablator], bootstrap: Bootstrap
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of `choice`, and the entry of `chosen.json`, of the candidates at a threshold (as `choose`)."""
    split, ablator = list(ablators.items())[-1]
    full, circuits = ablator.logit_diff(ablator.everything), [candidate.circuit for candidate in tried]
    values = np.stack([ablator.logit_diff(circuit) for circuit in circuits]).astype(float)
    percents = 100 * values.mean(1) / full.astype(float).mean()
    number, optimism, again = selected(circuits, values, full.astype(float), threshold, bootstrap)
    rows = []
    for i, candidate in enumerate(tried):
        row = {"order": candidate.order, "threshold": threshold, "searched": candidate.searched}
        row |= {"candidate": candidate.kind}
        row |= {"dropped": " ".join(map(str, sorted(candidate.dropped)))}
        row |= {"passes": passing(percents[i], threshold), "reported": i == number}
        for name, by in ablators.items():
            rows += [row | {"split": name} | values for values in kept(by, candidate.circuit, bootstrap)]
    if len(tried) > 1:
        rows = [row | ({"optimism": optimism, "chosen_again": again} if row["reported"] else {}) for row in rows]
    reported = tried[number]
    entry: dict[str, Any] = {"order": reported.order, "threshold": threshold, "searched": reported.searched}
    entry |= to_json(reported.circuit)
    entry |= {"dropped": [str(c) for c in sorted(reported.dropped)], "candidates": len(tried), "split": split}
    entry |= {"percent_of_full": float(percents[number]), "passes": passing(percents[number], threshold)}
    entry |= {"close": bool((abs(percents - (100 - threshold)) <= CLOSE).any())}
    return rows, entry
