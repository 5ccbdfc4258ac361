"""Maps that the figures about heads share: layer by head, with the heads of a circuit outlined."""

import math
from collections.abc import Iterable

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
        ax.add_patch(Rectangle((head - 0.5, layer - 0.5), 1, 1, facecolor="none", edgecolor=style.INK, lw=0.6))
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


PLACES = [(distance, angle) for distance in (5, 11, 18, 26) for angle in (20, -20, 160, -160, 70, -70, 110, -110)]


def label(ax: Axes, points: pd.DataFrame, name: str, most: int, size: float = style.TINY) -> None:
    """Names beside the first ``most`` points (columns x, y and ``name``), where none covers a point or another name.

    Each takes the nearest free place around its point, farther ones with a line to it; a point that has none stays
    without a name. Limits of the axes must be set.
    """
    fig = ax.get_figure()
    assert isinstance(fig, Figure)
    scale = fig.dpi / 72  # pixels of a point
    frame, at = ax.get_window_extent(), ax.transData.transform(points[["x", "y"]].to_numpy())
    taken = [(x - 2.4 * scale, y - 2.4 * scale, x + 2.4 * scale, y + 2.4 * scale) for x, y in at]
    for i, text in enumerate(points[name].head(most)):
        wide, tall = 0.62 * size * len(text) * scale, 1.05 * size * scale
        for distance, angle in PLACES:
            dx, dy = (distance * scale * f(math.radians(angle)) for f in (math.cos, math.sin))
            left, low = at[i][0] + dx - (wide if dx < 0 else 0), at[i][1] + dy - tall / 2
            box = (left, low, left + wide, low + tall)
            if box[0] < frame.x0 or box[2] > frame.x1 or box[1] < frame.y0 or box[3] > frame.y1:
                continue
            others = taken[:i] + taken[i + 1 :]
            if any(box[0] < t[2] and t[0] < box[2] and box[1] < t[3] and t[1] < box[3] for t in others):
                continue
            line = {"arrowstyle": "-", "color": style.GREY, "lw": 0.4, "shrinkA": 0.5, "shrinkB": 2}
            ax.annotate(
                text,
                points[["x", "y"]].iloc[i].to_list(),
                (dx / scale, dy / scale),
                textcoords="offset points",
                ha="left" if dx >= 0 else "right",
                va="center",
                size=size,
                zorder=5,
                arrowprops=line if distance > PLACES[0][0] else None,
            )
            taken.append(box)
            break


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
