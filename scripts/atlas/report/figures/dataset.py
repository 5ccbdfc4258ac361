"""A sample of the prompts of one task: clean beside corrupted, members marked, and how many prompts there are."""

import re
import textwrap
from collections.abc import Iterable
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from atlas.prompts import layouts
from atlas.report import style, wording

SIZE = style.SMALL  # points, monospace
ADVANCE = 0.602 * SIZE  # width of a monospace character, in points
LINE = 1.75 * SIZE  # from line to line
LABEL = 46  # points left of the text, for "clean" and "corrupted"


def draw(prompts: pd.DataFrame, info: dict[str, Any], colours: dict[str, str], examples: int = 3) -> Figure:
    """`info` is prompts.json. `colours` has `clean` and `corrupted`. At least one example for each template."""
    columns = int((72 * style.PAGE - LABEL) / ADVANCE) - 1
    templates = prompts.groupby("template", sort=False)
    blocks = [_block(row, columns) for row in _sample(templates, examples)]
    counts = info["counts"]
    rejected = sum(counts["rejected"].values())  # reason -> prompts
    repeated = prompts["answer_in_corrupted"].mean()
    by = f" by {info['hold_out']}" if info["hold_out"] else ""
    head = [
        f"{counts['prompts']} prompts: {counts['search']} to search on, {counts['held_out']} held out{by}; "
        f"{counts['duplicates']} repeated, {rejected} rejected",
        f"the clean answer stands somewhere in {100 * repeated:.0f} % of the corrupted prompts",
    ]
    if "answer_tokens" in info["layout"]:
        head.append(_several(info))
    if len(layouts.all_of(info)) > 1:
        head.append(_layouts(layouts.all_of(info)))
    head = [line for text in head for line in textwrap.wrap(text, columns)]
    said = len(head)
    head += [f"{_template(name)}   ({wording.count(len(rows), 'prompt')})" for name, rows in templates]

    lines = 1.6 + len(head) + sum(len(clean) + len(corrupted) + 2.1 for _, clean, corrupted in blocks)
    fig = style.figure(style.PAGE, lines * LINE / 72, layout=None)
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, 72 * style.PAGE), ylim=(lines * LINE, 0))
    ax.axis("off")

    ax.text(2, LINE, f"{wording.words(prompts['task'].iloc[0])}", weight="bold", size=style.TEXT, va="center")
    y = 2.1 * LINE
    for i, text in enumerate(head):
        mono: dict[str, Any] = {"family": "monospace"} if i >= said else {}
        ax.text(2, y, text, size=SIZE, va="center", color=style.INK, **mono)
        y += LINE
    for row, clean, corrupted in blocks:
        ax.plot([2, 72 * style.PAGE - 2], [y - 0.2 * LINE] * 2, color=style.FAINT, lw=0.5)
        y += 0.5 * LINE
        y = _lines(ax, y, "clean", clean, style.tint(colours["clean"], 0.35))
        y = _lines(ax, y, "corrupted", corrupted, style.tint(colours["corrupted"], 0.7))
        y = _answers(ax, y, row, colours) + 0.6 * LINE
    return fig


def _sample(templates: Any, examples: int) -> list[pd.Series]:
    """Search prompts spread over the templates and over their rows, the same ones in every run."""
    each = -(-examples // len(templates))
    rows = []
    for t, (_, group) in enumerate(templates):
        searched = group[group["split"] == "search"]
        pool = searched if len(searched) else group
        rows += [pool.iloc[((t * each + k) * 7) % len(pool)] for k in range(each)]
    return rows


def _several(info: dict[str, Any]) -> str:
    """Numbers of tokens of members and answers, of a task where they may be several."""
    sizes = (layouts.answer_sizes(info, key) for key in ("answer_tokens", "incorrect_tokens"))
    right, wrong = map(wording.numbers_of_tokens, sizes)
    spans = info["layout"]["members"] if len(layouts.all_of(info)) == 1 else []  # else they differ
    members = wording.listing(last - first + 1 for first, last in spans)
    shown = f"members are of {members} tokens; " if members else ""
    return f"{shown}answers of {right}, incorrect ones of {wrong}"


def _layouts(found: list[dict[str, Any]], most: int = 8) -> str:
    """How many prompts each layout has."""
    sizes = [f"{layout['prompts']} of {layout['tokens']} tokens" for layout in found[:most]]
    rest = [f"{len(found) - most} smaller ones"] if len(found) > most else []
    return f"{len(found)} layouts, each with its own means: {wording.listing([*sizes, *rest])}"


def _template(template: object) -> str:
    return template if isinstance(template, str) else f"template {template}"


def _block(row: pd.Series, columns: int) -> tuple[pd.Series, list[Any], list[Any]]:
    clean = wrap(row["text"], spans(row["text"], row["members"]), columns)
    corrupted = wrap(row["corrupted_text"], spans(row["corrupted_text"], row["corrupted_members"]), columns)
    return row, clean, corrupted


def spans(text: str, members: Iterable[str]) -> list[tuple[int, int]]:
    """Where the members stand in the text, searched one after the other as whole words."""
    found, start = [], 0
    for member in members:
        match = re.compile(rf"(?<!\w){re.escape(member.strip())}(?!\w)").search(text, start)
        if match:
            found.append(match.span())
            start = match.end()
    return found


def wrap(text: str, marks: list[tuple[int, int]], columns: int) -> list[tuple[str, list[tuple[int, int]]]]:
    """Lines of at most `columns` characters, each with the marked spans that fall in it."""
    lines, start = [], 0
    while start < len(text):
        end = len(text)
        if end - start > columns:
            space = text.rfind(" ", start + 1, start + columns + 1)
            end = space if space > start else start + columns
        shown = text[start:end].replace("\n", "\u21b5")
        lines.append((shown, [(max(a, start) - start, min(b, end) - start) for a, b in marks if a < end and b > start]))
        start = end + 1 if text[end : end + 1] == " " else end
    return lines


def _lines(ax: Axes, y: float, label: str, lines: list[Any], colour: str) -> float:
    ax.text(2, y, label, size=SIZE, va="center", color=style.GREY)
    for text, marks in lines:
        for a, b in marks:
            _chip(ax, LABEL + a * ADVANCE, y, b - a, facecolor=colour)
        # Each word is placed by itself: a viewer with another font cannot shift the words off their marks.
        for word in re.finditer(r"\S+", text):
            ax.text(LABEL + word.start() * ADVANCE, y, word[0], size=SIZE, va="center", family="monospace")
        y += LINE
    return y


def _answers(ax: Axes, y: float, row: pd.Series, colours: dict[str, str]) -> float:
    answer, incorrect = (row[key].strip(" ").replace("\n", "\u21b5") for key in ("answer", "incorrect"))
    ax.text(2, y, "answer", size=SIZE, va="center", color=style.GREY)
    _chip(ax, LABEL, y, len(answer), facecolor=colours["clean"])
    ax.text(LABEL, y, answer, size=SIZE, va="center", family="monospace", color=style.ink_on(colours["clean"]))
    x = LABEL + (len(answer) + 3) * ADVANCE
    ax.text(x, y, "incorrect", size=SIZE, va="center", color=style.GREY)
    x += 40
    _chip(ax, x, y, len(incorrect), facecolor="white", edgecolor=style.GREY)
    ax.text(x, y, incorrect, size=SIZE, va="center", family="monospace")
    return y + LINE


def _chip(ax: Axes, x: float, y: float, characters: int, facecolor: str, edgecolor: str = "none") -> None:
    pad = 0.25 * ADVANCE
    box = (x - pad, y - 0.68 * SIZE), characters * ADVANCE + 2 * pad, 1.36 * SIZE
    ax.add_patch(Rectangle(*box, facecolor=facecolor, edgecolor=edgecolor, linewidth=0.6))
