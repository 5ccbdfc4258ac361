"""Where a model comes from: its folder, its configuration, and what is known of it before its weights are read."""

import json
from pathlib import Path
from typing import Any

from atlas.core.errors import StudyError
from atlas.model import fetched
from atlas.model.checks import causal_class, read_config
from atlas.store.artifacts import digest, digest_file

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
TEXT_FILES = ("*.json", "*.txt", "*.model")


def resolve(name: str, block: dict[str, Any], root: Path | str) -> Path:
    """The local folder of a model: its ``path``, or the checkpoint of its ``gguf`` or the snapshot of its ``hub`` id,
    both from a cache that gets what it lacks.

    Raises StudyError with the remedy when it cannot be reached.
    """
    if "path" in block:
        folder = Path(root) / Path(block["path"]).expanduser()
        remedy = "give the folder of a Hugging Face checkpoint, or `hub: <id>`"
        if not (folder / "config.json").is_file():
            raise StudyError(f"models.{name}.path: {folder} holds no config.json; {remedy}")
        if not any(file for pattern in WEIGHTS for file in folder.glob(pattern)):
            raise StudyError(f"models.{name}.path: {folder} holds no weights ({' or '.join(WEIGHTS)}); {remedy}")
        return folder
    if "gguf" in block:
        return fetched.checkpoint(name, block, root)
    import huggingface_hub

    try:
        patterns = [*WEIGHTS[:1], *TEXT_FILES]
        return Path(
            huggingface_hub.snapshot_download(block["hub"], revision=block.get("revision"), allow_patterns=patterns)
        )
    except Exception as error:  # the hub client raises many kinds: no network, no such id, no permission, offline mode
        raise StudyError(
            f"models.{name}.hub: {block['hub']!r} cannot be reached ({type(error).__name__}) and is not in the local "
            f"cache; download it elsewhere and set models.{name}.path to the folder, or set HF_HOME to a cache that "
            "holds it"
        ) from None


def settings_of(folder: Path | str) -> dict[str, Any]:
    """The Hugging Face configuration of a checkpoint folder, with what its file leaves out filled in.

    Its ``architectures`` is the causal language model of its type, which is what runs, whatever the file names.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    settings: dict[str, Any] = json.loads(config.to_json_string(use_diff=False), object_hook=_without_place)
    return settings | {"architectures": [causal_class(config.model_type)]}


PARALLEL = ("gptj", "codegen", "phi", "cohere", "cohere2")  # types whose blocks are always parallel


def has_parallel_blocks(config: Any) -> bool:
    """Whether attention and MLP of a layer read the same residual; `reference.compare` holds it against a run."""
    if config.model_type == "falcon":
        return bool(config.new_decoder_architecture or config.parallel_attn)
    return config.model_type in PARALLEL or bool(getattr(config, "use_parallel_residual", False))


def kv_heads(config: Any) -> int:
    """Key/value heads: fewer than query heads where several share one; `reference.compare` holds it against a run."""
    heads = int(config.num_attention_heads)
    if config.model_type == "falcon" and config.new_decoder_architecture:
        return int(config.num_kv_heads)
    if getattr(config, "multi_query", False):
        return 1
    return int(getattr(config, "num_key_value_heads", None) or heads)


def _without_place(settings: dict[str, Any]) -> dict[str, Any]:
    """A configuration, or one within it, less the folder that it was read from."""
    return {key: value for key, value in settings.items() if key != "_name_or_path"}


def describe(name: str, folder: Path) -> dict[str, Any]:
    """Sizes from the model's config, that config, and digests of the model's files; refuses a bad config."""
    config = read_config(name, folder)
    weights = sorted(file for pattern in WEIGHTS for file in folder.glob(pattern))
    texts = [file for file in sorted(folder.glob("tokenizer*")) if file.is_file()]
    return {
        "model": name,
        "commit": folder.name if folder.parent.name == "snapshots" else None,  # of a hub id, as its cache names it
        "architecture": causal_class(config.model_type),
        "n_layers": config.num_hidden_layers,
        "n_heads": config.num_attention_heads,
        "n_kv_heads": kv_heads(config),
        "parallel_blocks": has_parallel_blocks(config),
        "d_model": config.hidden_size,
        "d_vocab": config.vocab_size,
        "max_tokens": getattr(config, "max_position_embeddings", None),
        "weights": digest([digest_file(file) for file in weights]),
        "tokenizer": digest([digest_file(file) for file in texts]),
        "config": digest(json.loads((folder / "config.json").read_text())),
        "settings": settings_of(folder),
    }
