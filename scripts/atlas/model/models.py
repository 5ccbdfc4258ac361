"""Models: where they come from, and one forward pass with edits.

Everything runs on the checkpoint's own weights, unfolded and not centred, so that zero ablation means zero on the
checkpoint's own z: on its tensors where the architecture is known (architectures.py), else on TransformerLens's
TransformerBridge, which is built when first needed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.core.errors import StudyError
from atlas.model.checks import causal_class, read_config
from atlas.store.artifacts import digest, digest_file

if TYPE_CHECKING:
    import torch

    from atlas.model.architectures import Weights


WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
TEXT_FILES = ("*.json", "*.txt", "*.model")

Hook = tuple[str, Callable[..., Any]]  # name, and what makes of an activation what replaces it


# ---- finding a model, without torch --------------------------------------------------------------------------
def resolve(name: str, block: dict[str, Any], root: Path | str) -> Path:
    """The local folder of a model: its own ``path``, or the cached (if need be downloaded) snapshot of its ``hub`` id.

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


# ---- running a model -----------------------------------------------------------------------------------------
@dataclass
class Model:
    """A loaded model."""

    folder: Path
    weights: Weights | None  # None where the architecture has none
    n_layers: int
    n_heads: int
    d_head: int
    d_model: int
    device: str
    dtype: torch.dtype
    batch_size: int
    memory_mb: int = 1024  # beside the weights: half for remembered residuals, half for one batch on its way

    @cached_property
    def bridge(self) -> Any:
        """TransformerLens's TransformerBridge of the same checkpoint."""
        return boot(self.folder, self.device, self.dtype)

    @property
    def n_kv_heads(self) -> int:
        """Key/value heads: fewer than query heads where several share one."""
        if self.weights:
            return self.weights.blocks[0].w_k.shape[1]
        return int(getattr(self.bridge.cfg, "n_key_value_heads", None) or self.n_heads)

    def w_o(self, layer: int) -> torch.Tensor:
        """[n_heads, d_head, d_model]."""
        return self.weights.blocks[layer].w_o if self.weights else self.bridge.blocks[layer].attn.W_O.detach()

    def b_o(self, layer: int) -> torch.Tensor | None:
        """[d_model], or None where the model has none."""
        b_o = self.weights.blocks[layer].b_o if self.weights else self.bridge.blocks[layer].attn.b_O
        return None if b_o is None or not b_o.any() else b_o.detach()

    def run(
        self,
        tokens: torch.Tensor,
        edits: Iterable[Hook] = (),
        position: torch.Tensor | None = None,
        on_bridge: bool = False,
    ) -> torch.Tensor:
        """Logits at the last position [N, d_vocab], at least float32; ``edits`` are (hook name, function) pairs.

        Only that position is unembedded; ``position`` [N, K] gives each row others: [N, K, d_vocab]. Tokens [N, S] are
        one batch; the caller splits. Hooks have TransformerLens's names; ``on_bridge`` forces TransformerLens's own.
        Raises ValueError or KeyError on a hook that the model does not have.
        """
        import torch

        from atlas.model import engine, forward

        def read(x: torch.Tensor, hook: object = None) -> torch.Tensor:
            if position is None:
                return x[:, -1:]
            return x[torch.arange(len(x), device=x.device)[:, None], position.to(x.device)]

        tokens = tokens.to(self.device)
        with torch.no_grad():
            if self.weights and not on_bridge and all(forward.knows(name, self.n_layers) for name, _ in edits):
                x = read(forward.final_residual(self.weights, tokens, edits))
                logits = engine.Engine(self.weights).unembed(x)
            else:
                logits = self.bridge.run_with_hooks(tokens, fwd_hooks=[*edits, ("unembed.hook_in", read)])
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return logits[:, 0] if position is None else logits

    def batches(self, n: int) -> list[slice]:
        return slices(n, self.batch_size)


def slices(n: int, size: int) -> list[slice]:
    """n rows divided into batches of at most ``size``."""
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


def z_hook(layer: int) -> str:
    return f"blocks.{layer}.attn.hook_z"


def mlp_hook(layer: int) -> str:
    return f"blocks.{layer}.hook_mlp_out"


def load(
    folder: Path | str,
    device: str = "auto",
    dtype: str = "float32",
    batch_size: int = 64,
    memory_mb: int = 1024,
    settings: dict[str, Any] | None = None,
) -> Model:
    """Load a checkpoint folder; ``device`` as in `device_of`, ``settings`` as in `weights_of`."""
    import torch

    from atlas.model.architectures import weights_of

    device = device_of(device)
    how = {"device": device, "dtype": getattr(torch, dtype), "batch_size": batch_size, "memory_mb": memory_mb}
    weights = weights_of(folder, device, how["dtype"], settings)
    if weights:
        d_model, n_heads, d_head = weights.blocks[0].w_q.shape
        return Model(Path(folder), weights, len(weights.blocks), n_heads, d_head, d_model, **how)
    bridge = boot(folder, device, how["dtype"])
    cfg = bridge.cfg
    model = Model(Path(folder), None, cfg.n_layers, cfg.n_heads, cfg.d_head, cfg.d_model, **how)
    model.bridge = bridge
    return model


def device_of(device: str) -> str:
    """The device that is meant: ``auto`` is cuda, else mps, else cpu. Raises StudyError where it is not there."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise StudyError("models.*.device: cuda is not available here; use auto or cpu")
    return device


def boot(folder: Path | str, device: str, dtype: torch.dtype) -> Any:
    """TransformerLens's bridge of a checkpoint folder."""
    import os

    os.environ["HF_HUB_OFFLINE"] = "1"  # the files are at hand; nothing may be fetched while a study runs
    import sys

    import transformers
    from transformer_lens.model_bridge import TransformerBridge
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    model_class = getattr(transformers, settings_of(folder)["architectures"][0])
    bridge = TransformerBridge.boot_transformers(str(folder), device=device, dtype=dtype, model_class=model_class)
    bridge.eval()
    if dtype.itemsize < 4:
        _unembed_in_float32(bridge)
    return bridge


def _unembed_in_float32(bridge: Any) -> None:
    """Let a bridge in a half dtype multiply and sum its logits in float32, as the engine does (`engine.unembedded`)."""
    from torch import nn

    from atlas.model.engine import unembedded

    head = bridge.unembed.original_component
    if not isinstance(head, nn.Linear):
        raise StudyError(f"models.*.dtype: {type(head).__name__} can unembed in the model's dtype only; use float32")
    setattr(head, "forward", lambda x: unembedded(x, head.weight, head.bias))  # noqa: B010, a method of one module
