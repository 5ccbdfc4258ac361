"""What ablating one component at a time does: a map of all components, and the strongest ones with intervals."""

import math
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from atlas.report import style, wording

NUMBERED = 0.165  # inches of a cell that a number fits in
GAP = 0.4  # space between the heads and the MLP column, in cells
TALL = 3.4  # inches: a map at most
MARKERS = ["o", "s", "^", "D", "v"]
OTHERS = ["#4477AA", "#228833", "#AA3377", "#CCBB44"]  # of kinds of ablation beside the first


def changes(effects: pd.DataFrame) -> pd.DataFrame:
    """Percent of full minus 100: the change of the logit difference in percent of the full model's, with interval."""
    table = effects[effects["metric"] == "percent_of_full"].copy()
    table[["value", "ci_low", "ci_high"]] -= 100
    return table


def draw(effects: pd.DataFrame, kind: str, diverging: str, colours: dict[str, str], strongest: int = 10) -> Figure:
    """All kinds of ablation in the table, `kind` first; it has the colour `circuit` among the strongest components."""
    table, kind = changes(effects), style.one_kind(effects, kind)
    kinds = sorted(table["kind"].unique(), key=lambda name: (name != kind, name))
    layers, heads = table["layer"].max() + 1, table["head"].max() + 1
    # MLPs can outweigh every head; the scale follows the heads, and the colour bar shows that it goes on.
    limit = table.loc[table["head"] >= 0, "value"].abs().max()
    norm, cmap = style.centred(limit), matplotlib.colormaps[diverging]

    wide, per_row = _cell(len(kinds), heads)
    cell = wide, min(wide, TALL / layers)
    rows = math.ceil(len(kinds) / per_row)
    row_height, map_width = cell[1] * layers + 0.62, cell[0] * (heads + 1 + GAP)
    beside = len(kinds) == 1 and map_width < 3.2  # one map leaves room for the points, for more of them if it is tall
    strongest = max(strongest, int((cell[1] * layers - 0.1) / 0.16)) if beside else strongest
    points_height = (0.07 * len(kinds) + 0.09) * min(strongest, len(table["component"].unique())) + 0.1
    down = max(row_height, points_height + 0.62) if beside else rows * row_height + points_height + 0.7
    fig = style.figure(style.PAGE, down, layout=None)
    spread = (style.PAGE - 0.6) / per_row
    for i, name in enumerate(kinds):
        left, down = 0.4 + (i % per_row) * spread, (i // per_row) * row_height + 0.22
        ax = style.axes_at(fig, left, down, map_width, cell[1] * layers)
        _map(ax, table[table["kind"] == name], norm, cmap, cell, strongest)
        ax.set_title(f"{name} ablation")
        if i % per_row == 0:
            ax.set_ylabel("layer", labelpad=1)
    right = 0.4 + (per_row - 1) * spread + map_width
    bar = style.axes_at(fig, min(right + 0.18, style.PAGE - 0.36), 0.32, 0.09, min(cell[1] * layers - 0.1, 1.6))
    over, under = table["value"].max() > norm.vmax, table["value"].min() < norm.vmin
    extend = {(True, True): "both", (True, False): "max", (False, True): "min", (False, False): "neither"}
    fig.colorbar(matplotlib.cm.ScalarMappable(norm, cmap), cax=bar, extend=extend[over, under])
    bar.tick_params(labelsize=style.TINY)
    bar.set_title("change\n(%)", size=style.TINY, weight="normal", loc="left")

    left, top = (right + 1.15, 0.22) if beside else (0.6, rows * row_height + 0.3)
    ax = style.axes_at(fig, left, top, style.PAGE - left - 0.15, points_height)
    _points(ax, table, kinds, colours["circuit"], strongest)
    return fig


def _cell(kinds: int, heads: int) -> tuple[float, int]:
    """(inches of a cell, maps in a row): as many maps in a row as leave the cells room for a number."""

    def fit(per_row: int) -> float:
        return min(0.26, ((style.PAGE - 0.65) / per_row - 0.32) / (heads + 1 + GAP))

    for per_row in range(kinds, 1, -1):
        if fit(per_row) >= NUMBERED:
            return fit(per_row), per_row
    return fit(min(kinds, 2)), min(kinds, 2)


def _map(
    ax: Axes, table: pd.DataFrame, norm: Normalize, cmap: Colormap, cell: tuple[float, float], strongest: int
) -> None:
    """``cell``: its width and height in inches. A triangle marks a value beyond the ends of the colours."""
    layers, heads = table["layer"].max() + 1, table["head"].max() + 1
    grid, mlps = np.full((layers, heads), np.nan), np.full((layers, 1), np.nan)
    for row in table.itertuples():
        target, column = (mlps, 0) if row.head < 0 else (grid, row.head)
        target[row.layer, column] = row.value
    edges: dict[str, Any] = {"norm": norm, "cmap": cmap, "edgecolor": style.GHOST, "linewidth": 0.4}
    rows = np.arange(layers + 1) - 0.5
    ax.pcolormesh(np.arange(heads + 1) - 0.5, rows, grid, **edges)
    ax.pcolormesh(np.array([heads - 0.5, heads + 0.5]) + GAP, rows, mlps, **edges)

    numbered, least, limit = min(cell) >= NUMBERED, min(cell), float(norm.vmax or 0)
    named = set(table.assign(size=table["value"].abs()).nlargest(strongest, "size")["component"])
    for row in table.itertuples():
        x, ink = (heads + GAP if row.head < 0 else row.head), style.ink_on(cmap(norm(row.value)))
        sure, beyond = row.ci_low > 0 or row.ci_high < 0, abs(row.value) > 1.001 * limit
        if row.component in named and not numbered:
            ax.add_patch(Rectangle((x - 0.5, row.layer - 0.5), 1, 1, facecolor="none", edgecolor=style.INK, lw=0.7))
        elif row.component in named:
            text = wording.number(row.value)
            size = min(style.TINY, 72 * cell[0] / (0.66 * max(3, len(text))))
            look: dict[str, Any] = {"ha": "center", "va": "center_baseline", "size": size, "color": ink}
            ax.text(x, row.layer - (0.14 if sure or beyond else 0), text, **look)
        if sure or beyond:
            low = 0.3 if numbered and row.component in named else 0
            marker, area = ("v" if row.value < 0 else "^", 9) if beyond else ("o", 4)
            ax.scatter(x, row.layer + low, s=area * min(1.6, least / 0.12), marker=marker, color=ink, linewidth=0)
    for n, put, more in ((heads, ax.set_xticks, [heads + GAP]), (layers, ax.set_yticks, [])):
        step = math.ceil(n / 16)
        put([*range(0, n, step), *more], [*map(str, range(0, n, step)), *(["MLP"] if more else [])])
    ax.set(xlim=(-0.5, heads + 0.5 + GAP), ylim=(layers - 0.5, -0.5), xlabel="head")
    ax.xaxis.labelpad = 1
    ax.tick_params(length=0, labelsize=style.TINY)
    ax.spines[:].set_visible(False)


def _points(ax: Axes, table: pd.DataFrame, kinds: list[str], colour: str, strongest: int) -> None:
    """A line of its own for each kind, so that no mark covers another."""
    first = table[table["kind"] == kinds[0]]
    first = first.assign(size=first["value"].abs()).nlargest(strongest, "size")
    names = list(first["component"])
    for stripe in range(0, len(names), 2):
        ax.axhspan(stripe - 0.5, stripe + 0.5, color=style.GHOST, alpha=0.5, lw=0, zorder=0)
    for i, kind in enumerate(kinds):
        rows = table[table["kind"] == kind].set_index("component").reindex(names)
        y = np.arange(len(names)) + 0.76 * ((i + 0.5) / len(kinds) - 0.5)
        ink = [colour, *OTHERS][i % 5]
        ax.hlines(y, rows["ci_low"], rows["ci_high"], color=ink, lw=1.1)
        marker, label = MARKERS[i % len(MARKERS)], f"{kind} ablation"
        ax.scatter(rows["value"], y, s=13, marker=marker, color=ink, linewidth=0, zorder=3, label=label)
    ax.axvline(0, color=style.GREY, lw=0.8)
    ax.set_yticks(range(len(names)), names)
    ax.set(ylim=(len(names) - 0.5, -0.5), xlabel="change of the logit difference (% of full)")
    ax.set_title(f"The {len(names)} strongest" + (f" under {kinds[0]} ablation" if len(kinds) > 1 else ""))
    ax.grid(axis="x")
    ax.tick_params(axis="y", length=0)
    if len(kinds) > 1:
        look: dict[str, Any] = {"borderaxespad": 0.1, "handletextpad": 0.1, "columnspacing": 1}
        ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(kinds), **look)
