"""Text of a study with the activations of a hook: what features are trained on, and what they are looked at on.

Texts are clauses of the study's templates with members of a class, as many for each member: half of them count on from
a random member, half show random members in any order. The prompts of tasks stand beside them. The activation of the
first token is left out everywhere, and is never replaced: it is an attention sink, of another size than all others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from atlas.core.errors import StudyError
from atlas.prompts.batch import padded
from atlas.prompts.tasks import Template
from atlas.prompts.tokens import encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from atlas.geometry.classes import Members
    from atlas.model.models import Model

HELD_OUT = 5  # every n-th text of a class is held out
HOOKS = {"resid_post": "hook_resid_post", "mlp_out": "hook_mlp_out"}


# ---- hooks ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Place:
    """Where activations are read: ``kind`` `resid_post` or `mlp_out` of a layer."""

    kind: str
    layer: int

    @classmethod
    def of(cls, name: str, n_layers: int) -> Place:
        """From `resid_post.0`. Raises StudyError where the model has no such layer."""
        kind, _, layer = name.partition(".")
        if kind not in HOOKS or not layer.isdigit() or int(layer) >= n_layers:
            raise StudyError(
                f"geometry.features.hook: {name!r} is not resid_post.N or mlp_out.N of a layer 0 to {n_layers - 1}; "
                "name another"
            )
        return cls(kind, int(layer))

    @property
    def hook(self) -> str:
        """TransformerLens's name."""
        return f"blocks.{self.layer}.{HOOKS[self.kind]}"

    @property
    def residual(self) -> str:
        """The name of the residual behind it, which heads read."""
        return f"blocks.{self.layer}.hook_resid_post"


class _Read(Exception):
    """Ends a run when what is asked for is read."""


def activations(model: Model, tokens: torch.Tensor, names: Sequence[str]) -> list[torch.Tensor]:
    """[N, S, D] in float32 on the CPU at each named hook, of one batch of tokens [N, S]; the last named is the last
    that the model comes to, and no layer behind it runs."""
    found: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(x: torch.Tensor, hook: object) -> None:
            found[name] = x.detach().float().cpu()
            if len(found) == len(set(names)):
                raise _Read

        return hook

    with suppress(_Read):
        model.run(tokens, [(name, keep(name)) for name in dict.fromkeys(names)])
    return [found[name] for name in names]


# ---- texts ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Text:
    """Texts as tokens, shorter ones padded on the right with 0."""

    tokens: torch.Tensor  # [N, S]
    lengths: torch.Tensor  # [N]
    held_out: torch.Tensor  # [N]

    @property
    def used(self) -> torch.Tensor:
        """[N, S] the tokens of texts, less the first of each."""
        at = torch.arange(self.tokens.shape[1])
        return (at > 0) & (at < self.lengths[:, None])

    def take(self, rows: torch.Tensor) -> Text:
        """These texts."""
        return Text(self.tokens[rows], self.lengths[rows], self.held_out[rows])


@dataclass(frozen=True)
class Source:
    """What texts are made of: keys of `prompts` of the configuration."""

    templates: tuple[str, ...]
    fillers: Mapping[str, Sequence[str]]
    shown: int
    prepend_bos: bool = False


def texts(
    classes: Iterable[Members], source: Source, tokenizer: PreTrainedTokenizerBase, wanted: int, seed: int
) -> tuple[list[list[int]], list[bool]]:
    """Ids of texts of about ``wanted`` tokens, and which are held out. Classes have texts by their numbers of members.

    Texts in which a member is not its one token (merged with what stands beside it) are left out.
    """
    classes = list(classes)
    patterns = [Template.parse(pattern) for pattern in source.templates]
    patterns = [template for template in patterns if template.clauses == 1]
    if not classes or not patterns:
        raise StudyError("geometry.features: no class of members, or no template of one clause; add one")
    rng, ids, held_out, bos = np.random.default_rng(seed), [], [], _bos(tokenizer, source)
    length = len(encode(tokenizer, [_one(classes[0], patterns[0], source, rng, True)])[0][0]) + len(bos)
    each = wanted / length / sum(len(own) for own in classes)
    for members in classes:
        n = max(2 * HELD_OUT, round(each * len(members)))
        made = [
            _one(members, patterns[i % len(patterns)], source, rng, (i // len(patterns)) % 2 == 0) for i in range(n)
        ]
        own = [bos + row for row in encode(tokenizer, made)[0] if set(row) & set(members.ids)]
        ids += own
        held_out += [i % HELD_OUT == HELD_OUT - 1 for i in range(len(own))]
    return ids, held_out


def _bos(tokenizer: PreTrainedTokenizerBase, source: Source) -> list[int]:
    return [int(tokenizer.bos_token_id)] if source.prepend_bos else []


def _one(members: Members, template: Template, source: Source, rng: np.random.Generator, counting: bool) -> str:
    """A text with ``shown`` members, and the start of the clause of one more."""
    size, shown = len(members), source.shown
    if counting and (members.cyclic or size > shown):
        start = rng.integers(size if members.cyclic else size - shown + 1)
        chosen = [(start + i) % size for i in range(shown)]
    else:
        chosen = list(rng.integers(size, size=shown))
    pool = source.fillers.get(template.filler_kind or "", ())
    fillers = [pool[i] for i in rng.permutation(len(pool))[: shown + 1]] if template.filler_kind else []
    return template.render([members.words[i] for i in chosen], fillers).text


def together(ids: list[list[int]], held_out: list[bool], frames: Iterable[Any], most: int | None) -> Text:
    """With the prompts of tasks (frames of `prompts.parquet`), by their ``split``. ``most``: tokens of a text that the
    model takes; longer ones are cut."""
    for frame in frames:
        ids = ids + [list(map(int, row)) for row in frame["tokens"]]
        held_out = held_out + (frame["split"] == "held_out").tolist()
    ids = [row[:most] for row in ids]
    return Text(padded(ids), torch.tensor([len(row) for row in ids]), torch.tensor(held_out))


# ---- activations of texts --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Sample:
    """Activations of tokens. T tokens take 4 T D bytes, twice that where ``rest`` is not None."""

    x: torch.Tensor  # [T, D] at the hook
    rest: torch.Tensor | None  # [T, D] what else is in the residual that heads read; None: nothing
    token: torch.Tensor  # [T] ids

    @classmethod
    def of(cls, model: Model, text: Text, place: Place) -> Sample:
        """Of all tokens of the texts but the first of each."""
        x, rest, used = [], [], text.used
        names = [place.hook, place.residual]
        for batch in model.batches(len(text.tokens)):
            own, residual = activations(model, text.tokens[batch], names)
            x.append(own[used[batch]])
            if place.kind != "resid_post":
                rest.append((residual - own)[used[batch]])
        return cls(torch.cat(x), torch.cat(rest) if rest else None, text.tokens[used])

    def capped(self, most: int, seed: int) -> torch.Tensor:
        """[T', D] activations of at most ``most`` tokens of each kind, drawn at random: what is trained on, so that
        full stops, of which every clause has one, do not take the features."""
        order = torch.randperm(len(self.token), generator=torch.Generator().manual_seed(seed))
        kind = self.token[order].unique(return_inverse=True)[1]
        by_kind, count = torch.argsort(kind, stable=True), torch.bincount(kind)
        number = torch.empty_like(order)
        number[by_kind] = torch.arange(len(order)) - (count.cumsum(0) - count)[kind[by_kind]]
        return self.x[order[number < most]]
