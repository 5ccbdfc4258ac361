"""What a head writes of a task's members: which of them it raises, at the answer position and from a member alone.

Everything is linear in what a head writes: z W_O through the final norm's weight (and its centring) and W_U, at the
columns of the task's members, over the final norm's scale in the prompt's own run, in logits. A *winner* is the member
that a head raises above all other members of its task.

- *In place*: what it writes at the answer position. `in place next`: the answer wins; `in place copy`: the last shown
  member does. `attribution`: answer less incorrect answer, its direct attribution. `suppression`: members that are not
  shown, the answer left out, less those shown, in the mean; positive where it lowers what has been shown.
- *OV*: what it would write from a shown member alone, of the residual after block 0 at the member's place through the
  head's own norm, W_V, b_V and W_O. `ov next`: the next member wins (the successor score of arXiv 2312.09230, with
  block 0 in place of MLP 0); `ov copy`: the member itself does.

Random heads keep where a head attends; what they read as values and what they write is turned.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from atlas.heads import ov
from atlas.heads.attribution import Readout
from atlas.heads.random_heads import Turn, turned

if TYPE_CHECKING:
    import pandas as pd

    from atlas.core.positions import Layout
    from atlas.model.block import Block
    from atlas.model.models import Model

NONE, ROUNDING = -1, 1e-6
PERMUTATIONS = 1000


@dataclass(frozen=True)
class Members:
    """The members of a task by number, 0 .. M - 1, and which of them N prompts show and ask for."""

    ids: list[int]  # [M] their tokens: those that prompts show, answer and answer wrongly
    answer: np.ndarray  # [N]
    incorrect: np.ndarray  # [N]
    shown: np.ndarray  # [N, P] those before the answer position, in order; P is 0 where places are not known
    after: np.ndarray  # [M] the next member of each, or NONE
    known: bool  # whether all of them are members, so that what is not shown can be told

    @classmethod
    def of(cls, frame: pd.DataFrame, layout: Layout) -> Members:
        """``frame``: prompts of one layout. Members of several tokens are not told apart, as if their places were not
        known."""
        single = all(first == last for first, last in layout.members)
        places = [first for first, _ in layout.members if first <= layout.answer_position] if single else []
        tokens = np.stack(frame.tokens.to_list())
        shown, answer, incorrect = tokens[:, places], frame.answer_token.to_numpy(), frame.incorrect_token.to_numpy()
        ids = sorted({int(i) for i in (*shown.ravel(), *answer, *incorrect)})
        number = {token: i for i, token in enumerate(ids)}
        numbered = np.vectorize(number.__getitem__, otypes=[int])
        following = ov.successors(frame, layout) if places else {}
        after = np.array([number.get(following.get(token, NONE), NONE) for token in ids])
        shown = numbered(shown) if places else np.zeros((len(frame), 0), dtype=int)
        return cls(ids, numbered(answer), numbered(incorrect), shown, after, bool(places))

    def at(self, rows: np.ndarray | slice) -> Members:
        """The same of some of the prompts."""
        return Members(self.ids, self.answer[rows], self.incorrect[rows], self.shown[rows], self.after, self.known)

    @cached_property
    def sequences(self) -> tuple[np.ndarray, np.ndarray]:
        """([N] which sequence each prompt shows, [F] a prompt of each); prompts alike in all members are one."""
        rows = np.column_stack([self.shown, self.answer, self.incorrect])
        _, first, which = np.unique(rows, axis=0, return_index=True, return_inverse=True)
        return which.reshape(-1), first


# ---- what heads write ----------------------------------------------------------------------------------------
def columns(readout: Readout, block: Block, members: Members) -> torch.Tensor:
    """[D, M] whose inner product with what a layer's head writes is what it adds to the members' logits, before any
    scale."""
    found = readout.centre(readout.w_u[:, members.ids].T * readout.weight)
    return (found if block.norm_attn_out is None else block.norm_attn_out.back(found)).T


def scale_behind(model: Model, layer: int, z: torch.Tensor) -> torch.Tensor | None:
    """[N, 1] what the norm behind a layer's attention multiplies by, of z [N, H, d_head] at one position; or None."""
    norm = model.norm_attn_out(layer)
    if norm is None:
        return None
    w_o, b_o = model.w_o(layer), model.b_o(layer)
    whole = torch.einsum("nhd,hdm->nm", z, w_o)
    return norm.scale((whole if b_o is None else whole + b_o).float())


def values(block: Block, normed: torch.Tensor, turn: Turn | None) -> torch.Tensor:
    """v [N, G, P, d_head] of what the layer's norm gives [N, P, D]; with a ``turn`` of random heads."""
    return block.project("v", turned(normed, turn, "v"))


def of_members(z: torch.Tensor, block: Block, read: torch.Tensor, turn: Turn | None) -> torch.Tensor:
    """[N, P, H, M] what z [N, P, H, d_head] writes of the members, by ``read`` [D, M] (`columns`)."""
    through = block.w_o.to(read.dtype) @ turned_out(read, turn)
    return torch.einsum("nphd,hdk->nphk", z.to(read.dtype), through)


def turned_out(read: torch.Tensor, turn: Turn | None) -> torch.Tensor:
    """[D, M] what reads the writes of heads whose output is turned."""
    return read if turn is None else turn.o.to(read.dtype) @ read


def winners(logits: torch.Tensor) -> torch.Tensor:
    """[...] number of the member with the largest of logits [..., M], NONE where two are as large, to rounding."""
    if logits.shape[-1] < 2:
        return torch.full(logits.shape[:-1], NONE, device=logits.device)
    two = logits.topk(2, dim=-1)
    apart = two.values[..., 0] - two.values[..., 1] > ROUNDING * logits.abs().amax(-1)
    return torch.where(apart, two.indices[..., 0], NONE)


# ---- scores --------------------------------------------------------------------------------------------------
def in_place(logits: np.ndarray, won: np.ndarray, members: Members) -> dict[str, np.ndarray]:
    """Score -> [N, ...] of what heads add to members' logits at the answer position, [N, ..., M], and of `winners`."""
    axes = tuple(range(1, won.ndim))

    def of(number: np.ndarray) -> np.ndarray:
        at = np.expand_dims(number, (*axes, won.ndim))
        found: np.ndarray = np.take_along_axis(logits, at, -1)[..., 0]
        return found

    def hit(number: np.ndarray) -> np.ndarray:
        found: np.ndarray = won == np.expand_dims(number, axes)
        return found.astype(float)

    found = {"attribution": of(members.answer) - of(members.incorrect)}
    if not members.known:
        return found
    found |= {"in place next": hit(members.answer), "in place copy": hit(members.shown[:, -1])}
    shown, rest = weights_of(members)
    if rest.any(1).all():
        less = np.expand_dims(rest - shown, axes)
        found["suppression"] = (logits * less).sum(-1)
    return found


def weights_of(members: Members) -> tuple[np.ndarray, np.ndarray]:
    """[N, M] twice: of a mean over the members that a prompt shows, and over those that it neither shows nor asks for;
    zeros where there are none."""
    n, inside = len(members.answer), np.zeros((len(members.answer), len(members.ids)))
    np.put_along_axis(inside, members.shown, 1.0, axis=1)
    outside = 1 - inside
    outside[np.arange(n), members.answer] = 0
    return inside / inside.sum(1, keepdims=True), outside / np.maximum(outside.sum(1, keepdims=True), 1)


def from_members(won: np.ndarray, members: Members) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Score -> (instances that hit [N, ...], instances [N]) of `winners` [N, P, ...] at shown members."""
    axes, out = tuple(range(2, won.ndim)), {}
    for score, target in (("ov next", members.after[members.shown]), ("ov copy", members.shown)):
        hit = (won == np.expand_dims(target, axes)) & np.expand_dims(target != NONE, axes)
        out[score] = hit.sum(1).astype(float), (target != NONE).sum(1).astype(float)
    return out


# ---- the same with members shuffled --------------------------------------------------------------------------
def shuffled_in_place(
    logits: np.ndarray, won: np.ndarray, members: Members, seed: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Score -> (2.5th, 97.5th percentile) [...] of the scores `in_place` when sequences trade what they show and ask.

    Every prompt of a sequence is scored as if it were one of another sequence, all of them at once by a permutation.
    """
    which, first = members.sequences
    f = len(first)
    tables: dict[str, np.ndarray] = {}
    for other in range(f):
        as_if = members.at(np.full(len(which), first[other]))
        for score, values in in_place(logits, won, as_if).items():
            table = tables.setdefault(score, np.zeros((f, f, *values.shape[1:])))
            np.add.at(table[:, other], which, values / len(which))
    return {score: spread(table, seed) for score, table in tables.items()}


def shuffled_from_members(won: np.ndarray, members: Members, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The same of `from_members`, when members trade their targets."""
    out, axes = {}, tuple(range(2, won.ndim))
    for score, target in (("ov next", members.after), ("ov copy", np.arange(len(members.ids)))):
        read = [m for m in np.unique(members.shown) if target[m] != NONE]
        instances = {m: members.shown == m for m in read}
        total = sum(x.sum() for x in instances.values())
        table = (
            np.stack(
                [
                    np.stack([((won == target[to]) & np.expand_dims(at, axes)).sum((0, 1)) / total for to in read])
                    for at in instances.values()
                ]
            )
            if read
            else np.zeros((0, 0, *won.shape[2:]))
        )
        out[score] = spread(table, seed)
    return out


def spread(table: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(2.5th, 97.5th percentile) [...] of the sum over i of table [F, F, ...] at (i, p(i)), over random permutations p;
    nan for an empty table."""
    f = len(table)
    if not f:
        nothing = np.full(table.shape[2:], np.nan)
        return nothing, nothing
    rng, i = np.random.default_rng(seed), np.arange(f)
    sums = np.stack([table[i, rng.permutation(f)].sum(0) for _ in range(PERMUTATIONS)])
    low, high = np.percentile(sums, [2.5, 97.5], axis=0)
    return low, high
