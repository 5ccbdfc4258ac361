"""Why a head matters: patching where it looks (pattern) against what it finds there (value) against both (output)."""

import math
from collections.abc import Callable
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from atlas.report import maps, style, wording
from atlas.report.figures.patching import DIRECTIONS, changes

NAMED = 6  # heads named in a panel
WEAK = 0.05  # changes below this share of the largest need no name
ACROSS = 3


def by_head(table: pd.DataFrame) -> pd.DataFrame:
    """Columns z, pattern, v of every query head (layer, head), from changes of one task and direction.

    Under grouped queries the v of a head is that of its group.
    """
    wide = table[table["site"].isin(["z", "pattern"])].pivot(index=["layer", "head"], columns="site", values="value")
    values = table[table["site"] == "v"].set_index(["layer", "head"])["value"]
    heads, groups = (index.get_level_values("head").max() + 1 for index in (wide.index, values.index))
    wide["v"] = [values[layer, head * groups // heads] for layer, head in wide.index]
    return wide.reset_index()


def draw(patching: pd.DataFrame, membership: pd.DataFrame, main_tasks: list[str], diverging: str) -> Figure:
    """A column for each task, a row for each direction; colour is the change when the output (z) is patched."""
    table = changes(patching[patching["head"] >= 0])
    points = {
        (task, direction): by_head(table[(table["task"] == task) & (table["direction"] == direction)])
        for task in main_tasks
        for direction in DIRECTIONS
    }
    norm = style.centred(max((float(p["z"].abs().max()) for p in points.values()), default=1))
    columns = min(ACROSS, len(main_tasks))
    bands = math.ceil(len(main_tasks) / columns)
    side = min(1.95, (style.PAGE - 1.25) / columns - 0.25)
    step = side + 0.62
    fig = style.figure(max(columns * (side + 0.25) + 1.25, style.COLUMN), 2 * bands * step + 0.35, layout=None)
    for i, task in enumerate(main_tasks):
        band, column = divmod(i, columns)
        for d, direction in enumerate(DIRECTIONS):
            ax = style.axes_at(fig, 0.55 + column * (side + 0.25), 0.35 + (2 * band + d) * step, side, side)
            own = [points[t, direction] for t in main_tasks]
            limits = [(min(p[k].min() for p in own), max(p[k].max() for p in own)) for k in ("pattern", "v")]
            _panel(ax, points[task, direction], maps.circuit_heads(membership, task), norm, diverging, limits)
            ax.set_title(f"{wording.words(task)}, {direction}", size=style.SMALL)
            ax.set_xlabel("change by pattern", size=style.SMALL)
            if column == 0:
                ax.set_ylabel("change by value", size=style.SMALL)
            else:
                ax.tick_params(labelleft=False)
    left = 0.55 + columns * (side + 0.25) - 0.05
    maps.bar(fig, left, 0.6, min(1.4, side), diverging, norm, "change by\noutput (z)")
    return fig


def _panel(ax: Axes, points: pd.DataFrame, circuit: list[str], norm: Any, diverging: str, limits: list[Any]) -> None:
    cmap = matplotlib.colormaps[diverging]
    names = [f"{layer}.{head}" for layer, head in zip(points["layer"], points["head"], strict=True)]
    points = points.assign(name=names, inside=[name in circuit for name in names])
    for inside, rows in points.groupby("inside"):
        ax.scatter(
            rows["pattern"],
            rows["v"],
            s=30 if inside else 16,
            c=rows["z"],
            cmap=cmap,
            norm=norm,
            marker="o" if inside else "s",
            edgecolor=style.INK if inside else style.FAINT,
            linewidth=0.9 if inside else 0.5,
            zorder=3 if inside else 2,
        )
    strong = points.assign(size=points["z"].abs(), x=points["pattern"], y=points["v"])
    strong = strong[strong["size"] >= WEAK * norm.vmax].sort_values("size", ascending=False)
    for row in maps.named(strong, NAMED, tuple(high - low for low, high in limits)).itertuples():
        ax.annotate(row.name, (row.x, row.y), (3.5, 2.5), textcoords="offset points", size=style.TINY, zorder=4)
    puts: tuple[Callable[..., Any], ...] = (ax.set_xlim, ax.set_ylim)
    for line, (low, high), put in zip((ax.axvline, ax.axhline), limits, puts, strict=True):
        line(0, color=style.GREY, lw=0.6, zorder=1)
        low, high = min(low, 0), max(high, 0)
        edge = 0.1 * (high - low) or 1
        put(low - edge, high + 1.8 * edge)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    ax.tick_params(labelsize=style.TINY)
    ax.grid()
