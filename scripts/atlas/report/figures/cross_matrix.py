"""Every circuit evaluated on every task: percent of full with intervals, on the prompts held out from the search."""

import matplotlib
import pandas as pd
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from atlas.report import style, wording

WIDTH, HEIGHT = 0.72, 0.42  # inches of a cell


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
    head = 0.62
    fig = style.figure(label + width * len(tasks) + 0.65, head + HEIGHT * len(circuits) + 0.2, layout=None)
    ax = style.axes_at(fig, label, head, width * len(tasks), HEIGHT * len(circuits))
    for row in table.itertuples():
        if row.task not in tasks or row.circuit not in circuits:
            continue
        x, y = tasks.index(row.task), circuits.index(row.circuit)
        colour = cmap(norm(row.value))
        ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor="white", linewidth=0.8))
        ax.text(
            x,
            y - 0.15,
            wording.number(row.value),
            ha="center",
            va="center",
            size=style.TEXT,
            color=style.ink_on(colour),
        )
        ax.text(
            x,
            y + 0.23,
            f"[{wording.number(row.ci_low)}, {wording.number(row.ci_high)}]",
            ha="center",
            va="center",
            size=style.TINY,
            color=style.ink_on(colour),
        )
        if row.circuit == row.task:
            ax.add_patch(
                Rectangle(
                    (x - 0.46, y - 0.45), 0.92, 0.9, facecolor="none", edgecolor=style.INK, linewidth=1.4, zorder=3
                )
            )
    ax.set(xlim=(-0.5, len(tasks) - 0.5), ylim=(len(circuits) - 0.5, -0.5))
    ax.xaxis.tick_top()
    ax.set_xticks(range(len(tasks)), [wording.words(task, 11) for task in tasks])
    ax.set_yticks(range(len(circuits)), [wording.words(c) for c in circuits])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    if len(main_tasks) < len(tasks):
        ax.axvline(len(main_tasks) - 0.5, color=style.INK, lw=1, ls=(0, (4, 3)))
    if len(main_tasks) < len(circuits):
        ax.axhline(len(main_tasks) - 0.5, color=style.INK, lw=1, ls=(0, (4, 3)))
    inches = fig.get_size_inches()
    fig.text(0.05 / inches[0], 1 - (head - 0.1) / inches[1], "circuit", size=style.SMALL, color=style.GREY)
    fig.text(0.05 / inches[0], 1 - (head - 0.27) / inches[1], "task \u2192", size=style.SMALL, color=style.GREY)
    bar = style.axes_at(fig, label + width * len(tasks) + 0.12, head, 0.1, HEIGHT * len(circuits))
    over, under = table["value"].max() > 100, table["value"].min() < 0
    extend = {(True, True): "both", (True, False): "max", (False, True): "min", (False, False): "neither"}
    fig.colorbar(matplotlib.cm.ScalarMappable(norm, cmap), cax=bar, extend=extend[bool(over), bool(under)])
    bar.tick_params(labelsize=style.TINY)
    bar.set_title("% of full", size=style.TINY, weight="normal", loc="center")
    return fig
