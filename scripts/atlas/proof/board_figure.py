"""The leaderboard as a figure: which planted circuits each method finds, and its mean rank with an interval."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from atlas.proof.board_ranks import by_fixture
from atlas.report import style

TITLE = "Leaderboard: circuit discovery on planted models"
CAPTION = (
    "Left, for each method and planted circuit, the chance that a true element is ranked above a false one (AUROC; 1 "
    "is perfect, 0.5 is chance; mean over families and kinds of ablation). Right, its mean rank over these fixtures, 1 "
    "is best, with a 95 % bootstrap interval over fixtures. Edges above, components below."
)
HEADS = {"edge": "edges", "node": "components"}
ROW, TOP, LEFT, GAP = 0.17, 0.98, 1.55, 0.5  # inches
SINGLE = ("search", "")  # in place of a ranking, where a method has one
LIGHT = 0.8  # AUROC from which on its colour is light


def name_of(method: str, ranking: str) -> str:
    """As a row is called: `eap, absolute`; a search, and chance, by their names alone."""
    return method if ranking in SINGLE else f"{method}, {ranking}"


def draw(table: pd.DataFrame, ranks: pd.DataFrame) -> Figure:
    """A band for each level; rows are methods, best first, columns fixtures. ``table``, ``ranks``: of the board."""
    first = ranks[ranks["metric"] == "auroc"]
    levels = [level for level in HEADS if level in set(first["level"])]
    sizes = {level: int((first["level"] == level).sum()) for level in levels}
    high = sum(ROW * size + TOP for size in sizes.values()) + 0.35
    fig = style.figure(style.PAGE, high, layout=None)
    values, top = by_fixture(table), 0.0
    for level in levels:
        own, cells = first[first["level"] == level], values[values["level"] == level]
        names = list(zip(own["method"], own["ranking"], strict=True))
        grid = cells.pivot(index=["method", "ranking"], columns="fixture", values="auroc").loc[names]
        grid = grid[list(dict.fromkeys(cells["fixture"]))]
        height, wide = ROW * len(names), 0.26 * grid.shape[1]
        left = style.axes_at(fig, LEFT, top + TOP, wide, height)
        _cells(left, grid, [name_of(*name) for name in names])
        left.set_title(f"{HEADS[level]}: AUROC", x=-LEFT / wide, y=1 + 0.1 / height, ha="left")
        right_at = LEFT + wide + GAP
        right = style.axes_at(fig, right_at, top + TOP, style.PAGE - right_at - 0.1, height)
        _ranks(right, own, len(names))
        top += height + TOP
        right.set_xlabel("mean rank (1 is best)")
    return fig


def _cells(ax: Axes, grid: pd.DataFrame, names: list[str]) -> None:
    numbers = grid.to_numpy()
    ax.imshow(numbers, cmap="viridis", vmin=0.4, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(numbers):
        if not np.isnan(value):
            text = "1" if value == 1 else f"{min(value, 0.99):.2f}".removeprefix("0")
            ink = "white" if value < LIGHT else style.INK
            ax.text(column, row, text, ha="center", va="center", size=style.LEAST, color=ink)
    ax.set_yticks(range(len(names)), names, size=style.TINY)
    ax.set_xticks(range(grid.shape[1]), [name.replace("_", " ") for name in grid.columns], size=style.TINY)
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    for label in ax.get_xticklabels():
        label.set(rotation=45, ha="left", rotation_mode="anchor")
    for spine in ax.spines.values():
        spine.set_visible(False)


def _ranks(ax: Axes, rows: pd.DataFrame, count: int) -> None:
    at = np.arange(count)
    ax.hlines(at, rows["rank_low"], rows["rank_high"], color=style.GREY, lw=1)
    ax.scatter(rows["rank"], at, s=14, color=style.INK, zorder=3)
    ax.set(xlim=(0.5, count + 0.5), ylim=(count - 0.5, -0.5), yticks=[])
    ax.grid(axis="x")
