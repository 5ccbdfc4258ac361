"""Sums: two small numbers and their sum; the incorrect answer is one more or one less."""

from __future__ import annotations

from itertools import combinations_with_replacement
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.core.errors import StudyError
from atlas.prompts import wordings, words
from atlas.prompts.generator import Generator, Made
from atlas.prompts.wordings import Wording

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WORDINGS = ["Sum: {a} + {b} ="]
CORRUPTIONS = ("other_numbers", "other_second")
LEAST = 8  # pairs: some to search on, some held out, and another sum for each


def check(name: str, block: dict[str, Any]) -> None:
    """Wordings have both slots, and there are numbers to add."""
    wordings_of(name, block)
    low, high = block["numbers"]
    if high - low < 3:
        raise StudyError(f"tasks.{name}.numbers: {low} to {high} are too few to add; give at least 4 numbers")


def wordings_of(name: str, block: dict[str, Any]) -> list[Wording]:
    """The wordings of a block; StudyError where one lacks a slot."""
    key = f"tasks.{name}.wordings"
    return [Wording.parse(pattern, key, ("a", "b")) for pattern in block.get("wordings", WORDINGS)]


def make(name: str, block: dict[str, Any], tokenizer: PreTrainedTokenizerBase, root: Path | str | None) -> Made:
    """Every two numbers once in each wording, in one order that is drawn for the task, so that no sum is held out in
    one order and searched on in the other.

    Sums of which the answer, or the incorrect one, is of several tokens are left out, unless the block has
    ``multi_token``. The smaller number stands first as often as it comes, and one more is the incorrect answer as often
    as one less, in turns, where both can be.
    """
    where, several = f"tasks.{name}", block.get("multi_token", False)
    low, high = block["numbers"]
    numbers = [str(i) for i in range(low, 2 * high + 2)]
    counts = dict(zip(numbers, words.tokens_in_text(tokenizer, numbers, "so "), strict=True))
    fit = {int(n) for n, count in counts.items() if several or count == 1}
    added, dropped = [], []
    for pair in combinations_with_replacement(range(low, high + 1), 2):
        around = [sum(pair) + sign for sign in (1, -1) if sum(pair) + sign in fit]
        single = all(counts[str(n)] == 1 for n in pair)
        if single and sum(pair) in fit and around:
            added.append((pair, around))
        else:
            dropped.append(" + ".join(map(str, pair)))
    if len(added) < LEAST:
        raise StudyError(
            f"{where}.numbers: {low} to {high} give {len(added)} sums of one token in this model's tokenizer, and "
            f"{LEAST} are needed; give other numbers, or set multi_token: true"
        )
    prompts, patterns, pairs = [], wordings_of(name, block), [pair for pair, _ in added]
    flips = wordings.draws(block["filler_seed"], 0).integers(2, size=len(added))
    for row, (pair, around) in enumerate(added):
        ordered, wrong = pair[:: -1 if flips[row] else 1], around[row % len(around)]
        for number, wording in enumerate(patterns):
            rng = wordings.draws(block["seed"], number, row)
            other = corrupted(block["corrupted_by"], ordered, (sum(pair), wrong), pairs, rng, f"{where}.numbers")
            texts = [
                wording.fill(dict(zip("ab", map(str, shown), strict=True)), ("a", "b")) for shown in (ordered, other)
            ]
            made = wordings.paired(
                row * len(patterns) + number,
                (texts[0], texts[1]),
                answers=(str(sum(pair)), str(wrong)),
                template=wording.pattern,
                row=row,
                start=row,
            )
            prompts.append(made)
    return Made(prompts, {"sums": dropped})


def corrupted(
    corruption: str,
    shown: tuple[int, ...],
    sums: tuple[int, int],
    pairs: list[tuple[int, int]],
    rng: Any,
    key: str,
) -> tuple[int, ...]:
    """The numbers of the corrupted partner, with a sum that is neither of ``sums``; StudyError without."""
    every = [order for pair in pairs for order in (pair, pair[::-1]) if sum(pair) not in sums]
    if corruption == "other_numbers":
        left = [other for other in every if other[0] != shown[0] and other[1] != shown[1]]
    else:
        left = [other for other in every if other[0] == shown[0]]
    if not left:
        raise StudyError(f"{key}: {shown[0]} + {shown[1]} has no corrupted partner by {corruption}; give more numbers")
    return left[int(rng.integers(len(left)))]


KEYS = {
    "numbers": {
        "type": "array",
        "minItems": 2,
        "maxItems": 2,
        "items": {"type": "integer", "minimum": 0, "maximum": 200},
        "default": [1, 8],
        "description": "The least and the largest number that is added.",
    },
    "wordings": wordings.WORDS | {"description": "Texts up to the sum, with {a} and {b}. Default: `Sum: {a} + {b} =`."},
    "corrupted_by": {
        "enum": list(CORRUPTIONS),
        "default": CORRUPTIONS[0],
        "description": "The corrupted partner, with a sum that is neither answer: other_numbers, both are others; "
        "other_second, the second is another.",
    },
}
GENERATOR = Generator(
    make, check, keys=KEYS, unread=(*wordings.UNREAD, "per_template"), shorter="give shorter wordings"
)
