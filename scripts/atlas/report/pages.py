"""HTML pages of sentences and tables (a header and rows of strings), section by section."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from atlas.report import frame
from atlas.report.wording import listing, number, words

ROWS_UP_TO = 300


@dataclass(frozen=True)
class Section:
    """A part of a page. ``table``: ``header`` and ``rows`` of strings; ``links``: (address, text); ``pre``: plain text.

    ``first`` stands in the short version at the top of the page, and is not said again below.
    """

    title: str
    first: str = ""
    sentences: Sequence[str] = ()
    table: dict[str, Any] | None = None
    note: str = ""
    anchor: str = ""
    links: Sequence[tuple[str, str]] = ()
    pre: str = ""
    size: str = ""  # beside its title, where it folds out

    @property
    def shown(self) -> bool:
        """Is there anything below its title?"""
        return bool(self.sentences or self.table or self.pre)


def page(
    title: str,
    lead: str,
    sections: Sequence[Section],
    short: Sequence[str] = (),
    warning: str = "",
    cards: Sequence[tuple[str, Any]] = (),
    reading: str = "",
    fold: bool = False,
) -> str:
    """A page of sections; ``short``: sentences that stand above them.

    ``cards``: (address, card) of the cards (`cards.Card`) that stand above everything; ``reading``: how to read their
    numbers. ``fold``: sections fold out, with their first sentences too, and so do the sentences of ``short``.
    """
    content = {"sections": sections, "short": short, "cards": cards, "reading": reading, "fold": fold}
    return frame.render(__file__, title, lead, warning, **content)


def warning(model: dict[str, Any]) -> str:
    """What stands above every page of a model (model.json) with random weights, or of a GGUF; empty for others."""
    if model.get("random_weights"):
        return (
            "This model has random weights. The run shows that the workflow fits the architecture and what it costs; "
            "its numbers, sentences and figures are no findings."
        )
    return weights_of_gguf(model["source"]) if model.get("source") else ""


def weights_of_gguf(source: dict[str, Any]) -> str:
    """Which weights a model made of a GGUF has (``source`` of model.json), with packages, licence and types."""
    packages = f" of {listing(source['packages'])}" if source["packages"] else ""
    types = listing(f"{number(100 * of['share'], 2)} % {name}" for name, of in source["types"].items())
    said = "Dequantised weights of a quantised file" if source["quantised"] else "Weights converted from a GGUF file"
    return (
        f"{said}, not the original checkpoint: {listing(source['file'])}{packages}; licence: "
        f"{source['licence'] or 'not stated'}; numbers: {types}."
    )


def frame_table(frame: pd.DataFrame) -> dict[str, Any]:
    """A whole table, as it is, with numbers rounded to four digits."""

    def cell(value: object) -> str:
        if isinstance(value, float) and not isinstance(value, bool):
            return "\u2013" if math.isnan(value) else f"{value:.4g}"
        return "\u2013" if value is None else str(value)

    return {"header": list(frame.columns), "rows": [[cell(v) for v in row] for row in frame.itertuples(index=False)]}


def strongest_edges(scores: pd.DataFrame, n: int = 20) -> pd.DataFrame:
    """The n edges of largest magnitude, of both signs, of each task and method."""
    order = scores["value"].abs().sort_values(ascending=False, kind="stable").index
    top = scores.loc[order].groupby(["task", "method"], sort=False).head(n)
    return top.sort_values(["task", "method"], kind="stable")


def tables_page(tables: dict[str, pd.DataFrame], title: str, warning: str, note: str) -> str:
    """Tables on one page, each folds out; the keys are their headings. ``note``: which circuits are in them.

    Very long ones are cut, and what all rows have in common in words (the model) stands above them.
    """
    sections = []
    for name, whole in tables.items():
        if whole.empty:
            continue
        table, same = varying(whole)
        said = [f"In every row: {', '.join(f'{key} {value}' for key, value in same.items())}."] if same else []
        if len(table) > ROWS_UP_TO:
            said.append(f"The first {ROWS_UP_TO} of {len(table)} rows.")
        rows = frame_table(table.head(ROWS_UP_TO))
        size = f"{len(table)} {'row' if len(table) == 1 else 'rows'}"
        sections.append(Section(title=words(name), table=rows, note=" ".join(said), size=size))
    lead = "The tables behind the summary; value, ci_low and ci_high are a mean and its 95 % bootstrap interval."
    return page(title, f"{lead} {note}.", sections, warning=warning, fold=True)


def varying(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """The columns that tell the rows of a table apart; and, of the others that hold words, the one value of each."""
    words_in = [name for name in table if all(isinstance(value, str) for value in table[name])]
    same = {name: table[name].iloc[0] for name in words_in if len(table) > 1 and table[name].nunique() == 1}
    same = {name: value for name, value in same.items() if value}
    return table.drop(columns=list(same)), same
