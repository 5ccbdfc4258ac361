"""Wordings of tasks that are no sequences: texts with named slots, up to the answer, filled slot by slot.

A word is put into its slot and nothing is replaced in finished text, so a prompt agrees with its fields. What the
modules of `generators/` share stands here: the slots of a wording, words of one token, and draws in which every word
has its turn equally often.
"""

from __future__ import annotations

import string
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from atlas.core.errors import StudyError
from atlas.prompts import words
from atlas.prompts.generator import prompt

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

Item = TypeVar("Item")
# Keys of every task that such prompts do not read
UNREAD = ("members", "step", "cyclic", "templates", "shown", "corruption", "forbid_answer", "fillers", "random_words")
UNREAD_OF_ONE_TOKEN = (*UNREAD, "multi_token")
WORDS = {"type": "array", "minItems": 1, "maxItems": 1000, "items": {"type": "string", "minLength": 1}}
PAIRS = {
    "type": "array",
    "minItems": 1,
    "maxItems": 1000,
    "items": {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "string", "minLength": 1}},
}


@dataclass(frozen=True)
class Filled:
    """A wording with its words: ``text``, and ``spans``, the characters [first, last) of each member, in order."""

    text: str
    spans: tuple[tuple[int, int], ...]
    members: tuple[str, ...]


@dataclass(frozen=True)
class Wording:
    """A text up to the answer; ``slots``: literal text, and the name of the slot that follows it, if one does."""

    pattern: str
    slots: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, pattern: str, key: str, needed: Sequence[str], optional: Collection[str] = ()) -> Wording:
        """``needed``: its slots, once each (one named twice: twice); ``optional``: others that it may have.

        Raises StudyError, with the ``key`` of the configuration, on other slots, or a wording that ends with a space.
        """
        allowed = ", ".join(f"{{{name}}}" for name in dict.fromkeys([*needed, *sorted(optional)]))
        try:
            parsed = list(string.Formatter().parse(pattern))
        except ValueError as error:
            raise StudyError(f"{key}: {pattern!r}: {error}; write {{{{ and }}}} for braces that are text") from None
        fields = [field for _, field, _, _ in parsed if field is not None]
        if any(spec or conversion for _, _, spec, conversion in parsed):
            raise StudyError(f"{key}: {pattern!r}: write {allowed} alone, without ! or :")
        if sorted(f for f in fields if f not in optional) != sorted(needed):
            once = "each once" if len(set(needed)) == len(needed) else f"in all {len(needed)}"
            raise StudyError(f"{key}: {pattern!r} has other slots than {allowed}; it needs {once}, optional ones aside")
        if pattern != pattern.rstrip():
            raise StudyError(f"{key}: {pattern!r} ends with a space, which belongs to the answer; take it off")
        return cls(pattern, tuple((literal, field) for literal, field, _, _ in parsed))

    def fill(self, given: Mapping[str, str], members: Collection[str]) -> Filled:
        """The text with a word in every slot; the slots named in ``members`` hold the prompt's members."""
        text, spans, shown = "", [], []
        for literal, field in self.slots:
            text += literal
            if field is not None:
                if field in members:
                    spans.append((len(text), len(text) + len(given[field])))
                    shown.append(given[field])
                text += given[field]
        return Filled(text, tuple(spans), tuple(shown))


def paired(number: int, texts: tuple[Filled, Filled], **more: Any) -> dict[str, Any]:
    """A prompt of a clean and a corrupted text (`generator.prompt`, which says what ``more`` holds) with its spans."""
    clean, corrupted = texts
    row = prompt(number, texts=(clean.text, corrupted.text), members=(clean.members, corrupted.members), **more)
    return row | {"spans": clean.spans, "corrupted_spans": corrupted.spans}


def listed(text: str) -> list[str]:
    """The words of a text."""
    return text.split()


# ---- words ---------------------------------------------------------------------------------------------------
def check_words(key: str, given: Sequence[str], needed: int) -> None:
    """Raise StudyError where words are not single ones, repeat, or are fewer than ``needed``."""
    odd = next((word for word in given if word != word.strip() or any(c.isspace() for c in word)), None)
    if odd is not None:
        raise StudyError(f"{key}: {odd!r} is not one word; write the word alone")
    words.refuse_repeated(key, given)
    if len(given) < needed:
        raise StudyError(f"{key}: {len(given)} words are too few; give at least {needed}")


def of_one_token(
    tokenizer: PreTrainedTokenizerBase, key: str, given: Sequence[str], needed: int, at_start: bool = False
) -> tuple[list[str], list[str]]:
    """The words that are one token after a space (``at_start``: at the start of a text too), and the others.

    Raises StudyError where fewer than ``needed`` are, naming the ``key`` of the configuration.
    """
    usable = words.single_token_fillers(tokenizer, given, at_start=at_start)
    dropped = [word for word in given if word not in usable]
    if len(usable) < needed:
        raise StudyError(
            f"{key}: {len(usable) or 'none'} of the {len(given)} words can be used as one token in this model's "
            f"tokenizer (not {', '.join(map(repr, dropped[:3]))}), and {needed} are needed; give words of one token"
        )
    return usable, dropped


# ---- draws ---------------------------------------------------------------------------------------------------
def draws(seed: int, *numbers: int) -> np.random.Generator:
    """Random draws that depend on the seed and the numbers alone; reads NumPy when called."""
    import numpy as np

    return np.random.default_rng([seed, *numbers])


def rows_of(wanted: int, each: int) -> int:
    """``wanted`` prompts of a wording, raised to a multiple of ``each``, so that each case occurs equally often."""
    return -(-wanted // each) * each


def turn(row: int, pool: Sequence[Item], seed: int, *numbers: int) -> Item:
    """The one whose turn it is: all of the pool come once, in random order, before one comes again."""
    again, place = divmod(row, len(pool))
    return shuffled(pool, seed, *numbers, again)[place]


def shuffled(pool: Sequence[Item], seed: int, *numbers: int) -> list[Item]:
    """The pool in a random order."""
    return [pool[i] for i in draws(seed, *numbers).permutation(len(pool))]


def partner(row: int, pool: Sequence[str], seed: int, *numbers: int) -> tuple[str, str]:
    """Two different words: each is first once, and second once, before one comes again."""
    again, place = divmod(row, len(pool))
    apart = 1 + int(draws(seed, *numbers, again).integers(len(pool) - 1))
    return pool[place], pool[(place + apart) % len(pool)]


def other(pool: Sequence[Item], without: Collection[Item], rng: np.random.Generator) -> Item:
    """One of the pool that is none of these; there must be one."""
    left = [item for item in pool if item not in without]
    return left[int(rng.integers(len(left)))]
