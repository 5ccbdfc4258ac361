"""Indirect objects: two people, one of whom gives something to the other; the answer is the one who is named once.

`When Ada and Ben went to the park, Ben gave a cup to` has the answer `Ada`; the incorrect answer is `Ben`. Each wording
occurs in both orders of the names: the giver is the second of the two (ABBA) or the first (BABA).
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.core.errors import StudyError
from atlas.prompts import layouts, wordings, words
from atlas.prompts.generator import Generator, Made
from atlas.prompts.wordings import Wording

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

NAMES = wordings.listed(
    "Anna Ben Carl Emma Frank Grace Henry Jack James Jane John Kate Laura Lisa Mark Mary Paul Peter Robert Sam Sarah "
    "Simon Susan Tom"
)
PLACES = wordings.listed("park school shop station beach office house market church hospital garden library")
OBJECTS = wordings.listed("book cup key ball drink card ring letter map bag coin gift")
WORDINGS = [
    "When {first} and {second} went to the {place}, {giver} gave a {object} to",
    "After {first} and {second} came to the {place}, {giver} handed a {object} to",
]
SLOTS = ("first", "second", "giver")
ORDERS = {"ABBA": ("other", "giver", "giver"), "BABA": ("giver", "other", "giver")}  # who stands where
LEAST = 5  # names of one length: two of the prompt, three of its corrupted partner

CORRUPTIONS = ("random_names", "third_giver", "other_giver")


def check(name: str, block: dict[str, Any]) -> None:
    """Wordings have the slots of the names, and there are enough different names, places and objects."""
    where = f"tasks.{name}"
    wordings_of(name, block)
    wordings.check_words(f"{where}.names", block.get("names", NAMES), LEAST)
    for kind, pool in (("places", PLACES), ("objects", OBJECTS)):
        wordings.check_words(f"{where}.{kind}", block.get(kind, pool), 1)
        both = next((word for word in block.get(kind, pool) if word in block.get("names", NAMES)), None)
        if both:
            raise StudyError(f"{where}.{kind}: {both!r} is also one of the names; take it out of one of the two")


def wordings_of(name: str, block: dict[str, Any]) -> list[Wording]:
    """The wordings of a block; StudyError where one lacks a slot."""
    key = f"tasks.{name}.wordings"
    return [Wording.parse(p, key, SLOTS, ("place", "object")) for p in block.get("wordings", WORDINGS)]


def make(name: str, block: dict[str, Any], tokenizer: PreTrainedTokenizerBase, root: Path | str | None) -> Made:
    """Every name is the answer equally often, and the giver as often, in each wording and order.

    Names that are not one token are left out; with ``multi_token`` all names of a prompt and of its corrupted partner
    have equally many, and prompts may have several layouts. Places and objects are of one token.
    """
    where, several = f"tasks.{name}", block.get("multi_token", False)
    names, dropped = by_length(tokenizer, f"{where}.names", block.get("names", NAMES), several)
    things = {}
    for kind, pool in (("places", PLACES), ("objects", OBJECTS)):
        things[kind], dropped[kind] = wordings.of_one_token(tokenizer, f"{where}.{kind}", block.get(kind, pool), 1)
    cases = [(wording, order) for wording in wordings_of(name, block) for order in ORDERS]
    seed, filler_seed, prompts = block["seed"], block["filler_seed"], []
    everyone = [person for pool in names.values() for person in pool]
    for row in range(wordings.rows_of(block["per_template"], len(everyone))):
        for number, (wording, order) in enumerate(cases):
            answer, giver = pair_of(names, row, filler_seed, number)
            place = wordings.turn(row, things["places"], filler_seed, number, 1)
            thing = wordings.turn(row, things["objects"], filler_seed, number, 2)
            pool = next(pool for pool in names.values() if answer in pool)
            drawn = draw(block["corrupted_by"], answer, giver, pool, wordings.draws(seed, number, row))
            clean = in_order(order, {"other": answer, "giver": giver})
            texts = tuple(
                wording.fill(dict(zip(SLOTS, people, strict=True)) | {"place": place, "object": thing}, SLOTS)
                for people in (clean, in_order(order, drawn))
            )
            made = wordings.paired(
                row * len(cases) + number,
                (texts[0], texts[1]),
                answers=(answer, giver),
                template=f"{order}: {wording.pattern}",
                row=row,
                fillers=(place, thing),
            )
            prompts.append(made)
    return Made(prompts, dropped, layouts.MIN_LAYOUT if several else None)


def by_length(
    tokenizer: PreTrainedTokenizerBase, key: str, given: list[str], several: bool
) -> tuple[dict[int, list[str]], dict[str, list[str]]]:
    """Number of tokens -> the names that have it, in their order; and, as `names`, those that are left out.

    Of lengths that fewer than `LEAST` names have none is used; without ``several`` only names of one token are.
    """
    if not several:
        usable, dropped = wordings.of_one_token(tokenizer, key, given, LEAST)
        return {1: usable}, {"names": dropped}
    found: dict[int, list[str]] = defaultdict(list)
    for person, n in zip(given, words.tokens_in_text(tokenizer, given, "so "), strict=True):
        found[n].append(person)
    used = {n: pool for n, pool in sorted(found.items()) if len(pool) >= LEAST}
    if not used:
        counts = ", ".join(f"{len(pool)} of {n}" for n, pool in sorted(found.items()))
        raise StudyError(
            f"{key}: no {LEAST} of the {len(given)} names have as many tokens in this model's tokenizer ({counts}); "
            "give more names"
        )
    return used, {"names": [person for person in given if not any(person in pool for pool in used.values())]}


def pair_of(names: dict[int, list[str]], row: int, seed: int, number: int) -> tuple[str, str]:
    """Answer and giver, names of one length; in as many rows as there are names each is either once."""
    again, place = divmod(row, sum(map(len, names.values())))
    for pool in names.values():
        if place < len(pool):
            return wordings.partner(again * len(pool) + place, pool, seed, number)
        place -= len(pool)
    raise AssertionError("unreachable: the place is below the number of names")


def in_order(order: str, people: dict[str, str]) -> list[str]:
    """The names in the order of the text; of three different ones the giver is another than the two named first."""
    first, second, giver = ORDERS[order]
    return [people[first], people[second], people.get("acts", people[giver])]


def draw(corruption: str, answer: str, giver: str, pool: list[str], rng: np.random.Generator) -> dict[str, str]:
    """The people of the corrupted prompt: `other` and `giver`, named first, and who `acts` after them.

    `random_names`: three others, none of the prompt's. `third_giver`: somebody else acts. `other_giver`: the other
    acts, so that the incorrect answer is the right one.
    """
    if corruption == "other_giver":
        return {"other": answer, "giver": giver, "acts": answer}
    left = [person for person in pool if person not in (answer, giver)]
    drawn = [left[i] for i in rng.permutation(len(left))[:3]]
    if corruption == "third_giver":
        return {"other": answer, "giver": giver, "acts": drawn[0]}
    return dict(zip(("other", "giver", "acts"), drawn, strict=True))


KEYS = {
    "names": wordings.WORDS | {"description": "First names, 5 or more. Default: 24 common ones."},
    "places": wordings.WORDS | {"description": "Words for {place}, one token each. Default: 12."},
    "objects": wordings.WORDS | {"description": "Words for {object}, one token each. Default: 12."},
    "wordings": wordings.WORDS
    | {
        "description": "Texts up to the answer, with {first}, {second}, {giver}, perhaps {place} and {object}. "
        "Default: 2."
    },
    "corrupted_by": {
        "enum": list(CORRUPTIONS),
        "default": CORRUPTIONS[0],
        "description": "The corrupted partner: random_names, three others, none of the prompt's; third_giver, somebody "
        "who was not named gives; other_giver, the other of the two gives, so that the answers change places.",
    },
}
GENERATOR = Generator(make, check, keys=KEYS, unread=wordings.UNREAD, shorter="give shorter wordings")
