"""Put together what a job needs to score circuits on one task: model, prompts, means, ablator."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.core.errors import StudyError
from atlas.model import models
from atlas.prompts import clean_scores, layouts
from atlas.store import artifacts, tensors

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from atlas.circuit.ablation import Ablator, Replacement
    from atlas.edges.engine import EdgeAblator
    from atlas.prompts.batch import Prompts
    from atlas.store.memo import Memo

log = logging.getLogger("atlas")


def load_model(model_json: Path | str, folder: Path, settings: dict[str, Any]) -> models.Model:
    """The model described by ``model.json``, from its ``folder``; ``settings``: device, dtype, batch_size."""
    return models.load(folder, settings=artifacts.read_json(model_json)["settings"], **settings)


def read_prompts(prompts_path: Path | str, clean_path: Path | str, split: str | None) -> pd.DataFrame:
    """Prompts of a split that passed the filter, in order of ``prompt``; all splits when ``split`` is None."""
    frame = artifacts.read_table(prompts_path)
    clean = artifacts.read_table(clean_path)
    kept = set(clean.prompt[clean.kept])
    frame = frame[frame.prompt.isin(kept)]
    if split is not None:
        frame = frame[frame.split == split]
    return frame.sort_values("prompt", ignore_index=True)


def report_split(prompts_path: Path | str, clean_path: Path | str) -> str:
    """The split that results are reported on: held_out, or search in a study that holds nothing out.

    Raises StudyError where prompts are held out, but none of them passed the filter.
    """
    clean = artifacts.read_table(clean_path)
    prompts = artifacts.read_table(prompts_path).merge(clean[["prompt", "kept"]].drop_duplicates(), on="prompt")
    if not (prompts.split == "held_out").any():
        return "search"
    refuse_empty(prompts.task.iloc[0], prompts)
    return "held_out"


def refuse_empty(task: str, prompts: pd.DataFrame) -> None:
    """Raise StudyError where a filter keeps no prompt of a side; ``prompts`` has ``split`` and ``kept``."""
    said = clean_scores.emptied(prompts)
    if said:
        raise StudyError(f"tasks.{task}: {said}")


def make_ablator(
    model: models.Model,
    paths: dict[str, Any],
    split: str,
    kind: str,
    legacy_mlp_means: bool = False,
    metrics: Iterable[str] = ("logit_diff",),
    memo_folder: Path | str | None = None,
    roles: Sequence[dict[str, list[int]]] | None = None,
) -> Ablator:
    """An ablator on a split of a task; ``roles`` of each layout (`layouts.roles_of`) where its circuits hold sites.

    ``paths`` holds model (`model.json`), prompts, clean, means and, for resample, activations. With ``memo_folder``
    scores are kept on disk and found again by any job that scores the same circuits on the same prompts.
    """
    from atlas.circuit.ablation import Ablator, LegacyAblator, replacement
    from atlas.prompts.batch import Prompts

    means = tensors.read(paths["means"])
    frame = read_prompts(paths["prompts"], paths["clean"], split)
    prompts = Prompts.from_frame(frame, means["groups"])
    prompts = prompts.with_roles_of(roles, frame.layout.to_list()) if roles else prompts
    cache = tensors.read(paths["activations"]) if kind == "resample" and "activations" in paths else None
    substitute = replacement(kind, model, prompts, means, cache)
    memo = open_memo(memo_folder, model, paths["model"], prompts, substitute, kind, legacy_mlp_means, metrics)
    if not legacy_mlp_means:
        return Ablator(model, prompts, substitute, metrics, memo=memo)
    if kind != "mean":
        raise StudyError(f"search.legacy_mlp_means: true needs ablation.kind mean, not {kind}")
    if layouts.several(means["groups"]):
        every = artifacts.read_table(paths["prompts"])
        raise StudyError(
            f"search.legacy_mlp_means: true needs prompts of one layout, and those of tasks.{every.task.iloc[0]} have "
            f"several; set its file.min_layout above {len(every)} to keep the most common one alone"
        )
    reference = Prompts.from_frame(read_prompts(paths["prompts"], paths["clean"], "search"), means["groups"])
    return LegacyAblator(model, prompts, substitute, reference, metrics, memo=memo)


def make_edge_ablator(
    model: models.Model,
    paths: dict[str, Any],
    split: str,
    kind: str,
    metrics: Iterable[str] = ("logit_diff",),
    memo_folder: Path | str | None = None,
) -> EdgeAblator:
    """The same for edge circuits; their replacement has embeddings too, with means from the search split."""
    from atlas.circuit.ablation import replacement
    from atlas.core.graph import Graph
    from atlas.edges.engine import EdgeAblator, with_embeddings
    from atlas.prompts.batch import Prompts

    means = tensors.read(paths["means"])
    searched, scored = (
        Prompts.from_frame(read_prompts(paths["prompts"], paths["clean"], name), means["groups"])
        for name in ("search", split)
    )
    cache = tensors.read(paths["activations"]) if kind == "resample" else None
    substitute = with_embeddings(replacement(kind, model, scored, means, cache), kind, model, scored, searched)
    memo = open_memo(memo_folder, model, paths["model"], scored, substitute, kind, False, metrics)
    return EdgeAblator(model, Graph.of(artifacts.read_json(paths["model"])), scored, substitute, metrics, memo)


def open_memo(
    folder: Path | str | None,
    model: models.Model,
    model_json: Path | str,
    prompts: Prompts,
    substitute: Replacement,
    kind: str,
    legacy: bool,
    metrics: Iterable[str],
) -> Memo | None:
    """The memo of everything that determines a score, or None without a folder."""
    from atlas.store.memo import Memo, tensor_digest

    if folder is None:
        return None
    description = artifacts.read_json(model_json)
    context = {
        "model": [description[k] for k in ("weights", "config")],
        "dtype": str(model.dtype),
        "device": model.device,
        "kind": kind,
        "legacy_mlp_means": legacy,
        "prompts": [tensor_digest(x) for x in (prompts.tokens, prompts.answer, prompts.incorrect)],
        "answers": list(prompts.answer.shape),
        "position": None if prompts.position is None else prompts.position.tolist(),
        "roles": {name: tensor_digest(mask) for name, mask in (prompts.roles or {}).items()},
        "substitute": [tensor_digest(x) for x in vars(substitute).values()],
    }
    return Memo(folder, context, metrics)


def refuse_no_effect(task: str, full: np.ndarray, empty: np.ndarray, allow: bool = False) -> None:
    """Faithfulness divides by M(full) - M(empty); refuse a task where that is nearly nothing.

    ``allow`` (the config's `allow_negative_clean`) turns the refusal into a warning, unless there is no effect at all.
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
