"""Every circuit evaluated on every task: percent of full with intervals, on the prompts held out from the search."""

from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.typing import ColorType

from atlas.report import style, wording

WIDTH, HEIGHT = 0.72, 0.42  # inches of a cell
HEAD = 0.62  # inches above the cells


def values(cross: pd.DataFrame) -> pd.DataFrame:
    """The rows that the figure shows."""
    return cross[cross["metric"] == "percent_of_full"]


def draw(cross: pd.DataFrame, tasks: list[str], main_tasks: list[str], sequential: str) -> Figure:
    """Rows: circuits of the main tasks, then `shared`, `union`, `all but shared`. Columns: `tasks`, main ones first.

    A percentage has two fixed ends, nothing kept (0) and the full model (100), so the map is sequential between them.
    """
    table = values(cross)
    circuits = [c for c in [*main_tasks, *wording.COMBINED] if (table["circuit"] == c).any()]
    norm, cmap = Normalize(0, 100), matplotlib.colormaps[sequential]
    label = 0.2 + 0.062 * max(len(name) for name in [*circuits, "circuit"])
    width = min(WIDTH, (style.PAGE - label - 0.7) / len(tasks))
    fig = style.figure(label + width * len(tasks) + 0.65, HEAD + HEIGHT * len(circuits) + 0.2, layout=None)
    ax = style.axes_at(fig, label, HEAD, width * len(tasks), HEIGHT * len(circuits))
    for row in table.itertuples():
        if row.task in tasks and row.circuit in circuits:
            _cell(ax, tasks.index(row.task), circuits.index(row.circuit), row, cmap(norm(row.value)))
    _sides(ax, tasks, main_tasks, circuits)
    inches = fig.get_size_inches()
    for text, up in (("circuit", 0.1), ("task \u2192", 0.27)):
        fig.text(0.05 / inches[0], 1 - (HEAD - up) / inches[1], text, size=style.SMALL, color=style.GREY)
    bar = style.axes_at(fig, label + width * len(tasks) + 0.12, HEAD, 0.1, HEIGHT * len(circuits))
    over, under = table["value"].max() > 100, table["value"].min() < 0
    extend = {(True, True): "both", (True, False): "max", (False, True): "min", (False, False): "neither"}
    fig.colorbar(matplotlib.cm.ScalarMappable(norm, cmap), cax=bar, extend=extend[bool(over), bool(under)])
    bar.tick_params(labelsize=style.TINY)
    bar.set_title("% of full", size=style.TINY, weight="normal", loc="center")
    return fig


def _cell(ax: Axes, x: int, y: int, row: Any, colour: ColorType) -> None:
    """A value over its interval; framed where a circuit meets its own task."""
    ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor="white", linewidth=0.8))
    ends = f"[{wording.number(row.ci_low)}, {wording.number(row.ci_high)}]"
    for text, at, size in ((wording.number(row.value), y - 0.15, style.TEXT), (ends, y + 0.23, style.TINY)):
        ax.text(x, at, text, ha="center", va="center", size=size, color=style.ink_on(colour))
    if row.circuit == row.task:
        frame: dict[str, Any] = {"facecolor": "none", "edgecolor": style.INK, "linewidth": 1.4, "zorder": 3}
        ax.add_patch(Rectangle((x - 0.46, y - 0.45), 0.92, 0.9, **frame))


def _sides(ax: Axes, tasks: list[str], main_tasks: list[str], circuits: list[str]) -> None:
    """Names at the sides, and dashes between what the main tasks' circuits are and what is made of them."""
    ax.set(xlim=(-0.5, len(tasks) - 0.5), ylim=(len(circuits) - 0.5, -0.5))
    ax.xaxis.tick_top()
    ax.set_xticks(range(len(tasks)), [wording.words(task, 11) for task in tasks])
    ax.set_yticks(range(len(circuits)), [wording.words(c) for c in circuits])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    for names, rule in ((tasks, ax.axvline), (circuits, ax.axhline)):
        if len(main_tasks) < len(names):
            rule(len(main_tasks) - 0.5, color=style.INK, lw=1, ls=(0, (4, 3)))
