"""A task on other prompts: those searched on resampled, or made anew with one part of its block changed.

Families of changes: `bootstrap` (resampled), `seeds`, `templates`, `corruption`. Means, and constants that are fitted,
are those of the new prompts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from atlas.circuit.kinds import KINDS
from atlas.circuit.optimal import with_constants
from atlas.circuit.replacement import Replacement, replacement
from atlas.circuit.unablated import answer_logits, collected
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
