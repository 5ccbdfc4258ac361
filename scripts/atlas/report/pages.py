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
) -> str:
    """A page of sections; ``short``: sentences that stand above them.

    ``cards``: (address, card) of the cards (`cards.Card`) that stand above everything. Under cards what is written
    folds out, each section with its first sentence too. ``reading``: how to read the numbers.
    """
    content = {"sections": sections, "short": short, "cards": cards, "reading": reading}
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
    """Tables on one page, very long ones cut; the keys are their headings. ``note``: which circuits are in them."""
    sections = [
        Section(
            title=words(name),
            table=frame_table(table.head(ROWS_UP_TO)),
            note=f"The first {ROWS_UP_TO} of {len(table)} rows." if len(table) > ROWS_UP_TO else "",
        )
        for name, table in tables.items()
        if len(table)
    ]
    lead = "The tables behind the summary; value, ci_low and ci_high are a mean and its 95 % bootstrap interval."
    lead = f"{lead} {note}."
    return page(title, lead, sections, warning=warning)
