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

NAMED = 10  # heads named in a panel
WEAK = 0.05  # changes below this share of the largest need no name
ACROSS = 4
STARTED = {"denoising": "denoising: clean into corrupted", "noising": "noising: corrupted into clean"}


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
    side = min(2.3, (style.PAGE - 1.3) / columns - 0.12)
    step = side + 0.3
    wide = 0.6 + columns * (side + 0.12) + 0.62
    fig = style.figure(wide, bands * (2 * step + 0.35) + 0.3, layout=None)
    for i, task in enumerate(main_tasks):
        band, column = divmod(i, columns)
        for d, (direction, started) in enumerate(STARTED.items()):
            top = 0.3 + band * (2 * step + 0.35) + d * step
            ax = style.axes_at(fig, 0.6 + column * (side + 0.12), top, side, side)
            own = [points[t, direction] for t in main_tasks]
            limits = [(min(p[k].min() for p in own), max(p[k].max() for p in own)) for k in ("pattern", "v")]
            _panel(ax, points[task, direction], maps.circuit_heads(membership, task), norm, diverging, limits)
            if d == 0:
                ax.set_title(wording.words(task), pad=12)
            else:
                ax.set_xlabel("change by pattern", size=style.SMALL, labelpad=1)
            ax.annotate(started, (0, 1), (0, 2), "axes fraction", "offset points", size=style.TINY, color=style.GREY)
            if column == 0:
                ax.set_ylabel("change by value", size=style.SMALL, labelpad=1)
            else:
                ax.tick_params(labelleft=False)
    maps.bar(fig, wide - 0.5, 0.6, min(1.4, side), diverging, norm, "change by\noutput (z)")
    return fig


def _panel(ax: Axes, points: pd.DataFrame, circuit: list[str], norm: Any, diverging: str, limits: list[Any]) -> None:
    cmap = matplotlib.colormaps[diverging]
    names = [f"{layer}.{head}" for layer, head in zip(points["layer"], points["head"], strict=True)]
    points = points.assign(name=names, inside=[name in circuit for name in names])
    for inside, rows in points.groupby("inside"):
        ax.scatter(
            rows["pattern"],
            rows["v"],
            s=20 if inside else 11,
            c=rows["z"],
            cmap=cmap,
            norm=norm,
            marker="o" if inside else "s",
            edgecolor=style.INK if inside else style.FAINT,
            linewidth=0.7 if inside else 0.5,
            zorder=3 if inside else 2,
        )
    puts: tuple[Callable[..., Any], ...] = (ax.set_xlim, ax.set_ylim)
    for line, (low, high), put in zip((ax.axvline, ax.axhline), limits, puts, strict=True):
        line(0, color=style.GREY, lw=0.6, zorder=1)
        low, high = min(low, 0), max(high, 0)
        edge = 0.13 * (high - low) or 1
        put(low - edge, high + edge)
    ax.xaxis.set_major_locator(MaxNLocator(4, prune="upper"))  # so that labels of two panels do not touch
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.tick_params(labelsize=style.TINY)
    ax.grid()
    strong = points.assign(size=points["z"].abs(), x=points["pattern"], y=points["v"])
    strong = strong.sort_values("size", ascending=False, kind="stable")
    maps.label(ax, strong, "name", min(NAMED, int((strong["size"] >= WEAK * norm.vmax).sum())))
