"""How often each component survives the search when the order of candidates changes."""

import math

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import BoundaryNorm, ListedColormap

from atlas.plots import style, wording

CELL, ROW = 0.18, 0.135  # inches
LABEL = 0.45  # inches left of a block, for component names


def draw(survival: pd.DataFrame, tasks: list[str], sequential: str, rows_per_block: int = 44):
    """Rows are the components that survive anywhere; columns are task x threshold, the same in every block of rows."""
    thresholds = sorted(survival["threshold"].unique())
    columns = [(task, threshold) for task in tasks for threshold in thresholds]
    shares = survival.pivot_table(index="component", columns=["task", "threshold"], values="share", observed=True)
    shares = shares.reindex(columns=pd.MultiIndex.from_tuples(columns)).fillna(0)
    shares = shares[(shares > 0).any(axis=1)]
    shares = shares.loc[sorted(shares.index, key=wording.place)]

    block_width = LABEL + CELL * len(columns) + 0.12
    fit = max(1, int((style.PAGE - 0.6) / block_width))
    blocks = min(fit, max(1, math.ceil(len(shares) / rows_per_block)))
    per_block = max(1, math.ceil(len(shares) / blocks))
    head = 0.95
    fig = style.figure(max(style.COLUMN, blocks * block_width + 0.75), per_block * ROW + head + 0.35, layout=None)
    orders = int(survival["orders"].max())
    # One colour for each number of orders, white for none.
    shades = matplotlib.colormaps[sequential].reversed()(np.linspace(0, 1, orders + 1)[1:])
    cmap, norm = ListedColormap(["white", *shades]), BoundaryNorm(np.arange(-0.5, orders + 1) / orders, orders + 1)
    for b in range(blocks):
        part = shares.iloc[b * per_block : (b + 1) * per_block]
        if part.empty:
            continue
        ax = style.axes_at(fig, b * block_width + LABEL, head, CELL * len(columns), ROW * len(part))
        image = ax.pcolormesh(
            np.arange(len(columns) + 1) - 0.5,
            np.arange(len(part) + 1) - 0.5,
            part.to_numpy(),
            cmap=cmap,
            norm=norm,
            edgecolor=style.GHOST,
            linewidth=0.4,
        )
        _label(ax, part, tasks, thresholds)
    if shares.empty:
        fig.text(0.5, 0.5, "no component survives anywhere", ha="center")
        return fig
    tall = min(1.6, ROW * per_block)
    bar = style.axes_at(fig, blocks * block_width + 0.08, head, 0.1, tall)
    fig.colorbar(image, cax=bar)
    some = range(0, orders + 1, max(1, orders // 5))
    bar.set_yticks([k / orders for k in some], [str(k) for k in some])
    bar.tick_params(labelsize=style.TINY, length=0)
    bar.set_title(f"kept in\n(of {wording.count(orders, 'order')})", size=style.TINY, weight="normal", loc="left")
    return fig


def _label(ax, part: pd.DataFrame, tasks: list[str], thresholds: list) -> None:
    ax.set_yticks(range(len(part)), part.index, size=style.TINY)
    ax.set_xticks(range(part.shape[1]), [f"{t:g}" for _, t in part.columns], size=style.TINY)
    ax.set_xlabel("threshold (%)", size=style.TINY)
    ax.set_ylim(len(part) - 0.5, -0.5)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    for i, task in enumerate(tasks):
        ax.text(
            (i + 0.5) * len(thresholds) - 0.5,
            -0.8,
            wording.words(task, 10),
            ha="center",
            va="bottom",
            size=style.TINY,
            rotation=0 if len(thresholds) > 2 else 60,
        )
        if i:
            ax.axvline(i * len(thresholds) - 0.5, color=style.INK, lw=1)
    for i in range(1, len(part)):
        if wording.place(part.index[i])[0] != wording.place(part.index[i - 1])[0]:
            ax.axhline(i - 0.5, color=style.GREY, lw=0.6)
