"""Greater-than: a span of years that must end after it began.

`The war ran from the year 1741 to the year 17` is followed by a later decade. Many answers are right; a prompt asks
for one pair, as far after the first year as before it: `5` against `3`, or, where a tokenizer has tokens for two
digits, `51` against `31`. Over the pairs of a first year the mean logit difference is that of the mean logit of the
later ones and the mean logit of the earlier ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.core.errors import StudyError
from atlas.prompts import wordings, words
from atlas.prompts.generator import Generator, Made
from atlas.prompts.wordings import Wording

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

NOUNS = wordings.listed(
    "war project trade journey study work plan course trial reform voyage drought contract conflict dispute empire "
    "expedition alliance siege debate"
)
WORDINGS = [
    "The {noun} ran from the year {start} to the year",
    "The {noun} continued from the year {start} to the year",
]
CENTURIES = [12, 13, 14, 15, 16, 17, 18]
# decade, and how many decades later and earlier the two answers are: every pair that fits into a century
CASES = tuple((decade, apart) for decade in range(1, 9) for apart in range(1, min(decade, 9 - decade) + 1))
CORRUPTIONS = ("no_difference", "first_decade")


def check(name: str, block: dict[str, Any]) -> None:
    """Wordings have the slots, and nouns are different words."""
    wordings_of(name, block)
    wordings.check_words(f"tasks.{name}.nouns", block.get("nouns", NOUNS), 1)


def wordings_of(name: str, block: dict[str, Any]) -> list[Wording]:
    """The wordings of a block; StudyError where one lacks a slot."""
    return [
        Wording.parse(pattern, f"tasks.{name}.wordings", ("noun", "start"))
        for pattern in block.get("wordings", WORDINGS)
    ]


def make(name: str, block: dict[str, Any], tokenizer: PreTrainedTokenizerBase, root: Path | str | None) -> Made:
    """Every pair of answers that fits into a century occurs equally often in each wording."""
    where = f"tasks.{name}"
    nouns, dropped = wordings.of_one_token(tokenizer, f"{where}.nouns", block.get("nouns", NOUNS), 1)
    digits, years = readable(tokenizer, f"{where}.centuries", block.get("centuries", CENTURIES))
    patterns, seed, filler_seed = wordings_of(name, block), block["seed"], block["filler_seed"]
    prompts = []
    for row in range(wordings.rows_of(block["per_template"], len(CASES))):
        for number, wording in enumerate(patterns):
            decade, apart = CASES[row % len(CASES)]
            century, unit = wordings.turn(row, years, filler_seed, number, 2)
            noun = wordings.turn(row, nouns, filler_seed, number, 1)
            answers = tuple(f"{decade + sign * apart}{unit if digits == 2 else ''}" for sign in (1, -1))
            other = corrupted(block["corrupted_by"], decade, apart, wordings.draws(seed, number, row))
            texts = tuple(filled(wording, noun, century, f"{tens}{unit}", digits) for tens in (decade, other))
            made = wordings.paired(
                row * len(patterns) + number,
                (texts[0], texts[1]),
                answers=(answers[0], answers[1]),
                join="",
                template=wording.pattern,
                row=row,
                fillers=(noun,),
            )
            prompts.append(made)
    return Made(prompts, {"nouns": dropped})


def filled(wording: Wording, noun: str, century: int, rest: str, digits: int) -> wordings.Filled:
    """The text with both years; its member is what of the first year decides, as many ``digits`` as an answer has."""
    text = wording.fill({"noun": noun, "start": f"{century}{rest}"}, ("start",))
    first = text.spans[0][0] + len(str(century))
    return wordings.Filled(f"{text.text} {century}", ((first, first + digits),), (rest[:digits],))


def readable(tokenizer: PreTrainedTokenizerBase, key: str, centuries: list[int]) -> tuple[int, list[tuple[int, int]]]:
    """How many digits of a year are one token after its century, 2 or 1, and the (century, last digit) of which that
    holds in all decades; StudyError where there are none."""
    for digits in (2, 1):
        found = [(c, unit) for c in centuries for unit in range(10) if all(reads(tokenizer, c, unit, digits))]
        if found:
            return digits, found
    raise StudyError(
        f"{key}: in none of {', '.join(map(str, centuries))} does this model's tokenizer read the digits of a year "
        "after its century, two by two or one by one, so that an answer is one token; leave the task out"
    )


def reads(tokenizer: PreTrainedTokenizerBase, century: int, unit: int, digits: int) -> list[bool]:
    """For each decade: do the tokens of a year begin with those of its century, and is what follows of ``digits``?"""
    years = [f"{century}{decade}{unit}" for decade in range(10)]
    (start,) = words.ids_in_text(tokenizer, [str(century)], "so ")
    whole = words.ids_in_text(tokenizer, years, "so ")
    return [ids[: len(start)] == start and len(ids) == len(start) + 2 // digits for ids in whole]


def corrupted(corruption: str, decade: int, apart: int, rng: np.random.Generator) -> int:
    """The decade in which the corrupted prompt begins: one outside of the two answers, or the first of its century."""
    if corruption == "first_decade":
        return 0
    outside = [d for d in range(10) if d < decade - apart or d > decade + apart]
    return outside[int(rng.integers(len(outside)))]


KEYS = {
    "nouns": wordings.WORDS | {"description": "Words for {noun}, one token each. Default: 20 that can last."},
    "wordings": wordings.WORDS
    | {"description": "Texts with {noun} and {start}, up to the century of the second year. Default: 2."},
    "centuries": {
        "type": "array",
        "minItems": 1,
        "uniqueItems": True,
        "items": {"type": "integer", "minimum": 10, "maximum": 98},
        "description": "First two digits of the years. Default: 12 to 18.",
    },
    "corrupted_by": {
        "enum": list(CORRUPTIONS),
        "default": CORRUPTIONS[0],
        "description": "The first year of the corrupted partner: no_difference, before both answers or after both, so "
        "that neither is more right; first_decade, in the first decade of its century, so that nearly all are later.",
    },
}
GENERATOR = Generator(make, check, keys=KEYS, unread=wordings.UNREAD_OF_ONE_TOKEN, shorter="give shorter wordings")
