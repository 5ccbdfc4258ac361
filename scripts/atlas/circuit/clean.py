"""What a model does on the prompts of a task, unharmed: its scores, its activations, and the means of ablation."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from atlas.circuit.optimal import fitted
from atlas.circuit.unablated import answer_logits, collected
from atlas.core import metrics
from atlas.core.errors import StudyError
from atlas.core.statistics import Bootstrap, interval_columns
from atlas.model.models import Model
from atlas.prompts import clean_scores, layouts
from atlas.prompts.batch import Prompts

log = logging.getLogger("atlas")

RUNS = ("clean", "corrupted")
SCORES = ("logit_diff", "prob_diff", "top1", "log_prob")  # those of METRICS that need no other run


def score(model: Model, frame: pd.DataFrame, filter: dict[str, Any] | None, by_template: bool) -> pd.DataFrame:
    """Rows of `clean.parquet`: every metric of SCORES on each prompt, of its clean and of its corrupted run.

    frame: the prompts of one model and task. filter: the config's key in `prompts`; ``kept`` says which prompts pass it
    and have a mean of their group (`layouts.kept_with_mean`). Raises StudyError where a score is not finite.
    """
    frame = frame.sort_values("prompt", ignore_index=True)
    prompts, pieces = Prompts.from_frame(frame), []
    for run in RUNS:
        logits = answer_logits(model, prompts, run)
        scores = metrics.per_prompt(SCORES, logits, prompts.answer, prompts.incorrect)
        if not logits.isfinite().all():
            task, name = frame[["task", "model"]].iloc[0]
            said = "is not finite; the model overflows in this dtype, or its files are damaged"
            raise StudyError(f"tasks.{task}: what {name} makes of {run} prompts {said}")
        if run == "clean":
            kept = torch.ones(len(frame), dtype=torch.bool)
            if filter:
                kept = metrics.passes(logits, prompts.answer, prompts.incorrect, **filter)
            frame["kept"] = kept.tolist()
            frame["kept"] = layouts.kept_with_mean(frame, by_template)
        rows = frame[["model", "task", "prompt", "split", "kept"]]
        pieces += [rows.assign(run=run, metric=name, value=x.double().numpy()) for name, x in scores.items()]
    log.info("%d of %d prompts kept", frame.kept.sum(), len(frame))
    return pd.concat(pieces, ignore_index=True)


def summarise(scores: pd.DataFrame, bootstrap: Bootstrap) -> pd.DataFrame:
    """Rows of `clean_summary.parquet`: means of `clean.parquet` by split (and over all), run and metric."""
    summary = []
    for split in ("search", "held_out", "all"):
        part = scores if split == "all" else scores[scores.split == split]
        for (run, metric), cells in part.groupby(["run", "metric"], sort=True):
            row = dict(cells[["model", "task"]].iloc[0]) | {"split": split, "run": run, "metric": metric}
            row |= interval_columns(bootstrap.mean(cells.value))
            summary.append(row | {"prompts": len(cells), "share_kept": cells.kept.mean()})
    return pd.DataFrame(summary)


def search_prompts(
    frame: pd.DataFrame, clean: pd.DataFrame, groups: str, allow_negative_clean: bool
) -> tuple[Prompts, list[str]]:
    """The prompts that circuits are searched on, and the names of the groups that their means run over.

    frame, clean: `prompts.parquet` and `clean.parquet` of one task; groups: the config's `ablation.groups`. Prompts are
    padded as all prompts of the task are. Raises StudyError where no circuit can be searched on the task.
    """
    frame = clean_scores.with_scores(frame.sort_values("prompt", ignore_index=True), clean)
    refused = clean_scores.refusal(frame, groups, allow_negative_clean)
    if refused:
        said = f"{refused}; `snakemake --cores 2 check_data` shows its prompts and scores"
        raise StudyError(f"tasks.{frame.task.iloc[0]}: {said}")
    search = frame.kept & (frame.split == "search")
    names = layouts.group_names(frame[search], groups == "template")
    prompts = Prompts.from_frame(frame).take(search.to_numpy().nonzero()[0])
    log.info("clean logit difference %.3f on %d search prompts", frame["logit_diff"][search].mean(), len(prompts))
    return replace(prompts, group=torch.tensor(layouts.group_of(frame[search], names))), names


def activations_and_means(
    model: Model, prompts: Prompts, groups: list[str], dtype: torch.dtype, folder: Path, fit: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Content of `activations.pt` and of `means.pt`, of the clean and of the corrupted run.

    dtype: of the activations kept. folder: where they are while they are collected (`activations.collect`). fit: also
    the constants of optimal ablation (`optimal.fitted`).
    """
    rows = prompts.rows()
    cached: dict[str, Any] = {"prompt": torch.tensor(prompts.prompt)}
    means: dict[str, Any] = {"groups": groups}
    for run in RUNS:
        cached[run], means[run] = collected(model, rows, run, dtype, folder)
    if fit:
        means["optimal"] = fitted(model, prompts, means)
    return cached, means | rows.sizes_of_means()
