"""One prompt of each template as the model reads it: the string, position, id and role of every token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from atlas.report import style, wording

if TYPE_CHECKING:
    import pandas as pd

SIZE = style.TINY  # points, monospace
ADVANCE = 0.602 * SIZE  # width of a monospace character, in points
BOX, LINE, GAP = 2.9 * SIZE, 4.1 * SIZE, 2.0  # height of a token's box, line to line, and between boxes, in points
LABEL = 46  # points left of the boxes, for "clean" and "corrupted"
MOST = 12  # prompts that are drawn
SHOWN = {"members": "member", "last": "last, answers", "bos": "BOS", "separators": "other", "answer": "answer"}
SHOWN |= {"incorrect": "incorrect"}


def draw(tokens: pd.DataFrame, info: dict[str, Any], colours: dict[str, str]) -> Figure:
    """`info` is prompts.json, of which `slow_tokenizer` is shown. `colours` has `clean` and `corrupted`.

    Of a table of more than `MOST` prompts (a template in many layouts) the first are drawn.
    """
    width, prompts = 72 * style.PAGE, tokens["prompt"].unique()
    tokens = tokens[tokens["prompt"].isin(prompts[:MOST])]
    blocks = [
        (prompt, [(run, _lines(rows, width - LABEL - 2)) for run, rows in group.groupby("run", sort=False)])
        for prompt, group in tokens.groupby("prompt", sort=False)
    ]
    lines = sum(len(found) for _, runs in blocks for _, found in runs)
    height = lines * LINE + len(blocks) * 2.4 * SIZE + 6.6 * SIZE
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
        y += 1.6 * SIZE
        for run, found in runs:
            ax.text(2, y + BOX / 2, run, size=SIZE, va="center", color=style.GREY)
            for line in found:
                for x, across, token in line:
                    _token(ax, LABEL + x, y, across, token, colours)
                y += LINE
        y += 0.8 * SIZE
    return fig


def visible(string: str) -> str:
    """A token's string with its spaces and line breaks to be seen; a middle dot where it adds no character."""
    return string.replace(" ", "␣").replace("\n", "↵") or "·"


def _lines(rows: pd.DataFrame, room: float) -> list[list[tuple[float, float, dict[str, Any]]]]:
    """Boxes (left edge, width, token) divided into lines of at most ``room`` points."""
    lines: list[list[tuple[float, float, dict[str, Any]]]] = [[]]
    x = 0.0
    for token in rows.to_dict("records"):
        label = "<bos>" if token["role"] == "bos" else visible(token["string"])
        across = max(len(label), len(str(token["id"]))) * ADVANCE + 4
        if x + across > room and lines[-1]:
            lines, x = [*lines, []], 0.0
        lines[-1].append((x, across, token | {"label": label}))
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


def _token(ax: Axes, x: float, y: float, across: float, token: dict[str, Any], colours: dict[str, str]) -> None:
    faces = _faces(token["role"], colours)
    ax.add_patch(Rectangle((x, y), across, BOX, linewidth=0.5, **faces))
    ink = style.ink_on(faces["facecolor"]) if faces["facecolor"] != "white" else style.INK
    middle = x + across / 2
    text: dict[str, Any] = {"ha": "center", "va": "center", "family": "monospace", "color": ink}
    ax.text(middle, y + 0.3 * BOX, token["label"], size=SIZE, **text)
    ax.text(middle, y + 0.74 * BOX, str(token["id"]), size=0.8 * SIZE, **text)
    below = text | {"color": style.GREY}
    ax.text(middle, y + BOX + 0.45 * SIZE, str(token["position"]), size=0.7 * SIZE, **below)


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
