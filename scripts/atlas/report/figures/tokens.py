"""One prompt of each template as the model reads it: the string, position, id and role of every token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from atlas.report import style, wording

if TYPE_CHECKING:
    import pandas as pd

SIZE = style.TINY  # points
ADVANCE = 0.602  # width of a monospace character, of its size
SMALLEST = 4.6  # points of the text in boxes: so small where a whole prompt then stands on one line
BOX, LINE, GAP = 2.9 * SIZE, 3.9 * SIZE, 1.5  # height of a token's box, line to line, and between boxes, in points
LABEL = 36  # points left of the boxes, for "clean" and "corrupted"
MOST = 12  # prompts that are drawn
SHOWN = {"members": "member", "last": "last, answers", "bos": "BOS", "separators": "other", "answer": "answer"}
SHOWN |= {"incorrect": "incorrect"}


def draw(tokens: pd.DataFrame, info: dict[str, Any], colours: dict[str, str]) -> Figure:
    """`info` is prompts.json, of which `slow_tokenizer` is shown. `colours` has `clean` and `corrupted`.

    Of a table of more than `MOST` prompts (a template in many layouts) the first are drawn.
    """
    width, prompts = 72 * style.PAGE, tokens["prompt"].unique()
    tokens = tokens[tokens["prompt"].isin(prompts[:MOST])]
    size = size_of([rows for _, rows in tokens.groupby(["prompt", "run"], sort=False)], width - LABEL - 2)
    blocks = [
        (prompt, [(run, _lines(rows, width - LABEL - 2, size)) for run, rows in group.groupby("run", sort=False)])
        for prompt, group in tokens.groupby("prompt", sort=False)
    ]
    lines = sum(len(found) for _, runs in blocks for _, found in runs)
    height = lines * LINE + len(blocks) * 2.1 * SIZE + 5.4 * SIZE
    fig = style.figure(style.PAGE, height / 72, layout=None)
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.axis("off")

    ax.text(2, 1.4 * SIZE, wording.words(tokens["task"].iloc[0]), weight="bold", size=style.TEXT, va="center")
    _legend(ax, 3.6 * SIZE, [role for role in SHOWN if (tokens["role"] == role).any()], colours)
    rest = f"{len(prompts) - MOST} more prompts in tokens.parquet; " if len(prompts) > MOST else ""
    rest += _about(info["slow_tokenizer"])
    ax.text(width - 2, 1.4 * SIZE, rest, size=SIZE, va="center", ha="right", color=style.GREY)
    y = 6.0 * SIZE
    for prompt, runs in blocks:
        template = tokens.loc[tokens["prompt"] == prompt, "template"].iloc[0]
        ax.text(2, y, f"prompt {prompt}   {template}", size=SIZE, va="center", color=style.GREY)
        y += 1.3 * SIZE
        for run, found in runs:
            ax.text(2, y + BOX / 2, run, size=SIZE, va="center", color=style.GREY)
            for line in found:
                for x, across, token in line:
                    _token(ax, LABEL + x, y, across, token, colours, size)
                y += LINE
        y += 0.8 * SIZE
    return fig


def visible(string: str) -> str:
    """A token's string with its spaces and line breaks to be seen; a middle dot where it adds no character."""
    return string.replace(" ", "␣").replace("\n", "↵") or "·"


def _label(token: dict[str, Any]) -> str:
    return "<bos>" if token["role"] == "bos" else visible(token["string"])


def _width(token: dict[str, Any], size: float) -> float:
    """Points of a token's box."""
    return max(len(_label(token)), len(str(token["id"]))) * ADVANCE * size + 0.6 * size


def size_of(runs: list[pd.DataFrame], room: float) -> float:
    """Points of the text in boxes: as large as lets every prompt stand on one line, if that can be read; else SIZE."""
    records = [rows.to_dict("records") for rows in runs]
    widest = max((sum(_width(token, 1) for token in tokens) for tokens in records), default=1)
    free = room - GAP * max(map(len, records), default=0)
    return min(SIZE, free / widest) if free / widest >= SMALLEST else SIZE


def _lines(rows: pd.DataFrame, room: float, size: float) -> list[list[tuple[float, float, dict[str, Any]]]]:
    """Boxes (left edge, width, token) divided into lines of at most ``room`` points."""
    lines: list[list[tuple[float, float, dict[str, Any]]]] = [[]]
    x = 0.0
    for token in rows.to_dict("records"):
        across = _width(token, size)
        if x + across > room + 0.01 and lines[-1]:
            lines, x = [*lines, []], 0.0
        lines[-1].append((x, across, token | {"label": _label(token)}))
        x += across + GAP
    return lines


def _faces(role: str, colours: dict[str, str]) -> dict[str, Any]:
    """How the box of a role is drawn."""
    fill = {
        "members": style.tint(colours["clean"], 0.35),
        "last": style.tint(colours["corrupted"], 0.7),
        "answer": colours["clean"],
        "bos": style.GHOST,
    }
    return {"facecolor": fill.get(role, "white"), "edgecolor": style.GREY if role == "incorrect" else style.FAINT}


def _token(
    ax: Axes, x: float, y: float, across: float, token: dict[str, Any], colours: dict[str, str], size: float
) -> None:
    faces = _faces(token["role"], colours)
    ax.add_patch(Rectangle((x, y), across, BOX, linewidth=0.5, **faces))
    ink = style.ink_on(faces["facecolor"]) if faces["facecolor"] != "white" else style.INK
    middle = x + across / 2
    text: dict[str, Any] = {"ha": "center", "va": "center", "family": "monospace", "color": ink}
    ax.text(middle, y + 0.3 * BOX, token["label"], size=size, **text)
    ax.text(middle, y + 0.74 * BOX, str(token["id"]), size=0.8 * size, **text)
    below = text | {"color": style.GREY}
    ax.text(middle, y + BOX + 0.4 * SIZE, str(token["position"]), size=0.75 * size, **below)


def _legend(ax: Axes, y: float, roles: list[str], colours: dict[str, str]) -> None:
    x = 2.0
    for role in roles:
        ax.add_patch(Rectangle((x, y - 0.5 * SIZE), 2 * SIZE, SIZE, linewidth=0.5, **_faces(role, colours)))
        ax.text(x + 2.5 * SIZE, y, SHOWN[role], size=SIZE, va="center")
        x += (4 + 0.6 * len(SHOWN[role])) * SIZE


def _about(slow: dict[str, Any] | None) -> str:
    if slow is None:
        return "no slow tokenizer to compare with"
    return f"{slow['different']} of {slow['compared']} texts split otherwise by the slow tokenizer"
