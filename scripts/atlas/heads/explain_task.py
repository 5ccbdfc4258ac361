"""What is found out about a task: what can be patched, what writes the answer, and where the answer appears.

Tables come without their columns model and task.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from atlas.core.errors import StudyError
from atlas.heads import attribution, lens, patching
from atlas.prompts import layouts
from atlas.prompts.batch import Prompts

if TYPE_CHECKING:
    from atlas.heads.explained import Explained


@dataclass(frozen=True)
class Settings:
    """Of the configuration: prompts that are patched (None: all), and top tokens of the lens that are listed."""

    patching_prompts: int | None
    lens_tokens: int
    allow_negative_clean: bool = False


def explain(of: Explained, wanted: Collection[str], settings: Settings) -> dict[str, pd.DataFrame]:
    """The ``wanted`` tables: `patching`, `attribution`, and those of the `lens`."""
    tables = {}
    if "patching" in wanted:
        tables["patching"] = patching_table(of, settings.patching_prompts, settings.allow_negative_clean)
    if "attribution" in wanted:
        tables["attribution"] = attribution_table(of)
    if "lens" in wanted:
        tables |= lens_tables(of, settings.lens_tokens)
    return tables


def patching_table(of: Explained, at_most: int | None, allow_no_effect: bool = False) -> pd.DataFrame:
    """`patching` of at most so many prompts; raises StudyError where clean and corrupted runs hardly differ."""
    some = Prompts.from_frame(layouts.spread(of.frame, at_most))
    patched = patching.patch_all(of.model, some)
    try:
        rows = patching.patching_rows(patched, list(of.layout.names), of.bootstrap, allow_no_effect)
    except StudyError as error:
        raise StudyError(f"tasks.{of.task}: {error}") from None
    return pd.DataFrame(rows, columns=patching.COLUMNS)


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
