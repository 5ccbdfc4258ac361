"""A model's logits are those that transformers gives for its files, or it is refused.

Whatever option of a configuration our forward pass does not honour shows here, by its number, before anything else is
computed. The tokens are random ones of the vocabulary. Two rows share their first half, so that a model which looks
ahead shows too. Both passes run in float32, and in the study's dtype where that is another one.
"""

from __future__ import annotations

import gc
import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from atlas.core.components import all_components
from atlas.core.errors import StudyError, one_line
from atlas.model import models, source
from atlas.model.checks import read_config
from atlas.model.engine import Engine
from atlas.model.live import LiveRun
from atlas.model.memory import free_bytes

LENGTH = 128  # tokens of a row, more than prompts have
LONGEST = 1024  # and where a window of attention, or of positions, is longer than that: so many beyond it, at most
WINDOWS: tuple[str, ...] = ("sliding_window", "attention_window_size", "window_size", "attention_chunk_size")
WINDOWS += ("original_max_position_embeddings",)
MOST = 2**26  # logits that are compared, at most: where a vocabulary is large, those at some of the positions
POSITIONS = ("max_position_embeddings", "max_seq_len", "n_ctx")  # a config's most tokens, under any of its names
# Largest difference, as a share of the largest logit. In float32 two orders of the same sums differ by 1e-6. In shorter
# types every write to the residual is rounded: 32 roundings of the type, where models of 2 to 24 layers have up to 6.
TOLERANCES = {"float32": 1e-4, "float16": 32 * 2**-10, "bfloat16": 32 * 2**-7}

log = logging.getLogger("atlas")


def compare(name: str, folder: Path, device: str, dtype: str) -> dict[str, Any]:
    """What was compared, for `model.json`: ``dtypes`` and ``tokens``, and ``skipped`` with a reason where not all was.

    Raises StudyError, with one line, where the logits differ by more than TOLERANCES, are not finite, or look ahead.
    A dtype is skipped where its weights would take more than half of the free memory: both passes need their own.
    """
    config, settings = read_config(name, folder), source.settings_of(folder)
    tokens, device, numbers = sample(config), models.device_of(device), count(folder)
    at = compared_positions(tokens, config.vocab_size)
    compared: list[str] = []
    skipped: list[str] = []
    for each in dict.fromkeys(("float32", dtype)):
        size = numbers * getattr(torch, each).itemsize
        if 2 * size > free_bytes(device):
            skipped.append(f"{each}: its weights take {size / 1e9:.1f} GB, more than half of the free memory")
            continue
        expected = expected_logits(name, folder, tokens, at, device, each)
        if not expected.isfinite().all():
            raise StudyError(
                f"models.{name}: its logits are not finite in {each}; use another dtype, or fetch it again"
            )
        scale, tolerance = float(expected.abs().max()), TOLERANCES[each]
        first_half = expected[:, at < tokens.shape[1] // 2]
        if each == "float32" and differ(*first_half) > tolerance * scale:
            kind = settings["architectures"][0]
            raise StudyError(
                f"models.{name}: {kind} in {folder} looks at later tokens, so it is no causal language model; give one "
                "that reads left to right"
            )
        remedy = "an option of its config.json is not supported, use another model"
        if compared:  # it is, as float32 has shown
            remedy = f"its roundings grow too large, set models.{name}.dtype: float32"
        for way, found, wanted in our_logits(name, folder, config, settings, tokens, at, device, each, expected):
            difference = differ(found, wanted)
            if not difference <= tolerance * scale:
                raise StudyError(
                    f"models.{name}: {way} gives other logits than transformers for {folder} in {each} (off by "
                    f"{difference:.2g} of {scale:.2g}, allowed {tolerance:.1g} of it); {remedy}"
                )
            log.info("%s, %s: logits within %.1g of transformers', of %.1g", way, each, difference, scale)
        compared.append(each)
    for line in skipped:
        log.warning("not held against transformers in %s", line)
    return {"dtypes": compared, "tokens": tokens.shape[1]} | ({"skipped": "; ".join(skipped)} if skipped else {})


def sample(config: Any, seed: int = 0) -> torch.Tensor:
    """[2, S] random tokens, S reaching beyond the window of attention where there is one; equal in their first half."""
    windows = [getattr(config, key, None) for key in WINDOWS]
    lengths = [LENGTH, *(w + 8 for w in windows if isinstance(w, int) and w + 8 <= LONGEST)]
    length = min(max(lengths), *(n for key in POSITIONS if isinstance(n := getattr(config, key, None), int)), LONGEST)
    special = {getattr(config, key, None) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    ids = torch.tensor([i for i in range(config.vocab_size) if i not in special] or [0])
    tokens = ids[torch.randint(len(ids), (2, length), generator=torch.Generator().manual_seed(seed))]
    tokens[1, : length // 2] = tokens[0, : length // 2]
    return tokens


def compared_positions(tokens: torch.Tensor, d_vocab: int) -> torch.Tensor:
    """[K] positions of tokens [N, S] at which logits are compared: all, or, where these are more than MOST numbers, as
    many as fit, from the first to the last, evenly."""
    n, s = tokens.shape
    return torch.linspace(0, s - 1, min(s, max(2, MOST // (n * d_vocab)))).round().long()


def differ(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest absolute difference of two tensors of one shape."""
    return float((a - b).abs().max())


def count(folder: Path) -> int:
    """How many numbers the tensors of a checkpoint hold."""
    from atlas.model.checkpoint import Checkpoint

    return sum(read(tensor_name).numel() for tensor_name, read in Checkpoint(folder).sources.items())


def expected_logits(
    name: str, folder: Path, tokens: torch.Tensor, at: torch.Tensor, device: str, dtype: str
) -> torch.Tensor:
    """[2, K, d_vocab] float32 on the CPU, at the positions ``at`` [K] of tokens [2, S], of transformers' own model with
    plain attention; where its class can, it makes no others."""
    from transformers import AutoModelForCausalLM

    how = {"dtype": getattr(torch, dtype), "attn_implementation": "eager"}
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False, local_files_only=True, **how)
        with torch.no_grad():
            places, few = at.to(device), "logits_to_keep" in inspect.signature(model.forward).parameters
            options = {"logits_to_keep": places} if few else {}
            logits = model.eval().to(device)(tokens.to(device), use_cache=False, **options).logits
            logits = (logits if few else logits[:, places]).float().cpu()
    except Exception as error:  # whatever a class says of values that it cannot use
        said = f"models.{name}: transformers cannot run {folder} ({one_line(error)})"
        raise StudyError(f"{said}; give the folder of a Hugging Face checkpoint") from None
    del model
    gc.collect()
    found: torch.Tensor = logits
    return found


def our_logits(
    name: str,
    folder: Path,
    config: Any,
    settings: dict[str, Any],
    tokens: torch.Tensor,
    at: torch.Tensor,
    device: str,
    dtype: str,
    expected: torch.Tensor,
) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """(way, its logits, those expected there) of every way that a study runs the model unablated, float32 on the CPU.

    tokens [2, S]; ``expected`` [2, K, d_vocab] at the positions ``at`` [K], of which the last is the text's. Logits are
    like it, or [2, d_vocab] where a way gives the last alone. Raises StudyError where the model cannot be run.
    """
    try:
        model = models.load(folder, device, dtype, settings=settings)
        found = model.run(tokens, position=at.expand(len(tokens), -1)).float().cpu()
        ways = [("our forward pass" if model.weights else "TransformerLens", found, expected)]
        refuse_wrong_facts(name, source.has_parallel_blocks(config), source.kv_heads(config), model, tokens)
        if model.weights:
            engine = Engine(model.weights)
            whole = frozenset(all_components(model.n_layers, model.n_heads))
            with torch.no_grad():
                last = LiveRun(engine, tokens.to(model.device)).final_residual(whole, _nothing)
                ways.append(("our engine", model.weights.unembed(last)[:, 0].float().cpu(), expected[:, -1]))
    except StudyError:
        raise
    except Exception as error:  # TransformerLens's own refusals, and what happens to a model that it does not know
        kind = settings["architectures"][0]
        raise StudyError(
            f"models.{name}: {kind} in {folder} cannot be run ({one_line(error)}); use a model of docs/architectures.md"
        ) from None
    return ways


def refuse_wrong_facts(name: str, parallel: bool, kv_heads: int, model: models.Model, tokens: torch.Tensor) -> None:
    """Raise StudyError where a run on tokens [N, S] shows other blocks or key/value heads than the configuration."""
    seen: dict[str, torch.Tensor] = {}

    def save(key: str) -> Callable[..., None]:
        def hook(x: torch.Tensor, hook: object) -> None:
            seen[key] = x.detach().clone()

        return hook

    def shift(x: torch.Tensor, hook: object) -> torch.Tensor:
        return x + torch.arange(x.shape[-1], device=x.device).to(x.dtype).sin() * x.abs().max()

    written = models.mlp_hook(0)
    model.run(tokens, [(written, save("before")), ("blocks.0.attn.hook_v", save("v"))])
    model.run(tokens, [("blocks.0.hook_attn_out", shift), (written, save("after"))])
    if torch.allclose(seen["before"], seen["after"], rtol=1e-3) != parallel:
        said = "reads" if parallel else "does not read"
        raise StudyError(
            f"models.{name}: the MLP of a layer {said} what its attention writes, unlike what is known of it"
        )
    if seen["v"].shape[2] != kv_heads:
        raise StudyError(f"models.{name}: it has {seen['v'].shape[2]} key/value heads; its config.json says {kv_heads}")


def _nothing(what: str, layer: int) -> torch.Tensor:
    raise AssertionError(f"nothing is ablated, yet {what} of layer {layer} is replaced")
