"""Search the circuits of a task at every threshold and in every order, and evaluate each (methods: node search)."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from atlas.circuit import attribution
from atlas.circuit.ablation import Ablator
from atlas.circuit.evaluation import refuse_no_effect
from atlas.circuit.node_methods import of_order
from atlas.circuit.orders import gates_of, run
from atlas.circuit.precision import Decisions, Differences, dtype_of, searched
from atlas.circuit.search import Rule, SearchSettings, Settle, Step, jumps, tried_at_once
from atlas.core.components import EMPTY, Circuit, Component, group_columns, heads, mlps, named, to_json
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
    half: Ablator | None = None,
) -> tuple[pd.DataFrame, list[dict[str, Any]], pd.DataFrame]:
    """Rows of `trace`, the entries of `circuits.json`, and rows of `faithfulness`, without ``model`` and ``task``.

    ablators: split -> ablator; circuits are searched on `search`, and evaluated on each. orders: name -> seed of a
    random order, else None. half: where given, the same as that of `search` in a half, by which searches run; those of
    ``ablators`` are then in float32, and decisions too close for the half are taken by theirs (`precision`). Raises
    StudyError where a split has no effect to explain, and on a component to keep that the model lacks.
    """
    for ablator in ablators.values():
        full, empty = (ablator.logit_diff(c) for c in (ablator.everything, EMPTY))
        refuse_no_effect(task, full, empty, allow_negative_clean)
    on_search = ablators["search"]
    named("search.never_test", settings.never_test, on_search.model.n_layers, on_search.model.n_heads)
    trace: list[dict[str, Any]] = []
    circuits, faithfulness = [], []
    for (name, threshold), (steps, decisions) in every_search(on_search, orders, thresholds, settings, half).items():
        owner, circuit = {"order": name, "threshold": threshold}, steps[-1].left if steps else on_search.everything
        dtypes = decisions.dtypes if decisions else [dtype_of(on_search)] * len(steps)
        for asked, (step, dtype) in enumerate(zip(steps, dtypes, strict=True), start=1):
            trace.append(owner | {"step": asked} | trace_row(step) | {"dtype": dtype})
        percent = on_search.percent_of_full(circuit)
        entry = owner | to_json(circuit) | {"percent_of_full": percent, "evaluations": len(steps)}
        if gates_made := [step.penalty for step in steps if step.penalty is not None]:
            entry["penalty"] = gates_made[-1]
        circuits.append(entry | ({"in_half": decisions.to_json()} if decisions else {}))
        for split, ablator in ablators.items():
            faithfulness += [owner | {"split": split} | row for row in kept(ablator, circuit, bootstrap)]
        sizes = len(heads(circuit)), len(mlps(circuit))
        log.info("%s, %s, T = %s: %d heads, %d MLPs, %.1f %%", task, name, threshold, *sizes, percent)
    close = sum(row["close"] for row in trace)
    if close:
        said = "%s: %d decisions so close to their bound that rounding could flip them (close in trace)"
        log.warning(said, task, close)
    for by in (half, on_search) if half else (on_search,):
        log.info("%d forward passes over %d prompts in %s", by.evaluations, len(by.prompts), dtype_of(by))
    return pd.DataFrame(trace), circuits, pd.DataFrame(faithfulness)


def every_search(
    ablator: Ablator,
    orders: Mapping[str, int | None],
    thresholds: Sequence[float],
    settings: SearchSettings,
    half: Ablator | None = None,
) -> dict[tuple[str, float], tuple[list[Step], Decisions | None]]:
    """(order, threshold) -> the steps of its search, and their `Decisions` where they are taken in a ``half``.

    What one search shows of how far the half may be off counts for those before it too, which then run again.
    """
    estimate = attribution.Settings(settings.kind, settings.points)
    alone = {name: alone_of(ablator, name, estimate) for name in orders}
    differences = Differences(half, ablator) if half else None
    gates = {name: gates_of(name, seed, ablator, settings.rule(thresholds[0])) for name, seed in orders.items()}
    found: dict[tuple[str, float], tuple[list[Step], Decisions | None]] = {}
    waiting = [(name, threshold) for name in orders for threshold in thresholds]
    while waiting:
        for name, threshold in progress(waiting, "node search"):
            rule = settings.rule(threshold)

            def search(by: Ablator, settle: Settle, name: str = name, rule: Rule = rule) -> Iterator[Step]:
                everything, percents = by.everything, by.percents_of_full
                batch = tried_at_once(settings.batch, by.model.device, lambda: by.evaluations)
                return run(name, orders[name], rule, everything, percents, alone[name], batch, settle, gates[name])

            both = None if jumps(name) else differences  # those that do run in float32
            found[name, threshold] = searched(f"{name}, T = {threshold}", search, rule, ablator, both)
            log.info("%s, T = %s: %d evaluations", name, threshold, len(found[name, threshold][0]))
        waiting = [key for key, (_, decisions) in found.items() if decisions and not decisions.hold()]
    return found


def alone_percents(ablator: Ablator) -> dict[Component, float]:
    """Component -> percent of full with that component alone ablated."""
    return {c: ablator.percent_of_full(ablator.everything - {c}) for c in ablator.everything}


def alone_of(ablator: Ablator, order: str, settings: attribution.Settings) -> dict[Component, float]:
    """What a search order goes by: percent of full with each component alone ablated, measured for `ascending_effect`,
    estimated to first order for one by attribution; nothing for others. Raises StudyError without a live engine."""
    if order == "ascending_effect":
        return alone_percents(ablator)
    method = of_order(order)
    if method is None:
        return {}
    full = ablator.logit_diff(ablator.everything).mean()
    scored = attribution.function_of(method)(ablator, settings)
    return {component: 100 * float(1 + values.mean() / full) for component, values in scored.items()}


def trace_row(step: Step) -> dict[str, Any]:
    """One evaluation of a search, with the numbers of heads and MLPs that are left after it."""
    row = {"sweep": step.sweep, "direction": step.direction} | group_columns(step.components)
    row |= {"percent": step.percent, "removed": step.removed, "close": step.close}
    row |= {"heads": len(heads(step.left)), "mlps": len(mlps(step.left))}
    return row | {"returned": " ".join(map(str, step.returned))}


def kept(ablator: Ablator, circuit: Circuit, bootstrap: Bootstrap) -> Iterator[dict[str, Any]]:
    """Rows (metric, value, interval, sizes): percent of full and faithfulness of a circuit."""
    found, full, empty = (ablator.logit_diff(c) for c in (circuit, ablator.everything, EMPTY))
    sizes = {"heads": len(heads(circuit)), "mlps": len(mlps(circuit))}
    for metric, estimate in (
        ("percent_of_full", bootstrap.percent(found, full)),
        ("faithfulness", bootstrap.faithfulness(found, full, empty)),
    ):
        yield {"metric": metric} | interval_columns(estimate) | sizes
