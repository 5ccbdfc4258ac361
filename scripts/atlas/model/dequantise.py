"""A GGUF file becomes a Hugging Face checkpoint in float32, read by transformers, and is held against its own reading.

float32 holds every dequantised value as it is: scales of blocks are float16 or float32, and the sums are taken in
float32.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from atlas.core.errors import StudyError, one_line
from atlas.model import gguf_file
from atlas.store import artifacts, sources

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DTYPE = "float32"
LOGITS = 1e-5  # largest difference, as a share of the largest logit: the same weights in the same operations
ROWS, LENGTH = 2, 48  # tokens on which logits are held against each other
# What both tokenizers must split alike: words, digits beside spaces and line breaks, marks, other scripts
TEXTS = (
    "January February March",
    "- one\n- two\n-",
    "In 1999, 12 of 345; a  b\n\n 7",
    "Élan vital: naïve café.",
    "日本 αβγ 😀",
    " x",
)


def folder_name(sha256: str) -> str:
    """Name of the folder of a GGUF's checkpoint: by its content, and what converts it."""
    by = {package: sources.installed(package) for package in ("transformers", "gguf", "tokenizers")}
    return f"{sha256[:16]}-{artifacts.digest({'code': artifacts.digest_file(__file__)} | by)[:8]}"


def to_checkpoint(name: str, file: Path, folder: Path) -> dict[str, Any]:
    """Write the checkpoint of a GGUF file, which lies alone in its folder; what is known of it, for source.json.

    Raises StudyError where the file is none that can be read with certainty (gguf_file.py), or where the checkpoint
    does not give the logits and tokens of transformers' own reading of the file.
    """
    found = gguf_file.read(name, file)
    model, tokenizer = _read(name, file)
    config = _config(model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    gguf_file.refuse_unlike(name, file, found, config, parameters)
    _split_single_digits(tokenizer, found)
    _refuse_prefix(name, file, found, tokenizer)
    with torch.device("meta"):
        fresh = type(model)(config)  # the one that was read remembers a quantisation, and cannot be saved
    fresh.load_state_dict(model.state_dict(), assign=True)
    fresh.tie_weights()
    fresh.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    logits = _logits(model)
    del fresh, model
    gc.collect()  # before the weights are read again
    _refuse_other_model(name, file, folder, config, logits)
    _refuse_other_tokens(name, file, folder, tokenizer)
    return {
        "architecture": found.architecture,
        "types": found.types(),
        "quantised": any(tensor.type not in gguf_file.PLAIN for tensor in found.tensors),
        "licence_in_file": found.settings.get("general.license"),
        "bos": _adds_bos(found),
        "dtype": DTYPE,
        "weights": {weights.name: artifacts.digest_file(weights) for weights in sorted(folder.glob("*.safetensors"))},
        "versions": {package: sources.installed(package) for package in ("transformers", "gguf")},
    }


def _adds_bos(found: gguf_file.Contents) -> bool:
    """Whether the model expects a BOS token; a sentencepiece vocabulary does where the file does not say."""
    default = found.settings["tokenizer.ggml.model"] == "llama"
    return bool(found.settings.get("tokenizer.ggml.add_bos_token", default))


def _read(name: str, file: Path) -> tuple[Any, PreTrainedTokenizerBase]:
    """transformers' model and tokenizer of a GGUF file."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    quiet = contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO())
    where = f"models.{name}.gguf: {file.name}"
    try:
        how = {"dtype": getattr(torch, DTYPE), "attn_implementation": "eager", "local_files_only": True}
        with quiet:  # its progress bars cannot be switched off
            model, found = AutoModelForCausalLM.from_pretrained(
                file.parent, gguf_file=file.name, output_loading_info=True, **how
            )
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    except Exception as error:  # whatever a class says of values and shapes that it cannot use
        raise StudyError(
            f"{where} cannot be read by transformers ({one_line(error)}); give `path` with the original checkpoint"
        ) from None
    missing = sorted(found["missing_keys"])
    if missing:
        raise StudyError(f"{where} lacks {missing[0]!r} of {type(model).__name__}; give a complete file")
    return model.eval(), tokenizer


def _config(model: Any) -> Any:
    """The model's configuration, less what says that it was quantised and where it was."""
    settings = json.loads(model.config.to_json_string(use_diff=False))
    return type(model.config).from_dict(
        {key: value for key, value in settings.items() if key not in ("quantization_config", "_name_or_path")}
    )


# ---- tokenizer -----------------------------------------------------------------------------------------------
def _split_single_digits(tokenizer: PreTrainedTokenizerBase, found: gguf_file.Contents) -> None:
    """Let a tokenizer split digits one by one where the file says so; transformers leaves that out."""
    from tokenizers import pre_tokenizers as split

    if found.settings.get("tokenizer.ggml.pre") in gguf_file.SINGLE_DIGITS:
        parts = [split.Digits(individual_digits=True), split.ByteLevel(add_prefix_space=False)]
        tokenizer.backend_tokenizer.pre_tokenizer = split.Sequence(parts)


def _refuse_prefix(name: str, file: Path, found: gguf_file.Contents, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise StudyError where a sentencepiece tokenizer puts a space before a text and the file says it does not, or
    the other way round."""
    if found.settings["tokenizer.ggml.model"] != "llama":
        return
    stated = bool(found.settings.get("tokenizer.ggml.add_space_prefix", True))
    first = tokenizer.convert_ids_to_tokens(tokenizer("a", add_special_tokens=False)["input_ids"])[0]
    if first.startswith("\u2581") != stated:
        raise StudyError(
            f"models.{name}.gguf: {file.name}: tokenizer.ggml.add_space_prefix is {stated}, and the tokenizer that "
            f"transformers makes of it reads 'a' as {first!r}; give `path` with the original checkpoint"
        )


def _refuse_other_tokens(name: str, file: Path, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    from transformers import AutoTokenizer

    again = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    for text in TEXTS:
        before, after = (t(text, add_special_tokens=False)["input_ids"] for t in (tokenizer, again))
        if before != after:
            raise StudyError(
                f"models.{name}.gguf: {file.name}: its tokenizer reads {text!r} as {before}, once saved as {after}; "
                "give `path` with the original checkpoint"
            )


# ---- logits --------------------------------------------------------------------------------------------------
def _logits(model: Any) -> torch.Tensor:
    """[ROWS, LENGTH, d_vocab] on random tokens, the same for every model of a vocabulary."""
    length = min(LENGTH, model.config.max_position_embeddings)
    tokens = torch.randint(model.config.vocab_size, (ROWS, length), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found: torch.Tensor = model(tokens, use_cache=False).logits
    return found


def _refuse_other_model(name: str, file: Path, folder: Path, config: Any, logits: torch.Tensor) -> None:
    """Raise StudyError unless the checkpoint in a folder has a configuration, and gives logits on the same tokens."""
    from transformers import AutoModelForCausalLM

    how = {"dtype": getattr(torch, DTYPE), "attn_implementation": "eager", "local_files_only": True}
    again = AutoModelForCausalLM.from_pretrained(folder, **how).eval()
    unlike, off = _unlike(config.to_dict(), again.config.to_dict()), float((_logits(again) - logits).abs().max())
    if unlike:
        said = f"has another {unlike[0]} than the file"
    elif not off <= LOGITS * float(logits.abs().max()):
        said = f"gives other logits (off by {off:.2g})"
    else:
        return
    raise StudyError(
        f"models.{name}.gguf: the checkpoint that was made of {file.name} {said}; give `path` with the original one"
    )


def _unlike(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Keys of two configurations whose values differ, but for how they were read."""
    kept = {*one, *other} - {"_name_or_path", "architectures", "transformers_version", "quantization_config", "dtype"}
    return sorted(key for key in kept if one.get(key) != other.get(key))
