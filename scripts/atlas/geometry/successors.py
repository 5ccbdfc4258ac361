"""Successor heads: do a head's values and output alone take a member of a class to the next one? Reads weights only.

The path (Gould et al., arXiv 2312.09230): a member's embedding (as the architecture scales or norms it, without a
position), MLP 0 of it, a head's own norm, W_V, b_V and W_O, then the final norm and the unembedding of the members of
the class, no other token. MLP 0 reads the embedding alone, and what it gives is added to it: attention of layer 0,
which would need other tokens, writes nothing. b_O belongs to no head and is left out; a norm behind attention acts by
its weight (`ov.written`); a cap of logits, which keeps their order, is left out too.

``input``: `mlp0`, the embedding with what MLP 0 adds, or `without_mlp0`, the embedding alone. Heads of layer 0 come
before MLP 0 and have rows of `without_mlp0` only. In the row with layer and head -1 no head stands between: what MLP 0
writes is unembedded itself (`mlp0`), or the embedding (`without_mlp0`).

``target``: `next`, `previous`, `next_next` (two on): the share of members having such a target for which it has the
largest logit of all members, the member itself among them; around the end of cyclic classes. A tie, to rounding, is no
hit, so that a head that writes nothing scores 0. `greater` (what the paper calls a greater-than bias): the share of
members for which the mean logit of members two or more places after them is above that of members before them, each
member's logit less its mean over all members read; equal ones count half. What a head writes whatever it reads counts
for nothing so, nor does the next member alone: both score 0.5, as does chance. Along the list, not around its end.

*Null.* The same scores of random heads (`atlas.heads.random_heads`): the model's own heads, with all they read turned
by one random rotation of the residual stream and all they write by another. They keep the sizes of their weights, the
inputs, the norms and the unembedding, so that what members have in common (frequent ones with large embeddings) helps
them as much. p: how often a random head of any layer reaches a score; Holm's correction over all heads of the model,
for each class, input and target. Of the row without a head the writes are turned, p is of these draws and of one test.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from atlas.core.multiple import holm
from atlas.geometry.classes import Members
from atlas.heads import ov, random_heads
from atlas.heads.attribution import Readout
from atlas.model.attention import shared_out
from atlas.store.job import progress

if TYPE_CHECKING:
    from atlas.heads.random_heads import Turn
    from atlas.model.models import Hook, Model

log = logging.getLogger("atlas")
COLUMNS = ["class", "input", "target", "layer", "head", "value", "members", "random_median", "random_hi", "p", "p_holm"]
WITH, WITHOUT = INPUTS = ("mlp0", "without_mlp0")
STEPS = {"next": 1, "previous": -1, "next_next": 2}
GREATER = "greater"
TARGETS = (*STEPS, GREATER)
NO_HEAD = -1  # layer and head of the row where no head stands between
UPPER = 97.5  # percentile of random heads
ROUNDING = 1e-6  # logits closer than this share of the largest that a normed write of its size could have are equal


@dataclass(frozen=True)
class Settings:
    """``draws`` of random heads; each has as many as the model."""

    draws: int
    seed: int


# ---- what heads read -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Read:
    """What stands before the heads, of M members of all classes, by input: ``normed`` [L, M, D], behind each layer's
    own norm, and ``alone`` [M, D], what is unembedded where no head stands between."""

    normed: dict[str, torch.Tensor]
    alone: dict[str, torch.Tensor]


def read(model: Model, ids: Sequence[int]) -> Read:
    """Of tokens ``ids`` [M], each a text of its own: no member sees another.

    Three runs: one with positions and attention of layer 0 set to zero, whose residuals are kept, and one for each
    input, put in front of every layer.
    """
    alone: dict[str, list[torch.Tensor]] = {name: [] for name in INPUTS}
    normed: dict[str, list[torch.Tensor]] = {name: [] for name in INPUTS}
    at = {"start": "blocks.0.hook_resid_pre", "mlp": "blocks.0.hook_mlp_out", "after": "blocks.0.hook_resid_post"}
    silent = [("blocks.0.hook_attn_out", zero)]
    silent += [("pos_embed.hook_out", zero)] if positions(model) else []
    tokens = torch.tensor(list(ids))[:, None]
    for batch in model.batches(len(tokens)):
        found = recorded(model, tokens[batch], at, silent)
        for name, part in zip(INPUTS, ("mlp", "start"), strict=True):
            alone[name].append(found[part])
        for name, x in zip(INPUTS, (found["after"], found["start"]), strict=True):
            sites = {str(layer): f"blocks.{layer}.ln1.hook_out" for layer in range(model.n_layers)}
            put = [(f"blocks.{layer}.hook_resid_pre", replaced(x[:, None])) for layer in range(model.n_layers)]
            normed[name].append(torch.stack(list(recorded(model, tokens[batch], sites, put).values())))
    behind = {name: torch.cat(pieces, 1) for name, pieces in normed.items()}
    return Read(behind, {name: torch.cat(pieces) for name, pieces in alone.items()})


def positions(model: Model) -> bool:
    """Whether a model adds embeddings of positions."""
    return model.weights.w_pos is not None if model.weights else "pos_embed.hook_out" in model.bridge.hook_dict


def zero(x: torch.Tensor, hook: object) -> torch.Tensor:
    """A hook: zeros in place of an activation."""
    return torch.zeros_like(x)


def replaced(by: torch.Tensor) -> Callable[..., torch.Tensor]:
    """A hook: ``by`` in place of an activation of its shape."""
    return lambda x, hook: by


def recorded(model: Model, tokens: torch.Tensor, at: dict[str, str], edits: list[Hook]) -> dict[str, torch.Tensor]:
    """Name -> the activation [N, D] at its hook, of tokens [N, 1] run with ``edits``."""
    found: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(x: torch.Tensor, hook: object) -> None:
            found[name] = x[:, 0].detach()

        return hook

    model.run(tokens, [*edits, *((hook, keep(name)) for name, hook in at.items())])
    return {name: found[name] for name in at}


# ---- what they make of it ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Heads:
    """All heads of a model as maps: values ``w_v`` [L, G, D, d_head] and ``b_v`` [L, G, d_head], writes ``w_o``
    [L, H, d_head, D], by the weight of a norm behind attention where there is one."""

    w_v: torch.Tensor
    b_v: torch.Tensor
    w_o: torch.Tensor

    @classmethod
    def of(cls, model: Model, dtype: torch.dtype) -> Heads:
        values = [values_of(model, layer) for layer in range(model.n_layers)]
        w_v, b_v = (torch.stack([pair[i] for pair in values]).detach().to(dtype) for i in range(2))
        written = torch.stack([ov.written(model, layer) for layer in range(model.n_layers)])
        return cls(w_v, b_v, written.detach().to(dtype))

    def turned(self, model: Model, turn: Turn) -> Heads:
        """Random heads. A norm behind attention comes after the turn: it belongs to the layer."""
        writes = []
        for layer in range(model.n_layers):
            w_o, norm = model.w_o(layer).to(self.w_o.dtype) @ turn.o.to(self.w_o.dtype), model.norm_attn_out(layer)
            writes.append(w_o if norm is None else norm.linear(w_o))
        return Heads(turn.v.to(self.w_v.dtype) @ self.w_v, self.b_v, torch.stack(writes))

    def write(self, layer: int, normed: torch.Tensor) -> torch.Tensor:
        """[H, M, D] what each head of a layer writes of normed residuals [M, D]."""
        v = torch.baddbmm(self.b_v[layer][:, None], normed.expand(len(self.w_v[layer]), -1, -1), self.w_v[layer])
        return shared_out(v[None], len(self.w_o[layer]))[0] @ self.w_o[layer]


def values_of(model: Model, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """W_V [G, D, d_head] and b_V [G, d_head] of a layer.

    Of a model without an engine they are read off its run, since values are linear in what the norm gives: b_V is what
    it makes of zeros, W_V of each unit vector.
    """
    if model.weights:
        block = model.weights.blocks[layer]
        return block.w_v.transpose(0, 1), block.b_v
    units = torch.cat([torch.zeros(1, model.d_model), torch.eye(model.d_model)]).to(model.device, model.dtype)
    pieces = []
    for batch in model.batches(len(units)):
        found: list[torch.Tensor] = []

        def keep(x: torch.Tensor, hook: object, found: list[torch.Tensor] = found) -> None:
            found.append(x[:, 0].detach())

        x, tokens = units[batch][:, None], torch.zeros(len(units[batch]), 1, dtype=torch.long)
        model.run(tokens, [(f"blocks.{layer}.ln1.hook_out", replaced(x)), (f"blocks.{layer}.attn.hook_v", keep)])
        pieces.append(found[0])
    v = torch.cat(pieces)
    return (v[1:] - v[:1]).transpose(0, 1), v[0]


@dataclass(frozen=True)
class Class:
    """A class among M members of all of them: its ``rows``, its columns ``w`` [D, P] and ``b`` [P] of the unembedding,
    ``step`` name -> [2, P'] members that have a target and these, and of the P' members of `greater`, ``both`` [P'],
    what takes from the mean logit of later ones that of earlier ones, ``contrast`` [P', P]."""

    members: Members
    rows: slice
    w: torch.Tensor
    b: torch.Tensor
    step: dict[str, torch.Tensor]
    both: torch.Tensor
    contrast: torch.Tensor

    @classmethod
    def all_of(cls, classes: Sequence[Members], readout: Readout) -> list[Class]:
        """One for each, whose members stand one class after another."""
        found, start, device = [], 0, readout.w_u.device
        for members in classes:
            ids, place = torch.tensor(members.ids, device=device), torch.tensor(members.places, device=device)
            w = readout.w_u[:, ids]
            b = w.new_zeros(len(ids)) if readout.b_u is None else readout.b_u[ids]
            pairs = {name: list(members.steps(step).items()) for name, step in STEPS.items()}
            step = {name: torch.tensor(own, device=device).reshape(-1, 2).T for name, own in pairs.items()}
            apart = place[None] - place[:, None]  # [read, written]
            later, earlier = apart >= 2, apart <= -1
            both = (later.any(1) & earlier.any(1)).nonzero()[:, 0]
            later, earlier = (x[both].to(w.dtype) / x[both].sum(1, keepdim=True) for x in (later, earlier))
            found.append(cls(members, slice(start, start + len(ids)), w, b, step, both, later - earlier))
            start += len(ids)
        return found

    def counted(self) -> dict[str, int]:
        """Target -> members that have one."""
        return {name: step.shape[1] for name, step in self.step.items()} | {GREATER: len(self.both)}

    def scores(self, normed: torch.Tensor) -> dict[str, np.ndarray]:
        """Target -> [...] score, of writes to its members behind the final norm, [..., P, D]; nan without members."""
        logits = normed @ self.w + self.b
        close = ROUNDING * normed.norm(dim=-1) * self.w.norm(dim=0).max()
        top = logits.topk(2, dim=-1)
        won = torch.where(top.values[..., 0] - top.values[..., 1] > close, top.indices[..., 0], NO_HEAD)
        found = {name: (won[..., of] == target).double().mean(-1) for name, (of, target) in self.step.items()}
        own = (logits - logits.mean(-2, keepdim=True))[..., self.both, :]  # not what is written whatever is read
        difference = torch.linalg.vecdot(own, self.contrast)
        limit = close[..., self.both]
        found[GREATER] = ((difference > limit).double() + (difference >= -limit).double()).mean(-1) / 2
        return {name: x.cpu().numpy() for name, x in found.items()}


Found = dict[tuple[str, str, str], np.ndarray]  # (class, input, target) -> scores


def scored(readout: Readout, classes: list[Class], writes: torch.Tensor) -> Found:
    """[...] of what is written, [..., M of all inputs in turn, D]."""
    out, found = readout.norm(writes).unflatten(-2, (len(INPUTS), -1)), Found()
    for own in classes:
        for target, value in own.scores(out[..., own.rows, :]).items():
            found |= {(own.members.name, name, target): value[..., i] for i, name in enumerate(INPUTS)}
    return found


def scores(model: Model, readout: Readout, classes: list[Class], heads: Heads, found: Read) -> Found:
    """[L, H] of all heads; layer 0 is nan with MLP 0."""
    layers = []
    for layer in range(model.n_layers):
        normed = torch.cat([found.normed[name][layer] for name in INPUTS])
        layers.append(scored(readout, classes, heads.write(layer, normed.to(heads.w_v.dtype))))
    made = {key: np.stack([layer[key] for layer in layers]) for key in layers[0]}
    for (_, name, _), value in made.items():
        value[:1] = np.nan if name == WITH else value[:1]
    return made


def without_head(readout: Readout, classes: list[Class], found: Read, turn: torch.Tensor | None = None) -> Found:
    """Scores [] of what is written before any head, turned by ``turn`` [D, D] where given."""
    x = torch.cat([found.alone[name] for name in INPUTS]).to(readout.w_u.dtype)
    return scored(readout, classes, x if turn is None else x @ turn.to(x.dtype))


# ---- the table -----------------------------------------------------------------------------------------------
def draws(model: Model, settings: Settings) -> Iterable[Turn]:
    """Turns of random heads, with a progress bar."""
    turns = random_heads.turns(model.d_model, settings.draws, settings.seed, model.device)
    return progress(turns, "random heads")


def table(model: Model, classes: Sequence[Members], settings: Settings) -> pd.DataFrame:
    """Rows of `COLUMNS`, of every class, input, target and head; none of a target that no member of a class has.

    Largest in memory: what all heads of a layer write of both inputs, [H, 2 M, D], and copies of W_O and W_V.
    """
    if not classes:
        log.warning("no class of geometry.classes has enough members of one token: no head is scored")
        return pd.DataFrame(columns=COLUMNS)
    with torch.no_grad():
        readout = Readout.of(model)
        found = read(model, [token for members in classes for token in members.ids])
        own, heads = Class.all_of(classes, readout), Heads.of(model, readout.w_u.dtype)
        actual, alone = scores(model, readout, own, heads, found), without_head(readout, own, found)
        random: dict[tuple[str, str, str], list[np.ndarray]] = {key: [] for key in actual}
        turned: dict[tuple[str, str, str], list[np.ndarray]] = {key: [] for key in actual}
        for turn in draws(model, settings):
            for key, value in scores(model, readout, own, heads.turned(model, turn), found).items():
                random[key].append(value)
            for key, value in without_head(readout, own, found, turn.o).items():
                turned[key].append(value)
    pieces = []
    for members in own:
        for name, count in members.counted().items():
            keys = [(members.members.name, each, name) for each in INPUTS] if count else []
            for key in keys:
                pieces.append(rows(key, count, actual[key], np.stack(random[key])))
                before = np.reshape(alone[key], (1, 1)), np.reshape(turned[key], (-1, 1, 1))
                pieces.append(rows(key, count, *before).assign(layer=NO_HEAD, head=NO_HEAD))
    return pd.concat(pieces, ignore_index=True)[COLUMNS]


def rows(key: tuple[str, str, str], count: int, values: np.ndarray, drawn: np.ndarray) -> pd.DataFrame:
    """Of scores ``values`` [L, H] and of random heads ``drawn`` [draws, L, H]: one row for each score that is known."""
    p = random_heads.p_values(values, drawn)
    layer, head = np.nonzero(~np.isnan(values))
    pool = drawn[~np.isnan(drawn)]
    median, high = np.percentile(pool, [50, UPPER]) if len(pool) else (np.nan, np.nan)
    columns: dict[str, Any] = dict(zip(("class", "input", "target"), key, strict=True))
    columns |= {"layer": layer, "head": head, "value": values[layer, head], "members": count}
    return pd.DataFrame(
        columns | {"random_median": median, "random_hi": high, "p": p[layer, head], "p_holm": holm(p[layer, head])}
    )
