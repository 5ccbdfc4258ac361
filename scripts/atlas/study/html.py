"""HTML of what a notebook shows: a title, sentences, a table, a picture. Colours are those of the page around it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from atlas.core.errors import StudyError
from atlas.report import wording
from atlas.report.frame import text_columns

if TYPE_CHECKING:
    import pandas as pd


def block(title: str, sentences: Iterable[str], *parts: str) -> str:
    """A title, a paragraph for each sentence, and below them ``parts``, which are HTML."""
    said = Markup("").join(Markup("<p>{}</p>").format(sentence) for sentence in sentences)
    whole = Markup("<div><p><strong>{}</strong></p>{}{}</div>").format(title, said, Markup("").join(map(Markup, parts)))
    return str(whole)  # not Markup, which escapes what is added to it


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> Markup:
    """Strings as a table; columns of words are set left, columns of numbers right."""
    sides = ["left" if side else "right" for side in text_columns([list(line) for line in lines])]
    sides = sides or ["left"] * len(header)

    def row(tag: str, cells: Sequence[str]) -> Markup:
        aligned = (
            Markup('<{} style="text-align: {}; padding: 0.1em 0.7em">{}</{}>').format(
                Markup(tag), side, cell, Markup(tag)
            )
            for side, cell in zip(sides, cells, strict=True)
        )
        return Markup("<tr>{}</tr>").format(Markup("").join(aligned))

    head, body = row("th", header), Markup("").join(row("td", line) for line in lines)
    return Markup("<table><thead>{}</thead><tbody>{}</tbody></table>").format(head, body)


def frame(rows: pd.DataFrame, digits: int = 2) -> Markup:
    """A data frame without its index; line breaks of texts are shown as they are written in Python."""

    def cell(value: object) -> str:
        if isinstance(value, float):
            return wording.number(value, digits)
        return repr(value)[1:-1] if isinstance(value, str) else str(value)

    lines = [[cell(value) for value in row] for row in rows.itertuples(index=False)]
    return table([wording.words(str(column)) for column in rows.columns], lines)


@dataclass(frozen=True)
class Figure:
    """A figure that a study drew: its SVG, and the PNG beside it. Neither carries a seal."""

    path: Path  # of the SVG

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def svg(self) -> str:
        """The drawing itself, whose text can be searched and edited."""
        return self.path.read_text()

    def __repr__(self) -> str:
        return f"figure {self.name}"

    def _repr_png_(self) -> bytes:
        return self.path.with_suffix(".png").read_bytes()


def figures(folder: Path, before: str, others: Iterable[str] = ()) -> list[str]:
    """Names of the figures in a folder called ``before.name.svg``, less those of ``others``, whose names
    begin so: `numerals.circuit_diagram` is of a task, `shared.circuit_diagram` of the whole study."""
    found = [file.stem.removeprefix(f"{before}.") for file in folder.glob(f"{before}.*.svg")]
    return sorted(name for name in found if name.partition(".")[0] not in set(others))


def figure(folder: Path, before: str, name: str, there: Sequence[str]) -> Figure:
    """The figure of a name; raises StudyError where it is none of those that are ``there``."""
    if name not in there:
        raise StudyError(f"{folder}: has no figure {name!r} of {before}; there are {wording.listing(there) or 'none'}")
    return Figure(folder / f"{before}.{name}.svg")
