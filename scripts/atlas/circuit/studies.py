"""Read what a job needs of a model and of the prompts of a task, where it takes no `task_data.TaskData`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.model import models
from atlas.prompts import clean_scores
from atlas.store import artifacts

if TYPE_CHECKING:
    import pandas as pd


def load_model(model_json: Path | str, folder: Path, settings: dict[str, Any]) -> models.Model:
    """The model described by ``model.json``, from its ``folder``; ``settings``: device, dtype, batch_size."""
    return models.load(folder, settings=artifacts.read_json(model_json)["settings"], **settings)


def read_prompts(prompts_path: Path | str, clean_path: Path | str, split: str | None) -> pd.DataFrame:
    """`clean_scores.kept_prompts` of files."""
    return clean_scores.kept_prompts(artifacts.read_table(prompts_path), artifacts.read_table(clean_path), split)


def report_split(prompts_path: Path | str, clean_path: Path | str) -> str:
    """`clean_scores.report_split` of files."""
    return clean_scores.report_split(artifacts.read_table(prompts_path), artifacts.read_table(clean_path))
