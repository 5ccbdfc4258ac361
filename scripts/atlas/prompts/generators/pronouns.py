"""Pronouns: a first name and the pronoun that takes it up: `So Anna is such a good cook, isn't` and then `she`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.core.errors import StudyError
from atlas.prompts import wordings
from atlas.prompts.generator import Generator, Made
from atlas.prompts.wordings import Wording

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NAMES = {
    "he": wordings.listed("Bob Carl David Frank Henry Jack James John Mark Paul Peter Robert Simon Steve Tom William"),
    "she": wordings.listed("Alice Anna Emma Grace Helen Jane Julia Kate Laura Linda Lisa Lucy Maria Mary Sarah Susan"),
}
ROLES = wordings.listed("friend cook singer dancer teacher doctor writer leader student player driver neighbor")
WORDINGS = ["So {name} is such a good {role}, isn't", "So {name} is really a great {role}, isn't"]
LEAST = 2  # names of each kind


def check(name: str, block: dict[str, Any]) -> None:
    """Wordings have both slots; two pronouns have different names."""
    where, given = f"tasks.{name}", block.get("names", NAMES)
    wordings_of(name, block)
    wordings.check_words(f"{where}.names", [person for people in given.values() for person in people], 2 * LEAST)
    wordings.check_words(f"{where}.roles", block.get("roles", ROLES), 1)
    few = next((pronoun for pronoun, people in given.items() if len(people) < LEAST), None)
    if few is not None:
        raise StudyError(f"{where}.names.{few}: {len(given[few])} name is too few; give at least {LEAST}")


def wordings_of(name: str, block: dict[str, Any]) -> list[Wording]:
    """The wordings of a block; StudyError where one lacks a slot."""
    return [
        Wording.parse(pattern, f"tasks.{name}.wordings", ("name",), ("role",))
        for pattern in block.get("wordings", WORDINGS)
    ]


def make(name: str, block: dict[str, Any], tokenizer: PreTrainedTokenizerBase, root: Path | str | None) -> Made:
    """Each pronoun is the answer equally often in each wording, with the same roles; its names take turns.

    The corrupted partner (`other_pronoun`) has a name of the other pronoun, so that the answers change places.
    """
    where, given = f"tasks.{name}", block.get("names", NAMES)
    usable = {p: wordings.of_one_token(tokenizer, f"{where}.names.{p}", people, LEAST) for p, people in given.items()}
    roles, dropped_roles = wordings.of_one_token(tokenizer, f"{where}.roles", block.get("roles", ROLES), 1)
    patterns, seed, filler_seed, prompts = wordings_of(name, block), block["seed"], block["filler_seed"], []
    pronouns = list(given)
    for row in range(wordings.rows_of(block["per_template"], 2)):
        for number, wording in enumerate(patterns):
            answer, incorrect = pronouns if row % 2 == 0 else pronouns[::-1]
            again, place = divmod(row // 2, len(usable[answer][0]))
            person, role = usable[answer][0][place], wordings.turn(again, roles, filler_seed, number, place)
            other = wordings.other(usable[incorrect][0], (), wordings.draws(seed, number, row))
            texts = [wording.fill({"name": n, "role": role}, ("name",)) for n in (person, other)]
            made = wordings.paired(
                row * len(patterns) + number,
                (texts[0], texts[1]),
                answers=(answer, incorrect),
                template=wording.pattern,
                row=row,
                fillers=(role,),
            )
            prompts.append(made | {"stratum": answer})
    dropped = {f"names.{pronoun}": left_out for pronoun, (_, left_out) in usable.items()}
    return Made(prompts, dropped | {"roles": dropped_roles})


KEYS = {
    "names": {
        "type": "object",
        "minProperties": 2,
        "maxProperties": 2,
        "propertyNames": {"minLength": 1},
        "additionalProperties": wordings.WORDS,
        "description": "Pronoun -> names that it takes up, of two pronouns. Default: he and she with 16 names each.",
    },
    "roles": wordings.WORDS | {"description": "Words for {role}, one token each. Default: 12."},
    "wordings": wordings.WORDS | {"description": "Texts up to the pronoun, with {name}, perhaps {role}. Default: 2."},
    "corrupted_by": {
        "enum": ["other_pronoun"],
        "default": "other_pronoun",
        "description": "The corrupted partner: a name of the other pronoun, so that the answers change places.",
    },
}
GENERATOR = Generator(make, check, keys=KEYS, unread=wordings.UNREAD_OF_ONE_TOKEN, shorter="give shorter wordings")
