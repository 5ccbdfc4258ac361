"""Can the index of a member be read by a probe that never saw its class? Of all members by layer, and of each class."""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from atlas.core.multiple import ALPHA
from atlas.geometry.read_names import ACCURACY, ALL, ALL_CLASSES, BEYOND, OTHERS
from atlas.report import maps, style, wording

LEFT, RIGHT, GAP, TOP, HIGH = 1.12, 0.62, 0.12, 0.52, 1.15  # inches: names, bar, between columns, legend, curves
NOTHING = "Fewer than two classes have members of one token: no probe can be tested on another class."


def draw(probes: pd.DataFrame, colours: dict[str, str], diverging: str) -> Figure:
    """A column for each label; above, scores of all members by layer with those of shuffled probes; below, each class
    that is left out, by how far its score is above chance, with a dot where that is surely more than shuffled."""
    if probes.empty:
        fig = style.figure(style.COLUMN, 0.6)
        fig.text(0.05, 0.5, NOTHING, size=style.TINY)
        return fig
    labels, points = list(dict.fromkeys(probes["label"])), sorted(set(probes["point"]))
    classes = [name for name in dict.fromkeys(probes["tested_on"]) if name not in (ALL, BEYOND)]
    wide = (style.PAGE - LEFT - RIGHT) / len(labels) - GAP
    cell = 0.14
    fig = style.figure(style.PAGE, TOP + HIGH + 0.42 + cell * len(classes) + 0.42, layout=None)
    norm = CenteredNorm(0, 1)
    for i, label in enumerate(labels):
        own, left = probes[probes["label"] == label], LEFT + i * (wide + GAP)
        ax = style.axes_at(fig, left, TOP, wide, HIGH)
        _curves(ax, own, colours)
        ax.set_title(f"index {label}" if label.startswith("mod") else "index", size=style.SMALL)
        ax.tick_params(labelsize=style.TINY, labelbottom=False, labelleft=i in (0, len(labels) - 1))
        below = style.axes_at(fig, left, TOP + HIGH + 0.3, wide, cell * len(classes))
        _map(below, own, classes, points, norm, diverging)
        below.set_yticks(range(len(classes)), [wording.words(name) for name in classes] if i == 0 else [])
        step = math.ceil(len(points) / 7)
        for panel in (ax, below):
            panel.set_xticks(range(0, len(points), step), points[::step])
            panel.set_xlim(-0.5, len(points) - 0.5)
        below.set_xlabel("layers passed", size=style.TINY, labelpad=2)
        if label == labels[-1]:
            ax.tick_params(labelleft=False, labelright=True, left=False, right=True)
            ax.spines[["right"]].set_visible(True)
            ax.spines[["left"]].set_visible(False)
            ax.yaxis.set_label_position("right")
            ax.set_ylabel("correlation", size=style.TINY, labelpad=2)
        if i == 0:
            ax.set_ylabel("accuracy", size=style.TINY, labelpad=2)
    fig.text(
        0.05 / style.PAGE,
        1 - (TOP + HIGH / 2) / fig.get_size_inches()[1],
        "all classes,\neach left out",
        size=style.TINY,
        va="center",
    )
    maps.bar(fig, style.PAGE - 0.46, TOP + HIGH + 0.34, cell * len(classes) - 0.1, diverging, norm, "above\nchance")
    fig.legend(handles=_legend(colours), loc="upper left", ncols=4, borderaxespad=0.2, fontsize=style.TINY)
    return fig


def _curves(ax: Axes, rows: pd.DataFrame, colours: dict[str, str]) -> None:
    """Of all members, of those beyond ten, and of probes that were trained on the class too."""
    every = _of(rows, OTHERS, ALL)
    x = np.arange(len(every))
    bottom = -1 if every["metric"].iloc[0] != ACCURACY else 0
    ax.fill_between(x, every["null_median"], every["null_high"], color=style.GHOST, lw=0)
    ax.axhline(every["chance"].iloc[0], color=style.GREY, lw=0.6, ls=":")
    bound = _of(rows, ALL_CLASSES, ALL)
    ax.plot(x, bound["value"], color=colours["corrupted"], lw=1)
    for tested_on, colour in ((BEYOND, colours["circuit"]), (ALL, colours["clean"])):
        own = _of(rows, OTHERS, tested_on)
        if len(own):
            ax.fill_between(x, own["ci_low"], own["ci_high"], color=colour, alpha=0.18, lw=0)
            ax.plot(x, own["value"], color=colour, lw=1)
            sure = (own["p_holm"] < ALPHA).to_numpy()
            ax.scatter(x[sure], own["value"][sure], s=9, color=colour, lw=0, zorder=3)
            ax.scatter(x[~sure], own["value"][~sure], s=8, facecolor="white", edgecolor=colour, lw=0.6, zorder=3)
    ax.set_ylim(bottom - 0.03, 1.04)
    ax.set_yticks([-1, 0, 1] if bottom else [0, 0.5, 1])
    ax.grid(axis="y")


def _of(rows: pd.DataFrame, trained_on: str, tested_on: str) -> pd.DataFrame:
    own = rows[(rows["trained_on"] == trained_on) & (rows["tested_on"] == tested_on)]
    return own.sort_values("point", ignore_index=True)


def above_chance(rows: pd.DataFrame) -> pd.Series:
    """Scores with chance at 0 and the best at 1; a correlation as it is."""
    return (rows["value"] - rows["chance"]) / (1 - rows["chance"])


def _map(ax: Axes, rows: pd.DataFrame, classes: list[str], points: list[int], norm: Any, cmap: str) -> None:
    own = rows[rows["trained_on"] == OTHERS].assign(above=above_chance).assign(sure=lambda r: r["p_holm"] < ALPHA)
    grid, dots = (
        own.pivot(index="tested_on", columns="point", values=name).loc[classes, points].to_numpy(kind)
        for name, kind in (("above", float), ("sure", bool))
    )
    maps.draw(ax, grid, cmap, norm, dots=dots, lines=style.GHOST if len(points) < 12 else "none")


def _legend(colours: dict[str, str]) -> list[Any]:
    mark: dict[str, Any] = {"marker": "o", "markersize": 3, "lw": 1}
    return [
        Line2D([], [], color=colours["clean"], label="members of classes never trained on", **mark),
        Line2D([], [], color=colours["circuit"], label="of these, index beyond ten", **mark),
        Line2D([], [], color=colours["corrupted"], lw=1, label="class trained on, other contexts"),
        Patch(color=style.GHOST, label="shuffled, median to 95 %"),
        Line2D([], [], color=style.GREY, ls=":", lw=0.8, label="chance"),
        Line2D([], [], color=style.GREY, ls="", marker="o", markersize=3, label="surely more than shuffled"),
        Line2D([], [], color=style.GREY, ls="", marker="o", markersize=3, markerfacecolor="white", label="not surely"),
    ]
