"""What is found out about a task: what can be patched, what writes the answer, and where the answer appears.

Tables come without their columns model and task.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from atlas.core.errors import StudyError
from atlas.heads import attribution, lens, patching
from atlas.prompts import generator, layouts, tokens
from atlas.prompts.batch import Prompts

if TYPE_CHECKING:
    from atlas.heads.explained import Explained

AUTO, OWN, SHIFTED = "auto", "own", "shifted"  # of `heads.patching_corruption`
log = logging.getLogger("atlas")


@dataclass(frozen=True)
class Settings:
    """Of the configuration: prompts that are patched (None: all), and top tokens of the lens that are listed.

    ``task``, ``prepend_bos``: the task's block and how its prompts begin, from which they get other corrupted partners
    for patching, as ``patching_corruption`` says.
    """

    patching_prompts: int | None
    lens_tokens: int
    allow_negative_clean: bool = False
    patching_corruption: str | dict[str, int] = OWN
    task: dict[str, Any] | None = None
    prepend_bos: bool = False


def explain(of: Explained, wanted: Collection[str], settings: Settings) -> dict[str, pd.DataFrame]:
    """The ``wanted`` tables: `patching`, `attribution`, and those of the `lens`."""
    tables = {}
    if "patching" in wanted:
        tables["patching"] = patching_table(of, settings)
    if "attribution" in wanted:
        tables["attribution"] = attribution_table(of)
    if "lens" in wanted:
        tables |= lens_tables(of, settings.lens_tokens)
    return tables


def patching_table(of: Explained, settings: Settings) -> pd.DataFrame:
    """`patching` of some prompts; raises StudyError where clean and corrupted runs hardly differ.

    Its column ``corruption`` says what the corrupted prompts are: a name of `prompts.corruption`, or `own` where the
    task's prompts come with their partners.
    """
    frame, corruption = patched_prompts(of, settings)
    patched = patching.patch_all(of.model, Prompts.from_frame(frame))
    try:
        rows = patching.patching_rows(patched, list(of.layout.names), of.bootstrap, settings.allow_negative_clean)
    except StudyError as error:
        raise StudyError(f"tasks.{of.task}: {error}") from None
    return pd.DataFrame(rows, columns=patching.COLUMNS).assign(corruption=corruption)


def patched_prompts(of: Explained, settings: Settings) -> tuple[pd.DataFrame, str]:
    """The prompts that are patched, evenly over first members and templates, and the corruption of their partners.

    `auto` shifts the sequence, so that the corrupted prompt continues as well as the clean one, with another answer; a
    task that has no such partner for each of them keeps its own. Another corruption raises StudyError there.
    """
    frame, block = layouts.spread(of.frame, settings.patching_prompts), settings.task
    own = block["corruption"] if block and "corruptions" in generator.of(block).varies else OWN
    wanted = SHIFTED if settings.patching_corruption == AUTO else settings.patching_corruption
    if block is None or wanted in (OWN, own) or own == OWN:
        return frame, name_of(own)
    try:
        return corrupted_again(of, frame, block | {"corruption": wanted}, settings.prepend_bos), name_of(wanted)
    except StudyError as error:
        if settings.patching_corruption != AUTO:
            raise StudyError(f"heads.patching_corruption: {name_of(wanted)}: {error}; auto or own will do") from None
        log.warning("patching: the prompts keep their own corrupted partners: %s", error)
        return frame, name_of(own)


def name_of(corruption: str | dict[str, int]) -> str:
    """A corruption of the configuration in words: `permute`, `position 3`."""
    return corruption if isinstance(corruption, str) else " ".join(map(str, *corruption.items()))


def corrupted_again(of: Explained, frame: pd.DataFrame, block: dict[str, Any], prepend_bos: bool) -> pd.DataFrame:
    """The prompts with the corrupted partners that another ``block`` gives them; StudyError where one has none.

    Clean prompts do not depend on the corruption: that theirs are the same tokens is checked.
    """
    made = generator.of(block).make(of.task, block, of.tokenizer, None)
    wanted = set(frame["prompt"])
    rows = [row for row in made.rows if row["prompt"] in wanted]
    several = block.get("multi_token", False)
    encoded = tokens.encode_prompts(rows, of.tokenizer, prepend_bos, of.task, several, made.min_layout)
    found = {row["prompt"]: row for row in encoded.rows}
    partners = [found.get(prompt) for prompt in frame["prompt"]]
    same = [
        other is not None and list(other["tokens"]) == list(clean) and len(other["corrupted_tokens"]) == len(clean)
        for other, clean in zip(partners, frame["tokens"], strict=True)
    ]
    if not all(same):
        lost = f"{same.count(False)} of {len(same)} prompts have no partner of as many tokens"
        raise StudyError(f"tasks.{of.task}: {lost}")
    return frame.assign(corrupted_tokens=[partner["corrupted_tokens"] for partner in partners if partner])


def attribution_table(of: Explained) -> pd.DataFrame:
    """`attribution`: what every component writes to the logit difference directly."""
    rows = attribution.attribution_rows(attribution.attribute(of.model, of.prompts), of.bootstrap)
    return pd.DataFrame(rows, columns=attribution.COLUMNS)


def lens_tables(of: Explained, k: int) -> dict[str, pd.DataFrame]:
    """`lens`, `lens_tokens` (the top ``k``), `lens_lead` and `lens_increments`."""
    prompts, decode = of.prompts, of.tokenizer.decode
    lenses = lens.read_lenses(of.model, prompts, k)
    members = lens.earlier_members(prompts, of.layout.member_positions)
    increments = lens.increment_rows(lenses, prompts.answer, members, of.bootstrap)
    found = {
        "lens": (lens.lens_rows(lenses, of.bootstrap), lens.COLUMNS),
        "lens_tokens": (lens.token_rows(lenses["norm"], prompts.prompt, decode), lens.TOKEN_COLUMNS),
        "lens_lead": (lens.lead_rows(lenses["norm"], prompts.prompt), lens.LEAD_COLUMNS),
        "lens_increments": (increments, lens.INCREMENT_COLUMNS),
    }
    return {name: pd.DataFrame(rows, columns=columns) for name, (rows, columns) in found.items()}
