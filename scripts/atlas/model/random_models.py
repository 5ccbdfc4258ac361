"""Build a model of a given architecture with random weights, so that a study can be tried without its checkpoint.

What such a study finds means nothing; its shapes, memory and time are those of the real one.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from atlas.core.errors import StudyError, one_line
from atlas.model.source import HALVES
from atlas.prompts.tokens import load_tokenizer
from atlas.store.places import TOKENIZER as TOKENIZER_FILES

NOTE = "Random weights, made to try the workflow without a checkpoint. Nothing that is found in them means anything.\n"


def read_config(name: str, path: Path, layers: int | None) -> Any:
    """The Hugging Face config in a JSON file, cut to ``layers`` layers where that is given; raises StudyError."""
    from transformers import AutoConfig

    if not path.is_file():
        raise StudyError(f"models.{name}.architecture: {path} is not there; give the config.json of an architecture")
    try:
        content = json.loads(path.read_text())
        config = AutoConfig.for_model(content.pop("model_type"), **content)
    except Exception as error:  # no JSON, no object, an unknown type, values of the wrong type
        said = f"models.{name}.architecture: {path} is no configuration of a model ({one_line(error)})"
        raise StudyError(f"{said}; give the config.json of an architecture") from None
    if layers is not None:
        if layers > config.num_hidden_layers:
            raise StudyError(f"layers: {layers}, but {name} has {config.num_hidden_layers}; give fewer, or none")
        of_layers = {
            k: v for k, v in vars(config).items() if isinstance(v, list) and len(v) == config.num_hidden_layers
        }
        for key, values in {"num_hidden_layers": layers, **{k: v[:layers] for k, v in of_layers.items()}}.items():
            setattr(config, key, values)  # what is said of each layer, as which has a window, is cut with them
    return config


def tokenizer_folder(name: str, source: str, root: Path | str) -> Path:
    """The local folder of a tokenizer: a path (from ``root``), or the cached or downloaded files of a hub id."""
    folder = Path(root) / Path(source).expanduser()
    if folder.is_dir():
        return folder
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(source, allow_patterns=list(TOKENIZER_FILES)))
    except Exception as error:  # the hub client raises many kinds: no network, no such id, no permission, offline mode
        raise StudyError(
            f"models.{name}.tokenizer: {source!r} is no folder and cannot be reached as a hub id "
            f"({type(error).__name__}); give a folder with its files, e.g. --config tokenizer=/folder/of/tokenizer"
        ) from None


def build(name: str, config: Any, tokenizer: Path, folder: Path, dtype: str, seed: int) -> int:
    """Write a checkpoint folder: weights as the architecture initialises them, its config, the tokenizer's files.

    Returns the number of parameters. Weights are drawn in ``dtype`` itself, so that a large model never stands in
    memory in float32; `auto`: the half that the config names, else float32. Raises StudyError where the tokenizer does
    not fit the embedding.
    """
    import sys

    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    words = len(load_tokenizer(str(tokenizer)))
    if words > config.vocab_size:
        raise StudyError(
            f"models.{name}.tokenizer: {tokenizer} has {words} tokens, the architecture embeds {config.vocab_size}; "
            "give the tokenizer of this architecture"
        )
    own = str(config.dtype).removeprefix("torch.")
    dtype = (own if own in HALVES else "float32") if dtype == "auto" else dtype
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    model.save_pretrained(folder)
    for pattern in TOKENIZER_FILES:
        for file in tokenizer.glob(pattern):
            shutil.copyfile(file, folder / file.name)
    (folder / "README.md").write_text(NOTE)
    return sum(p.numel() for p in model.parameters())
