"""How large the circuits are and how much of the model they keep: a line for each, at every threshold and order."""

import math
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from matplotlib.typing import ColorType

from atlas.report import style, wording

METRICS = {"percent_of_full": "% of full", "faithfulness": "faithfulness"}
ROW, HEAD, FOOT = 0.165, 0.2, 0.4  # inches: a circuit, above a task's circuits, and below them
LINE = 0.85  # lines above the circuits of a threshold, for its name
NAMES, ACROSS, SIZES, GAP = 1.95, 1.55, 1.1, 0.17  # inches: the names, a metric, the sizes, and between them
SPLITS = {"search": -0.17, "held_out": 0.17}  # height of a mark in its row
LABELS = {"search": "prompts searched on", "held_out": "prompts held out"}


def shown(choice: pd.DataFrame) -> pd.DataFrame:
    """The circuits that are drawn, one row for each split and metric: of every search what it found at its own
    threshold, and what is reported at each, wherever it was found."""
    own = (choice["searched"] == choice["threshold"]) & (choice["candidate"] == "found")
    return choice[own | choice["reported"]]


def name_of(row: pd.Series) -> str:
    """`layers`, `layers, T = 10 %, less 2`: how it was found, at which other threshold, and how many were dropped."""
    dropped = len(str(row["dropped"]).split())
    found = [wording.words(row["order"])]
    found += [f"T = {row['searched']:g} %"] if row["searched"] != row["threshold"] else []
    found += [f"less {dropped}"] if row["candidate"] == "left" and dropped else []
    return ", ".join(found)


def lines_of(choice: pd.DataFrame, task: str) -> pd.DataFrame:
    """One row for each circuit of a task in the order drawn, by threshold."""
    rows = shown(choice[choice["task"] == task])
    keys = ["threshold", "order", "searched", "candidate"]
    return rows.drop_duplicates(keys).sort_values(["threshold", "searched"], kind="stable", ignore_index=True)


def draw(choice: pd.DataFrame, main_tasks: list[str], threshold: float, sequential: str) -> Figure:
    """A block for each task, in it a line for each circuit; ``threshold``: of the circuits that are compared."""
    circuits = {task: lines_of(choice, task) for task in main_tasks}
    thresholds = sorted(choice["threshold"].unique())
    shades = matplotlib.colormaps[sequential](np.linspace(0.1, 0.75, len(thresholds)))
    colours = dict(zip(thresholds, shades, strict=True))
    heights = {task: ROW * (len(rows) + LINE * rows["threshold"].nunique()) for task, rows in circuits.items()}
    down = sum(heights.values()) + (HEAD + 0.12) * len(main_tasks) + FOOT + 0.22
    fig = style.figure(style.PAGE, down, layout=None)
    spans = {metric: _span(shown(choice[choice["metric"] == metric])) for metric in METRICS}
    largest, top = int((choice["heads"] + choice["mlps"]).max()), 0.34 + HEAD
    for task, rows in circuits.items():
        last, places = task == main_tasks[-1], _places(rows)
        own = shown(choice[choice["task"] == task])
        for i, (metric, label) in enumerate(METRICS.items()):
            ax = style.axes_at(fig, NAMES + i * (ACROSS + GAP), top, ACROSS, heights[task])
            _frame(ax, rows, places, threshold, label if last else "")
            _scores(ax, rows, places, own[own["metric"] == metric], colours, floors=metric == "percent_of_full")
            ax.set_xlim(spans[metric])
            ax.tick_params(labelbottom=last)
            if i == 0:
                _names(ax, rows, places, wording.words(task))
        ax = style.axes_at(fig, NAMES + len(METRICS) * (ACROSS + GAP), top, SIZES, heights[task])
        _frame(ax, rows, places, threshold, "components" if last else "")
        _sizes(ax, rows, places, largest)
        ax.tick_params(labelbottom=last)
        top += heights[task] + HEAD + 0.12
    fig.legend(handles=_legend(colours, set(choice["split"])), loc="upper left", ncols=4, borderaxespad=0.2)
    return fig


def _span(rows: pd.DataFrame) -> tuple[float, float]:
    """Ends of an axis that holds every interval, 0 and the full model."""
    full = 100 if (rows["metric"] == "percent_of_full").all() else 1
    low, high = min(0, rows["ci_low"].min()), max(full, rows["ci_high"].max())
    return low - 0.03 * (high - low), high + 0.03 * (high - low)


def _places(rows: pd.DataFrame) -> list[float]:
    """The height of each circuit, with a line free above those of each threshold."""
    return [i + LINE * group for i, group in enumerate(rows["threshold"].rank(method="dense"))]


def _frame(ax: Axes, rows: pd.DataFrame, places: list[float], threshold: float, label: str) -> None:
    ax.set(ylim=((places[-1] if places else 0) + 0.5, -0.5), xlabel=label)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x")
    ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    for y, reported, at in zip(places, rows["reported"], rows["threshold"], strict=True):
        if reported and math.isclose(at, threshold):
            ax.axhspan(y - 0.48, y + 0.48, color=style.GHOST, lw=0, zorder=0)


def _names(ax: Axes, rows: pd.DataFrame, places: list[float], task: str) -> None:
    at = ax.get_yaxis_transform()
    ax.annotate(task, (0, 1), (-NAMES * 72 + 4, 6), "axes fraction", "offset points", weight="bold", size=style.TEXT)
    for i, (y, (_, row)) in enumerate(zip(places, rows.iterrows(), strict=True)):
        if i == 0 or row["threshold"] != rows.at[i - 1, "threshold"]:
            text = f"T = {row['threshold']:g} %"
            left = 0.06 / ACROSS - NAMES / ACROSS
            ax.text(left, y - 0.9, text, transform=at, va="center", size=style.SMALL, color=style.GREY)
        reported = bool(row["reported"])
        look: dict[str, Any] = {"weight": "bold" if reported else "normal", "size": style.TINY}
        ax.text(-0.04, y, name_of(row) + (" \u2605" if reported else ""), transform=at, va="center", ha="right", **look)


def _scores(
    ax: Axes,
    rows: pd.DataFrame,
    places: list[float],
    scores: pd.DataFrame,
    colours: dict[float, ColorType],
    floors: bool,
) -> None:
    for y, row in zip(places, rows.itertuples(), strict=True):
        own = scores[(scores["threshold"] == row.threshold) & (scores["order"] == row.order)]
        own = own[(own["searched"] == row.searched) & (own["candidate"] == row.candidate)]
        colour = colours[row.threshold]
        for mark in own.itertuples():
            at = y + SPLITS.get(mark.split, 0)
            ax.hlines(at, mark.ci_low, mark.ci_high, color=colour, lw=1.1)
            face = colour if mark.split == "held_out" else "white"
            ax.scatter(mark.value, at, s=12, facecolor=[face], edgecolor=[colour], linewidth=0.9, zorder=3)
        if floors:
            ax.vlines(100 - row.threshold, y - 0.5, y + 0.5, color=style.INK, lw=0.8, ls=(0, (3, 2)), zorder=1)


def _sizes(ax: Axes, rows: pd.DataFrame, places: list[float], largest: int) -> None:
    """Heads, then MLPs: counts, which have no interval."""
    ax.barh(places, rows["heads"], height=0.62, color=style.tint(style.GREY, 0.6))
    ax.barh(places, rows["mlps"], left=rows["heads"], height=0.62, color=style.GREY)
    for y, row in zip(places, rows.itertuples(), strict=True):
        text = f"{row.heads} + {row.mlps}"
        ax.text(row.heads + row.mlps + 0.03 * largest, y, text, va="center", size=style.TINY)
    ax.set_xlim(0, 1.42 * max(largest, 1))
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))


def _legend(colours: dict[float, ColorType], splits: set[str]) -> list[Artist]:
    marks = {"search": "white", "held_out": style.INK}
    look: dict[str, Any] = {"ls": "", "marker": "o", "markersize": 4, "markeredgecolor": style.INK}
    handles: list[Artist] = [
        Line2D([], [], markerfacecolor=face, label=LABELS[split], **look)
        for split, face in marks.items()
        if split in splits
    ]
    handles.append(Line2D([], [], color=style.INK, lw=0.8, ls=(0, (3, 2)), label="floor of the search"))
    handles.append(Line2D([], [], ls="", marker="*", markersize=7, color=style.INK, label="reported"))
    handles.append(Patch(color=style.GHOST, label="compared between tasks"))
    handles.append(Patch(color=style.tint(style.GREY, 0.6), label="heads"))
    handles.append(Patch(color=style.GREY, label="MLPs"))
    return handles
