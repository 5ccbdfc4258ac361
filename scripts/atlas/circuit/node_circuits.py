"""Search the circuits of a task at every threshold and in every order, and evaluate each (methods: node search)."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from atlas.circuit.ablation import Ablator
from atlas.circuit.evaluation import refuse_no_effect
from atlas.circuit.search import SearchSettings, Step, run, tried_at_once
from atlas.core.components import EMPTY, Circuit, Component, group_columns, heads, mlps, to_json
from atlas.core.statistics import Bootstrap, interval_columns
from atlas.store.job import progress

log = logging.getLogger("atlas")


def search_all(
    task: str,
    ablators: Mapping[str, Ablator],
    orders: Mapping[str, int | None],
    thresholds: Sequence[float],
    settings: SearchSettings,
    bootstrap: Bootstrap,
    allow_negative_clean: bool = False,
) -> tuple[pd.DataFrame, list[dict[str, Any]], pd.DataFrame]:
    """Rows of `trace`, the entries of `circuits.json`, and rows of `faithfulness`, without ``model`` and ``task``.

    ablators: split -> ablator; circuits are searched on `search`, and evaluated on each. orders: name -> seed of a
    random order, else None. Raises StudyError where a split has no effect to explain.
    """
    for ablator in ablators.values():
        full, empty = (ablator.logit_diff(c) for c in (ablator.everything, EMPTY))
        refuse_no_effect(task, full, empty, allow_negative_clean)
    on_search = ablators["search"]
    alone = alone_percents(on_search) if "ascending_effect" in orders else {}
    batch = tried_at_once(settings.batch, on_search.model.device, lambda: on_search.evaluations)
    trace: list[dict[str, Any]] = []
    circuits, faithfulness = [], []
    for name, seed in progress(orders.items(), "node search"):
        for threshold in thresholds:
            owner = {"order": name, "threshold": threshold}
            everything, percents = on_search.everything, on_search.percents_of_full
            circuit, asked = everything, 0
            steps = run(name, seed, settings.rule(threshold), everything, percents, alone, batch)
            for asked, step in enumerate(steps, start=1):
                circuit = step.left
                trace.append(owner | {"step": asked} | trace_row(step))
            percent = on_search.percent_of_full(circuit)
            circuits.append(owner | to_json(circuit) | {"percent_of_full": percent, "evaluations": asked})
            for split, ablator in ablators.items():
                faithfulness += [owner | {"split": split} | row for row in kept(ablator, circuit, bootstrap)]
            sizes = len(heads(circuit)), len(mlps(circuit))
            log.info("%s, %s, T = %s: %d heads, %d MLPs, %.1f %%", task, name, threshold, *sizes, percent)
    close = sum(row["close"] for row in trace)
    if close:
        said = "%s: %d decisions so close to their bound that rounding could flip them (close in trace)"
        log.warning(said, task, close)
    log.info("%d forward passes over %d prompts", on_search.evaluations, len(on_search.prompts))
    return pd.DataFrame(trace), circuits, pd.DataFrame(faithfulness)


def alone_percents(ablator: Ablator) -> dict[Component, float]:
    """Component -> percent of full with that component alone ablated."""
    return {c: ablator.percent_of_full(ablator.everything - {c}) for c in ablator.everything}


def trace_row(step: Step) -> dict[str, Any]:
    """One evaluation of a search, with the numbers of heads and MLPs that are left after it."""
    row = {"sweep": step.sweep, "direction": step.direction} | group_columns(step.components)
    row |= {"percent": step.percent, "removed": step.removed, "close": step.close}
    return row | {"heads": len(heads(step.left)), "mlps": len(mlps(step.left))}


def kept(ablator: Ablator, circuit: Circuit, bootstrap: Bootstrap) -> Iterator[dict[str, Any]]:
    """Rows (metric, value, interval, sizes): percent of full and faithfulness of a circuit."""
    found, full, empty = (ablator.logit_diff(c) for c in (circuit, ablator.everything, EMPTY))
    sizes = {"heads": len(heads(circuit)), "mlps": len(mlps(circuit))}
    for metric, estimate in (
        ("percent_of_full", bootstrap.percent(found, full)),
        ("faithfulness", bootstrap.faithfulness(found, full, empty)),
    ):
        yield {"metric": metric} | interval_columns(estimate) | sizes
