"""The table of what circuits do where no search looked (`unseen`): its cells, and their tests. Runs no model."""

from collections.abc import Sequence

import pandas as pd

from atlas.circuit.controls import SUMMARY_COLUMNS, summarise
from atlas.circuit.verdicts import of_parts
from atlas.core.multiple import TOGETHER

SEARCHED, NEW = "searched", "new"
UNASKED = "not asked for"  # the note of cells without random sets
VERDICT = (*TOGETHER, "p_smallest", "state", "reason")
CELL = ("sequences", "wordings", "wording")
COLUMNS = (*CELL, "question", "circuit", "set", "draw", "components", "value", "ci_low", "ci_high", "prompts", "note")


def summary(rows: pd.DataFrame, main_tasks: Sequence[str]) -> pd.DataFrame:
    """Rows of `unseen`: one for each task, cell, question and circuit, with what random sets leave there and a verdict.

    A task's own circuit is named ``reported``. Families as in `verdicts.of_parts`: one question of one circuit, over
    all tasks, where random sets were asked for; the other rows have no ``state``.
    """
    pieces = []
    for key, part in rows.groupby([*CELL, "prompts"], sort=False):
        named = part.assign(circuit=part["circuit"].where(part["circuit"] != part["task"], "reported"))
        found = pd.DataFrame(summarise(named), columns=SUMMARY_COLUMNS)
        notes = named[["task", "question", "circuit", "note"]].drop_duplicates()
        pieces.append(found.merge(notes).assign(**dict(zip((*CELL, "prompts"), key, strict=True))))
    whole = pd.concat(pieces, ignore_index=True)
    asked = whole[whole["note"] != UNASKED]
    verdict = of_parts(asked, main_tasks) if len(asked) else asked
    whole = whole.join(verdict.reindex(columns=list(VERDICT)))
    return whole.fillna({"claim": "", "state": "", "reason": ""})
