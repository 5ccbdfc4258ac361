"""Refuse a checkpoint folder that cannot be what its configuration says, before anything is computed with it.

Nothing in a folder is ever executed: no code of its own (``trust_remote_code=False``), no pickle but of plain tensors.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.errors import StudyError

if TYPE_CHECKING:
    from atlas.checkpoint import Checkpoint

SIZES = ("num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size")
LARGEST = 10_000_000
FAMILIES = ("GPT2LMHeadModel", "GPTNeoXForCausalLM", "LlamaForCausalLM")  # whose tensors the engine reads by name


def one_line(error: BaseException) -> str:
    """What another library says, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def check(name: str, folder: Path) -> None:
    """Everything below; raises StudyError with one line."""
    config = read_config(name, folder)
    refuse_tokenizer(name, folder, config.vocab_size)
    refuse_damaged(name, folder, config)


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON")


def read_config(name: str, folder: Path) -> Any:
    """The Hugging Face configuration in a folder; raises StudyError where it is none, or its sizes make no model."""
    from transformers import AutoConfig

    where = f"models.{name}: {folder / 'config.json'}"
    remedy = "give the folder of a Hugging Face checkpoint"
    try:
        content = json.loads((folder / "config.json").read_text(), parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise StudyError(f"{where} cannot be read as JSON ({one_line(error)}); {remedy}") from None
    if not isinstance(content, dict):
        raise StudyError(f"{where} holds a {type(content).__name__}, no object; {remedy}")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # unknown types, values of the wrong type, code of its own: each raises its own kind
        raise StudyError(f"{where} is no configuration that transformers knows ({one_line(error)}); {remedy}") from None
    classes = config.architectures
    if classes is not None and not (isinstance(classes, list) and all(isinstance(c, str) for c in classes)):
        raise StudyError(f"{where}: architectures is {classes!r}; it names classes, as in [GPT2LMHeadModel]")
    for key in SIZES:
        value = getattr(config, key, None)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST:
            raise StudyError(f"{where}: {key} is {value!r}; a language model needs a number from 1 to {LARGEST}")
    heads, kv = config.num_attention_heads, getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    if not isinstance(kv, int) or kv < 1 or heads % kv:
        raise StudyError(f"{where}: {heads} heads cannot share {kv!r} key/value heads; {remedy}")
    if not getattr(config, "head_dim", None) and config.hidden_size % heads:
        raise StudyError(f"{where}: hidden_size {config.hidden_size} is not a multiple of {heads} heads; {remedy}")
    return config


def refuse_damaged(name: str, folder: Path, config: Any) -> None:
    """Raise StudyError where weights are missing, superfluous, of another shape than configured, or not finite.

    Names and shapes are compared for the families of the engine; of others transformers knows how names translate.
    """
    from atlas.checkpoint import Checkpoint

    checkpoint = Checkpoint(folder)
    if not checkpoint.sources:
        raise StudyError(f"models.{name}: {folder} holds no tensors; give the folder of a Hugging Face checkpoint")
    quantised = getattr(config, "quantization_config", None) is not None
    if (config.architectures or [None])[0] in FAMILIES and not quantised:
        _compare(name, folder, checkpoint, _expected(name, folder, config))
    for tensor_name, read in checkpoint.sources.items():
        tensor = read(tensor_name)
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise StudyError(f"models.{name}: {tensor_name} in {folder} is not finite; fetch its files again")


def _expected(name: str, folder: Path, config: Any) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the parameters of the model that the configuration describes; none of them is made."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # whatever a class says of values it cannot use
        said = f"models.{name}: {folder / 'config.json'} makes no model ({one_line(error)})"
        raise StudyError(f"{said}; give the folder of a Hugging Face checkpoint") from None
    return {parameter: tuple(tensor.shape) for parameter, tensor in model.named_parameters()}


def _compare(name: str, folder: Path, checkpoint: Checkpoint, expected: dict[str, tuple[int, ...]]) -> None:
    where, remedy = f"models.{name}: the weights in {folder}", "its files do not belong together, fetch them again"
    for parameter, shape in expected.items():
        if parameter not in checkpoint:
            raise StudyError(f"{where} lack {parameter!r}; {remedy}")
        found = checkpoint.sources[checkpoint.name(parameter)](checkpoint.name(parameter))
        if tuple(found.shape) != shape:
            raise StudyError(f"{where}: {parameter} is {tuple(found.shape)}, config.json says {shape}; {remedy}")
        if not found.is_floating_point():
            raise StudyError(f"{where}: {parameter} is of {found.dtype}, not of floating point; {remedy}")
    known = {form for parameter in expected for form in (parameter, parameter.split(".", 1)[-1])}
    kinds = {re.sub(r"\d+", "0", parameter) for parameter in known}
    for tensor_name in checkpoint.sources:
        if tensor_name not in known and re.sub(r"\d+", "0", tensor_name) in kinds:
            raise StudyError(f"{where} have {tensor_name!r}, a layer that config.json does not have; {remedy}")


def refuse_tokenizer(name: str, folder: Path, vocabulary: int) -> None:
    """Raise StudyError where the tokenizer has tokens that the model does not embed."""
    from atlas.tokens import load_tokenizer

    size = 1 + max(load_tokenizer(str(folder)).get_vocab().values(), default=0)
    if size > vocabulary:
        raise StudyError(
            f"models.{name}: the tokenizer in {folder} has ids up to {size - 1}, the model embeds {vocabulary}; give "
            "the model's own tokenizer"
        )
