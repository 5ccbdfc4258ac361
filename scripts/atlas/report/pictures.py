"""Small pictures that stand in the text of a page: SVG drawn by hand, whose colours are those of the page (frame.html).

Each has a title for those who do not see it. Classes: `all` what there is, `all` under `some`, `most` and `whole`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from atlas.report.wording import place

CELL, GAP, APART = 10, 2, 6  # units of a map: a square, between squares, and before the column of MLPs
LARGEST = 150  # pixels of a map's longer side, and of a row of bars
ROW, LABEL, BAR = 15, 112, 116  # pixels of a row with its label and its bar


def mapped(layers: int, heads: int, marks: Mapping[str, str], title: str) -> Markup:
    """A square for every head and MLP: a row a layer, the first on top; a column a head, the MLP at the right.

    marks: component -> class of its square. One path a class, so that a model of 1,024 heads stays small.
    """
    everything = [f"{layer}.{head}" for layer in range(layers) for head in range(heads)]
    everything += [f"m{layer}" for layer in range(layers)]
    paths: dict[str, list[str]] = {"all": []}
    for component in everything:
        layer, is_mlp, head = place(component)
        x = heads * (CELL + GAP) + APART if is_mlp else head * (CELL + GAP)
        square = f"M{x} {layer * (CELL + GAP)}h{CELL}v{CELL}h-{CELL}z"
        paths.setdefault(marks.get(component, "all"), []).append(square)
    width, height = (heads + 1) * (CELL + GAP) + APART - GAP, layers * (CELL + GAP) - GAP
    scale = min(1.0, LARGEST / max(width, height))
    drawn = Markup("").join(
        Markup('<path class="{}" d="{}"/>').format(name, "".join(squares)) for name, squares in paths.items() if squares
    )
    return _svg(title, scale * width, scale * height, drawn, f"0 0 {width} {height}")


def bars(counts: Mapping[str, int], title: str) -> Markup:
    """A bar for each name, as long as its number, which stands behind it."""
    most = max(counts.values(), default=1) or 1
    rows = []
    for i, (name, n) in enumerate(counts.items()):
        bar = Markup('<rect class="whole" x="{}" y="{}" width="{:.1f}" height="9"/>')
        drawn = bar.format(LABEL + 6, i * ROW + 3, BAR * n / most)
        rows.append(_text(name, LABEL, i, "end") + drawn + _text(str(n), LABEL + 10 + BAR * n / most, i, "start"))
    return _svg(title, LABEL + BAR + 34, ROW * len(counts), Markup("").join(rows))


def ranges(groups: Mapping[str, Sequence[Mapping[str, Any]]], title: str) -> Markup:
    """Under the name of each group a line for each row: circuits beside random sets.

    A row has `label`, `value`, `ci_low`, `ci_high` and `control_low`, `control_high`, in percent of full, on an axis
    that holds them all, 0 and 100. A dot and a line: the circuit and its interval. A band: 95 % of the random sets;
    none where there are none.
    """
    rows = [row for group in groups.values() for row in group]
    keys = ("value", "ci_low", "ci_high", "control_low", "control_high")
    values = [float(row[key]) for row in rows for key in keys if row[key] == row[key]]
    low, high = min([0.0, *values]), max([100.0, *values])

    def at(value: float) -> float:
        return LABEL + 8 + BAR * (value - low) / (high - low)

    n = len(rows) + len(groups)
    drawn = [_line("axis", at(mark), 0, at(mark), ROW * n) for mark in (0, 100)]
    i = 0
    for name, group in groups.items():
        drawn.append(_text(name, 0, i, "start"))
        for j, row in enumerate(group, start=i + 1):
            drawn += [_text(row["label"], LABEL, j, "end"), *_range(row, at, (j + 0.5) * ROW)]
        i += 1 + len(group)
    scale = [_text(f"{mark} %", at(mark), n, "middle") for mark in (0, 100)]
    return _svg(title, LABEL + BAR + 28, ROW * (n + 1), Markup("").join([*drawn, *scale]))


def _range(row: Mapping[str, Any], at: Callable[[float], float], y: float) -> list[Markup]:
    drawn = []
    if row["control_low"] == row["control_low"]:
        left, right = at(row["control_low"]), at(row["control_high"])
        band = Markup('<rect class="some" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="9"/>')
        drawn.append(band.format(left, y - 4.5, max(right - left, 1)))
    drawn.append(_line("interval", at(row["ci_low"]), y, at(row["ci_high"]), y))
    return [*drawn, Markup('<circle class="whole" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(at(row["value"]), y)]


def _svg(title: str, width: float, height: float, drawn: Markup, box: str = "") -> Markup:
    frame = Markup('<svg role="img" viewBox="{}" width="{:.0f}" height="{:.0f}"><title>{}</title>{}</svg>')
    return frame.format(box or f"0 0 {width:.0f} {height:.0f}", width, height, title, drawn)


def _text(text: str, x: float, row: int, anchor: str) -> Markup:
    label = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    return label.format(x, row * ROW + 11, anchor, escape(text))


def _line(name: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    line = Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>')
    return line.format(name, x1, y1, x2, y2)
