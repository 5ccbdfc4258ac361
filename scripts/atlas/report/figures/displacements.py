"""Is the way to the next member the same in every class? Cosines of displacements, and where they lead."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure

from atlas.core.multiple import ALPHA
from atlas.report import maps, style, wording
from atlas.report.order_words import point_shown

LABELS = 0.95  # inches beside a matrix


def draw(displacements: pd.DataFrame, diverging: str, sequential: str) -> Figure:
    """Two matrices of classes at the middle point: cosines, matched above and all other pairs of steps below the
    diagonal; and the share of members that arrive, by the class that gives (row) and the one that is moved."""
    if displacements.empty:
        fig = style.figure(style.COLUMN, 0.6)
        fig.text(0.05, 0.5, "No two classes share steps, and none has enough of its own.", size=style.SMALL)
        return fig
    point = point_shown(sorted(displacements["point"].unique()))
    own = displacements[displacements["point"] == point]
    names = list(dict.fromkeys([*own["class"], *own["other"]]))
    side = min(0.34, (style.PAGE / 2 - LABELS - 0.1) / len(names)) * len(names)
    fig = style.figure(style.PAGE, 1.3 + side, layout=None)
    cosine, arrives = _matrices(own, names)
    shift = style.PAGE / 2
    scales: tuple[tuple[str | Colormap, Normalize], ...] = (
        (diverging, style.centred(1.0)),
        (maps.from_white(sequential), Normalize(0, 1)),
    )
    where = "embedding" if point == 0 else f"after {wording.count(point, 'block')}"
    titles = (f"cosine of displacements, {where}", f"moved members that arrive, {where}")
    notes = ("diagonal: within a class; below it: unmatched steps", "row: gives the displacement; small: unmoved")
    for i, (grid, (cmap, norm), title) in enumerate(zip((cosine, arrives), scales, titles, strict=True)):
        ax = style.axes_at(fig, LABELS + i * shift, 0.38, side, side)
        _matrix(ax, grid, matplotlib.colormaps.get_cmap(cmap), norm, names)
        left, high = (0.05 + i * shift) / style.PAGE, 1.3 + side
        fig.text(left, 1 - 0.1 / high, title, size=style.SMALL, weight="bold")
        fig.text(left, 1 - 0.24 / high, notes[i], size=style.TINY, color=style.GREY)
    return fig


Cell = tuple[float, bool, float]  # value, sure, what stands small below it (nan: nothing)


def _matrices(own: pd.DataFrame, names: list[str]) -> tuple[dict[tuple[int, int], Cell], dict[tuple[int, int], Cell]]:
    cosine: dict[tuple[int, int], Cell] = {}
    arrives: dict[tuple[int, int], Cell] = {}
    for row in own.to_dict("records"):
        at, sure = (names.index(row["class"]), names.index(row["other"])), row["p_holm"] < ALPHA
        if row["measure"] == "transfer":
            arrives[at] = row["value"], sure, row["unmoved"]
        else:
            cosine[at] = row["value"], sure, np.nan
            if at[0] != at[1]:
                cosine[at[::-1]] = row["unmatched"], False, np.nan
    return cosine, arrives


def _matrix(ax: Axes, grid: dict[tuple[int, int], Cell], cmap: Colormap, norm: Normalize, names: list[str]) -> None:
    n = len(names)
    values = np.full((n, n), np.nan)
    for at, (value, _, _) in grid.items():
        values[at] = value
    ax.pcolormesh(
        np.arange(n + 1) - 0.5, np.arange(n + 1) - 0.5, np.ma.masked_invalid(values), cmap=cmap, norm=norm,
        edgecolor="white", linewidth=0.5,
    )  # fmt: skip
    for (row, column), (value, sure, small) in grid.items():
        ink = style.ink_on(cmap(norm(value))[:3])
        up = 0.14 if small == small else 0.0
        weight = "bold" if sure else "normal"
        ax.text(column, row - up, _short(value), size=style.TINY, color=ink, ha="center", va="center", weight=weight)
        if small == small:
            ax.text(column, row + 0.26, _short(small), size=style.LEAST, color=ink, ha="center", va="center")
    labels = [wording.words(name) for name in names]
    ax.set_xticks(range(n), labels, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(n), labels)
    ax.tick_params(length=0, labelsize=style.TINY, pad=2)
    ax.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5))
    ax.spines[:].set_visible(False)


def _short(value: float) -> str:
    """`.89`, `1`, `\u2212.05`: what fits a cell."""
    text = wording.number(value, 2)
    return "1" if text == "1.00" else text.replace("0.", ".", 1) if text != "0.00" else "0"
