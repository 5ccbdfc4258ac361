"""What a GGUF file says of its model: architecture, types of its numbers, settings, tokenizer; and what is refused.

The package `gguf` reads the file. transformers makes the model of it (dequantise.py), and leaves settings and tensors
that it does not know aside without a word: a model of such a file would compute something else, so it is refused.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atlas.core.errors import StudyError, one_line

# Whose conversion by transformers is held against models that were written the other way (tests/model/test_gguf.py)
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "gpt2")
PLAIN = ("F64", "F32", "F16", "BF16")  # types that hold numbers as they are, not quantised
# How texts are split before BPE, by `tokenizer.ggml.pre`: transformers splits all names that it does not know as GPT-2
AS_GPT2 = ("gpt-2", "olmo", "mpt", "phi-2")
SINGLE_DIGITS = ("smollm", "starcoder", "refact")  # digits one by one, then as GPT-2


@dataclass(frozen=True)
class Tensor:
    """Name, type of its numbers (`Q4_1`, `F32`) and their count."""

    name: str
    type: str
    numbers: int


@dataclass(frozen=True)
class Contents:
    """What a GGUF file holds: all its settings by key, lists of text left out, and its tensors."""

    settings: dict[str, Any]
    tensors: tuple[Tensor, ...]

    @property
    def architecture(self) -> str:
        return str(self.settings["general.architecture"])

    @property
    def numbers(self) -> int:
        return sum(tensor.numbers for tensor in self.tensors)

    def types(self) -> dict[str, dict[str, float]]:
        """Type -> how many ``tensors`` have it, and their ``share`` of all numbers; the largest share first."""
        found: dict[str, dict[str, float]] = {}
        for tensor in self.tensors:
            of = found.setdefault(tensor.type, {"tensors": 0, "share": 0.0})
            of["tensors"] += 1
            of["share"] += tensor.numbers / self.numbers
        return dict(sorted(found.items(), key=lambda item: -item[1]["share"]))


def refuse_without_library(name: str) -> None:
    """Raise StudyError where the package `gguf` is not installed."""
    if importlib.util.find_spec("gguf") is None:
        raise StudyError(
            f"models.{name}.gguf: the Python package gguf is not installed; run `pip install -r envs/requirements.txt "
            "-c envs/constraints.txt`, or give `path` with a Hugging Face checkpoint"
        )


def read(name: str, file: Path) -> Contents:
    """What a GGUF file holds; raises StudyError where it is none, is cut short, or has no tokenizer or architecture of
    those that can be read. Tensors stay on disk."""
    from gguf import GGUFReader, GGUFValueType

    where = f"models.{name}.gguf: {file.name}"
    with file.open("rb") as opened:
        first = opened.read(4)
    if first != b"GGUF":
        raise StudyError(f"{where} is no GGUF file (it begins with {first!r}); give one, or `path` with a checkpoint")
    try:
        reader = GGUFReader(file)
        settings = {
            key: field.contents()
            for key, field in reader.fields.items()
            if field.types[:1] != [GGUFValueType.ARRAY] or field.types[-1] != GGUFValueType.STRING
        }
        lists = set(reader.fields) - set(settings)
        tensors = tuple(Tensor(t.name, t.tensor_type.name, int(t.n_elements)) for t in reader.tensors)
    except Exception as error:  # sizes, types and texts of a damaged file fail in as many ways as there are
        raise StudyError(f"{where} is cut short or damaged ({one_line(error)}); fetch it again") from None
    found = Contents(settings, tensors)
    _refuse_architecture(where, found)
    if "tokenizer.ggml.model" not in settings or "tokenizer.ggml.tokens" not in lists:
        raise StudyError(f"{where} has no tokenizer (tokenizer.ggml.model and .tokens); give a GGUF that holds one")
    _refuse_tokenizer(where, settings)
    return found


def _refuse_architecture(where: str, found: Contents) -> None:
    architecture = found.settings.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise StudyError(
            f"{where}: its architecture {architecture!r} cannot be read from GGUF with certainty, only "
            f"{', '.join(ARCHITECTURES)}; give `path` with the original checkpoint"
        )


def _refuse_tokenizer(where: str, settings: dict[str, Any]) -> None:
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    kind, split = settings["tokenizer.ggml.model"], settings.get("tokenizer.ggml.pre")
    if kind not in ("llama", "gpt2"):
        raise StudyError(
            f"{where}: its tokenizer is of the kind {kind!r}, only llama and gpt2 can be read; give `path`"
        )
    if kind == "gpt2" and split not in (*AS_GPT2, *SINGLE_DIGITS, *GGUF_PRE_TOKENIZER_SPLITS):
        raise StudyError(
            f"{where}: how its tokenizer splits texts (tokenizer.ggml.pre: {split!r}) is not known here; give `path` "
            "with the original checkpoint"
        )


# ---- settings against the configuration that transformers makes of them --------------------------------------
def _of(*names: str) -> Callable[[Any], Any]:
    """The first of a configuration's attributes that is there."""
    return lambda config: next((v for n in names if (v := getattr(config, n, None)) is not None), None)


def _head(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _rope(config: Any, kind: str = "full_attention") -> dict[str, Any]:
    """Rotary settings, of layers of one kind where they differ between kinds."""
    every: dict[str, Any] = config.rope_parameters
    found: dict[str, Any] = every.get(kind, every)
    return found


def _pattern(config: Any) -> list[bool]:
    return [kind == "sliding_attention" for kind in config.layer_types]


# Key below the architecture's name -> what it must be, in a configuration that computes what the file says
SETTINGS: dict[str, Callable[[Any], Any]] = {
    "context_length": _of("max_position_embeddings"),
    "block_count": _of("num_hidden_layers"),
    "embedding_length": _of("hidden_size"),
    "feed_forward_length": lambda c: _of("intermediate_size", "n_inner")(c) or 4 * c.hidden_size,
    "vocab_size": _of("vocab_size"),
    "attention.head_count": _of("num_attention_heads"),
    "attention.head_count_kv": _of("num_key_value_heads", "num_attention_heads"),
    "attention.key_length": _head,
    "attention.value_length": _head,
    "attention.layer_norm_rms_epsilon": _of("rms_norm_eps"),
    "attention.layer_norm_epsilon": _of("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"),
    "attention.causal": lambda _: True,
    "attention.sliding_window": _of("sliding_window"),
    "attention.sliding_window_pattern": _pattern,
    "attn_logit_softcapping": _of("attn_logit_softcapping"),
    "final_logit_softcapping": _of("final_logit_softcapping"),
    "rope.dimension_count": lambda c: int(_head(c) * _rope(c).get("partial_rotary_factor", 1.0)),
    "rope.freq_base": lambda c: _rope(c)["rope_theta"],
    "rope.freq_base_swa": lambda c: _rope(c, "sliding_attention")["rope_theta"],
    "rope.scaling.type": lambda c: {"default": "none"}.get(_rope(c)["rope_type"], _rope(c)["rope_type"]),
    "rope.scaling.factor": lambda c: _rope(c).get("factor", 1.0),
    "expert_count": lambda _: 0,
    "expert_used_count": lambda _: 0,
}


def refuse_unlike(name: str, file: Path, found: Contents, config: Any, parameters: int) -> None:
    """Raise StudyError where a model would not compute what a file says.

    ``config``: what transformers makes of the file; ``parameters``: how many numbers its model has, tied ones once.
    Every setting of the architecture must be that of the configuration, and every tensor must be in the model.
    """
    where, remedy = f"models.{name}.gguf: {file.name}", "give `path` with the original checkpoint"
    prefix = f"{found.architecture}."
    for key, value in found.settings.items():
        if not key.startswith(prefix):
            continue
        expected = SETTINGS.get(key.removeprefix(prefix))
        made = expected(config) if expected else None
        if not _alike(value, made):
            said = f"the model that transformers makes of it has {made!r}" if expected else "which is not read from it"
            raise StudyError(f"{where}: {key} is {str(value)[:60]}, {said}; {remedy}")
    scalar = getattr(config, "query_pre_attn_scalar", None)
    if scalar not in (None, _head(config)):  # the file does not say it, and all but the largest models have it so
        raise StudyError(
            f"{where}: how its queries are scaled is not in the file, nor told by heads of {_head(config)}; {remedy}"
        )
    if found.numbers != parameters:
        raise StudyError(
            f"{where}: it holds {found.numbers} numbers, the model that transformers makes of it {parameters}: some "
            f"are not read; {remedy}"
        )


def _alike(value: Any, made: Any) -> bool:
    """Equal, numbers to the precision of float32, in which files hold them."""
    if isinstance(made, int | float) and isinstance(value, int | float) and not isinstance(value, bool):
        return math.isclose(value, made, rel_tol=1e-6)
    return bool(value == made)
