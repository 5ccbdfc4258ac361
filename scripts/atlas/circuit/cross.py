"""The circuits of all tasks on one task, each with random controls (methods: comparison)."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from atlas.circuit.ablation import Ablator
from atlas.circuit.controls import matched_sets
from atlas.circuit.evaluation import refuse_no_effect
from atlas.core.components import EMPTY, Circuit, heads, mlps
from atlas.core.statistics import Bootstrap, interval_columns
from atlas.store.job import progress

log = logging.getLogger("atlas")

METRICS = ("logit_diff", "top1")  # those of the ablator
CONTROL_COLUMNS = ("question", "circuit", "set", "draw", "components", "value", "ci_low", "ci_high")


def cross_rows(
    task: str,
    ablator: Ablator,
    circuits: Mapping[str, Circuit],
    split: str,
    bootstrap: Bootstrap,
    allow_negative_clean: bool = False,
) -> list[dict[str, Any]]:
    """Rows of `cross`: percent of full, faithfulness and top-1 of each circuit, and of all that is not shared.

    split: of the ablator's prompts. Raises StudyError where there is no effect to explain.
    """
    full, empty = (ablator.logit_diff(c) for c in (ablator.everything, EMPTY))
    refuse_no_effect(task, full, empty, allow_negative_clean)
    every = {**circuits, "all but shared": ablator.everything - circuits["shared"]}
    return kept_rows(ablator, every, split, full, empty, bootstrap)


def kept_rows(
    ablator: Ablator, circuits: Mapping[str, Any], split: str, full: Any, empty: Any, bootstrap: Bootstrap
) -> list[dict[str, Any]]:
    """Percent of full, faithfulness and top-1 of circuits of components or edges; ``full``, ``empty`` [N]: logit
    differences of the whole model and of none of it."""
    rows = []
    for name, circuit in circuits.items():
        found = ablator.scores(circuit)
        for metric, estimate in (
            ("percent_of_full", bootstrap.percent(found["logit_diff"], full)),
            ("faithfulness", bootstrap.faithfulness(found["logit_diff"], full, empty)),
            ("top1", bootstrap.mean(found["top1"])),
        ):
            row = {"circuit": name, "split": split, "metric": metric} | interval_columns(estimate)
            rows.append(row | {"prompts": len(ablator.prompts)})
    return rows


def questions_of(task: str, circuits: Mapping[str, Circuit]) -> list[tuple[str, str]]:
    """(question, circuit) asked on a task: is what all circuits share necessary; is its own circuit, and sufficient?"""
    own = [("necessity", task), ("sufficiency", task)] if task in circuits else []
    return [("necessity", "shared"), *own]


def control_rows(
    ablator: Ablator,
    circuits: Mapping[str, Circuit],
    questions: Sequence[tuple[str, str]],
    count: int,
    seed: int,
    bootstrap: Bootstrap,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of `controls` (percent of full of each question's circuit, draw -1, and of its controls) and of their notes.

    Necessity: the heads are ablated in the full model. Sufficiency: they are kept, with the MLPs of the circuit, and
    nothing else is. count, seed: of the controls (`controls.matched_sets`).
    """
    rows, notes = [], []
    full, model = ablator.logit_diff(ablator.everything), ablator.model
    for question, name in questions:
        own_heads, own_mlps = frozenset(heads(circuits[name])), frozenset(mlps(circuits[name]))
        outside = question == "necessity"
        drawn, note = matched_sets(circuits[name], model.n_layers, model.n_heads, count, seed, outside)
        notes.append({"question": question, "circuit": name, "note": note})
        for draw, chosen in progress(list(enumerate([own_heads, *drawn], start=-1)), question):
            intact = chosen | own_mlps if question == "sufficiency" else ablator.everything - chosen
            kind = "circuit" if draw < 0 else "control"
            row = {"question": question, "circuit": name, "set": kind, "draw": draw}
            row["components"] = " ".join(map(str, sorted(chosen)))
            estimate = bootstrap.percent(ablator.logit_diff(intact), full)
            rows.append(row | interval_columns(estimate))
    log.info("%d forward passes over %d prompts", ablator.evaluations, len(ablator.prompts))
    return rows, notes
