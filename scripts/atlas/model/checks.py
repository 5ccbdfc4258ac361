"""Refuse a checkpoint folder that cannot be what its configuration says, before anything is computed with it.

Nothing in a folder is ever executed: no code of its own (``trust_remote_code=False``), no pickle but of plain tensors.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from atlas.core.errors import StudyError, one_line

SIZES = ("num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size")
LARGEST = 10_000_000


def check(name: str, folder: Path) -> None:
    """Everything below; raises StudyError with one line."""
    config = read_config(name, folder)
    refuse_tokenizer(name, folder, config.vocab_size)
    refuse_damaged(name, folder, config)


def causal_class(model_type: str) -> str | None:
    """Name of the class of transformers that is the causal language model of a ``model_type``; None without one."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    found = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type)
    return found if found is None or isinstance(found, str) else str(found[0])


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
    if causal_class(config.model_type) is None or getattr(config, "is_encoder_decoder", False):
        raise StudyError(
            f"{where}: {config.model_type!r} is no causal language model; give one that reads left to right"
        )
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
    """Raise StudyError where the tensors are not exactly those of the configuration's causal language model.

    transformers itself says which are missing, superfluous or of another shape, since it knows how names of older files
    translate, which tensors are tied, and which were never parameters. Nothing is read into memory for that.
    """
    from atlas.model.checkpoint import Checkpoint

    checkpoint = Checkpoint(folder)
    if not checkpoint.sources:
        raise StudyError(f"models.{name}: {folder} holds no tensors; give the folder of a Hugging Face checkpoint")
    expected, tied = _refuse_unlike(name, folder)
    where, remedy = f"models.{name}: the weights in {folder}", "its files do not belong together, fetch them again"
    for tensor_name, read in checkpoint.sources.items():
        tensor = read(tensor_name)
        if not tensor.is_floating_point() and tensor_name in expected and not hasattr(config, "quantization_config"):
            raise StudyError(f"{where}: {tensor_name} is of {tensor.dtype}, not of floating point; {remedy}")
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise StudyError(f"models.{name}: {tensor_name} in {folder} is not finite; fetch its files again")
    for own, source in tied.items():
        if own in checkpoint and source in checkpoint and not checkpoint[own].equal(checkpoint[source]):
            raise StudyError(
                f"{where}: config.json ties {own} to {source}, but the files hold two different tensors; set "
                "tie_word_embeddings to false there, or fetch its files again"
            )


def _refuse_unlike(name: str, folder: Path) -> tuple[set[str], dict[str, str]]:
    """Names of the parameters, with and without the body's own in front, and those that are tied: own -> the other.

    Raises StudyError unless the files hold all of them, and nothing else.
    """
    from transformers import AutoModelForCausalLM

    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            folder,
            trust_remote_code=False,
            local_files_only=True,
            device_map="meta",  # names and shapes alone
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:  # whatever a class says of values it cannot use
        said = f"models.{name}: {folder / 'config.json'} makes no model ({one_line(error)})"
        raise StudyError(f"{said}; give the folder of a Hugging Face checkpoint") from None
    where, kind = f"models.{name}: the weights in {folder}", type(model).__name__
    missing, surplus = sorted(found["missing_keys"]), sorted(found["unexpected_keys"])
    if found["mismatched_keys"]:
        tensor_name, shape, wanted = min(found["mismatched_keys"])
        said = f"{tensor_name} is {tuple(shape)}, config.json says {tuple(wanted)}"
        raise StudyError(f"{where}: {said}; its files do not belong together, fetch them again")
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        instead = f", and hold {surplus[0]!r}, which it has not" if surplus else ""
        raise StudyError(f"{where} lack {missing[0]!r}{more} of {kind}{instead}; give a checkpoint of that class")
    if surplus:
        more = f" and {len(surplus) - 1} more" if len(surplus) > 1 else ""
        raise StudyError(
            f"{where} have {surplus[0]!r}{more}, which {kind} of this config.json does not have; its files do not "
            "belong together, fetch them again"
        )
    parameters = {
        form for parameter, _ in model.named_parameters() for form in (parameter, parameter.split(".", 1)[-1])
    }
    return parameters, dict(getattr(model, "all_tied_weights_keys", None) or {})


def refuse_tokenizer(name: str, folder: Path, vocabulary: int) -> None:
    """Raise StudyError where the tokenizer has tokens that the model does not embed."""
    from atlas.prompts.tokens import load_tokenizer

    size = 1 + max(load_tokenizer(str(folder)).get_vocab().values(), default=0)
    if size > vocabulary:
        raise StudyError(
            f"models.{name}: the tokenizer in {folder} has ids up to {size - 1}, the model embeds {vocabulary}; give "
            "the model's own tokenizer"
        )
