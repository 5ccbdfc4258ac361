"""The prompts of a task as tensors, and the rows that a model runs on to score them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from atlas.core.metrics import PAD, paired
from atlas.prompts import layouts

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Prompts:
    """The prompts that a circuit is scored on, as tensors."""

    tokens: torch.Tensor  # [N, S]; shorter prompts are padded on the right
    corrupted_tokens: torch.Tensor  # [N, S], row-aligned
    answer: torch.Tensor  # [N]; answers of several tokens: [N, K], with PAD after the shorter ones
    incorrect: torch.Tensor  # the same
    prompt: list[int]  # [N] ids
    group: torch.Tensor  # [N] index of the mean's group
    position: torch.Tensor | None = None  # [N] where the score reads the model; None: at the last token
    roles: dict[str, torch.Tensor] | None = None  # role -> mask [1 or N, S] of its positions; needed for sites alone

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, groups: list[str] | None = None) -> Prompts:
        """``groups``: names of the groups of means (`layouts.group_names`); None where no mean is asked for."""
        lengths = torch.tensor([len(ids) for ids in frame.tokens])
        return cls(
            tokens=padded(frame.tokens),
            corrupted_tokens=padded(frame.corrupted_tokens),
            **answers_of(frame),
            prompt=frame.prompt.tolist(),
            group=torch.tensor([0] * len(frame) if groups is None else layouts.group_of(frame, groups)),
            position=lengths - 1 if (lengths != lengths[0]).any() else None,
        )

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def several_tokens(self) -> bool:
        """Are answers scored as sums over several tokens (`multi_token` in a task's block)?"""
        return self.answer.dim() == 2

    def rows(self) -> Rows:
        """What the model runs on: the prompts; or each prompt with its answer and, in the row after it, with its
        incorrect answer, both without their last token, which no score reads."""
        if not self.several_tokens:
            at, length = (None, None) if self.position is None else (self.position[:, None], self.position + 1)
            return Rows(self.tokens, self.corrupted_tokens, self.group, at, self.roles, length=length)
        s, targets = self.tokens.shape[1], paired(self.answer, self.incorrect)
        last = torch.full((len(self),), s - 1) if self.position is None else self.position
        last, length = last.repeat_interleave(2)[:, None], (targets != PAD).sum(1)
        ahead = torch.arange(targets.shape[1])
        fed = targets[:, :-1].where(ahead[1:] < length[:, None], 0)  # any token serves as padding: nothing looks at it

        def with_answers(tokens: torch.Tensor) -> torch.Tensor:
            return F.pad(tokens.repeat_interleave(2, 0), (0, fed.shape[1])).scatter(1, last + ahead[1:], fed)

        after = torch.arange(s + fed.shape[1]) > (last if self.position is not None else last[:1])
        masks = {name: m if len(m) == 1 else m.repeat_interleave(2, 0) for name, m in (self.roles or {}).items()}
        masks = {name: F.pad(m, (0, fed.shape[1])) | (after & (name == "last")) for name, m in masks.items()}
        return Rows(
            tokens=with_answers(self.tokens),
            corrupted_tokens=with_answers(self.corrupted_tokens),
            group=paired(2 * self.group, 2 * self.group + 1),
            position=last + torch.minimum(ahead, length[:, None] - 1),
            roles=masks if self.roles else None,
            targets=targets,
            length=last[:, 0] + length,
        )

    def with_roles(self, roles: dict[str, list[int]]) -> Prompts:
        """``roles``: role -> positions, the same in every prompt (`Layout.roles`)."""
        position = torch.arange(self.tokens.shape[1])
        masks = {name: torch.isin(position, torch.tensor(where))[None] for name, where in roles.items()}
        return replace(self, roles=masks)

    def with_roles_of(self, each: Sequence[dict[str, list[int]]], layout: Sequence[int]) -> Prompts:
        """``each``: the roles of each layout (`layouts.roles_of`); ``layout`` [N]: that of each prompt.

        A prompt whose layout lacks a role has it nowhere.
        """
        if len(each) == 1:
            return self.with_roles(each[0])
        names, which = dict.fromkeys(name for roles in each for name in roles), torch.as_tensor(layout)
        masks = [self.with_roles({name: roles.get(name, []) for name in names}).roles or {} for roles in each]
        return replace(self, roles={name: torch.cat([m[name] for m in masks])[which] for name in names})

    def take(self, rows: Any) -> Prompts:
        """The prompts of these rows, in this order; a row may come more than once."""
        rows = torch.as_tensor(rows)
        names = ("tokens", "corrupted_tokens", "answer", "incorrect", "group")
        roles = self.roles and {name: m if len(m) == 1 else m[rows] for name, m in self.roles.items()}
        return replace(
            self,
            **{name: getattr(self, name)[rows] for name in names},
            prompt=[self.prompt[i] for i in rows.tolist()],
            position=None if self.position is None else self.position[rows],
            roles=roles,
        )

    def swapped(self) -> Prompts:
        """The corrupted prompts in place of the clean ones, with the same answers."""
        return replace(self, tokens=self.corrupted_tokens, corrupted_tokens=self.tokens)


def padded(rows: Iterable[Sequence[int]]) -> torch.Tensor:
    """[N, S] of rows of ids, the shorter ones with zeros on the right, where causal attention never looks."""
    return pad_sequence([torch.tensor(np.asarray(ids)) for ids in rows], batch_first=True)


def answers_of(frame: pd.DataFrame) -> dict[str, Any]:
    """``answer`` and ``incorrect`` of a table of prompts: [N], or [N, K] where its answers are of several tokens."""
    if "answer_tokens" not in frame:
        return {name: torch.tensor(frame[f"{name}_token"].to_list()) for name in ("answer", "incorrect")}
    lists = {name: [list(ids) for ids in frame[f"{name}_tokens"]] for name in ("answer", "incorrect")}
    longest = max(len(ids) for column in lists.values() for ids in column)
    padded = {name: [ids + [PAD] * (longest - len(ids)) for ids in column] for name, column in lists.items()}
    return {name: torch.tensor(column) for name, column in padded.items()}


@dataclass(frozen=True)
class Rows:
    """What a model runs on to score prompts (`Prompts.rows`): R = N rows, or 2 N where answers are of several tokens.

    Then S is the tokens of the prompt and of the longest answer less one, and rows are padded on the right.
    """

    tokens: torch.Tensor  # [R, S]
    corrupted_tokens: torch.Tensor  # [R, S]
    group: torch.Tensor  # [R] index of the mean's group; each group of prompts is two, by answer
    position: torch.Tensor | None  # [R, K] where the score reads the model; None: at the last token
    roles: dict[str, torch.Tensor] | None  # role -> mask [1 or R, S]; what is fed of an answer is `last`
    targets: torch.Tensor | None = None  # [R, K] the answer's tokens, PAD where there are fewer; None: of one token
    length: torch.Tensor | None = None  # [R] tokens before the padding; None where there is none

    def __len__(self) -> int:
        return len(self.tokens)

    def of_prompts(self, index: torch.Tensor) -> torch.Tensor:
        """[R] rows of an `activations.pt` from those of its prompts, [N]: two of each where there are two."""
        return index if self.targets is None else paired(2 * index, 2 * index + 1)

    def longest(self) -> torch.Tensor:
        """[R] tokens of the longest row of each group: the positions that the group's mean has."""
        assert self.length is not None
        longest = torch.zeros(int(self.group.max()) + 1, dtype=torch.long)
        return longest.scatter_reduce_(0, self.group, self.length, "amax")

    def sizes_of_means(self) -> dict[str, torch.Tensor]:
        """What `means.pt` says of rows that differ in length, [R]: ``longest`` of a group where answers are of several
        tokens, ``lengths`` where the groups are layouts and all rows of one have its length."""
        if self.length is None:
            return {}
        return {"lengths" if self.targets is None else "longest": self.longest()}
