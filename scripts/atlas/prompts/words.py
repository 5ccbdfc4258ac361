"""Single words on a tokenizer: how many tokens each takes within a text, and those that a model does not read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from atlas.core.errors import StudyError
from atlas.prompts import joining
from atlas.prompts.tokens import covering, encode, special_ids, unreadable

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from transformers import PreTrainedTokenizerBase


def ids_in_text(tokenizer: PreTrainedTokenizerBase, words: Sequence[str], before: str) -> list[list[int]]:
    """For each word the ids of the tokens that it has a part in when it follows ``before``."""
    ids, offsets = encode(tokenizer, [before + word for word in words])
    start = len(before)
    return [
        [row[i] for i in covering((start, start + len(word)), spans)]
        for word, row, spans in zip(words, ids, offsets, strict=True)
    ]


def tokens_in_text(tokenizer: PreTrainedTokenizerBase, words: list[str], before: str) -> list[int]:
    """For each word the number of tokens it takes after ``before``."""
    return [len(ids) for ids in ids_in_text(tokenizer, words, before)]


def single_token_fillers(tokenizer: PreTrainedTokenizerBase, words: Iterable[str], at_start: bool = True) -> list[str]:
    """The words that are one token after a space, one that no word before them has; with ``at_start`` also one at the
    start of a text."""
    words, special, seen, found = list(words), special_ids(tokenizer), set(), []
    both = zip(words, ids_in_text(tokenizer, words, ""), ids_in_text(tokenizer, words, "so "), strict=True)
    for word, first, inside in both:
        single = len(inside) == 1 and (not at_start or len(first) == 1)
        if single and inside[0] not in seen and not _unreadable_word(tokenizer, special, word):
            seen.add(inside[0])
            found.append(word)
    return found


def words_in_place(
    tokenizer: PreTrainedTokenizerBase, frame: pd.DataFrame, positions: Sequence[int], words: Iterable[str]
) -> np.ndarray:
    """[N, K, W] ids of words as they stand where the K members of N aligned prompts stand: after a space, or not.

    ``frame``: `prompts.parquet`, its members at ``positions``. Only words that are one token either way, and no member.
    """
    import numpy as np

    shown = sorted({word for members in frame.members for word in members})
    usable = [word for word in single_token_fillers(tokenizer, words) if word not in shown]

    def either_way(texts: list[str]) -> list[tuple[list[int], list[int]]]:
        return list(zip(*(ids_in_text(tokenizer, texts, before) for before in ("so ", "so (")), strict=True))

    ids = np.array([[a[0], j[0]] for a, j in either_way(usable) if len(a) == len(j) == 1], dtype=int).reshape(-1, 2)
    joined = {word: j for word, (a, j) in zip(shown, either_way(shown), strict=True) if a != j}
    where = [
        [int(joined.get(member) == [row[at]]) for member, at in zip(members, positions, strict=True)]
        for row, members in zip(frame.tokens, frame.members, strict=True)
    ]
    found: np.ndarray = ids.T[np.array(where)]
    return found


def refuse_repeated(key: str, given: Sequence[str]) -> None:
    """Raise StudyError, naming the ``key`` of the configuration, where a word occurs more than once."""
    twice = next((word for i, word in enumerate(given) if word in given[:i]), None)
    if twice is not None:
        raise StudyError(f"{key}: {twice!r} occurs more than once; words must differ")


def check_members(
    tokenizer: PreTrainedTokenizerBase,
    task_name: str,
    members: Sequence[str],
    before: Iterable[str] = ("so ",),
    multi_token: bool = False,
    key: str = "members",
) -> None:
    """Raise StudyError naming members that the model does not read, that share their tokens, or that are several.

    ``before``: the texts that members follow, see `Template.before_members`; with ``multi_token`` several are allowed.
    ``key``: of the task's block, where they stand.
    """
    where, special = f"tasks.{task_name}.{key}", special_ids(tokenizer)
    for member in members:
        reason = _unreadable_word(tokenizer, special, member)
        if reason:
            raise StudyError(f"{where}: {member!r}: {reason} of this model; leave it out")
    for text in dict.fromkeys(before):
        ids = ids_in_text(tokenizer, members, text)
        long = [f"{m!r} ({len(row)} tokens)" for m, row in zip(members, ids, strict=True) if len(row) != 1]
        if long and not multi_token:
            after = "" if text == "so " else f" after {text[2:].lstrip(' ')!r}"
            raise StudyError(
                f"{where}: {', '.join(long[:5])}{' ...' if len(long) > 5 else ''} not one token{after} in this "
                "model's tokenizer; leave them out (for numerals, a shorter range), or set multi_token: true"
            )
        first: dict[tuple[int, ...], str] = {}
        for member, row in zip(members, ids, strict=True):
            other = first.setdefault(tuple(row), member)
            if other != member:
                raise StudyError(f"{where}: {other!r} and {member!r} have the same tokens in this model; leave one out")


def _unreadable_word(tokenizer: PreTrainedTokenizerBase, special: set[int], word: str) -> str:
    """Why the model does not read a word within a text, or an empty string."""
    (ids,), (offsets,) = encode(tokenizer, [f"so {word}"])
    start = len("so ")
    own = covering((start, start + len(word)), offsets)
    spans = [(max(offsets[i][0] - start, 0), offsets[i][1] - start) for i in own]
    return unreadable(tokenizer, special, word, [ids[i] for i in own], spans)


def refuse_continued_words(
    tokenizer: PreTrainedTokenizerBase, task_name: str, rows: Iterable[Mapping[str, Any]], where: str
) -> None:
    """Raise StudyError where a text's last word and its answer together are one token, as in `walk` and `ing`.

    For rows whose join is not said: the answer could be a word of its own, or the rest of one.
    """
    pairs = {
        (joining.last_word(row["text"]), row[key]): row["text"]
        for row in rows
        for key in ("answer", "incorrect")
        if row["join"] and row[key].isalnum() and not joining.listed(row["text"], row[key])
    }
    pairs = {(word, answer): text for (word, answer), text in pairs.items() if word}
    wholes, special = [word + answer for word, answer in pairs], special_ids(tokenizer)
    for (word, answer), whole, n in zip(pairs, wholes, tokens_in_text(tokenizer, wholes, "so "), strict=True):
        if n == 1 and not _unreadable_word(tokenizer, special, whole):
            raise StudyError(
                f"tasks.{task_name}.{where}: {word!r} and the answer {answer!r} could be {word + ' ' + answer!r} or "
                f"{whole!r}; say which, with join: space or join: exact"
            )
