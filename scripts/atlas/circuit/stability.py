"""Does a circuit survive other data? The search again on resampled prompts and on prompts made anew.

Families of runs: `orders` (other orders of the search, same data), `bootstrap` (the search split's prompts resampled),
`seeds`, `templates`, `corruption` (prompts made anew with that one part changed). Searches on other data take the order
that found the reported circuit, and the circuit that it found, nothing dropped, is the first run of every family: the
others are compared with it and with each other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from atlas.circuit import orders, search
from atlas.circuit.ablation import Ablator
from atlas.circuit.attribution import Settings as Estimate
from atlas.circuit.evaluation import refuse_no_effect
from atlas.circuit.kinds import KINDS
from atlas.circuit.legacy import LegacyAblator
from atlas.circuit.node_circuits import alone_of
from atlas.circuit.optimal import with_constants
from atlas.circuit.precision import Differences, searched
from atlas.circuit.replacement import Replacement, replacement
from atlas.circuit.unablated import answer_logits, collected
from atlas.core.chance import jaccard, layer_matched
from atlas.core.components import AnyCircuit, Circuit, heads, mlps, profile
from atlas.core.errors import StudyError
from atlas.core.metrics import passes, per_prompt
from atlas.model import activations
from atlas.model.models import Model
from atlas.prompts import generator, layouts
from atlas.prompts.batch import Prompts
from atlas.prompts.making import prompts_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from atlas.circuit.task_data import TaskData

log = logging.getLogger("atlas")

SURVIVAL_COLUMNS = ("level", "name", "family", "share", "runs")
SUMMARY_COLUMNS: tuple[str, ...] = ("level", "family", "runs", "size_min", "size_max", "intersection", "union")
SUMMARY_COLUMNS += ("jaccard", "jaccard_low", "jaccard_high", "expected")


# ---- other data ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Dataset:
    """Prompts to search on and what ablated components are replaced by on them."""

    family: str
    name: str
    prompts: Prompts
    substitute: Replacement


def resampled_means(run: dict[str, Any], rows: Any, group: Any, length: torch.Tensor | None = None) -> dict[str, Any]:
    """Per-position means over rows (which may repeat) of cached activations, [L, R, S, ...], float32.

    ``run``: z [L, N, S, H, d_head] and mlp_out [L, N, S, D]; ``rows`` [n] of them and ``group`` [n], 0..R-1;
    ``length`` [n] tokens of each before its padding, which enters no mean. No forward pass: means come from the
    unablated model, whose activations on these rows are known.
    """
    rows, group = torch.as_tensor(rows), torch.as_tensor(group)
    n, s = run["z"].shape[1:3]
    length = torch.full((len(rows),), s) if length is None else length
    weights = torch.zeros(s, int(group.max()) + 1, n, dtype=torch.float64)
    real = (torch.arange(s)[:, None] < length).double()
    weights.index_put_((torch.arange(s)[:, None], group, rows), real, accumulate=True)
    weights /= weights.sum(2, keepdim=True).clamp(min=1)
    return {
        name: torch.stack([torch.einsum("sgn,ns...->gs...", weights, layer.double()).float() for layer in run[name]])
        for name in ("z", "mlp_out")
    }


def bootstraps(
    model: Model, prompts: Prompts, means: dict[str, Any], cache: dict[str, Any], kind: str, count: int, seed: int
) -> Iterator[Dataset]:
    """As many prompts drawn from the search split with replacement, ``count`` times.

    Both the score and the means run over the drawn prompts. ``means``, ``cache``: contents of `means.pt` and
    `activations.pt`, from whose stored values the means are taken.
    """
    rows_in_cache, runs = activations.rows_of(cache["prompt"], prompts.prompt), KINDS[kind].runs
    for n in range(count):
        rows = np.sort(np.random.default_rng([seed, n]).integers(len(prompts), size=len(prompts)))
        drawn = prompts.take(rows)
        drawn_groups = {layouts.template_of(means["groups"][g]) for g in drawn.group.tolist()}
        if drawn_groups < set(map(layouts.template_of, means["groups"])):
            raise StudyError(f"stability.bootstrap: resample {n} holds no prompt of some template; make more prompts")
        own = means
        if runs:
            assert rows_in_cache is not None
            expanded = drawn.rows()
            index = expanded.of_prompts(rows_in_cache[torch.tensor(rows)])
            new = {run: resampled_means(cache[run], index, expanded.group, expanded.length) for run in runs}
            own = means | with_constants(kind, model, drawn, new)
        yield Dataset("bootstrap", f"resample {n}", drawn, replacement(kind, model, drawn, own, cache))


def changes(
    block: dict[str, Any], seeds: list[Any], templates: list[Any], corruptions: list[Any]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(family, name, changed keys of the task's block). What the task already has is its reported circuit, and skipped.

    A seed stands for both `seed` and `filler_seed`. What can change at all says the task's generator (`varies`).
    """
    varies = generator.of(block).varies
    if not varies:
        log.info("its prompts cannot be made anew; its circuit is searched on resampled prompts only")
    wanted = [("seeds", f"seed {s}", {"seed": s, "filler_seed": s}) for s in seeds if "seeds" in varies]
    wanted += [("templates", " | ".join(t), {"templates": t}) for t in templates if "templates" in varies]
    for c in corruptions if "corruptions" in varies else ():
        wanted.append(("corruption", c if isinstance(c, str) else f"position {c['position']}", {"corruption": c}))
    for family, name, changed in wanted:
        if all(block[key] == value for key, value in changed.items()):
            log.info("stability.%s: %s is what the task has; skipped", family, name)
        else:
            yield family, name, changed


@dataclass(frozen=True)
class Maker:
    """Makes prompts of one task anew, as the stages before the search do.

    tokenizer, prepend_bos, max_tokens: see `prompts_of`. kind: of ablation. by_template: means per template.
    filter, allow_negative_clean: the config's keys in `prompts`.
    """

    model: Model
    task: str
    block: dict[str, Any]
    tokenizer: PreTrainedTokenizerBase
    prepend_bos: bool
    max_tokens: int | None
    kind: str
    by_template: bool
    filter: dict[str, Any] | None = None
    allow_negative_clean: bool = False

    @classmethod
    def of(
        cls,
        data: TaskData,
        block: dict[str, Any],
        tokenizer: PreTrainedTokenizerBase,
        prepend_bos: bool,
        filter: dict[str, Any] | None,
    ) -> Maker:
        """The maker of a task that was searched."""
        return cls(
            model=data.model,
            task=data.task,
            block=block,
            tokenizer=tokenizer,
            prepend_bos=prepend_bos,
            max_tokens=data.description["max_tokens"],
            kind=data.kind,
            by_template=set(map(layouts.template_of, data.means["groups"])) != {layouts.SHARED},
            filter=filter,
            allow_negative_clean=data.allow_negative_clean,
        )

    def dataset(self, family: str, name: str, changed: dict[str, Any], split: str = "search") -> Dataset:
        """A split of the task with some keys of its block changed, and means of the search split; raises StudyError
        naming the change."""
        try:
            return self._dataset(family, name, changed, split)
        except StudyError as error:
            raise StudyError(f"stability.{family}, {name}: {error}") from None

    def _dataset(self, family: str, name: str, changed: dict[str, Any], split: str = "search") -> Dataset:
        block = self.block | changed
        encoded, _ = prompts_of(self.task, block, self.tokenizer, self.prepend_bos, self.max_tokens, root=None)
        if encoded.rejected:
            reasons = "; ".join(f"{reason}: {n}" for reason, n in encoded.rejected.most_common())
            if not block.get("multi_token", False):
                raise StudyError(
                    f"tasks.{self.task}: fewer prompts than the reported circuit has, rejected are {reasons}"
                )
            log.info("rejected, as members of other numbers of tokens are in any data of this task: %s", reasons)
        every = pd.DataFrame(encoded.rows).sort_values("prompt", ignore_index=True)
        frame = every[every.split == "search"].reset_index(drop=True)
        groups = layouts.group_names(frame, self.by_template)
        prompts = self.answered(Prompts.from_frame(frame, groups))
        if len(prompts.group.unique()) < len(groups):
            raise StudyError(f"tasks.{self.task}: the filter keeps no prompt of some template; relax prompts.filter")
        kind, rows = KINDS[self.kind], prompts.rows()
        both = {run: collected(self.model, rows, run) for run in kind.runs or (kind.run,)}
        cache = {"prompt": prompts.prompt} | {run: found for run, (found, _) in both.items()}
        means = rows.sizes_of_means() | {run: found for run, (_, found) in both.items()}
        means = with_constants(kind.name, self.model, prompts, means)
        if split != "search":
            prompts = self.answered(Prompts.from_frame(every[every.split == split].reset_index(drop=True), groups))
        return Dataset(family, name, prompts, replacement(self.kind, self.model, prompts, means, cache))

    def answered(self, prompts: Prompts) -> Prompts:
        """The prompts that pass the filter; refuses a clean score that is not positive."""
        logits = answer_logits(self.model, prompts, "clean")
        found = per_prompt(("logit_diff", "top1"), logits, prompts.answer, prompts.incorrect)
        if self.filter:
            kept = passes(logits, prompts.answer, prompts.incorrect, **self.filter).nonzero()[:, 0]
            if not len(kept):
                raise StudyError(f"tasks.{self.task}: the filter keeps none of the prompts; relax prompts.filter")
            prompts, found = prompts.take(kept), {name: values[kept] for name, values in found.items()}
        clean = found["logit_diff"].mean().item()
        if clean <= 0 and not self.allow_negative_clean:
            raise StudyError(f"tasks.{self.task}: the clean logit difference is {clean:.3f}, not positive")
        log.info("%d prompts, clean logit difference %.3f, top-1 %.3f", len(prompts), clean, found["top1"].mean())
        return prompts


def other_data(data: TaskData, maker: Maker, resamples: dict[str, Any], seed: int) -> Iterator[Dataset]:
    """All that a task is searched on again: resampled prompts, and prompts made anew.

    resamples: the block `stability` of the configuration; seed: of the resampling.
    """
    assert data.cache is not None
    prompts, count = data.prompts("search"), resamples["bootstrap"]
    yield from bootstraps(data.model, prompts, data.means, data.cache, data.kind, count, seed)
    for changed in changes(maker.block, *(resamples[key] for key in ("seeds", "templates", "corruptions"))):
        yield maker.dataset(*changed)


# ---- runs ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Run:
    """A circuit (of components or of edges) and the data or order that it was found with."""

    family: str
    name: str
    circuit: AnyCircuit


@dataclass(frozen=True)
class NodeSearch:
    """The search that found the reported circuit. ``order`` and ``seed`` (of an order that has one) as in `orders.run`,
    ``batch`` as in the configuration; ``float32``: where searches run in a half, the model of close decisions;
    ``estimate``: of an order by attribution."""

    task: str
    order: str
    seed: int | None
    rule: search.Rule
    batch: int | str = 1
    legacy_mlp_means: bool = False
    allow_negative_clean: bool = False
    float32: Model | None = None
    estimate: Estimate = field(default_factory=Estimate)

    def ablator(self, model: Model, data: Dataset) -> Ablator:
        if self.legacy_mlp_means:
            return LegacyAblator(model, data.prompts, data.substitute, data.prompts)
        return Ablator(model, data.prompts, data.substitute)

    def circuit(self, model: Model, data: Dataset) -> Circuit:
        ablator = self.ablator(self.float32 or model, data)
        everything = ablator.everything
        full, empty = map(ablator.logit_diff, (everything, frozenset()))
        refuse_no_effect(f"{self.task} ({data.family}, {data.name})", full, empty, self.allow_negative_clean)
        alone = alone_of(ablator, self.order, self.estimate)
        gates = orders.gates_of(self.order, self.seed, ablator, self.rule)

        def steps(by: Ablator, settle: search.Settle) -> Iterator[search.Step]:
            batch = search.tried_at_once(self.batch, model.device, lambda: by.evaluations)
            return orders.run(
                self.order, self.seed, self.rule, everything, by.percents_of_full, alone, batch, settle, gates
            )

        in_half = self.float32 and not search.jumps(self.order)
        differences = Differences(self.ablator(model, data), ablator) if in_half else None
        made, _ = searched(f"{data.family}, {data.name}", steps, self.rule, ablator, differences)
        found: Circuit = made[-1].left if made else everything
        about = data.family, data.name, len(heads(found)), len(mlps(found)), ablator.percent_of_full(found)
        log.info("%s, %s: %d heads, %d MLPs, %.1f %% of full, %d forward passes", *about, ablator.evaluations)
        return found


EdgeSearch = Callable[[Model, Prompts, Replacement, Circuit], AnyCircuit]  # the edge circuit within a node circuit


def all_runs(
    model: Model,
    own: Dataset,
    others: Iterable[Dataset],
    orders: dict[str, Circuit],
    node_search: NodeSearch,
    edge_search: EdgeSearch | None = None,
) -> tuple[list[Run], list[Run]]:
    """The runs of components, and those of edges, which there are where ``edge_search`` is given.

    own: the task's own data. others: data to search on anew. orders: order -> circuit found on ``own``; that of the
    search's own order is the one that runs on other data are compared with. Edges have no family `orders`.
    """
    reported = orders[node_search.order]
    components = [Run("orders", name, circuit) for name, circuit in orders.items()]
    edges, reported_edges = [], edge_search and edge_search(model, own.prompts, own.substitute, reported)
    known = {"orders"}
    for data in others:
        if data.family not in known:
            known.add(data.family)
            components.append(Run(data.family, own.name, reported))
            if reported_edges is not None:
                edges.append(Run(data.family, own.name, reported_edges))
        circuit = node_search.circuit(model, data)
        components.append(Run(data.family, data.name, circuit))
        if edge_search:
            found = edge_search(model, data.prompts, data.substitute, circuit)
            edges.append(Run(data.family, data.name, found))
    return components, edges


# ---- what they share -----------------------------------------------------------------------------------------
def families(runs: Iterable[Run]) -> dict[str, list[AnyCircuit]]:
    """Family -> its circuits; a family of a single run says nothing about stability and is left out."""
    found: dict[str, list[AnyCircuit]] = {}
    for run in runs:
        found.setdefault(run.family, []).append(run.circuit)
    return {family: circuits for family, circuits in found.items() if len(circuits) > 1}


def survival_rows(runs: Iterable[Run], level: str) -> list[dict[str, Any]]:
    """Rows of `stability`: the share of a family's runs that keep each component (or edge) that any of them keeps."""
    return [
        {"level": level, "name": str(kept), "family": family, "share": share, "runs": len(circuits)}
        for family, circuits in families(runs).items()
        for kept, share in search.survival(circuits).items()
    ]


def summary_rows(runs: Iterable[Run], level: str, expected: Callable[..., Any] | None = None) -> list[dict[str, Any]]:
    """Rows of `stability_summary`: sizes, what all runs share, and Jaccard indices of pairs of runs.

    ``expected(a, b)``: Jaccard index of two circuits under chance; its mean over pairs is the column ``expected``.
    """
    rows = []
    for family, circuits in families(runs).items():
        sizes, pairs = list(map(len, circuits)), list(combinations(circuits, 2))
        found = [jaccard(a, b) for a, b in pairs]
        row = {"level": level, "family": family, "runs": len(circuits), "size_min": min(sizes), "size_max": max(sizes)}
        row |= {"intersection": len(frozenset.intersection(*circuits)), "union": len(frozenset.union(*circuits))}
        row |= {"jaccard": np.mean(found), "jaccard_low": min(found), "jaccard_high": max(found)}
        rows.append(row | {"expected": np.mean([expected(a, b) for a, b in pairs]) if expected else np.nan})
    return rows


def expected_jaccard(a: Circuit, b: Circuit, n_layers: int, n_heads: int) -> float:
    """Expected Jaccard index of random circuits with the heads per layer of a and of b, and their MLPs as they are.

    Exact: the number of shared heads is a sum of independent hypergeometric variables, one for each layer.
    """
    chance = layer_matched(n_heads, profile(a, n_layers), profile(b, n_layers))
    shared = np.arange(len(chance)) + len(frozenset(mlps(a)) & frozenset(mlps(b)))
    either = len(a) + len(b) - shared
    return float(chance @ np.where(either > 0, shared / np.maximum(either, 1), 1.0))


def to_json(runs: Iterable[Run], level: str) -> dict[str, Any]:
    """Every run's circuit, and the intersection and union of each family, by name."""
    runs = list(runs)

    def members(circuit: AnyCircuit) -> list[str]:
        return [str(member) for member in sorted(circuit)]

    shared = [
        {"level": level, "family": family, "runs": len(circuits)}
        | {"intersection": members(frozenset.intersection(*circuits)), "union": members(frozenset.union(*circuits))}
        for family, circuits in families(runs).items()
    ]
    found = [{"level": level, "family": r.family, "run": r.name, "members": members(r.circuit)} for r in runs]
    return {"families": shared, "runs": found}


def tables(
    runs: dict[str, list[Run]], n_layers: int, n_heads: int
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, list[Any]]]:
    """`stability`, `stability_summary`, and the content of `stability.json`; ``runs``: level -> its runs."""

    def by_chance(a: Circuit, b: Circuit) -> float:
        return expected_jaccard(a, b, n_layers, n_heads)

    survival, summary = [], []
    circuits: dict[str, list[Any]] = {"families": [], "runs": []}
    for level, found in runs.items():
        survival += survival_rows(found, level)
        summary += summary_rows(found, level, by_chance if level == "component" else None)
        if level == "component":
            heads_alone = [Run(r.family, r.name, frozenset(heads(r.circuit))) for r in found]
            summary += summary_rows(heads_alone, "head", by_chance)
            summary += summary_rows([Run(r.family, r.name, frozenset(mlps(r.circuit))) for r in found], "mlp")
        circuits = {key: value + to_json(found, level)[key] for key, value in circuits.items()}
    return (
        pd.DataFrame(survival, columns=list(SURVIVAL_COLUMNS)),
        pd.DataFrame(summary, columns=list(SUMMARY_COLUMNS)),
        circuits,
    )
