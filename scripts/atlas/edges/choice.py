"""Which edge circuit of a task is reported: the smallest that keeps the floor on held-out prompts (methods: edges).

A removal search ends at its floor on its own prompts and holds what these need; on others it keeps much less. So the
circuits that searches ended at are candidates, and beside them the reported search's circuit *widened*: with the edges
that it removed and that matter most by a scoring method, back in.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from atlas.circuit.choice import passing, selected
from atlas.core.graph import Edge, EdgeCircuit, EdgeMask, parse
from atlas.core.statistics import Bootstrap, interval_columns
from atlas.edges.engine import EdgeAblator
from atlas.edges.methods import NODE_CIRCUIT, REPORTED, EdgeSettings
from atlas.edges.rankings import ranked
from atlas.edges.searches import top

log = logging.getLogger("atlas")

COLUMNS: tuple[str, ...] = (
    "method",
    "setting",
    "added",
    "candidate",
    "edges",
    "passes",
    "reported",
    "split",
    "metric",
    "value",
)
COLUMNS += ("ci_low", "ci_high", "optimism", "chosen_again")
FOUND, WIDENED = "found", "widened"  # a circuit as its search ended; the reported search's with more edges
WIDER = (1.1, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)  # sizes of widened circuits, as multiples of the circuit's own


@dataclass(frozen=True)
class Candidate:
    """A circuit that could be reported. ``method``, ``setting``: of the search that found it; ``added``: of a widened
    circuit the method by whose scores edges were put back, else empty."""

    method: str
    setting: float
    added: str
    circuit: EdgeMask

    @property
    def kind(self) -> str:
        return WIDENED if self.added else FOUND


def candidates(
    ablator: EdgeAblator,
    found: Sequence[Mapping[str, Any]],
    start: EdgeCircuit,
    means: Mapping[str, Mapping[Edge, float]],
    settings: EdgeSettings,
) -> list[Candidate]:
    """The reported search's circuit, then all others that keep more than the floor on the prompts of ``ablator``.

    found: entries of `edge_circuits.json`; those of rankings are none of a search. start: the edges that removals
    started from, to which a widened circuit is kept. means: scoring method -> edge -> mean score. Circuits that are the
    same count once; with `drop_without_path` edges on no path are dropped.
    """
    graph = ablator.graph

    def cut(edges: EdgeCircuit) -> EdgeMask:
        return graph.on_paths(edges) if settings.drop_without_path else graph.circuit(edges)

    def every() -> Iterator[Candidate]:
        own = next(entry for entry in found if entry["method"] == REPORTED.name)
        searched = [own, *(e for e in found if not e["ranking"] and e is not own)]
        for entry in searched:
            if entry["method"] != NODE_CIRCUIT or entry["setting"] <= settings.threshold:
                yield Candidate(entry["method"], entry["setting"], "", cut(parse(entry["edges"])))
        circuit = parse(own["edges"])
        for method, values in means.items():
            out = {edge: value for edge, value in values.items() if edge in start and edge not in circuit}
            order = ranked(out, "absolute", graph)
            for size in WIDER:
                more = top(order, round((size - 1) * len(circuit)))
                yield Candidate(REPORTED.name, own["setting"], method, cut(circuit | more))

    distinct: dict[EdgeMask, Candidate] = {}
    for candidate in every():
        distinct.setdefault(candidate.circuit, candidate)
    own, *others = distinct.values()
    passed = [c for c in others if passing(ablator.percent_of_full(c.circuit), settings.threshold)]
    return [own, *passed]


def choose(
    task: str, tried: Sequence[Candidate], ablators: Mapping[str, EdgeAblator], threshold: float, bootstrap: Bootstrap
) -> tuple[pd.DataFrame, Candidate, dict[str, Any]]:
    """Rows of `edge_choice`, the candidate that is reported, and what is said of the choice in `edge_circuits.json`.

    ablators: split -> ablator; the last split is the one that is reported on and chosen by. threshold: T of the floor.
    The rule, and what optimism is, are those of the node circuits (`circuit.choice.best`, `selected`).
    """
    split, by = list(ablators.items())[-1]
    full = by.logit_diff(by.everything).astype(float)
    values = np.stack([by.logit_diff(candidate.circuit) for candidate in tried]).astype(float)
    percents = 100 * values.mean(1) / full.mean()
    number, optimism, again = selected([c.circuit for c in tried], values, full, threshold, bootstrap)
    reported, rows = tried[number], []
    for candidate, percent in zip(tried, percents, strict=True):
        row = {"method": candidate.method, "setting": float(candidate.setting), "added": candidate.added}
        row |= {"candidate": candidate.kind, "edges": len(candidate.circuit)}
        row |= {"passes": passing(percent, threshold), "reported": candidate is reported}
        row |= {"optimism": optimism, "chosen_again": again} if candidate is reported else {}
        for name, ablator in ablators.items():
            rows += [row | {"split": name} | more for more in kept(ablator, candidate.circuit, bootstrap)]
    said: dict[str, Any] = {"candidates": len(tried), "split": split, "passes": passing(percents[number], threshold)}
    said |= {"percent_reported_on": float(percents[number]), "found_percent": float(percents[0])}
    said |= {"found_edges": len(tried[0].circuit), "added": reported.added, "optimism": optimism}
    said |= {"chosen_again": again}
    text = "%s: %d edges reported, by %s %s%s; %.1f %% on %s prompts, the search's own %d edges %.1f %%; %d candidates"
    added = f", widened by {reported.added}" if reported.added else ""
    own = reported.method, f"{reported.setting:g}", added, percents[number], split
    log.info(text, task, len(reported.circuit), *own, said["found_edges"], percents[0], len(tried))
    if not said["passes"]:
        log.warning("%s: no edge circuit keeps more than %g %% on %s prompts", task, 100 - threshold, split)
    return pd.DataFrame(rows).reindex(columns=list(COLUMNS)), reported, said


def kept(ablator: EdgeAblator, circuit: EdgeCircuit, bootstrap: Bootstrap) -> Iterator[dict[str, Any]]:
    """Rows (metric, value, interval): percent of full and faithfulness of an edge circuit."""
    found, full, empty = (ablator.logit_diff(c) for c in (circuit, ablator.everything, frozenset()))
    yield {"metric": "percent_of_full"} | interval_columns(bootstrap.percent(found, full))
    yield {"metric": "faithfulness"} | interval_columns(bootstrap.faithfulness(found, full, empty))
