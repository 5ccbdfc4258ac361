"""Tuned lens beside the logit lens: how near each point of the residual stream is to the final answer.

The lens is trained (`lens_training`) on the study's own texts, which is not what a lens for general text would be
trained on: the clean and corrupted prompts that circuits are searched on, at their last token and at others. It is
measured at the last token of prompts held out, beside the logit lens:

- `kl`: KL(p || q) in nats, of the model's final distribution p and the lens's q over the whole vocabulary;
- `probability` of the answer, `reciprocal_rank` of it (1: it is first), `leads`: share of prompts where it is first;
- `leads_from`: layers passed from which on the answer is first to the end, of prompts where the model has it first.

The control is what can be said without looking at a prompt: `constant`, the mean of p over the prompts measured. Of all
distributions that are the same for every prompt it has the least KL, though it knows the answers and a lens does not: a
lens that is nearer reads something of the prompt, and one trained on shuffled targets can be no nearer.

A study that holds nothing out trains on every other prompt, and measures on those between (`split`: `half`).

Points are 0 .. L, the residual after so many layers. Letters: D width, K positions of each text, L layers, N texts or
prompts, S tokens, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from atlas.core.errors import StudyError
from atlas.core.metrics import per_prompt
from atlas.core.statistics import Bootstrap, interval_columns
from atlas.geometry.lens_training import Training, Tuned, log_probabilities, train
from atlas.geometry.read_names import (
    CONSTANT,
    HALF,
    LEADS_FROM,
    LESS_CONSTANT,
    LESS_LOGIT,
    LOGIT,
    METRICS,
    NO_POINT,
    TUNED,
)
from atlas.geometry.residuals import point_hook, points_of
from atlas.heads.attribution import Readout, point_names
from atlas.model.models import Model
from atlas.prompts import clean_scores, layouts
from atlas.prompts.batch import Prompts, padded
from atlas.store.job import progress

ASIDE = 8  # one text in so many decides which state of a lens is kept,
ASIDE_POSITIONS = 96  # at so many positions, at most
COLUMNS = ["task", "point", "name", "lens", "metric", "value", "ci_low", "ci_high", "prompts", "split"]
TRAINING_COLUMNS = ["point", "name", "start", "step", "before", "after", "trained", "aside", "texts", "steps", "seed"]


@dataclass(frozen=True)
class Settings:
    """``texts`` to train on, clean and corrupted, of all tasks together, at ``positions`` of each: the last token and
    others drawn, never the first. ``prompts`` of each task to measure on, at most. ``training``: see `Training`."""

    texts: int
    positions: int
    prompts: int
    training: Training


# ---- texts and prompts ---------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Texts:
    """Of one task: ids of each text to train on, and the prompts (rows of `prompts.parquet`) that are measured."""

    trained: list[list[int]]
    measured: pd.DataFrame
    split: str

    @classmethod
    def of(cls, prompts: pd.DataFrame, clean: pd.DataFrame, texts: int, measured: int) -> Texts:
        """At most so many of each, of a task's `prompts.parquet` and `clean.parquet`."""
        split = clean_scores.report_split(prompts, clean)
        search = clean_scores.kept_prompts(prompts, clean, "search")
        held_out = clean_scores.kept_prompts(prompts, clean, split)
        if split == "search":
            if len(search) < 2:
                raise StudyError(
                    f"tasks.{prompts['task'].iloc[0]}: one prompt cannot both train and test a lens; add some"
                )
            split, search, held_out = HALF, search.iloc[0::2], search.iloc[1::2]
        search = layouts.spread(search.reset_index(drop=True), max(1, texts // 2))
        rows = [list(ids) for column in ("tokens", "corrupted_tokens") for ids in search[column]]
        return cls(rows, layouts.spread(held_out.reset_index(drop=True), measured), split)


def positions_of(lengths: Sequence[int], k: int, seed: int) -> torch.Tensor:
    """[N, k] positions of texts of these many tokens: the last, and others drawn, never the first where there are more.

    A short text has some of them twice.
    """
    rng, rows = np.random.default_rng(seed), []
    for length in lengths:
        others = np.arange(1, length - 1) if length > 2 else np.array([length - 1])
        rows.append([length - 1, *rng.choice(others, k - 1, replace=len(others) < k - 1)])
    return torch.tensor(np.array(rows))


def residuals(model: Model, tokens: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """[L + 1, N, K, D] residuals of texts ``tokens`` [N, S] at positions ``at`` [N, K], after 0 .. L layers.

    Raises StudyError where the final norm and the unembedding of the last one are not the model's own output.
    """
    names, readout, found = [point_hook(point) for point in points_of(model.n_layers)], Readout.of(model), []
    for batch in progress(model.batches(len(tokens)), "residuals"):
        where, kept = at[batch].to(model.device), dict[str, torch.Tensor]()
        hooks = [(name, _keeper(name, where, kept)) for name in names]
        own = model.run(tokens[batch], hooks, position=where[:, :1])[:, 0]
        stack = torch.stack([kept[name] for name in names])
        stack = stack.to(torch.promote_types(stack.dtype, torch.float32))
        refuse_another_end(readout.unembed(readout.norm(stack[-1, :, 0])), own, model.dtype)
        found.append(stack)
    return torch.cat(found, 1)


def _keeper(name: str, at: torch.Tensor, kept: dict[str, torch.Tensor]) -> Callable[..., torch.Tensor]:
    def hook(x: torch.Tensor, hook: object) -> torch.Tensor:
        kept[name] = x[torch.arange(len(x), device=x.device)[:, None], at].detach()
        return x

    return hook


def refuse_another_end(read: torch.Tensor, own: torch.Tensor, dtype: torch.dtype) -> None:
    """Refuse a model whose output [N, V] is not what the lens ``read`` [N, V] at its last point, to its rounding."""
    eps = max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
    rest = float((read - own).abs().max())
    if rest > 1e3 * eps * (1 + float(own.abs().max())):
        raise StudyError(
            f"geometry.analyses: tuned_lens: norm and unembedding of the last residual differ from the model's output "
            f"by {rest:.3g} logits; no lens applies to this model, leave tuned_lens out"
        )


# ---- the lens of a model -------------------------------------------------------------------------------------
def tables(
    model: Model, tasks: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]], settings: Settings, bootstrap: Bootstrap
) -> dict[str, pd.DataFrame]:
    """`tuned_lens` and `tuned_lens_training` of a model, less its name.

    ``tasks``: task -> its `prompts.parquet` and `clean.parquet`, with answers of one token. Holds the residuals of the
    texts, (L + 1) D numbers at each of their positions, twice.
    """
    each, readout = settings.texts // len(tasks), Readout.of(model)
    texts = {task: Texts.of(*frames, each, settings.prompts) for task, frames in tasks.items()}
    rows = [ids for of_task in texts.values() for ids in of_task.trained]
    if len(rows) <= ASIDE:
        raise StudyError(
            f"geometry.tuned_lens.texts: {len(rows)} texts are too few to train a lens; give more than {ASIDE}"
        )
    at = positions_of([len(ids) for ids in rows], settings.positions, settings.training.seed)
    found = residuals(model, padded(rows), at)  # [L + 1, N, K, D]
    aside = torch.arange(len(rows)) % ASIDE == ASIDE - 1
    tuned = train(readout, found[:, ~aside].flatten(1, 2), spread_aside(found[:, aside]), settings.training)
    measured = [
        row | {"task": task}
        for task, of_task in texts.items()
        for row in task_rows(model, readout, tuned, of_task, bootstrap)
    ]
    told = training_rows(tuned, point_names(model.n_layers)[::2])
    same = {"texts": len(rows), "steps": settings.training.steps, "seed": settings.training.seed}
    return {
        "tuned_lens": pd.DataFrame(measured, columns=COLUMNS),
        "tuned_lens_training": pd.DataFrame(told).assign(**same)[TRAINING_COLUMNS],
    }


def spread_aside(x: torch.Tensor) -> torch.Tensor:
    """[L + 1, A, D] of residuals [L + 1, N, K, D] of texts put aside: last tokens, the first of the K, and as many
    others where there are some, evenly over the texts; `ASIDE_POSITIONS` at most."""
    kinds = [x[:, :, 0], x[:, :, 1:].flatten(1, 2)] if x.shape[2] > 1 else [x[:, :, 0]]
    most = min(ASIDE_POSITIONS // len(kinds), kinds[0].shape[1])
    return torch.cat([part[:, [i * part.shape[1] // most for i in range(most)]] for part in kinds], 1)


def training_rows(tuned: Tuned, names: Sequence[str]) -> list[dict[str, Any]]:
    """How each translator came about; ``names`` of points 0 .. L."""
    return [
        {"point": point, "name": names[point], "trained": tuned.trained, "aside": tuned.aside}
        | {key: getattr(tuned, key)[point] for key in ("start", "step", "before", "after")}
        for point in range(len(tuned.translators))
    ]


def task_rows(model: Model, readout: Readout, tuned: Tuned, texts: Texts, bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """Rows of one task."""
    prompts = Prompts.from_frame(texts.measured)
    last = torch.tensor([len(ids) - 1 for ids in texts.measured["tokens"]])[:, None]
    points = residuals(model, prompts.tokens, last)[:, :, 0]
    answer = prompts.answer.to(points.device)
    values = {
        LOGIT: looked_at(readout, list(points), answer),
        TUNED: looked_at(readout, [tuned.translated(i, x) for i, x in enumerate(points)], answer),
    }
    constant = constant_kl(readout, points[-1])
    names, rows = point_names(model.n_layers)[::2], []
    about = {"prompts": len(answer), "split": texts.split}

    def add(lens: str, metric: str, point: int, estimate: tuple[float, float, float]) -> None:
        keys = {"point": point, "name": names[point] if point != NO_POINT else "any", "lens": lens, "metric": metric}
        rows.append(keys | interval_columns(estimate) | about)

    for lens, found in values.items():
        for point, metric in np.ndindex(len(points), len(METRICS)):
            add(lens, METRICS[metric], point, bootstrap.mean(found[metric, point]))
        add(lens, LEADS_FROM, NO_POINT, leads_from(found[METRICS.index("leads")], bootstrap))
    add(CONSTANT, "kl", NO_POINT, bootstrap.mean(constant))
    for point in range(len(points)):
        add(LESS_LOGIT, "kl", point, bootstrap.mean(values[TUNED][0, point] - values[LOGIT][0, point]))
        add(LESS_CONSTANT, "kl", point, bootstrap.mean(values[TUNED][0, point] - constant))
    return rows


def looked_at(readout: Readout, points: Sequence[torch.Tensor], answer: torch.Tensor) -> np.ndarray:
    """[metrics, points, N] of residuals [N, D] of each point, translated or not; the last is the model's own."""
    log_p, found = log_probabilities(readout, points[-1]), []
    for x in points:
        log_q = log_probabilities(readout, x)
        kl = (log_p.exp() * (log_p - log_q)).sum(-1)
        rank = per_prompt(["answer_rank"], log_q, answer, answer)["answer_rank"]
        probability = log_q.gather(1, answer[:, None])[:, 0].exp()
        found.append(torch.stack([x.double() for x in (kl, probability, 1 / (1 + rank), rank == 0)]).cpu().numpy())
    return np.stack(found, axis=1)


def constant_kl(readout: Readout, final: torch.Tensor) -> np.ndarray:
    """[N] KL in nats of what final residuals [N, D] say and the mean of what they all say."""
    log_p = log_probabilities(readout, final)
    log_q = log_p.exp().mean(0).log()
    terms = torch.where(log_p.exp() > 0, log_p.exp() * (log_p - log_q), torch.zeros_like(log_p))
    return terms.sum(-1).double().cpu().numpy()


def leads_from(leads: np.ndarray, bootstrap: Bootstrap) -> tuple[float, float, float]:
    """Mean number of layers passed from which the answer leads to the end, of prompts that it leads in the end; nan
    where there are none. ``leads`` [points, N]: is it first?"""
    led = leads.astype(bool)
    if not led[-1].any():
        return (np.nan,) * 3
    own = led[:, led[-1]]
    lost = np.where(own, -1, np.arange(len(own))[:, None]).max(0)
    return bootstrap.mean(lost + 1)
