"""How good a circuit is: every metric, completeness, minimality, positions, noising and denoising (methods: metrics).

What takes an ablator takes one of components or one of edges; a circuit is a set of what the ablator removes. Rows hold
the columns of one circuit (docs/artifacts.md); the caller adds which model, task and circuit it is.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from atlas.circuit.ablation import Ablator
from atlas.circuit.precision import Differences, searched
from atlas.circuit.replacement import corrupted_runs
from atlas.circuit.search import SearchSettings, Settle, Step, by_layers, node_search, tried_at_once
from atlas.core.components import EMPTY, AnyCircuit, Circuit, Component, Site, columns, sites
from atlas.core.errors import StudyError
from atlas.core.graph import EMBED
from atlas.core.multiple import corrected, interval_p
from atlas.core.statistics import Bootstrap, interval_columns
from atlas.model.models import Model
from atlas.prompts.batch import Prompts
from atlas.store.job import progress

log = logging.getLogger("atlas")

METRICS = ("logit_diff", "prob_diff", "kl", "top1", "answer_rank")  # those of an ablator for `metrics_of`


def refuse_no_effect(task: str, full: np.ndarray, empty: np.ndarray, allow: bool = False) -> None:
    """Faithfulness divides by M(full) - M(empty); refuse a task where that is nearly nothing.

    ``full``, ``empty`` [N]: logit differences. Raises StudyError where their means differ by less than 0.001 of that of
    ``full``, or of 1 if that is more. ``allow`` (the config's `allow_negative_clean`) turns the refusal into a warning,
    unless there is no effect at all.
    """
    effect = abs(full.mean() - empty.mean())
    if effect >= 1e-3 * max(1.0, abs(full.mean())):
        return
    said = (
        f"tasks.{task}: ablating everything changes the logit difference from {full.mean():.4f} to "
        f"{empty.mean():.4f} only; there is no effect to explain"
    )
    if not allow or not effect:
        raise StudyError(said)
    log.warning("%s; going on, as allow_negative_clean says", said)


def metrics_of(ablator: Ablator, circuit: AnyCircuit, bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """(metric, value, interval) of a circuit: the means of the ablator's metrics, and what they come to of full.

    The baseline of faithfulness is the ablator's empty circuit: without components, or without edges.
    """
    found, full = ablator.scores(circuit), ablator.logit_diff(ablator.everything)
    empty = ablator.logit_diff(frozenset())
    estimates = {metric: bootstrap.mean(values) for metric, values in found.items()}
    estimates["percent_of_full"] = bootstrap.percent(found["logit_diff"], full)
    estimates["faithfulness"] = bootstrap.faithfulness(found["logit_diff"], full, empty)
    return [{"metric": metric} | interval_columns(estimate) for metric, estimate in estimates.items()]


def subsets(circuit: AnyCircuit, samples: int, seed: int) -> list[AnyCircuit]:
    """Random non-empty subsets of a circuit: first a size, uniform from 1 to the circuit's, then that many members.

    Draws are independent and may repeat. Where the circuit has no more than ``samples`` subsets they are all listed.
    """
    members = sorted(circuit)
    if 2 ** len(members) - 1 <= samples:
        return [frozenset(c) for size in range(1, len(members) + 1) for c in combinations(members, size)]
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, len(members) + 1, samples)
    return [frozenset(members[i] for i in rng.permutation(len(members))[:size]) for size in sizes]


def completeness(
    ablator: Ablator, circuit: AnyCircuit, samples: int, seed: int, bootstrap: Bootstrap
) -> Iterator[dict[str, Any]]:
    """|F(C without K) - F(full without K)| for random K within the circuit C (`subsets`).

    A circuit is complete if removing a part of it does to it what it does to the whole model; a twin that was left out
    of the circuit shows here. With K = C the score of the model without the circuit is compared with 0.
    """
    full, empty = (ablator.logit_diff(c) for c in (ablator.everything, EMPTY))
    for draw, removed in enumerate(subsets(circuit, samples, seed)):
        inside, outside = ablator.logit_diff(circuit - removed), ablator.logit_diff(ablator.without(removed))
        difference = bootstrap.statistic(lambda a, b, f, e: abs((a - b) / (f - e)), inside, outside, full, empty)
        row = {"draw": draw, "removed": " ".join(map(str, sorted(removed))), "size": len(removed)}
        row["f_circuit"] = bootstrap.faithfulness(inside, full, empty)[0]
        row["f_full"] = bootstrap.faithfulness(outside, full, empty)[0]
        yield row | interval_columns(difference)


def minimality(ablator: Ablator, circuit: AnyCircuit, bootstrap: Bootstrap) -> Iterator[dict[str, Any]]:
    """Percentage points of full that the circuit loses without each of its members alone; negative: it gains."""
    full, own = ablator.logit_diff(ablator.everything), ablator.logit_diff(circuit)
    for member in sorted(circuit):
        left = ablator.logit_diff(circuit - {member})
        loss = bootstrap.statistic(lambda m, without, f: 100 * (m - without) / f, own, left, full)
        yield {"name": str(member)} | interval_columns(loss)


def with_p_values(members: Iterable[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Rows of `minimality` of a circuit with ``p`` of no loss, by their intervals, and corrected for all of them."""
    rows = list(members)
    if not rows:
        return rows
    table = pd.DataFrame(rows)
    table["p"] = interval_p(table["value"], table["ci_low"], table["ci_high"])
    return [dict(row) for row in corrected(table, f"minimality of {name}").to_dict("records")]


def position_effects(
    ablator: Ablator, components: Iterable[Component], kept: Circuit, bootstrap: Bootstrap
) -> Iterator[dict[str, Any]]:
    """Percentage points of full lost when a component is ablated at the positions of one role in the full model.

    ``kept``: the position-level circuit, for the column of that name; a component in it is kept at every role. The
    ablator's prompts must know their roles (`Prompts.with_roles`).
    """
    full, roles = ablator.logit_diff(ablator.everything), ablator.prompts.roles
    assert roles is not None
    for component in sorted(components):
        for role in roles:
            site = Site(component.layer, component.head, role)
            left = ablator.logit_diff(ablator.without({site}))
            loss = bootstrap.statistic(lambda f, without: 100 * (f - without) / f, full, left)
            row = columns(component) | {"role": role} | interval_columns(loss)
            yield row | {"kept": site in kept or component in kept}


class Patching:
    """A circuit's activations carried from corrupted prompts into clean ones (noising) and back (denoising).

    Everything downstream of what is patched is recomputed. Both are normalised, (patched - corrupted) / (clean -
    corrupted) of the mean logit difference, with each prompt's answers in both runs: 1 is the clean score, 0 the
    corrupted one. Noising near 0: the circuit is necessary. Denoising near 1: it is sufficient.
    """

    def __init__(
        self, model: Model, prompts: Prompts, cache: dict[str, Any] | None = None, allow_no_effect: bool = False
    ) -> None:
        """``cache``: `activations.pt`, if it holds these prompts; ``allow_no_effect``: `rows` warns, and goes on."""
        self.allow_no_effect = allow_no_effect
        clean = cache and {"prompt": cache["prompt"], "corrupted": cache["clean"]}
        self.noised = Ablator(model, prompts, corrupted_runs(model, prompts, cache))
        self.denoised = Ablator(model, prompts.swapped(), corrupted_runs(model, prompts.swapped(), clean))

    def rows(self, circuit: Circuit, bootstrap: Bootstrap) -> list[dict[str, Any]]:
        """(metric, value, interval) of noising and denoising a circuit of components, sites among them.

        Also of its heads alone: MLPs write most of what the logits read, so that a circuit which holds them all carries
        nearly everything over, whichever heads it has.
        """
        clean, corrupted = (a.logit_diff(a.everything) for a in (self.noised, self.denoised))
        effect = abs(clean.mean() - corrupted.mean())
        if effect < 1e-3 * max(1.0, abs(clean.mean())):
            said = (
                f"noising: the mean logit difference is {clean.mean():.4f} on clean and {corrupted.mean():.4f} on "
                "corrupted prompts; there is nothing to carry over, choose another corruption"
            )
            if not self.allow_no_effect or not effect:
                raise StudyError(said)
            log.warning("%s; going on, as allow_negative_clean says", said)
        out = []
        heads = frozenset(c for c in circuit if not c.is_mlp)
        for part, suffix in ((circuit, ""), (heads, "_heads")):
            for metric, ablator in (("noising", self.noised), ("denoising", self.denoised)):
                patched = ablator.logit_diff(ablator.without(part))
                estimate = bootstrap.faithfulness(patched, clean, corrupted)
                out.append({"metric": metric + suffix} | interval_columns(estimate))
        return out


# ---- all of it -----------------------------------------------------------------------------------------------
Named = dict[str, tuple[AnyCircuit, str]]  # name -> circuit, and its level: `node` or `edge`


def assess(
    ablators: Mapping[str, Ablator],
    circuits: Named,
    split: str,
    patching: Patching,
    samples: int,
    seed: int,
    bootstrap: Bootstrap,
) -> dict[str, list[dict[str, Any]]]:
    """`evaluation`, `completeness` and `minimality` -> rows, of circuits and, in the first, of the full and the empty
    model.

    ablators: level -> ablator, that of `edge` where a circuit is one of edges; all of the prompts of ``split``.
    samples, seed: of `completeness`.
    """
    rows: dict[str, list[dict[str, Any]]] = {"evaluation": [], "completeness": [], "minimality": []}
    ends: Named = {"full": (ablators["node"].everything, "node"), "empty": (frozenset(), "node")}
    for name, (circuit, level) in (ends | circuits).items():
        ablator, is_edges = ablators[level], level == "edge"
        components = {e.sender for e in circuit} - {EMBED} if is_edges else circuit
        row = {"circuit": name, "level": level, "components": len(components)}
        row |= {"edges": len(circuit) if is_edges else -1, "split": split}
        found = metrics_of(ablator, circuit, bootstrap)
        if not is_edges:
            found += patching.rows(circuit, bootstrap)
        rows["evaluation"] += [row | values for values in found]
        if name in circuits:
            parts = progress(completeness(ablator, circuit, samples, seed, bootstrap), f"completeness of {name}")
            rows["completeness"] += [{"circuit": name} | values for values in parts]
            members = progress(minimality(ablator, circuit, bootstrap), f"minimality of {name}")
            rows["minimality"] += [{"circuit": name} | values for values in with_p_values(members, name)]
        log.info("%s assessed", name)
    return rows


def position_rows(
    on_search: Ablator,
    reported: Ablator,
    start: Iterable[Component],
    threshold: float,
    settings: SearchSettings,
    bootstrap: Bootstrap,
    half: Ablator | None = None,
) -> list[dict[str, Any]]:
    """`position_effects` of the components of ``start`` on the prompts that are reported on, with what a search for
    sites among them keeps, on the prompts searched on, above the floor of ``threshold``.

    half: where given, ``on_search`` in a half, by which the search runs; close decisions are those of ``on_search``.
    """
    start, rule = list(start), settings.rule(threshold)
    among = sites(start, on_search.prompts.roles or ())

    def steps(by: Ablator, settle: Settle) -> Iterator[Step]:
        batch = tried_at_once(settings.batch, by.model.device, lambda: by.evaluations)
        return node_search(among, rule, by_layers(rule), by.percents_of_full, batch, settle)

    made, _ = searched("sites", steps, rule, on_search, Differences(half, on_search, among) if half else None)
    kept = made[-1].left if made else among
    log.info("%d of %d sites kept", len(kept), len(among))
    return list(position_effects(reported, start, kept, bootstrap))
