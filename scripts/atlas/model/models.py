"""A loaded model, and one forward pass with edits.

Everything runs on the checkpoint's own weights, unfolded and not centred, so that zero ablation means zero on the
checkpoint's own z: on its tensors where the family is known (families/), else on TransformerLens's TransformerBridge,
which is built when first needed.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from atlas.core.errors import StudyError
from atlas.model import families, forward, memory, source
from atlas.model.block import Weights
from atlas.model.logits import unembedded
from atlas.model.norm import Norm

Hook = tuple[str, Callable[..., Any]]  # name, and what makes of an activation what replaces it


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
            return self.weights.blocks[0].n_kv_heads
        return int(getattr(self.bridge.cfg, "n_key_value_heads", None) or self.n_heads)

    def w_o(self, layer: int) -> torch.Tensor:
        """[H, d_head, D]."""
        return self.weights.blocks[layer].w_o if self.weights else self.bridge.blocks[layer].attn.W_O.detach()

    def b_o(self, layer: int) -> torch.Tensor | None:
        """[D], or None where the model has none."""
        b_o = self.weights.blocks[layer].b_o if self.weights else self.bridge.blocks[layer].attn.b_O
        return None if b_o is None or not b_o.any() else b_o.detach()

    def norm_attn_out(self, layer: int) -> Norm | None:
        """The norm that stands between a layer's attention and the residual stream, of architectures with an engine."""
        return self.weights.blocks[layer].norm_attn_out if self.weights else None

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

        def read(x: torch.Tensor, hook: object = None) -> torch.Tensor:
            if position is None:
                return x[:, -1:]
            return x[torch.arange(len(x), device=x.device)[:, None], position.to(x.device)]

        tokens = tokens.to(self.device)
        with torch.no_grad():
            if self.weights and not on_bridge and all(forward.knows(name, self.n_layers) for name, _ in edits):
                x = read(forward.final_residual(self.weights, tokens, edits))
                logits = self.weights.unembed(x)
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
    """Name of the hook at the z of a layer's heads, [N, S, H, d_head]."""
    return f"blocks.{layer}.attn.hook_z"


def mlp_hook(layer: int) -> str:
    """Name of the hook at what a layer's MLP adds to the residual stream, [N, S, D], its bias included."""
    return f"blocks.{layer}.hook_mlp_out"


def load(
    folder: Path | str,
    device: str = "auto",
    dtype: str = "float32",
    batch_size: int = 64,
    memory_mb: int | str = 1024,
    settings: dict[str, Any] | None = None,
    limit_mb: int | None = None,
) -> Model:
    """Load a checkpoint folder; ``device`` as in `device_of`, ``settings`` as in `families.weights_of`.

    memory_mb: of the engine; `auto` takes what there is once the weights are loaded (`memory.auto_mb`, which also says
    what ``limit_mb`` is), and leaves room for a float32 copy of weights in a half.
    """
    device = device_of(device)
    how = {"device": device, "dtype": getattr(torch, dtype), "batch_size": batch_size}
    weights = families.weights_of(folder, device, how["dtype"], settings)
    if weights:
        d_model, n_heads, d_head = weights.blocks[0].w_q.shape
        model = Model(Path(folder), weights, len(weights.blocks), n_heads, d_head, d_model, **how)
    else:
        bridge = boot(folder, device, how["dtype"])
        cfg = bridge.cfg
        model = Model(Path(folder), None, cfg.n_layers, cfg.n_heads, cfg.d_head, cfg.d_model, **how)
        model.bridge = bridge
    if isinstance(memory_mb, str):
        size = memory.bytes_of(weights or list(model.bridge.parameters()))
        memory_mb = memory.auto_mb(device, 2 * size if model.dtype.itemsize < 4 else 0, limit_mb)
    model.memory_mb = memory_mb
    return model


def device_of(device: str) -> str:
    """The device that is meant: ``auto`` is cuda, else mps, else cpu. Raises StudyError where it is not there."""
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
    model_class = getattr(transformers, source.settings_of(folder)["architectures"][0])
    bridge = TransformerBridge.boot_transformers(str(folder), device=device, dtype=dtype, model_class=model_class)
    bridge.eval()
    if dtype.itemsize < 4:
        _unembed_in_float32(bridge)
    return bridge


def _unembed_in_float32(bridge: Any) -> None:
    """Let a bridge in a half dtype multiply and sum its logits in float32, as `block.unembedded` does."""
    head = bridge.unembed.original_component
    if not isinstance(head, nn.Linear):
        raise StudyError(f"models.*.dtype: {type(head).__name__} can unembed in the model's dtype only; use float32")
    setattr(head, "forward", lambda x: unembedded(x, head.weight, head.bias))  # noqa: B010, a method of one module
