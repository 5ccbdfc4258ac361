"""What heads write: does a head's output, unembedded, name the member it read, or the next one?

*OV scores.* The residual after block 0 at each member's position, in context, is what the model knows of that member
before the members meet. It goes through a head's own layer norm, W_V, b_V and W_O, then the final norm and the
unembedding. A score is the share of instances (member of a prompt) whose target stands in the top k: `copy` the member
itself, `next`, `previous`, `next_next` (one step, one step back, two steps of the task), `cross:<task>` the member of
another task at the same place of its order (March for 3). With ``norm`` `block1` every head reads through block 1's
norm instead, as the published figures did. b_O belongs to no head and is left out. Where a norm stands behind attention
(Gemma 2, OLMo 2), what a head writes goes through its weight; its scale is left out, since the final norm takes any
scale out again. A cap of logits, which keeps their order, is left out too: it would make large ones equal.

*In place* (``norm`` `in place`): the same unembedding of what a head really writes at the answer position, whatever it
has read there; one instance a prompt, `copy` is the last shown member and `next` the answer. It sees heads that read
what other heads have prepared, which OV scores cannot.

A target is in the top k only if fewer than k + 1 tokens have a logit at least as large, to rounding: ties count against
it, so a head that writes nothing to the unembedding scores 0. Among few members both `copy` and `next` are soon in the
top k; `next over copy` (k = 0: it needs none) is the share of instances where the next member's logit is the larger.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch

from atlas.core.errors import StudyError
from atlas.core.positions import Layout
from atlas.core.statistics import Bootstrap, column_means
from atlas.heads.attention import head_rows
from atlas.heads.attribution import Readout
from atlas.model.models import Model, z_hook
from atlas.store.job import progress

COLUMNS = ["norm", "layer", "head", "score", "k", "value", "ci_low", "ci_high", "baseline", "instances"]
LEAD = "next over copy"
NONE = -1  # where an instance has no target
ROUNDING = 1e-6  # logits closer than this share of the distance to the largest are equal


# ---- targets -------------------------------------------------------------------------------------------------
def successors(frame: pd.DataFrame, layout: Layout) -> dict[int, int]:
    """Token id of a member -> id of the next one, from the prompts (all of a task): members in order, then the answer.

    A member that different prompts continue differently (a file of several series) has none.
    """
    found: dict[int, set[int]] = {}
    for tokens, answer in zip(frame.tokens, frame.answer_token, strict=True):
        shown = [int(tokens[p]) for p in layout.places] + [int(answer)]
        for first, second in pairwise(shown):
            found.setdefault(first, set()).add(second)
    return {first: next(iter(after)) for first, after in found.items() if len(after) == 1}


def ids_of_words(frame: pd.DataFrame, layout: Layout) -> dict[str, int]:
    """Member -> token id, of the members that occur in prompts or answers."""
    out: dict[str, int] = {}
    for row in frame.itertuples():
        out |= {word: int(row.tokens[p]) for word, p in zip(row.members, layout.places, strict=True)}
        out[row.answer] = int(row.answer_token)
    return out


@dataclass(frozen=True)
class Target:
    """``of``: token id of a member -> of its target. ``pool``: ids among which a random target is drawn (baseline)."""

    of: dict[int, int]
    pool: tuple[int, ...]


def task_targets(succession: dict[int, int], members: Iterable[int]) -> dict[str, Target]:
    """The scores that need one task alone; ``members``: token ids of its members."""
    back: dict[int, set[int]] = {}
    pool = tuple(sorted(members))
    for first, second in succession.items():
        back.setdefault(second, set()).add(first)
    maps = {
        "copy": {m: m for m in pool},
        "next": succession,
        "previous": {second: next(iter(before)) for second, before in back.items() if len(before) == 1},
        "next_next": {first: succession[second] for first, second in succession.items() if second in succession},
    }
    return {name: Target(of, pool) for name, of in maps.items()}


def cross_target(own: list[str], own_ids: dict[str, int], other: list[str], other_ids: dict[str, int]) -> Target | None:
    """The member of another task at the same place of its order; None where the tasks share a member."""
    if set(own) & set(other):
        return None
    pairs = zip(own, other, strict=False)
    of = {own_ids[a]: other_ids[b] for a, b in pairs if a in own_ids and b in other_ids}
    return Target(of, tuple(sorted(other_ids[word] for word in other if word in other_ids)))


def norms_of(wanted: Iterable[str], n_layers: int) -> list[str]:
    """Those of the norms that heads of a model can read through: one layer alone has no block 1."""
    return [norm for norm in wanted if norm != "block1" or n_layers > 1]


# ---- what heads read and write -------------------------------------------------------------------------------
def values_after_block_0(model: Model, tokens: torch.Tensor, positions: list[int], norm: str) -> torch.Tensor:
    """v [L, N, P, H, d_head] of every head from the residual after block 0 at ``positions``, W_V and b_V applied.

    One run records that residual; a second one puts it before every layer (`own`), or its norm by block 1 behind every
    layer's norm (`block1`), and reads TransformerLens's `hook_v`. Under grouped attention a query head has its group's.
    """
    if norm == "block1" and model.n_layers < 2:
        raise StudyError("heads.ov.norms: block1 needs a model of two layers or more; leave it out")
    kept, v = {}, {}

    def keep(x: torch.Tensor, hook: object) -> torch.Tensor:
        kept["residual"] = x
        return x

    def reader(layer: int) -> Callable[..., torch.Tensor]:
        def hook(x: torch.Tensor, hook: object) -> torch.Tensor:
            v[layer] = x[:, positions].repeat_interleave(model.n_heads // x.shape[2], dim=2)
            return x

        return hook

    model.run(tokens, [("blocks.0.hook_resid_post", keep)])
    site, x = "hook_resid_pre", kept["residual"]
    if norm == "block1":
        with torch.no_grad():
            norm1 = model.weights.blocks[1].norm1 if model.weights else model.bridge.blocks[1].ln1
            site, x = "ln1.hook_out", norm1(x)
    edits = [(f"blocks.{layer}.{site}", lambda _, hook: x) for layer in range(model.n_layers)]
    model.run(tokens, [*edits, *((f"blocks.{layer}.attn.hook_v", reader(layer)) for layer in range(model.n_layers))])
    return torch.stack([v[layer] for layer in range(model.n_layers)])


def z_at(model: Model, tokens: torch.Tensor, position: int) -> torch.Tensor:
    """z [L, N, 1, H, d_head] of every head at one position."""
    z = {}

    def reader(layer: int) -> Callable[..., torch.Tensor]:
        def hook(x: torch.Tensor, hook: object) -> torch.Tensor:
            z[layer] = x[:, [position]]
            return x

        return hook

    model.run(tokens, [(z_hook(layer), reader(layer)) for layer in range(model.n_layers)])
    return torch.stack([z[layer] for layer in range(model.n_layers)])


def written(model: Model, layer: int) -> torch.Tensor:
    """W_O [H, d_head, D] of a layer; times the weight of the norm behind its attention, where there is one."""
    w_o, norm = model.w_o(layer), model.norm_attn_out(layer)
    return w_o if norm is None else norm.linear(w_o)


# ---- scores --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Scores:
    """Per prompt: instances with a target whose target is in the top k, ``hits`` [N, L, H, K]; the same of a random
    target, ``random`` [N, L, H, K]; and instances with a target, ``counts`` [N]."""

    ks: tuple[int, ...]
    hits: np.ndarray
    random: np.ndarray
    counts: np.ndarray

    @classmethod
    def empty(cls, ks: Sequence[int], model: Model, known: torch.Tensor) -> "Scores":
        """``known`` [N, P]: instances that have a target."""
        shape = (len(known), model.n_layers, model.n_heads, len(ks))
        return cls(tuple(ks), np.zeros(shape), np.zeros(shape), known.sum(1).numpy())


def bars(logits: torch.Tensor, ks: Sequence[int]) -> torch.Tensor:
    """[..., K] what a logit must exceed to be in the top k: the (k + 1)-th largest, and no rounding above it."""
    largest = logits.topk(min(max(ks) + 1, logits.shape[-1]), dim=-1).values
    found = [largest[..., k] if k < logits.shape[-1] else torch.full_like(largest[..., 0], -torch.inf) for k in ks]
    out = torch.stack(found, dim=-1)
    return torch.where(out.isinf(), out, out + ROUNDING * (largest[..., :1] - out))


def scores(
    model: Model,
    tokens: torch.Tensor,
    layout: Layout,
    wanted: dict[str, Target],
    ks: Sequence[int],
    norm: str,
    answers: Any = None,
) -> dict[str, Scores]:
    """Score name -> Scores, on prompts [N, S]. ``answers`` [N], token ids, is needed `in place` alone."""
    in_place, positions = norm == "in place", layout.places
    if in_place:
        positions = [[p for p in layout.places if p <= layout.answer_position][-1]]
        wanted = {name: target for name, target in wanted.items() if name in ("copy", "next")}
    ids = {name: lookup(tokens[:, positions], target.of) for name, target in wanted.items()}
    if in_place:
        ids["next"] = torch.as_tensor(answers)[:, None]
    known = {name: of != NONE for name, of in ids.items()}
    out = {name: Scores.empty(ks, model, known[name]) for name in ids}
    out[LEAD] = Scores.empty([0], model, known["next"] & known["copy"])
    readout = Readout.of(model)
    w_o = torch.stack([written(model, layer) for layer in range(model.n_layers)]).to(readout.w_u.dtype)
    for batch in progress(model.batches(len(tokens)), f"OV, norm {norm}"):
        own = tokens[batch]
        z = z_at(model, own, layout.answer_position) if in_place else values_after_block_0(model, own, positions, norm)
        z = z.to(readout.w_u.dtype)
        for layer, head in np.ndindex(model.n_layers, model.n_heads):
            logits = readout.uncapped(readout.norm(z[layer, :, :, head] @ w_o[layer, head])).cpu()
            bar, cell = bars(logits, ks), (batch, layer, head)
            of_target = {name: logits.gather(-1, of[batch].clamp(min=0)[..., None]) for name, of in ids.items()}
            of_pool = {name: logits[..., list(wanted[name].pool)] for name in ids}
            for name, has in known.items():
                has = has[batch, :, None]
                in_pool = (of_pool[name][..., None] > bar[..., None, :]).float().mean(-2)
                out[name].hits[cell] = ((of_target[name] > bar) & has).sum(1)
                out[name].random[cell] = (in_pool * has).sum(1)
            has = (known["next"] & known["copy"])[batch, :, None]
            out[LEAD].hits[cell] = ((of_target["next"] > of_target["copy"]) & has).sum(1)
            ahead = (of_pool["next"] > of_target["copy"]).float().mean(-1, keepdim=True)
            out[LEAD].random[cell] = (ahead * has).sum(1)
    return out


def lookup(tokens: torch.Tensor, of: dict[int, int]) -> torch.Tensor:
    """[N, P] token ids: what ``of`` has for each of tokens [N, P], `NONE` where it has nothing."""
    return torch.tensor([[of.get(int(t), NONE) for t in row] for row in tokens])


def table(found: dict[str, Scores], norm: str, bootstrap: Bootstrap) -> pd.DataFrame:
    """Rows of `COLUMNS`; none of scores without instances.

    ``baseline``: the share with a random member of the target's task in place of the target.
    """
    pieces = [pd.DataFrame(columns=COLUMNS)] if not any(s.counts.sum() for s in found.values()) else []
    for name, score in found.items():
        n, n_layers, n_heads, _ = score.hits.shape
        if not score.counts.sum():
            continue
        counts = np.repeat(score.counts[:, None], n_layers * n_heads, axis=1)
        for column, k in enumerate(score.ks):
            shares = column_means(bootstrap, score.hits[..., column].reshape(n, -1), counts)
            piece = head_rows(n_layers, n_heads).assign(norm=norm, score=name, k=k, **shares)
            piece["baseline"] = score.random[..., column].reshape(n, -1).sum(0) / score.counts.sum()
            pieces.append(piece.assign(instances=int(score.counts.sum())))
    return pd.concat(pieces, ignore_index=True)[COLUMNS]
