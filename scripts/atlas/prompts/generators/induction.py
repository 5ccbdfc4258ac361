"""Induction: random words, some of which come again; the answer is the word that followed the last one before.

`tree coin lamp door ... coin lamp` has the answer `door`. The words that come again begin anywhere among the first, so
that no distance tells the answer; the incorrect answer is another of the words, one that does not come again.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.core.errors import StudyError
from atlas.prompts import wordings
from atlas.prompts.generator import Generator, Made
from atlas.prompts.wordings import Filled

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WORDS = wordings.listed(
    "apple bank bird board book bottle box bread bridge camera car chair church city clock coat coin cup doctor "
    "dog door fire fish flower garden glass gold hand hat horse house island key king lake lamp letter map market milk "
    "mountain music night ocean paper park phone picture plane queen rain ring river road rock room salt school ship "
    "shop sky snow song star stone street sugar sun table teacher tree train wall watch water wind window winter wood"
)
TEMPLATE = "random words, some again"
CORRUPTIONS = ("other_first", "other_again")


def check(name: str, block: dict[str, Any]) -> None:
    """Some words come again, and there are enough different ones."""
    where, length, again = f"tasks.{name}", block["length"], block["again"]
    if again > length - 2:
        raise StudyError(
            f"{where}.again: {again} of {length} words leave none as an answer and an incorrect answer; set it to "
            f"{length - 2} at most, or raise length"
        )
    wordings.check_words(f"{where}.words", block.get("words", WORDS), needed(block))


def needed(block: dict[str, Any]) -> int:
    """Words of a prompt and of its corrupted partner."""
    corrupted: int = block["length"] if block["corrupted_by"] == "other_first" else block["again"]
    return int(block["length"]) + corrupted


def make(name: str, block: dict[str, Any], tokenizer: PreTrainedTokenizerBase, root: Path | str | None) -> Made:
    """The words come again from every place from which they can equally often; words are drawn anew for each prompt."""
    key, length, again = f"tasks.{name}.words", block["length"], block["again"]
    pool, dropped = wordings.of_one_token(tokenizer, key, block.get("words", WORDS), needed(block), at_start=True)
    starts, prompts = length - again, []
    for row in range(wordings.rows_of(block["per_template"], starts)):
        first = row % starts
        drawn = wordings.draws(block["filler_seed"], row).permutation(len(pool))
        once = [pool[i] for i in drawn[:length]]
        repeated, answer = once[first : first + again], once[first + again]
        rng = wordings.draws(block["seed"], row)
        left = [word for word in pool if word not in once]
        others = [left[i] for i in rng.permutation(len(left))]
        if block["corrupted_by"] == "other_first":
            corrupted = [*others[:length], *repeated]
        else:
            corrupted = [*once, *others[:again]]
        never_again = [word for word in once if word not in (*repeated, answer)]
        made = wordings.paired(
            row,
            (in_a_row([*once, *repeated]), in_a_row(corrupted)),
            answers=(answer, wordings.other(never_again, (), wordings.draws(block["filler_seed"], row, 1))),
            template=TEMPLATE,
            row=row,
        )
        prompts.append(made | {"stratum": f"from word {first + 1}"})
    return Made(prompts, {"words": dropped})


def in_a_row(shown: list[str]) -> Filled:
    """The words with spaces between them, all of them members."""
    ends, at = [], 0
    for word in shown:
        ends.append((at, at + len(word)))
        at += len(word) + 1
    return Filled(" ".join(shown), tuple(ends), tuple(shown))


KEYS = {
    "words": wordings.WORDS | {"description": "Words that are drawn from, one token each. Default: 80 common nouns."},
    "length": {
        "type": "integer",
        "minimum": 3,
        "maximum": 500,
        "default": 10,
        "description": "Different words in a row.",
    },
    "again": {
        "type": "integer",
        "minimum": 1,
        "maximum": 498,
        "default": 4,
        "description": "How many of them then come again before the answer, at most two less than there are.",
    },
    "corrupted_by": {
        "enum": list(CORRUPTIONS),
        "default": CORRUPTIONS[0],
        "description": "The corrupted partner: other_first, other words in place of the first ones, so that none comes "
        "again and the answer stands nowhere; other_again, other words in place of those that come again.",
    },
}
GENERATOR = Generator(make, check, keys=KEYS, unread=wordings.UNREAD_OF_ONE_TOKEN, shorter="lower length")
