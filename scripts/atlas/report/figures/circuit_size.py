"""How large the circuits are and how much of the model they keep, at every threshold and search order."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.typing import ColorType

from atlas.report import style, wording

METRICS = {"percent_of_full": "% of full", "faithfulness": "faithfulness"}
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]


def sizes(faithfulness: pd.DataFrame) -> pd.DataFrame:
    """Number of components beside the number of heads."""
    return faithfulness.assign(components=faithfulness["heads"] + faithfulness["mlps"])


def draw(faithfulness: pd.DataFrame, main_tasks: list[str], sequential: str) -> Figure:
    """Columns are tasks; rows are metric x (components, heads). Hollow: search prompts, filled: held-out prompts."""
    table = sizes(faithfulness)
    orders, thresholds = list(table["order"].unique()), sorted(table["threshold"].unique())
    shades = matplotlib.colormaps[sequential](np.linspace(0.1, 0.85, len(thresholds)))
    colours = dict(zip(thresholds, shades, strict=True))
    rows = [(metric, size) for metric in METRICS for size in ("components", "heads")]
    width = min(style.PAGE, 1.2 + 2.6 * len(main_tasks))
    fig = style.figure(width, 1.45 * len(rows) + 0.75)
    axes = fig.subplots(len(rows), len(main_tasks), squeeze=False, sharex="row")
    for i, (metric, size) in enumerate(rows):
        low, high = table[size].min(), table[size].max()
        room = max(1, 0.06 * (high - low))
        axes[i, 0].set_xlim(low - room, high + room)
        for j, task in enumerate(main_tasks):
            here = table[(table["task"] == task) & (table["metric"] == metric)]
            _panel(axes[i, j], here, size, 0.012 * (high - low + 2 * room), orders, colours)
            axes[i, j].set_xlabel(f"number of {size}")
            if metric == "percent_of_full":
                for threshold, shade in colours.items():
                    axes[i, j].axhline(100 - threshold, color=shade, lw=0.7, ls=(0, (5, 3)), zorder=0)
        for ax in axes[i, 1:]:
            ax.sharey(axes[i - i % 2, 0])
            ax.tick_params(labelleft=False)
        if i % 2:
            axes[i, 0].sharey(axes[i - 1, 0])
        axes[i, 0].set_ylabel(METRICS[metric])
    for ax, task in zip(axes[0], main_tasks, strict=True):
        ax.set_title(wording.words(task))
    fig.legend(
        handles=_legend(orders, colours, set(table["split"])),
        loc="outside upper center",
        ncols=4 if len(main_tasks) > 1 else 2,
    )
    return fig


def _panel(
    ax: Axes, rows: pd.DataFrame, size: str, spread: float, orders: list[str], shades: dict[float, ColorType]
) -> None:
    """Search points stand `spread` left of their size, held-out points as far to its right."""
    for row in rows.itertuples():
        held_out = row.split == "held_out"
        x = getattr(row, size) + (spread if held_out else -spread)
        colour = shades[row.threshold]
        ax.vlines(x, row.ci_low, row.ci_high, color=colour, lw=1.2)
        ax.scatter(
            x,
            row.value,
            s=15,
            marker=MARKERS[orders.index(row.order) % len(MARKERS)],
            edgecolor=[colour],
            facecolor=[colour] if held_out else "white",
            linewidth=0.9,
            zorder=3,
        )
    ax.grid()
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(5))


def _legend(orders: list[str], shades: dict[float, ColorType], splits: set[str]) -> list[Artist]:
    def mark(marker: str, face: ColorType, edge: ColorType, label: str) -> Line2D:
        return Line2D(
            [], [], ls="", marker=marker, markersize=4.5, markerfacecolor=face, markeredgecolor=edge, label=label
        )

    handles: list[Artist] = [
        mark(MARKERS[i % len(MARKERS)], style.GREY, style.GREY, f"order {wording.words(order)}")
        for i, order in enumerate(orders)
    ]
    handles += [Line2D([], [], color=shade, lw=3, label=f"threshold {t:g} %") for t, shade in shades.items()]
    faces = {"search": ("white", "search prompts"), "held_out": (style.INK, "held-out prompts")}
    handles += [mark("o", face, style.INK, label) for split, (face, label) in faces.items() if split in splits]
    handles += [Line2D([], [], color=style.GREY, lw=0.7, ls=(0, (5, 3)), label="floor of the search")]
    return handles
