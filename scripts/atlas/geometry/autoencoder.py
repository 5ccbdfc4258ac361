"""Sparse autoencoders: activations as sums of few directions out of many, trained here or read from files.

An activation x is encoded as f = act((x - b_dec) W_enc + b_enc) and decoded as f W_dec + b_dec; a row of W_dec is the
direction of a *feature*, f its activity. ``act`` keeps the k largest positive numbers (`topk`, arXiv 2406.04093), all
positive ones (`standard`, arXiv 2309.08600), or those above a threshold of their own (`jumprelu`, arXiv 2407.14435).

*Training* (`trained`): top-k, squared error, Adam; directions start as activations of tokens, less the mean, keep unit
norm, and one that no token of a span of steps used starts anew from a token that is reconstructed badly. All of it
follows from the seed; sums run in one order, so that the same seed gives the same bytes on the same machine.

*Files* are those of SAELens: `cfg.json` and `sae_weights.safetensors` with W_enc [D, F], b_enc [F], W_dec [F, D], b_dec
[D] and, of jumprelu, threshold [F]. They are read as numbers, nothing in them is run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from atlas.core.errors import StudyError, one_line
from atlas.store import artifacts

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
ARCHITECTURES = ("standard", "topk", "jumprelu")
KEY = "geometry.features.path"
SEEN = 6000  # tokens among which directions are drawn to start from
SPAN = 50  # steps after which a direction that no token used starts anew


@dataclass(frozen=True)
class Autoencoder:
    """F features of activations of width D, in float32."""

    w_enc: torch.Tensor  # [D, F]
    b_enc: torch.Tensor  # [F]
    w_dec: torch.Tensor  # [F, D]
    b_dec: torch.Tensor  # [D]
    architecture: str = "topk"
    k: int = 0  # of topk
    threshold: torch.Tensor | None = None  # [F] of jumprelu
    centred: bool = True  # is b_dec taken off before it is encoded (`apply_b_dec_to_input`)?
    rescaled: bool = False  # of topk: chosen by activity times the norm of the direction

    @property
    def size(self) -> int:
        """F."""
        return len(self.b_enc)

    @property
    def norms(self) -> torch.Tensor:
        """[F] norms of the directions."""
        found: torch.Tensor = torch.linalg.vector_norm(self.w_dec, dim=-1)
        return found

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Activities [..., F], none below 0, of activations [..., D]."""
        x = x.to(self.w_enc)
        before = (x - self.b_dec if self.centred else x) @ self.w_enc + self.b_enc
        if self.architecture == "jumprelu":
            assert self.threshold is not None
            return torch.where(before > self.threshold.clamp(min=0), before, 0.0)
        if self.architecture == "standard":
            return before.relu()
        before = before * self.norms if self.rescaled else before
        values, at = before.topk(self.k, dim=-1)
        kept = torch.zeros_like(before).scatter(-1, at, values.relu())
        return kept / self.norms.clamp(min=torch.finfo(kept.dtype).tiny) if self.rescaled else kept

    def decode(self, activity: torch.Tensor) -> torch.Tensor:
        """[..., D] of activities [..., F]."""
        return activity @ self.w_dec + self.b_dec

    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        """[..., D] of activations [..., D], in their dtype."""
        return self.decode(self.encode(x)).to(x.dtype)


# ---- training ------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Training:
    """How one is trained: F = min(``expansion`` x D, ``most``) features, of which ``active`` are kept for a token."""

    expansion: int = 8
    most: int = 2048
    active: int = 4
    steps: int = 600
    batch: int = 512  # tokens a step
    rate: float = 1e-3  # of Adam, led to 0 over the last fifth of the steps


def initial(x: torch.Tensor, settings: Training, generator: torch.Generator) -> Autoencoder:
    """Untrained: directions are activations of tokens of x [T, D] less the mean, to unit norm; each is read by itself.

    Tokens are drawn far from each other, each by its squared distance to the nearest drawn before (k-means++), so that
    rare tokens have directions too. Where they are all at one of these, directions are random.
    """
    size, mean = min(settings.expansion * x.shape[1], settings.most), x.mean(0)
    among = x[torch.randperm(len(x), generator=generator)[:SEEN]] - mean
    drawn, distance = torch.randn(size, x.shape[1], generator=generator), among.pow(2).sum(-1)
    for i in range(size):
        if not bool(distance.sum() > 0):
            break
        drawn[i] = among[torch.multinomial(distance, 1, generator=generator)[0]]
        distance = torch.minimum(distance, (among - drawn[i]).pow(2).sum(-1))
    w_dec = F.normalize(drawn, dim=-1)
    return Autoencoder(w_dec.T.clone(), torch.zeros(size), w_dec, mean, k=min(settings.active, size))


def trained(x: torch.Tensor, settings: Training, seed: int) -> Autoencoder:
    """One trained on activations x [T, D], float32 on the CPU.

    Raises StudyError where all activations are one: there is nothing to take apart.
    """
    generator = torch.Generator().manual_seed(seed)
    scale = float((x - x.mean(0)).norm(dim=-1).mean())
    if not scale > 0:
        raise StudyError("geometry.features.hook: all activations there are equal; name the hook of another layer")
    start = initial(x, settings, generator)
    w_enc, b_enc, w_dec, b_dec = (
        p.clone().requires_grad_() for p in (start.w_enc, start.b_enc, start.w_dec, torch.zeros(x.shape[1]))
    )
    optimizer = torch.optim.Adam([w_enc, b_enc, w_dec, b_dec], settings.rate, betas=(0.9, 0.99))
    used = torch.zeros(start.size, dtype=torch.bool)
    for step, rows in enumerate(batches(len(x), settings, generator)):
        left = (settings.steps - step) / settings.steps
        optimizer.param_groups[0]["lr"] = settings.rate * min(1, 5 * left)
        target = (x[rows] - start.b_dec) / scale
        values, at = ((target - b_dec.detach()) @ w_enc + b_enc).topk(start.k, dim=-1)
        values = values.relu()
        error = F.embedding_bag(at, w_dec, mode="sum", per_sample_weights=values) + b_dec - target
        optimizer.zero_grad()
        error.pow(2).sum(-1).mean().backward()
        optimizer.step()
        with torch.no_grad():
            w_dec.copy_(F.normalize(w_dec, dim=-1))
            used[at[values > 0]] = True
            if (step + 1) % SPAN == 0 and step < settings.steps * 2 // 3:
                _start_anew(optimizer, (w_enc, b_enc, w_dec), ~used, -error.detach(), generator)
                used.zero_()
    with torch.no_grad():  # back to the activations' own size: encoding and decoding are alike at every scale
        return replace(
            start,
            w_enc=w_enc.detach(),
            b_enc=b_enc.detach() * scale,
            w_dec=w_dec.detach(),
            b_dec=start.b_dec + b_dec.detach() * scale,
        )


def batches(n: int, settings: Training, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Rows of n tokens for each step, each token once before any comes again."""
    size, left = min(settings.batch, n), torch.empty(0, dtype=torch.long)
    for _ in range(settings.steps):
        if len(left) < size:
            left = torch.cat((left, torch.randperm(n, generator=generator)))
        yield left[:size]
        left = left[size:]


def _start_anew(
    optimizer: torch.optim.Optimizer,
    weights: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    unused: torch.Tensor,
    missing: torch.Tensor,
    generator: torch.Generator,
) -> None:
    """Point unused [F] directions at what is missing [B, D] of tokens drawn by its size squared."""
    w_enc, b_enc, w_dec = weights
    at = unused.nonzero()[:, 0][: len(missing)]
    size = missing.pow(2).sum(-1)
    if not len(at) or not bool((size > 0).sum() >= len(at)):
        return
    chosen = F.normalize(missing[torch.multinomial(size, len(at), generator=generator)], dim=-1)
    w_dec[at], w_enc[:, at], b_enc[at] = chosen, chosen.T, 0.0
    for weight, index in ((w_dec, at), (w_enc, (slice(None), at)), (b_enc, at)):
        for name in ("exp_avg", "exp_avg_sq"):
            optimizer.state[weight][name][index] = 0


# ---- files ---------------------------------------------------------------------------------------------------
def config_of(sae: Autoencoder, hook: str, model: str, prepend_bos: bool = False) -> dict[str, Any]:
    """The content of `cfg.json`; ``hook``: by TransformerLens's name."""
    own = {"k": sae.k, "rescale_acts_by_decoder_norm": sae.rescaled} if sae.architecture == "topk" else {}
    return {
        "architecture": sae.architecture,
        "d_in": sae.w_enc.shape[0],
        "d_sae": sae.size,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.centred,
        "normalize_activations": "none",
        "reshape_activations": "none",
        **own,
        "metadata": {"hook_name": hook, "model_name": model, "prepend_bos": prepend_bos},
    }


def write_weights(sae: Autoencoder, path: Path | str, provenance: dict[str, Any]) -> None:
    """Write `sae_weights.safetensors` as an artifact; its seal stands among the file's metadata."""
    from safetensors.torch import save

    tensors = {"W_enc": sae.w_enc, "b_enc": sae.b_enc, "W_dec": sae.w_dec, "b_dec": sae.b_dec}
    tensors |= {} if sae.threshold is None else {"threshold": sae.threshold}
    about = {"provenance": json.dumps(provenance, sort_keys=True), "seal": (artifacts.SEAL + artifacts.BLANK).decode()}
    with artifacts.atomic(path) as temporary:
        temporary.write_bytes(save({name: x.contiguous().cpu() for name, x in tensors.items()}, metadata=about))
        artifacts.seal(temporary, path)


def read(folder: Path | str, hook: str, d_model: int) -> Autoencoder:
    """From a folder in SAELens's format, for activations of width ``d_model`` at ``hook``.

    Raises StudyError where files are missing or damaged, or made for another hook, width or kind of autoencoder.
    """
    folder = Path(folder)
    config = _config(folder / CONFIG)
    own, metadata = folder / CONFIG, config.get("metadata") or {}
    named = config.get("hook_name") or metadata.get("hook_name") or config.get("hook_point")
    if named != hook:
        raise StudyError(f"{own}: hook_name is {named!r}, the study's {hook!r}; set geometry.features.hook to match")
    kind, norm = config.get("architecture", "standard"), config.get("normalize_activations", "none")
    if kind not in ARCHITECTURES:
        raise StudyError(f"{own}: architecture {kind!r} is not known; use one of {', '.join(ARCHITECTURES)}")
    if norm not in ("none", None) or config.get("reshape_activations", "none") not in ("none", None):
        raise StudyError(f"{own}: activations are normed or reshaped before it; fold that into its weights")
    if config.get("d_in") != d_model:
        raise StudyError(f"{own}: d_in is {config.get('d_in')}, the model's width {d_model}; name one for this model")
    if kind == "standard" and config.get("activation_fn", config.get("activation_fn_str", "relu")) != "relu":
        raise StudyError(f"{own}: its activation function is not relu; use architecture topk or jumprelu")
    size, k = config.get("d_sae"), config.get("k", 0) if kind == "topk" else 0
    if not isinstance(size, int) or (kind == "topk" and not (isinstance(k, int) and 0 < k <= size)):
        raise StudyError(f"{own}: d_sae {size!r} or k {k!r} is no number of features; write it again")
    tensors = _tensors(folder / WEIGHTS, d_model, size, kind)
    return Autoencoder(
        w_enc=tensors["W_enc"],
        b_enc=tensors["b_enc"],
        w_dec=tensors["W_dec"],
        b_dec=tensors["b_dec"],
        architecture=kind,
        k=k,
        threshold=tensors.get("threshold"),
        centred=bool(config.get("apply_b_dec_to_input", True)),
        rescaled=kind == "topk" and bool(config.get("rescale_acts_by_decoder_norm", False)),
    )


def _config(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise StudyError(
            f"{path}: cannot be read ({one_line(error)}); {KEY} needs a folder in SAELens format"
        ) from None
    if not isinstance(found, dict):
        raise StudyError(f"{path}: not an object of settings; {KEY} needs a folder in SAELens format")
    return found


def _tensors(path: Path, d_model: int, size: int, kind: str) -> dict[str, torch.Tensor]:
    """The weights, in float32, of the shapes that the configuration says."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise StudyError(f"{path}: cannot be read ({one_line(error)}); fetch it again") from None
    shapes = {"W_enc": (d_model, size), "b_enc": (size,), "W_dec": (size, d_model), "b_dec": (d_model,)}
    shapes |= {"threshold": (size,)} if kind == "jumprelu" else {}
    for name, shape in shapes.items():
        own = tuple(found[name].shape) if name in found else None
        if own != shape:
            raise StudyError(
                f"{path}: {name} is {own or 'missing'}, {CONFIG} says {shape}; they are of different files"
            )
        if not bool(torch.isfinite(found[name]).all()):
            raise StudyError(f"{path}: {name} holds numbers that are not finite; fetch it again")
    return {name: found[name].float() for name in shapes}
