"""One file a family, named after transformers' ``model_type`` (with _ for -), that says which ingredients it has.

A file has one function, ``read(checkpoint, config)``, that gives the model's `block.Weights`, or None where one of the
configuration's options has no place in `block`. ``config`` has the fields of the Hugging Face configuration. Files are
found by their names, and nothing else lists them; tests/families.py says how to build a tiny model of each. A model of
any other family runs through TransformerLens hooks.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from atlas.model import source
from atlas.model.block import Weights
from atlas.model.checkpoint import Checkpoint

Reader = Callable[[Checkpoint, Any], Weights | None]


def names() -> list[str]:
    """The families that have a file, by the names of their files."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__")


def reader_of(model_type: str) -> Reader | None:
    """``read`` of a family's file; None where it has none."""
    name = model_type.replace("-", "_")
    if name not in names():
        return None
    read: Reader = importlib.import_module(f"{__name__}.{name}").read
    return read


def weights_of(
    folder: Path | str, device: str = "cpu", dtype: torch.dtype = torch.float32, settings: dict[str, Any] | None = None
) -> Weights | None:
    """The weights in a checkpoint folder, or None where its family or one of its options has no place in `block`.

    ``settings``: what `source.settings_of` finds in the folder, if it is at hand; finding it imports transformers.
    """
    config = SimpleNamespace(**(settings or source.settings_of(folder)))
    read = reader_of(config.model_type)
    if read is None or getattr(config, "quantization_config", None):
        return None
    return read(Checkpoint(folder, device, dtype), config)
