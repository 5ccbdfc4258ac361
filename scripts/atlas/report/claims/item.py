"""A published claim, and what one model's tables say of it by the claim's own rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pandas as pd

from atlas.core.errors import StudyError
from atlas.core.multiple import ALPHA
from atlas.report.findings.reading import Results
from atlas.report.wording import listing, number, p_value

AGREES, DIFFERS, UNTESTABLE, ABSENT = "agrees", "does not agree", "cannot be tested here", "not measured"


@dataclass(frozen=True)
class Finding:
    """What a model's tables say: a verdict by the rule, our number, and what stands beside it (control or null).

    ``reason``: why there is no verdict, where there is none.
    """

    verdict: str
    number: str = ""
    control: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Item:
    """A published claim: what was said (``claim``) and where (``source``), our ``measure``, the ``rule`` of the
    verdict, ``tables`` that it is read from, below the results of a model, and what may make a ``difference``."""

    title: str
    claim: str
    source: str
    measure: str
    rule: str
    tables: tuple[str, ...]
    difference: str
    find: Callable[[Results], Finding]

    def of(self, results: Results) -> Finding:
        """The finding; `not measured` where a table, or the whole study, is absent."""
        if not results.has("model.json"):
            return Finding(ABSENT, reason=f"no results of {results.model}")
        missing = [name for name in self.tables if not results.has(name)]
        if missing:
            return Finding(ABSENT, reason=f"{listing(f'`{results.name_of(name)}`' for name in missing)} absent")
        try:
            return self.find(results)
        except StudyError as error:
            return Finding(ABSENT, reason=str(error))


def cannot(reason: str, number: str = "", control: str = "") -> Finding:
    """No verdict: the model or its classes do not allow the test."""
    return Finding(UNTESTABLE, number, control, reason)


def by(rule: bool, number: str, control: str) -> Finding:
    """The verdict of a rule."""
    return Finding(AGREES if rule else DIFFERS, number, control)


def sure(table: pd.DataFrame) -> pd.Series:
    """Which rows are below `ALPHA` after Holm; none without a test."""
    return table["p_holm"] < ALPHA


def most_sure(table: pd.DataFrame) -> pd.Series:
    """The row of smallest corrected p, of several the one of largest value."""
    return table.sort_values(["p_holm", "value"], ascending=[True, False], kind="stable").iloc[0]


def corrected(row: pd.Series) -> str:
    """`p = 0.035 after Holm`."""
    return f"{p_value(row['p_holm'])} after Holm"


def share(value: float, digits: int = 0) -> str:
    """`58 %`."""
    return f"{number(100 * value, digits)} %"


def span(row: pd.Series, low: str, high: str, digits: int = 2) -> str:
    """`0.48 [0.25, 0.58]`-like ends alone: `0.25 to 0.58`."""
    return f"{number(row[low], digits)} to {number(row[high], digits)}"


def joined(parts: Iterable[str]) -> str:
    """Sentences of a cell."""
    return "; ".join(part for part in parts if part)
