"""Maps that the figures about heads share: layer by head, with the heads of a circuit outlined."""

import math
from collections.abc import Iterable
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from atlas.report import style, wording


def circuit_heads(membership: pd.DataFrame, circuit: str) -> list[str]:
    """Names of the heads of a circuit, in the order of the model."""
    names = membership.loc[membership["circuit"] == circuit, "component"]
    return sorted((name for name in set(names) if not wording.is_mlp(name)), key=wording.place)


def union_heads(membership: pd.DataFrame, tasks: list[str]) -> list[str]:
    """The same of all circuits of the main tasks."""
    return sorted({name for task in tasks for name in circuit_heads(membership, task)}, key=wording.place)


def head_grid(rows: pd.DataFrame, column: str = "value") -> np.ndarray:
    """[layers, heads] of a table with one row for each head; nan where there is none."""
    rows = rows[rows["head"] >= 0]
    if rows.empty:
        return np.full((1, 1), np.nan)
    grid = np.full((rows["layer"].max() + 1, rows["head"].max() + 1), np.nan)
    grid[rows["layer"], rows["head"]] = rows[column]
    return grid


def cell_height(layers: int, most: float = 0.15, in_all: float = 1.7) -> float:
    """Inches of a row of a map: `most` for few layers, and `in_all` together for many."""
    return min(most, in_all / layers)


def draw(
    ax: Axes,
    grid: np.ndarray,
    cmap: str | Colormap,
    norm: Normalize,
    outlined: Iterable[str] = (),
    dots: np.ndarray | None = None,
    span: float = 1,
    lines: str = "white",
) -> None:
    """A map of numbers, rows downwards; heads of ``outlined`` (names) framed.

    ``dots`` [rows, columns]: cells with a dot. ``span``: columns of the axis that one column of the map covers (key and
    value heads that serve a group of heads). ``lines``: colour between cells.
    """
    rows, columns = grid.shape
    edges = span * np.arange(columns + 1) - 0.5
    ax.pcolormesh(
        edges,
        np.arange(rows + 1) - 0.5,
        np.ma.masked_invalid(grid),
        cmap=cmap,
        norm=norm,
        edgecolor=lines,
        linewidth=0.3,
    )
    for name in outlined if span == 1 else ():
        layer, _, head = wording.place(name)
        ax.add_patch(Rectangle((head - 0.5, layer - 0.5), 1, 1, facecolor="none", edgecolor=style.INK, lw=0.8))
    if dots is not None and dots.any():
        y, x = np.nonzero(dots)
        inks = [style.ink_on(colour) for colour in matplotlib.colormaps.get_cmap(cmap)(norm(grid[y, x]))[:, :3]]
        ax.scatter(span * (x + 0.5) - 0.5, y, s=2.5, color=inks, linewidth=0, zorder=3)
    ax.set(xlim=(edges[0], edges[-1]), ylim=(rows - 0.5, -0.5))
    ax.tick_params(length=0, labelsize=style.TINY, pad=1.5)
    ax.spines[:].set_visible(False)


def from_white(sequential: str) -> ListedColormap:
    """The map turned round and led to white at 0, for maps that are mostly empty."""
    shares = np.linspace(0, 1, 256)
    colours = matplotlib.colormaps[sequential].reversed()(shares)
    return ListedColormap([style.tint(c[:3], min(1.0, 3 * s)) for c, s in zip(colours, shares, strict=True)])


def named(points: pd.DataFrame, most: int, spans: tuple[float, float]) -> pd.DataFrame:
    """The first ``most`` points (x, y) of which none lies close to an earlier one: their names do not overlap."""
    kept: list[tuple[Any, float, float]] = []
    for row in points.itertuples():
        if len(kept) < most and not any(
            abs(row.x - x) < 0.22 * spans[0] and abs(row.y - y) < 0.06 * spans[1] for _, x, y in kept
        ):
            kept.append((row.Index, row.x, row.y))
    return points.loc[[index for index, _, _ in kept]]


def number_ticks(ax: Axes, columns: int | None, rows: int | None) -> None:
    """Whole numbers at the sides of a map, at most about eight; none at a side for None."""
    for n, put in ((columns, ax.set_xticks), (rows, ax.set_yticks)):
        put(range(0, n, math.ceil(n / 8)) if n else [])


def bar(
    fig: Figure,
    left: float,
    top: float,
    height: float,
    cmap: Colormap | str,
    norm: Normalize,
    title: str,
    extend: str = "neither",
) -> Axes:
    """A colour bar, placed in inches."""
    ax = style.axes_at(fig, left, top, 0.09, height)
    fig.colorbar(matplotlib.cm.ScalarMappable(norm, cmap), cax=ax, extend=extend)
    ax.tick_params(labelsize=style.TINY)
    ax.set_title(title, size=style.TINY, weight="normal", loc="left")
    return ax
