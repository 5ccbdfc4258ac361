"""Capitals: a country, and its capital as the answer; the incorrect answer is the capital of another country."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.core.errors import StudyError
from atlas.prompts import wordings, words
from atlas.prompts.generator import Generator, Made
from atlas.prompts.wordings import Wording

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PAIRS = {
    "France": "Paris",
    "Germany": "Berlin",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Japan": "Tokyo",
    "China": "Beijing",
    "Russia": "Moscow",
    "England": "London",
    "Greece": "Athens",
    "Egypt": "Cairo",
    "Ireland": "Dublin",
    "Austria": "Vienna",
    "Sweden": "Stockholm",
    "Portugal": "Lisbon",
    "Poland": "Warsaw",
    "Cuba": "Havana",
    "Iran": "Tehran",
    "Iraq": "Baghdad",
    "Norway": "Oslo",
    "Peru": "Lima",
}
WORDINGS = [
    "The capital of {shown} is {its}. The capital of {country} is",
    "The capital of {shown} is {its}, the capital of {country} is",
]
EXAMPLE = ("shown", "its")
LEAST = 4  # a country, that of the incorrect answer, that of the corrupted partner, and that of the example
CORRUPTIONS = ("other_country", "incorrect_country")


def check(name: str, block: dict[str, Any]) -> None:
    """Wordings have their slot; countries and capitals are different words."""
    where, pairs = f"tasks.{name}", block.get("pairs", PAIRS)
    wordings_of(name, block)
    if len(pairs) < LEAST:
        raise StudyError(f"{where}.pairs: {len(pairs)} are too few; give at least {LEAST}")
    twice = next((city for i, city in enumerate(pairs.values()) if city in list(pairs.values())[:i]), None)
    if twice is not None:
        raise StudyError(f"{where}.pairs: {twice!r} is the answer of two; each must have its own")
    edged = next((word for pair in pairs.items() for word in pair if not word or word != word.strip()), None)
    if edged is not None:
        raise StudyError(f"{where}.pairs: {edged!r} is empty or has a space at its edge; write the word alone")


def wordings_of(name: str, block: dict[str, Any]) -> list[Wording]:
    """The wordings of a block; StudyError where one lacks its slot, or has but one of those of an example."""
    found, key = [], f"tasks.{name}.wordings"
    for pattern in block.get("wordings", WORDINGS):
        found.append(Wording.parse(pattern, key, ("country",), EXAMPLE))
        if len({slot for _, slot in found[-1].slots} & set(EXAMPLE)) == 1:
            raise StudyError(f"{key}: {pattern!r} has one of {{shown}} and {{its}}; give both, or neither")
    return found


def make(name: str, block: dict[str, Any], tokenizer: PreTrainedTokenizerBase, root: Path | str | None) -> Made:
    """Every capital is the answer equally often in each wording, and equally often the incorrect answer.

    A wording with an example ({shown} and {its}, another country and its capital) has as many prompts as
    ``per_template`` says, one without has one of each country. Countries are of one token; capitals too, or with
    ``multi_token`` of several, other than those of examples. A country is a first member, so that `hold_out: auto`
    holds out whole countries where there are 8 or more.
    """
    where, pairs = f"tasks.{name}", block.get("pairs", PAIRS)
    countries, short, dropped = usable(tokenizer, f"{where}.pairs", pairs, block.get("multi_token", False))
    patterns, seed, filler_seed, prompts = wordings_of(name, block), block["seed"], block["filler_seed"], []
    used: dict[
        tuple[int, str], set[str]
    ] = {}  # the examples that a country had, none of which comes again if it can be
    for row in range(wordings.rows_of(block["per_template"], len(countries))):
        for number, wording in enumerate(patterns):
            with_example = any(slot in EXAMPLE for _, slot in wording.slots)
            if row >= len(countries) and not with_example:
                continue
            country, wrong = wordings.partner(row, countries, filler_seed, number)
            left = [c for c in short if c not in (country, wrong)]
            examples = wordings.shuffled(left, filler_seed, number, row, 1)
            seen = used.setdefault((number, country), set())
            shown = next((c for c in examples if c not in seen), examples[0])
            seen.add(shown)
            given, corrupted = {"country": country, "shown": shown, "its": pairs[shown]}, wrong
            if block["corrupted_by"] == "other_country":
                rng = wordings.draws(seed, number, row)
                corrupted = wordings.other(countries, (country, wrong, shown), rng)
            texts = [wording.fill(given | {"country": c}, ("country",)) for c in (country, corrupted)]
            made = wordings.paired(
                row * len(patterns) + number,
                (texts[0], texts[1]),
                answers=(pairs[country], pairs[wrong]),
                template=wording.pattern,
                row=row,
                start=countries.index(country),
                fillers=(shown, pairs[shown]) if with_example else (),
            )
            prompts.append(made)
    return Made(prompts, {"pairs": dropped})


def usable(
    tokenizer: PreTrainedTokenizerBase, key: str, pairs: dict[str, str], several: bool
) -> tuple[list[str], list[str], list[str]]:
    """The countries of one token whose capitals will do, those whose capitals are of one token, and what is left out.

    Raises StudyError where either are too few.
    """
    countries, dropped = wordings.of_one_token(tokenizer, key, list(pairs), LEAST)
    counts = words.tokens_in_text(tokenizer, [pairs[country] for country in countries], "so ")
    short = [country for country, n in zip(countries, counts, strict=True) if n == 1]
    if len(short) < LEAST:
        raise StudyError(
            f"{key}: {len(short)} of {len(pairs)} have a country and a capital of one token in this model's tokenizer, "
            f"and {LEAST} are needed; give others of one token"
        )
    if several:
        return countries, short, dropped
    return short, short, dropped + [pairs[country] for country in countries if country not in short]


KEYS = {
    "pairs": {
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1000,
        "additionalProperties": {"type": "string", "minLength": 1},
        "description": "Country -> capital, or other things with one answer each, 4 or more. Default: 20.",
    },
    "wordings": wordings.WORDS
    | {
        "description": "Texts up to the capital, with {country}, perhaps {shown} and {its}, an example. Default: 2, "
        "with an example."
    },
    "corrupted_by": {
        "enum": list(CORRUPTIONS),
        "default": CORRUPTIONS[0],
        "description": "The country of the corrupted partner: other_country, neither the clean one nor that of the "
        "incorrect answer; incorrect_country, that of the incorrect answer, so that the answers change places.",
    },
}
GENERATOR = Generator(make, check, keys=KEYS, unread=wordings.UNREAD, shorter="give shorter wordings")
