"""Activation patching: one activation of the other run at a time, and what the logit difference makes of it.

Denoising puts an activation of the clean run into the corrupted one, noising one of the corrupted run into the clean
one; everything downstream is recomputed (methods: section 6). Sites are the checkpoint's own activations: `resid_pre`,
`attn_out` and `mlp_out` at one position of one layer, and `z`, `q`, `k`, `v` and `pattern` of one head at all
positions. Under grouped queries a key/value head serves its whole group, so `k` and `v` are patched per key/value head.

Two ways that agree to rounding. `HookPatcher` runs the whole model on TransformerLens hooks, for any architecture.
`EnginePatcher`, where the architecture has an engine, computes only what a patch can change:

1. Nothing below the patched layer, and within it only what follows the patched activation.
2. Attention is causal, so positions before the patched one keep their values, keys included, from the unpatched run.
3. In the last layer only the query, the MLP and the norm at the last position.
4. Where the two runs hold equal bits (before the first member, say) a patch changes nothing and none is run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from atlas.core.errors import StudyError
from atlas.core.statistics import Bootstrap, interval_columns
from atlas.model.attention import Positions
from atlas.model.block import Weights
from atlas.model.engine import Engine
from atlas.model.models import Hook, Model, slices
from atlas.prompts.batch import Prompts
from atlas.store.job import progress

BatchRun = Callable[..., list[np.ndarray]]  # of one batch: see `with_engine`
log = logging.getLogger("atlas")

DIRECTIONS = ("denoising", "noising")
BY_POSITION = ("resid_pre", "attn_out", "mlp_out")
BY_HEAD = ("z", "q", "k", "v", "pattern")
COLUMNS = ["direction", "site", "layer", "head", "position", "role", "value", "ci_low", "ci_high"]


class Patch(NamedTuple):
    """An activation: at one ``position`` (then ``head`` is -1), or of one ``head`` everywhere (``position`` is -1).

    ``head`` is a key/value head for the sites `k` and `v`.
    """

    site: str
    layer: int
    head: int = -1
    position: int = -1


def all_patches(n_layers: int, n_heads: int, n_kv_heads: int, n_positions: int) -> list[Patch]:
    """Every patch, site by site, layer by layer."""
    positions = [
        Patch(site, layer, position=p) for site in BY_POSITION for layer in range(n_layers) for p in range(n_positions)
    ]
    heads = [
        Patch(site, layer, head)
        for site in BY_HEAD
        for layer in range(n_layers)
        for head in range(n_kv_heads if site in "kv" else n_heads)
    ]
    return positions + heads


# ---- with the engine -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Layer:
    """What one layer of an unpatched run holds, at all positions; q and k as they enter the scores."""

    resid_pre: torch.Tensor  # [N, S, D], as the five below
    writes: torch.Tensor  # of all heads together
    attn_out: torch.Tensor
    after: torch.Tensor  # resid_pre + attn_out
    mlp_out: torch.Tensor
    resid_post: torch.Tensor
    q: torch.Tensor  # [N, H, S, d_head]
    k: torch.Tensor  # [N, G, S, d_head]
    v: torch.Tensor  # [N, G, S, d_head]
    z: torch.Tensor  # [N, S, H, d_head]
    pattern: torch.Tensor  # [N, H, S, S]


class EnginePatcher:
    """Patched final residuals at the last position, of one batch and two recorded runs."""

    def __init__(self, weights: Weights) -> None:
        self.weights, self.blocks = weights, weights.blocks
        self.group = weights.n_heads // self.blocks[0].n_kv_heads  # query heads per key/value head

    def record(self, tokens: torch.Tensor) -> list[Layer]:
        """The layers of a run on tokens [N, S]."""
        layers, x = [], self.weights.embed(tokens)
        for block in self.blocks:
            normed = block.norm1(x)
            q, (k, v) = block.queries(normed), block.keys_values(normed)
            pattern = block.pattern(q, k)
            z = block.mix(pattern, v)
            writes = block.contracted_writes(z)
            attn_out = block.attn_out(writes)
            after = x + attn_out
            mlp_out = block.mlp_out(block.mlp_reads(x, after))
            layers.append(Layer(x, writes, attn_out, after, mlp_out, after + mlp_out, q, k, v, z, pattern))
            x = after + mlp_out
        return layers

    def patched(self, base: list[Layer], source: list[Layer], patch: Patch) -> torch.Tensor:
        """[N, D] after the last layer at the last position of run ``base`` with one activation of run ``source``."""
        here, there = base[patch.layer], source[patch.layer]
        last = patch.layer == len(self.blocks) - 1
        if patch.head < 0:
            p, old, new = patch.position, getattr(here, patch.site), getattr(there, patch.site)
            unread = last and p < old.shape[1] - 1 and patch.site != "resid_pre"  # nothing looks there any more
            if unread or torch.equal(old[:, p], new[:, p]):
                return base[-1].resid_post[:, -1]
            if patch.site == "resid_pre":
                return self.upwards(base, patch.layer, replaced(old, p, new[:, p]), p)
            row = slice(p, p + 1)
            if patch.site == "attn_out":
                own = self.after_attention(patch.layer, here, here.resid_pre[:, row] + new[:, row], row)
            else:
                own = here.after[:, row] + new[:, row]
            return self.upwards(base, patch.layer + 1, replaced(here.resid_post, p, own[:, 0]), p)
        heads, z = self.patched_z(here, there, patch)
        old = here.z[:, :, heads]
        changed = (z != old).any(-1).any(-1).any(0).nonzero()
        if not len(changed):
            return base[-1].resid_post[:, -1]
        start = old.shape[1] - 1 if last else int(changed[0])
        rows, block = slice(start, None), self.blocks[patch.layer]
        change = block.head_writes((z - old)[:, rows], heads)
        after = block.after_change(here.resid_pre[:, rows], here.writes[:, rows], here.after[:, rows], change)
        return self.upwards(base, patch.layer + 1, self.after_attention(patch.layer, here, after, rows), start)

    def patched_z(self, here: Layer, there: Layer, patch: Patch) -> tuple[list[int], torch.Tensor]:
        """(query heads, their z [N, S, h, d_head]) in run ``here`` with a head's activation of run ``there``."""
        h, group, block = patch.head, self.group, self.blocks[patch.layer]
        mine, kv = slice(h, h + 1), slice(h // group, h // group + 1)
        match patch.site:
            case "z":
                return [h], there.z[:, :, mine]
            case "pattern":
                return [h], block.mix(there.pattern[:, mine], here.v[:, kv])
            case "q":
                return [h], block.mix(block.pattern(there.q[:, mine], here.k[:, kv]), here.v[:, kv])
        heads = slice(h * group, (h + 1) * group)  # of the key/value head h
        names = list(range(heads.start, heads.stop))
        if patch.site == "v":
            return names, block.mix(here.pattern[:, heads], there.v[:, mine])
        return names, block.mix(block.pattern(here.q[:, heads], there.k[:, mine]), here.v[:, mine])

    def after_attention(self, layer: int, base: Layer, after: torch.Tensor, rows: slice) -> torch.Tensor:
        """[N, P, D] the layer's output at positions ``rows``, from the residual [N, P, D] after its attention there."""
        block = self.blocks[layer]
        return after + (base.mlp_out[:, rows] if block.parallel else block.mlp_out(after))

    def upwards(self, base: list[Layer], layer: int, x: torch.Tensor, start: int) -> torch.Tensor:
        """[N, D] after the last layer at the last position, from the residual x entering ``layer`` at ``start``..."""
        stop = start + x.shape[1]
        at = Positions.span(start, stop, x.device)
        for index in range(layer, len(self.blocks)):
            block, normed, ask = self.blocks[index], self.blocks[index].norm1(x), at
            k, v = self.with_earlier(base[index], start, *block.keys_values(normed, at))
            if index == len(self.blocks) - 1:  # nothing looks at its other positions
                x, normed, ask = x[:, -1:], normed[:, -1:], Positions.span(stop - 1, stop, x.device)
            z = block.attend(block.queries(normed, ask), k, v, ask)
            x = block.after_mlp(x, block.after_attention(x, block.head_writes(z)))
        return x[:, -1]

    def with_earlier(self, base: Layer, start: int, k: torch.Tensor, v: torch.Tensor) -> list[torch.Tensor]:
        """k and v [N, G, S, d_head], from those at ``start``... [N, G, P, d_head] and the unpatched run's before."""
        return [torch.cat((old[:, :, :start], new), 2) for old, new in ((base.k, k), (base.v, v))]

    def bytes_per_row(self, s: int) -> int:
        """Memory that the two recorded runs and one patched run of a prompt of ``s`` tokens take."""
        w, block = self.weights, self.blocks[0]
        own = 6 * w.w_u.shape[1] + 4 * block.w_q.shape[1] * block.w_q.shape[2] + block.w_q.shape[1] * s
        return (2 * s * own * len(self.blocks)) * w.w_u.element_size() + Engine(w).bytes_per_row(s, logits=0)


def replaced(x: torch.Tensor, p: int, row: torch.Tensor) -> torch.Tensor:
    """x [N, S, D] from position p on, with ``row`` [N, D] at p."""
    return torch.cat((row[:, None], x[:, p + 1 :]), 1)


# ---- with hooks ----------------------------------------------------------------------------------------------
def hook_name(site: str, layer: int) -> str:
    """Name of the hook at a site of `BY_POSITION` or `BY_HEAD`."""
    return f"blocks.{layer}.hook_{site}" if site in BY_POSITION else f"blocks.{layer}.attn.hook_{site}"


class HookPatcher:
    """The same on the bridge: patched logits at the last position."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def record(self, tokens: torch.Tensor, patches: list[Patch]) -> dict[str, torch.Tensor]:
        """Hook name -> activation [N, ...] on tokens [N, S], of all activations that ``patches`` name, on the CPU."""
        found = {}

        def saver(name: str) -> Callable[..., torch.Tensor]:
            # a hook may have several names, so the one asked for is kept
            def hook(x: torch.Tensor, hook: object) -> torch.Tensor:
                found[name] = x.detach().cpu()
                return x

            return hook

        names = dict.fromkeys(hook_name(p.site, p.layer) for p in patches)
        self.model.run(tokens, [(name, saver(name)) for name in names], on_bridge=True)
        return found

    def patched(self, tokens: torch.Tensor, source: dict[str, torch.Tensor], patch: Patch) -> torch.Tensor:
        """[N, d_vocab] of a run on tokens with one activation of run ``source``."""
        name = hook_name(patch.site, patch.layer)
        if patch.site == "pattern":
            edits = self.pattern_edits(source[name][:, patch.head], patch)
            return self.model.run(tokens, edits, on_bridge=True)
        where: tuple[slice | int, ...] = (slice(None), patch.position)
        if patch.head >= 0:
            where = (slice(None), slice(None), patch.head)

        def put(x: torch.Tensor, hook: object) -> torch.Tensor:
            x = x.clone()
            x[where] = source[name][where].to(x)
            return x

        return self.model.run(tokens, [(name, put)], on_bridge=True)

    def pattern_edits(self, pattern: torch.Tensor, patch: Patch) -> list[Hook]:
        """Edits that give one head another ``pattern`` [N, S, S]: what it makes of the run's own values, put into z.

        Some bridges compute attention elsewhere, so that an edit of the pattern itself would change nothing.
        """
        kept = {}

        def keep(v: torch.Tensor, hook: object) -> None:
            kept["v"] = v[:, :, patch.head * v.shape[2] // self.model.n_heads]

        def put(z: torch.Tensor, hook: object) -> torch.Tensor:
            z = z.clone()
            z[:, :, patch.head] = pattern.to(z) @ kept["v"]
            return z

        return [(hook_name("v", patch.layer), keep), (hook_name("z", patch.layer), put)]


# ---- every patch ---------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Patched:
    """Logit differences, per prompt: of the two runs, and of every patch in both directions."""

    patches: list[Patch]
    clean: np.ndarray  # [N]
    corrupted: np.ndarray  # [N]
    values: dict[str, np.ndarray]  # direction -> [patches, N]


def patch_all(model: Model, prompts: Prompts, use_engine: bool = True) -> Patched:
    """Every patch of every prompt, in both directions; prompts are read at their last token.

    ``use_engine=False`` forces hooks.
    """
    if prompts.position is not None:
        raise ValueError("patching reads prompts at their last token; give it prompts without padding")
    s = prompts.tokens.shape[1]
    patches = all_patches(model.n_layers, model.n_heads, model.n_kv_heads, s)
    weights = model.weights if use_engine else None
    log.info("patching: %s, %d patches in each direction", "live engine" if weights else "hooks", len(patches))
    run = with_engine(weights) if weights else with_hooks(model)
    fit = int(model.memory_mb * 2**20) // EnginePatcher(weights).bytes_per_row(s) if weights else model.batch_size
    parts = []
    for batch in progress(slices(len(prompts), max(1, min(model.batch_size, fit))), "patching"):
        inputs = (x[batch].to(model.device) for x in (prompts.tokens, prompts.corrupted_tokens))
        with torch.no_grad():
            parts.append(run(*inputs, prompts.answer[batch], prompts.incorrect[batch], patches))
    clean, corrupted, *values = (np.concatenate(x, axis=-1) for x in zip(*parts, strict=True))
    return Patched(patches, clean, corrupted, dict(zip(DIRECTIONS, values, strict=True)))


def with_engine(weights: Weights) -> BatchRun:
    """A function of one batch: (clean, corrupted [N], denoised, noised [patches, N])."""
    patcher = EnginePatcher(weights)

    def run(
        tokens: torch.Tensor,
        corrupted_tokens: torch.Tensor,
        answer: torch.Tensor,
        incorrect: torch.Tensor,
        patches: list[Patch],
    ) -> list[np.ndarray]:
        answer, incorrect = answer.to(tokens.device), incorrect.to(tokens.device)

        def score(x: torch.Tensor) -> torch.Tensor:
            return weights.logit_diff(x, answer, incorrect)

        clean, corrupted = patcher.record(tokens), patcher.record(corrupted_tokens)
        values = [
            torch.stack([score(patcher.patched(base, source, patch)) for patch in patches])
            for base, source in ((corrupted, clean), (clean, corrupted))
        ]
        return [
            x.double().cpu().numpy() for x in (*(score(r[-1].resid_post[:, -1]) for r in (clean, corrupted)), *values)
        ]

    return run


def with_hooks(model: Model) -> BatchRun:
    """The same on the bridge."""
    patcher = HookPatcher(model)

    def run(
        tokens: torch.Tensor,
        corrupted_tokens: torch.Tensor,
        answer: torch.Tensor,
        incorrect: torch.Tensor,
        patches: list[Patch],
    ) -> list[np.ndarray]:
        def score(logits: torch.Tensor) -> torch.Tensor:
            rows = torch.arange(len(logits))
            return logits.cpu()[rows, answer] - logits.cpu()[rows, incorrect]

        clean, corrupted = (patcher.record(x, patches) for x in (tokens, corrupted_tokens))
        values = [
            torch.stack([score(patcher.patched(base, source, patch)) for patch in patches])
            for base, source in ((corrupted_tokens, clean), (tokens, corrupted))
        ]
        ends = (score(model.run(x, on_bridge=True)) for x in (tokens, corrupted_tokens))
        return [x.double().cpu().numpy() for x in (*ends, *values)]

    return run


def patching_rows(
    patched: Patched, names: list[str], bootstrap: Bootstrap, allow_no_effect: bool = False
) -> list[dict[str, Any]]:
    """The rows of `patching.parquet` less model and task.

    value = (M(patched) - M(corrupted)) / (M(clean) - M(corrupted)) of the mean logit differences M, in both directions:
    0 is the corrupted run and 1 the clean one. Denoising starts from 0, so a patch that matters is above 0; noising
    starts from 1, so a patch that matters is below 1. ``names``: of each position (`Layout.names`); the role of a
    head's patch is `all`.

    Raises StudyError where clean and corrupted runs hardly differ; ``allow_no_effect`` (`allow_negative_clean` of the
    configuration) turns that into a warning, unless they do not differ at all.
    """
    clean, corrupted = patched.clean.mean(), patched.corrupted.mean()
    effect = abs(clean - corrupted)
    if effect < 1e-3 * max(1.0, abs(clean)):
        said = (
            f"the mean logit difference is {clean:.4f} on clean and {corrupted:.4f} on corrupted prompts, so patching "
            "has nothing to restore; choose another heads.patching_corruption or prompts.corruption"
        )
        if not allow_no_effect or not effect:
            raise StudyError(said)
        log.warning("%s; going on, as allow_negative_clean says", said)
    rows = []
    for direction, values in patched.values.items():
        for patch, own in zip(patched.patches, values, strict=True):
            keys = {"direction": direction} | patch._asdict()
            keys["role"] = names[patch.position] if patch.head < 0 else "all"
            rows.append(keys | interval_columns(bootstrap.faithfulness(own, patched.clean, patched.corrupted)))
    return rows
