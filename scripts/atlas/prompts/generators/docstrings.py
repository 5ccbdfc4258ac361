"""Docstrings: the arguments of a Python function, documented in their order; the answer is the next one.

The incorrect answer is another argument. Names of functions, arguments and the words that describe them are random.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.prompts import wordings
from atlas.prompts.generator import Generator, Made
from atlas.prompts.wordings import Wording

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WORDS = wordings.listed(
    "load size file last model user date image page text line list map node path point port query range result row "
    "scale source state target task test time token tree type unit value version view word work world year zone color "
    "group input label layer level order region section shape style table title topic track"
)
ARGUMENTS, DOCUMENTED, DESCRIBED = 4, 2, 6  # arguments, those before the answer, words that describe
PATTERN = (
    "def {f}(self, {a0}, {a1}, {a2}, {a3}):\n"
    '    """{d0} {d1}\n\n'
    "    :param {b0}: {d2} {d3}\n"
    "    :param {b1}: {d4} {d5}\n"
    "    :param"
)
FUNCTION = tuple(f"a{i}" for i in range(ARGUMENTS))  # slots of the arguments, where they are named first
AGAIN = tuple(f"b{i}" for i in range(DOCUMENTED))  # and where they are documented
CORRUPTIONS = ("other_arguments", "other_documented")
LEAST = 1 + 2 * ARGUMENTS + DESCRIBED


def check(name: str, block: dict[str, Any]) -> None:
    """There are words enough for a prompt and its corrupted partner."""
    wordings.check_words(f"tasks.{name}.words", block.get("words", WORDS), LEAST)


def make(name: str, block: dict[str, Any], tokenizer: PreTrainedTokenizerBase, root: Path | str | None) -> Made:
    """Words are drawn anew for each prompt; each of the other arguments is the incorrect answer equally often."""
    key = f"tasks.{name}.words"
    pool, dropped = wordings.of_one_token(tokenizer, key, block.get("words", WORDS), LEAST, at_start=False)
    wrong = [i for i in range(ARGUMENTS) if i != DOCUMENTED]
    prompts = []
    for row in range(wordings.rows_of(block["per_template"], len(wrong))):
        drawn = [pool[i] for i in wordings.draws(block["filler_seed"], row).permutation(len(pool))]
        arguments, others = drawn[:ARGUMENTS], drawn[ARGUMENTS:]
        fillers = {"f": others[0]} | {f"d{i}": others[1 + i] for i in range(DESCRIBED)}
        left = others[1 + DESCRIBED :]
        new = [left[i] for i in wordings.draws(block["seed"], row).permutation(len(left))[:ARGUMENTS]]
        first, again = (new, arguments) if block["corrupted_by"] == "other_arguments" else (arguments, new)
        made = wordings.paired(
            row,
            (filled(fillers, arguments, arguments), filled(fillers, first, again)),
            answers=(arguments[DOCUMENTED], arguments[wrong[row % len(wrong)]]),
            template="Python docstring",
            row=row,
            fillers=tuple(fillers.values()),
        )
        prompts.append(made | {"stratum": f"against argument {wrong[row % len(wrong)] + 1}"})
    return Made(prompts, {"words": dropped})


def filled(fillers: dict[str, str], arguments: list[str], documented: list[str]) -> wordings.Filled:
    """The function with its arguments and those that are documented; both are members."""
    wording = Wording.parse(PATTERN, "docstrings", (*FUNCTION, *AGAIN, *fillers))
    shown = dict(zip((*FUNCTION, *AGAIN), [*arguments, *documented[:DOCUMENTED]], strict=True))
    return wording.fill(fillers | shown, shown)


KEYS = {
    "words": wordings.WORDS | {"description": "Words that are drawn from, one token each, 15 or more. Default: 57."},
    "corrupted_by": {
        "enum": list(CORRUPTIONS),
        "default": CORRUPTIONS[0],
        "description": "The corrupted partner: other_arguments, the function has others, so that the answer stands "
        "nowhere; other_documented, others are documented.",
    },
}
GENERATOR = Generator(
    make, check, keys=KEYS, unread=wordings.UNREAD_OF_ONE_TOKEN, shorter="documents of this form have about 45"
)
