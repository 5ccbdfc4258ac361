"""Agreement: a verb in the number of its subject, with a noun of the other number between them.

`The teacher near the doors` is followed by `is`, and not by `are`, which the nearer noun asks for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.core.errors import StudyError
from atlas.prompts import wordings
from atlas.prompts.generator import Generator, Made
from atlas.prompts.wordings import Wording

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SUBJECTS = [
    *(["key", "keys"], ["teacher", "teachers"], ["book", "books"], ["student", "students"], ["doctor", "doctors"]),
    *(["friend", "friends"], ["picture", "pictures"], ["car", "cars"], ["letter", "letters"], ["player", "players"]),
    *(["parent", "parents"], ["girl", "girls"], ["boy", "boys"], ["worker", "workers"], ["writer", "writers"]),
    *(["bird", "birds"],),
]
ATTRACTORS = [
    *(["cabinet", "cabinets"], ["house", "houses"], ["tree", "trees"], ["river", "rivers"], ["door", "doors"]),
    *(["table", "tables"], ["school", "schools"], ["window", "windows"], ["garden", "gardens"], ["wall", "walls"]),
    *(["church", "churches"], ["bridge", "bridges"]),
]
VERBS = [["is", "are"], ["was", "were"]]
WORDINGS = [
    "The {subject} near the {attractor}",
    "The {subject} behind the {attractor}",
    "The {subject} by the {attractor}",
]
NUMBERS = ("singular", "plural")
CORRUPTIONS = ("other_number", "other_subject")


def check(name: str, block: dict[str, Any]) -> None:
    """Wordings have both slots; nouns and verbs are pairs of different words."""
    where = f"tasks.{name}"
    wordings_of(name, block)
    kinds = {"subjects": (SUBJECTS, 2), "attractors": (ATTRACTORS, 1), "verbs": (VERBS, 1)}
    for key, (default, needed) in kinds.items():
        pairs = block.get(key, default)
        wordings.check_words(f"{where}.{key}", [word for pair in pairs for word in pair], 2)
        if len(pairs) < needed:
            raise StudyError(f"{where}.{key}: {len(pairs)} pair is too few; give at least {needed}")


def wordings_of(name: str, block: dict[str, Any]) -> list[Wording]:
    """The wordings of a block; StudyError where one lacks a slot."""
    return [
        Wording.parse(pattern, f"tasks.{name}.wordings", ("subject", "attractor"))
        for pattern in block.get("wordings", WORDINGS)
    ]


def make(name: str, block: dict[str, Any], tokenizer: PreTrainedTokenizerBase, root: Path | str | None) -> Made:
    """Every subject occurs equally often in both numbers, and with each number of the attractor that is asked for."""
    where, dropped, pairs = f"tasks.{name}", {}, {}
    kinds = {"subjects": (SUBJECTS, 2), "attractors": (ATTRACTORS, 1), "verbs": (VERBS, 1)}
    for key, (default, needed) in kinds.items():
        pairs[key], dropped[key] = of_one_token(tokenizer, f"{where}.{key}", block.get(key, default), needed)
    numbers = [(n, a) for n in (0, 1) for a in ((1 - n,) if block["attractor"] == "opposite" else (0, 1))]
    verbs = pairs["verbs"]
    cases = [(wording, verb) for wording in wordings_of(name, block) for verb in verbs]
    seed, filler_seed, subjects, prompts = block["seed"], block["filler_seed"], pairs["subjects"], []
    for row in range(wordings.rows_of(block["per_template"], len(subjects) * len(numbers))):
        for number, (wording, verb) in enumerate(cases):
            (singular_or_plural, near), turn = numbers[row % len(numbers)], row // len(numbers)
            again, place = divmod(turn, len(subjects))
            subject = subjects[place]
            nouns = [pair for pair in pairs["attractors"] if not set(pair) & set(subject)]
            if not nouns:
                raise StudyError(f"{where}.attractors: none is another noun than {subject[0]!r}; give more")
            with_verb = again * len(verbs) + number % len(verbs)
            attractor = wordings.turn(with_verb, nouns, filler_seed, number // len(verbs), place)
            given = {"subject": subject[singular_or_plural], "attractor": attractor[near]}
            other = subject
            if block["corrupted_by"] == "other_subject":
                other = wordings.other(subjects, (subject, attractor), wordings.draws(seed, number, row))
            slots = ("subject", "attractor")
            clean = wording.fill(given, slots)
            corrupted = wording.fill(given | {"subject": other[1 - singular_or_plural]}, slots)
            made = wordings.paired(
                row * len(cases) + number,
                (clean, corrupted),
                answers=(verb[singular_or_plural], verb[1 - singular_or_plural]),
                template=f"{wording.pattern} {'/'.join(verb)}",
                row=row,
                fillers=(attractor[near],),
            )
            prompts.append(made | {"stratum": f"{NUMBERS[singular_or_plural]}, {NUMBERS[near]} attractor"})
    return Made(prompts, dropped)


def of_one_token(
    tokenizer: PreTrainedTokenizerBase, key: str, pairs: list[list[str]], needed: int
) -> tuple[list[list[str]], list[str]]:
    """The pairs both of whose words are one token, and the words of the others; StudyError where they are too few."""
    usable, _ = wordings.of_one_token(tokenizer, key, [word for pair in pairs for word in pair], 2 * needed)
    found = [pair for pair in pairs if set(pair) <= set(usable)]
    if len(found) < needed:
        raise StudyError(
            f"{key}: of {len(found)} of the {len(pairs)} pairs both words are one token in this model's tokenizer, and "
            f"{needed} are needed; give words of one token"
        )
    return found, [word for pair in pairs if pair not in found for word in pair]


KEYS = {
    "subjects": wordings.PAIRS | {"description": "Nouns as [singular, plural], 2 or more. Default: 16."},
    "attractors": wordings.PAIRS | {"description": "Nouns that stand nearer to the verb, likewise. Default: 12."},
    "verbs": wordings.PAIRS | {"description": "Answers as [singular, plural]. Default: is and are, was and were."},
    "wordings": wordings.WORDS | {"description": "Texts up to the verb, with {subject} and {attractor}. Default: 3."},
    "attractor": {
        "enum": ["opposite", "either"],
        "default": "opposite",
        "description": "The number of the attractor: opposite, another than the subject's; either, both equally often.",
    },
    "corrupted_by": {
        "enum": list(CORRUPTIONS),
        "default": CORRUPTIONS[0],
        "description": "The corrupted partner: other_number, the same subject in the other number; other_subject, "
        "another subject in the other number. Both lead to the incorrect answer.",
    },
}
GENERATOR = Generator(make, check, keys=KEYS, unread=wordings.UNREAD_OF_ONE_TOKEN, shorter="give shorter wordings")
