"""Corruptions: which words stand in a corrupted prompt at the slots of the members that the clean one shows.

Each is one record of `CORRUPTIONS` under its name in the configuration: a function that proposes words for all slots,
and one that says which proposals will do. `corrupted` draws until one does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atlas.core.errors import StudyError

if TYPE_CHECKING:
    import numpy as np

MAX_DRAWS = 10_000
Pools = Sequence[Sequence[str]]  # for each slot the words that may be drawn for it


@dataclass(frozen=True)
class Shown:
    """The members that a prompt shows, and what a corruption may ask about them."""

    clean: list[str]
    answer: str
    follows: Callable[..., bool]  # is the second member one step after the first (in a slot, the third argument)?
    slot: int = 0  # the one that `position` changes


@dataclass(frozen=True)
class Corruption:
    """``propose``: words for all slots of a prompt, drawn from pools; ``accept``: will they do?

    ``draws_from``: what the pools hold, `members` or `random_words` of the task; None where nothing is drawn from them.
    ``needs``: the key with which it stands in the configuration, as in ``{position: 2}``; None where its name will do.
    """

    propose: Callable[[Shown, Pools, np.random.Generator], list[str]]
    accept: Callable[[Shown, list[str]], bool] = lambda shown, words: True
    draws_from: str | None = None
    needs: str | None = None


def corrupted(
    name: str, shown: Shown, tries: Iterable[Pools], rng: np.random.Generator, forbid_answer: bool, where: str
) -> list[str]:
    """Words for the slots of the shown members (same length, row-aligned), by the corruption ``name``.

    ``tries``: pools, the second ones drawn from where the first give nothing that will do. ``forbid_answer``: the clean
    answer may stand nowhere. ``where``: the task's key, for messages. Raises StudyError where nothing is found.
    """
    if name not in CORRUPTIONS:
        raise StudyError(f"{where}.corruption: {name!r} is unknown; one of {', '.join(CORRUPTIONS)}")
    kind = CORRUPTIONS[name]
    for pools in tries:
        for _ in range(MAX_DRAWS):
            words = kind.propose(shown, pools, rng)
            if kind.accept(shown, words) and not (forbid_answer and shown.answer in words):
                return words
    raise StudyError(
        f"{where}.corruption: found no `{name}` corruption of {' '.join(shown.clean)!r}; add members, choose another "
        "corruption or set forbid_answer: false"
    )


# ---- proposals -----------------------------------------------------------------------------------------------
def each_slot(shown: Shown, pools: Pools, rng: np.random.Generator) -> list[str]:
    """For every slot a word of its own pool, each drawn by itself."""
    return [pool[int(rng.integers(len(pool)))] for pool in pools]


def one_for_all(shown: Shown, pools: Pools, rng: np.random.Generator) -> list[str]:
    """One word of the first pool, for all slots."""
    return [pools[0][int(rng.integers(len(pools[0])))]] * len(pools)


def one_slot(shown: Shown, pools: Pools, rng: np.random.Generator) -> list[str]:
    """The clean words, but at ``shown.slot`` one of its pool."""
    pool, words = pools[shown.slot], list(shown.clean)
    words[shown.slot] = pool[int(rng.integers(len(pool)))]
    return words


def reordered(shown: Shown, pools: Pools, rng: np.random.Generator) -> list[str]:
    """The clean words in a random order, which may be theirs."""
    return [shown.clean[i] for i in rng.permutation(len(shown.clean))]


def in_order(shown: Shown, pools: Pools, rng: np.random.Generator) -> list[str]:
    """Words that follow each other as the clean ones do, from a first one drawn from its pool.

    Where one lacks a follower in its slot's pool, the clean words, which no acceptance takes.
    """
    words = [pools[0][int(rng.integers(len(pools[0])))]]
    for slot, pool in enumerate(pools[1:]):
        words += [word for word in pool if shown.follows(words[-1], word, slot)][:1]
        if len(words) < slot + 2:
            return list(shown.clean)
    return words


# ---- what will do --------------------------------------------------------------------------------------------
def ends_well(shown: Shown, words: list[str]) -> bool:
    """The last two are not successive, and the answer is not last."""
    return not shown.follows(words[-2], words[-1]) and words[-1] != shown.answer


def all_changed(shown: Shown, words: list[str]) -> bool:
    """No slot keeps its word, and they end well."""
    return all(a != b for a, b in zip(words, shown.clean, strict=True)) and ends_well(shown, words)


def elsewhere(shown: Shown, words: list[str]) -> bool:
    """No slot keeps its word, and the answer is not last."""
    return all(a != b for a, b in zip(words, shown.clean, strict=True)) and words[-1] != shown.answer


def another_order(shown: Shown, words: list[str]) -> bool:
    """Not all words are where they were, and they end well."""
    return words != shown.clean and ends_well(shown, words)


def changed(shown: Shown, words: list[str]) -> bool:
    """Some word is another, and the answer is not last."""
    return words != shown.clean and words[-1] != shown.answer


def neither_last_nor_answer(shown: Shown, words: list[str]) -> bool:
    """The first word, which stands for all, is neither the answer nor the last one shown."""
    return words[0] not in (shown.answer, shown.clean[-1])


CORRUPTIONS = {
    # no slot keeps its member, the last two are not successive, the answer is not last
    "random_members": Corruption(each_slot, all_changed, "members"),
    # the last slot repeats the one before
    "repeat_last": Corruption(lambda shown, pools, rng: [*shown.clean[:-1], shown.clean[-2]]),
    # every slot holds the first member
    "repeat_first_all": Corruption(lambda shown, pools, rng: [shown.clean[0]] * len(shown.clean)),
    # the last two change places
    "switch_last_two": Corruption(lambda shown, pools, rng: [*shown.clean[:-2], shown.clean[-1], shown.clean[-2]]),
    # every slot holds one random member that is neither the answer nor the last shown
    "repeat_random": Corruption(one_for_all, neither_last_nor_answer, "members"),
    # a random order of the same members, other than the clean one, whose last two are not successive
    "permute": Corruption(reordered, another_order),
    # the same steps from another first member: a sequence that continues as well, with another answer
    "shifted": Corruption(in_order, elsewhere, "members"),
    # words that are no members
    "random_words": Corruption(each_slot, draws_from="random_words"),
    # one slot holds another member, and the answer is not last
    "position": Corruption(one_slot, changed, "members", needs="position"),
}
