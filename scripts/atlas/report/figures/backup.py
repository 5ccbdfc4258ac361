"""Which heads step in when another one is ablated: how direct attribution changes, head by head."""

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from atlas.core.multiple import ALPHA
from atlas.report import maps, style, wording

NAMED, CHANGED, ABLATED = 10, 12, 36  # changes listed, and rows and columns of a map, at most
LEAST = 0.01  # logits; smaller changes are not told apart
ROW, MAP, LEFT = 0.13, 3.2, 0.5  # inches: of a map its rows, its width, and what stands left of it


def others(backup: pd.DataFrame) -> pd.DataFrame:
    """Rows of all heads but the ablated one, with ``verdict``: `rises` or `falls` where the corrected p says so."""
    name = backup["layer"].astype(str) + "." + backup["head"].astype(str)
    rows = backup[name != backup["ablated"]].assign(name=name[name != backup["ablated"]])
    sure = (rows["change"].abs() >= LEAST) & (rows["p_holm"] < ALPHA)
    rises, falls = sure & (rows["change"] > 0), sure & (rows["change"] < 0)
    return rows.assign(verdict=rises.map({True: "rises", False: ""}) + falls.map({True: "falls", False: ""}))


def draw(backup: pd.DataFrame, main_tasks: list[str], diverging: str) -> Figure:
    """A band for each task: left, the change of every head (row) that surely changes, whichever head (column) is
    ablated, the strongest of both; right, the largest changes with intervals."""
    rows = others(backup)
    limit = float(rows["change"].abs().max()) if len(rows) else 1
    norm, cmap = style.centred(limit), matplotlib.colormaps[diverging]
    names = {task: chosen(rows[rows["task"] == task]) for task in main_tasks}
    tall = {task: ROW * max(len(changed), 1) for task, (changed, _) in names.items()}
    heights = {task: max(tall[task] + 0.5, 0.15 * NAMED + 0.1) for task in main_tasks}
    fig = style.figure(style.PAGE, sum(heights.values()) + 0.5 * len(main_tasks), layout=None)
    top = 0.25
    for task, (changed, ablated) in names.items():
        of_task = rows[rows["task"] == task]
        wide = min(MAP, 0.26 * max(len(ablated), 1))
        ax = style.axes_at(fig, LEFT, top, wide, tall[task])
        ratios = backup[backup["task"] == task].drop_duplicates("ablated").set_index("ablated")["scale_ratio"]
        _map(ax, of_task, changed, ablated, ratios, cmap, norm)
        ax.annotate(wording.words(task), (0, 1), (-34, 6), "axes fraction", "offset points", weight="bold")
        if task == main_tasks[0]:
            maps.bar(fig, LEFT + MAP + 0.12, top + 0.1, 0.9, cmap, norm, "change\n(logits)")
        ax = style.axes_at(fig, LEFT + MAP + 1.45, top, style.PAGE - LEFT - MAP - 1.55, 0.15 * NAMED)
        _largest(ax, of_task, cmap, norm, limit)
        ax.set_title("largest sure changes", size=style.SMALL, weight="normal", pad=3)
        top += heights[task] + 0.5
    return fig


def chosen(rows: pd.DataFrame) -> tuple[list[str], list[str]]:
    """(heads that surely change, ablated heads) of a map, the strongest of each, in the order of the model.

    Where nothing surely changes there are no rows, and the columns are the first ablated heads.
    """
    sure = rows[rows["verdict"] != ""].assign(size=lambda r: r["change"].abs())

    def strongest(column: str, most: int) -> list[str]:
        sizes = sure.groupby(column)["size"].max().sort_values(ascending=False, kind="stable")
        return sorted(sizes.index[:most], key=wording.place)

    every = sorted(set(rows["ablated"]), key=wording.place)
    return strongest("name", CHANGED), strongest("ablated", ABLATED) or every[:ABLATED]


def _map(
    ax: Axes,
    rows: pd.DataFrame,
    changed: list[str],
    ablated: list[str],
    ratios: pd.Series,
    cmap: matplotlib.colors.Colormap,
    norm: Normalize,
) -> None:
    """A dot where the corrected test is sure; below each column by how much the final norm's scale changes."""
    place = rows[rows["name"].isin(changed) & rows["ablated"].isin(ablated)]
    at = [changed.index(n) for n in place["name"]], [ablated.index(n) for n in place["ablated"]]
    grid, dots = np.full((max(1, len(changed)), len(ablated)), np.nan), np.zeros((max(1, len(changed)), len(ablated)))
    grid[at], dots[at] = place["change"], place["verdict"] != ""
    maps.draw(ax, grid, cmap, norm, dots=dots == 1, lines=style.GHOST)
    if not changed:
        ax.text(0.02, 0.5, "no head surely changes", transform=ax.transAxes, va="center", size=style.TINY)
    ax.set_yticks(range(len(changed)), changed)
    ax.set_xticks(range(len(ablated)), ablated, rotation=90)
    ax.tick_params(labelsize=style.LEAST)
    ax.set_ylabel("head", size=style.SMALL, labelpad=2)
    for x, name in enumerate(ablated):
        look: dict[str, Any] = {"size": style.LEAST, "rotation": 90, "color": style.GREY, "ha": "center", "va": "top"}
        text = wording.number(ratios[name], 2)
        ax.annotate(text, (x, 0), (0, -19), ("data", "axes fraction"), "offset points", **look)
    said = "ablated head; grey: by what factor the final norm's scale changes"
    ax.annotate(said, (0, 0), (-34, -42), "axes fraction", "offset points", size=style.TINY)


def _largest(ax: Axes, rows: pd.DataFrame, cmap: matplotlib.colors.Colormap, norm: Normalize, limit: float) -> None:
    sure = rows[rows["verdict"] != ""]
    first = sure.loc[sure["change"].abs().sort_values(ascending=False, kind="stable").index].head(NAMED)
    colours = [cmap(norm(np.sign(value) * 0.75 * limit)) for value in first["change"]]
    y = range(len(first))
    ax.hlines(y, first["change_ci_low"], first["change_ci_high"], color=colours, lw=1.2)
    ax.scatter(first["change"], y, s=12, color=colours, linewidth=0, zorder=3)
    ax.axvline(0, color=style.GREY, lw=0.7)
    names = [f"{head} without {gone}" for head, gone in zip(first["name"], first["ablated"], strict=True)]
    ax.set_yticks(y, names, size=style.TINY)
    ends = (first["change_ci_low"].min(), first["change_ci_high"].max()) if len(first) else (-limit, limit)
    ax.set(ylim=(NAMED - 0.5, -0.5), xlim=(1.06 * min(ends[0], -0.05 * limit), 1.06 * max(ends[1], 0.05 * limit)))
    ax.set_xlabel("change (logits)", size=style.SMALL, labelpad=1)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.tick_params(labelsize=style.TINY)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
