"""Load the model of a job that takes no `task_data.TaskData`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from atlas.model import models
from atlas.store import artifacts


def load_model(model_json: Path | str, folder: Path, settings: dict[str, Any]) -> models.Model:
    """The model described by ``model.json``, from its ``folder``; ``settings``: device, dtype, batch_size."""
    return models.load(folder, settings=artifacts.read_json(model_json)["settings"], **settings)
