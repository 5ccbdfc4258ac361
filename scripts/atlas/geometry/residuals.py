"""Residuals of members: what stands in the residual stream where a class's members stand, and where a model answers.

*At members*: each member ends a short context, a clause of the study's templates with a random word where its member
would be, then a clause up to the member: `Bell found in river. Lamp found in March`. No other member comes before it,
so what is there of its place in the order, the model brings itself. All members of a class have the same contexts.

*At answers*: the last token of a task's prompts, by the member that is the answer there.

Points of the residual stream are numbered 0, after the embedding (and positions, where they are added), to L, after the
last block. Even contexts (or prompts) are for fitting, odd ones are held out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from atlas.core.errors import StudyError
from atlas.geometry.classes import LEAST, Members
from atlas.prompts.batch import padded
from atlas.prompts.tasks import Template
from atlas.prompts.tokens import encode

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

    from atlas.model.models import Hook, Model

MEMBER, ANSWER = "member", "answer"  # where residuals are read
MOST_DRAWS = 1000


@dataclass(frozen=True)
class Residuals:
    """``values`` [points, C, P, D], float32: of C contexts at least 2, P members; ``points``: which [points]."""

    members: Members
    points: tuple[int, ...]
    values: np.ndarray
    at: str = MEMBER

    @property
    def fit(self) -> np.ndarray:
        """[points, P, D] mean over the even contexts, float64."""
        return _mean(self.values[:, 0::2])

    @property
    def held_out(self) -> np.ndarray:
        """[points, P, D] mean over the odd contexts, float64."""
        return _mean(self.values[:, 1::2])

    @property
    def mean(self) -> np.ndarray:
        """[points, P, D] mean over all contexts, float64."""
        return _mean(self.values)


def _mean(values: np.ndarray) -> np.ndarray:
    """Over contexts [points, C, P, D]."""
    found: np.ndarray = values.mean(1, dtype=float)
    return found


# ---- contexts ------------------------------------------------------------------------------------------------
def contexts(
    templates: Sequence[str],
    fillers: Mapping[str, Sequence[str]],
    random_words: Iterable[str],
    members: Iterable[Members],
    number: int,
    seed: int,
) -> list[str]:
    """``number`` different texts that members come after, templates in turns: `Bell found in river. Lamp found in `.

    ``fillers``, ``random_words``: of `prompts` in the configuration; random words that are members are left out. Raises
    StudyError where too few differ.
    """
    taken = {word for one in members for word in one.words}
    free, parsed = [word for word in random_words if word not in taken], [Template.parse(t) for t in templates]
    if not free:
        raise StudyError("prompts.random_words: each is a member of geometry.classes; add a word that is none")
    rng, found = np.random.default_rng(seed), dict[str, None]()
    for draw in range(MOST_DRAWS):
        template = parsed[len(found) % len(parsed)]
        kind = template.filler_kind
        pool = list(fillers.get(kind, ())) if kind else [""]
        if not pool:
            raise StudyError(f"prompts.fillers.{kind}: no words, and {template.pattern!r} needs some; give words")
        words = [pool[i] for i in rng.permutation(len(pool))] * 4
        text = template.render([free[int(rng.integers(len(free)))], "X"], words)
        found[text.text[: text.spans[1][0]]] = None
        if len(found) == number:
            return list(found)
        if draw > 20 * number and len(found) < 2:
            break
    raise StudyError(
        f"geometry: {number} contexts are wanted and prompts.templates, fillers and random_words make {len(found)}; "
        "ask for fewer, or add words"
    )


def tokens_in_contexts(
    members: Members, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, bos: bool
) -> list[list[list[int]]]:
    """[C, P] rows of ids that end with a member; raises StudyError where a context changes a member's token."""
    start = [tokenizer.bos_token_id] if bos else []
    if start == [None]:
        raise StudyError("models: prepend_bos is true but the tokenizer has no BOS token; set it to false")
    found = []
    for text in texts:
        rows, _ = encode(tokenizer, [text + word for word in members.words])
        for word, row, own in zip(members.words, rows, members.ids, strict=True):
            if row[-1] != own:
                raise StudyError(
                    f"prompts.templates: {word!r} of geometry.classes.{members.name} is another token after {text!r} "
                    "than after a space; give templates with a space before {m}, or leave the class out"
                )
        found.append([start + row for row in rows])
    return found


# ---- residuals -----------------------------------------------------------------------------------------------
def point_hook(point: int) -> str:
    """Name of the hook at a point of the residual stream: 0 after the embedding, l after block l - 1."""
    return f"blocks.{point - 1}.hook_resid_post" if point else "blocks.0.hook_resid_pre"


def points_of(n_layers: int, most: int | None = None) -> tuple[int, ...]:
    """The points 0 .. L, or ``most`` of them, first and last among these, the others as even as can be."""
    if most is None or most > n_layers:
        return tuple(range(n_layers + 1))
    return tuple(np.unique(np.linspace(0, n_layers, most).round().astype(int)).tolist())


def read(model: Model, tokens: torch.Tensor, last: torch.Tensor, points: Sequence[int]) -> np.ndarray:
    """[points, N, D] float32 residuals of tokens [N, S], each row at its position ``last`` [N]."""
    found = np.empty((len(points), len(tokens), model.d_model), dtype=np.float32)

    def reader(place: int, batch: slice) -> Callable[..., torch.Tensor]:
        def hook(x: torch.Tensor, hook: object) -> torch.Tensor:
            at = torch.arange(len(x), device=x.device), last[batch].to(x.device)
            found[place, batch] = x[at].float().cpu().numpy()
            return x

        return hook

    for batch in model.batches(len(tokens)):
        hooks: list[Hook] = [(point_hook(point), reader(place, batch)) for place, point in enumerate(points)]
        model.run(tokens[batch], hooks)
    return found


def at_members(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    members: Members,
    texts: Sequence[str],
    bos: bool,
    points: Sequence[int],
) -> Residuals:
    """Residuals of a class at each member's own position after ``texts`` (`contexts`): [points, C, P, D]."""
    if len(texts) < 2:
        raise StudyError(f"geometry: {len(texts)} contexts cannot be both fitted to and held out; ask for 2 or more")
    rows = [row for of_text in tokens_in_contexts(members, texts, tokenizer, bos) for row in of_text]
    last = torch.tensor([len(row) - 1 for row in rows])
    found = read(model, padded(rows), last, points)
    return Residuals(members, tuple(points), found.reshape(len(points), len(texts), len(members), -1))


def at_answers(model: Model, frame: pd.DataFrame, members: Members, points: Sequence[int]) -> Residuals | None:
    """Residuals at the last token of prompts whose answer is a member: [points, 2, P, D], C being the means of even and
    of odd prompts of each answer, in the order of ``frame`` (rows of `prompts.parquet`).

    Members that fewer than two prompts answer are left out (`Residuals.members` tells); None where less than
    `classes.LEAST` are left, as for a task of another class.
    """
    if "answer_token" not in frame:
        return None
    answers = frame["answer_token"].to_numpy()
    which = {i: np.flatnonzero(answers == token) for i, token in enumerate(members.ids)}
    used = [i for i, rows in which.items() if len(rows) > 1]
    if len(used) < LEAST:
        return None
    rows = np.concatenate([which[i] for i in used])
    own = frame.iloc[rows]
    tokens = padded(own["tokens"])
    last = torch.tensor([len(ids) - 1 for ids in own["tokens"]])
    found, ends = read(model, tokens, last, points), np.cumsum([len(which[i]) for i in used])
    of_each = np.split(found, ends[:-1], axis=1)
    halves = [[part[:, half::2].mean(1, dtype=float) for part in of_each] for half in (0, 1)]
    values = np.stack([np.stack(half, axis=1) for half in halves], axis=1).astype(np.float32)
    return Residuals(only(members, used), tuple(points), values, ANSWER)


def only(members: Members, which: Sequence[int]) -> Members:
    """The class with those of its members that are used alone."""
    words = tuple(members.words[i] for i in which)
    ids, places = (tuple(of[i] for i in which) for of in (members.ids, members.places))
    return replace(members, words=words, ids=ids, places=places)
