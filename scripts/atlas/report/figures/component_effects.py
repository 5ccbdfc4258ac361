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
MARKERS = ["o", "s", "^", "D", "v"]


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

    cell, per_row = _cell(len(kinds), heads)
    rows = math.ceil(len(kinds) / per_row)
    row_height = cell * layers + 0.62
    top = 0.2
    points_height = 0.16 * min(strongest, len(table["component"].unique())) + 0.2
    fig = style.figure(style.PAGE, top + rows * row_height + points_height + 0.75, layout=None)
    spread = (style.PAGE - 0.6) / per_row
    for i, name in enumerate(kinds):
        left, down = 0.4 + (i % per_row) * spread, top + (i // per_row) * row_height + 0.25
        ax = style.axes_at(fig, left, down, cell * (heads + 1 + GAP), cell * layers)
        _map(ax, table[table["kind"] == name], norm, cmap, cell, strongest)
        ax.set_title(f"{name} ablation")
        if i % per_row == 0:
            ax.set_ylabel("layer")
    bar = style.axes_at(fig, style.PAGE - 0.28, top + 0.25, 0.09, cell * layers)
    over, under = table["value"].max() > norm.vmax, table["value"].min() < norm.vmin
    extend = {(True, True): "both", (True, False): "max", (False, True): "min", (False, False): "neither"}
    fig.colorbar(matplotlib.cm.ScalarMappable(norm, cmap), cax=bar, extend=extend[over, under])
    bar.tick_params(labelsize=style.TINY)
    bar.set_title("change\n(%)", size=style.TINY, weight="normal", loc="center")

    ax = style.axes_at(fig, 0.6, top + rows * row_height + 0.2, style.PAGE - 0.95, points_height)
    _points(ax, table, kinds, colours["circuit"], strongest)
    return fig


def _cell(kinds: int, heads: int) -> tuple[float, int]:
    """(inches of a cell, maps in a row): as many maps in a row as leave the cells room for a number."""

    def fit(per_row: int) -> float:
        return min(0.26, ((style.PAGE - 0.6) / per_row - 0.32) / (heads + 1 + GAP))

    for per_row in range(kinds, 1, -1):
        if fit(per_row) >= NUMBERED:
            return fit(per_row), per_row
    return fit(min(kinds, 2)), min(kinds, 2)


def _map(ax: Axes, table: pd.DataFrame, norm: Normalize, cmap: Colormap, cell: float, strongest: int) -> None:
    layers, heads = table["layer"].max() + 1, table["head"].max() + 1
    grid = np.full((layers, heads), np.nan)
    mlps = np.full((layers, 1), np.nan)
    for row in table.itertuples():
        if row.head < 0:
            mlps[row.layer, 0] = row.value
        else:
            grid[row.layer, row.head] = row.value
    edges: dict[str, Any] = {"norm": norm, "cmap": cmap, "edgecolor": "white", "linewidth": 0.4}
    rows = np.arange(layers + 1) - 0.5
    ax.pcolormesh(np.arange(heads + 1) - 0.5, rows, grid, **edges)
    ax.pcolormesh(np.array([heads - 0.5, heads + 0.5]) + GAP, rows, mlps, **edges)

    named = set(table.assign(size=table["value"].abs()).nlargest(strongest, "size")["component"])
    for row in table.itertuples():
        x, ink = (heads + GAP if row.head < 0 else row.head), style.ink_on(cmap(norm(row.value)))
        sure = row.ci_low > 0 or row.ci_high < 0
        if row.component in named and cell < NUMBERED:
            ax.add_patch(Rectangle((x - 0.5, row.layer - 0.5), 1, 1, facecolor="none", edgecolor=style.INK, lw=0.7))
        elif row.component in named:
            text = wording.number(row.value)
            size = min(style.TINY, 72 * cell / (0.64 * max(3, len(text))))
            ax.text(x, row.layer - (0.12 if sure else 0), text, ha="center", va="center", size=size, color=ink)
        if sure:
            ax.scatter(x, row.layer + (0.33 if cell >= NUMBERED else 0), s=(6 * cell) ** 2, color=ink, linewidth=0)
    step = max(1, math.ceil(max(layers, heads) / 16))
    ax.set_xticks([*range(0, heads, step), heads + GAP], [*map(str, range(0, heads, step)), "MLP"])
    ax.set_yticks(range(0, layers, step))
    ax.set(xlim=(-0.5, heads + 0.5 + GAP), ylim=(layers - 0.5, -0.5), xlabel="head")
    ax.tick_params(length=0, labelsize=style.TINY)
    ax.spines[:].set_visible(False)


def _points(ax: Axes, table: pd.DataFrame, kinds: list[str], colour: str, strongest: int) -> None:
    first = table[table["kind"] == kinds[0]]
    first = first.assign(size=first["value"].abs()).nlargest(strongest, "size")
    names = list(first["component"])
    for i, kind in enumerate(kinds):
        rows = table[table["kind"] == kind].set_index("component").reindex(names)
        y = np.arange(len(names)) + 0.22 * (i - (len(kinds) - 1) / 2)
        ink = colour if i == 0 else style.GREY
        ax.hlines(y, rows["ci_low"], rows["ci_high"], color=ink, lw=1)
        ax.scatter(
            rows["value"],
            y,
            s=15,
            marker=MARKERS[i % len(MARKERS)],
            facecolor=colour if i == 0 else "white",
            edgecolor=ink,
            linewidth=0.8,
            zorder=3,
            label=f"{kind} ablation",
        )
    ax.axvline(0, color=style.GREY, lw=0.8)
    ax.set_yticks(range(len(names)), names)
    ax.set(ylim=(len(names) - 0.5, -0.5), xlabel="change of the logit difference, in % of the full model's")
    ax.set_title(f"The {len(names)} strongest under {kinds[0]} ablation")
    ax.grid(axis="x")
    ax.tick_params(axis="y", length=0)
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0.45, 1.0),
        ncols=len(kinds),
        borderaxespad=0.1,
        handletextpad=0.1,
        columnspacing=1,
    )
