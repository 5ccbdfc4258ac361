"""At which positions each component matters: what is lost when it is ablated there alone."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from atlas.report import style, wording

CELL, ROW = 0.35, 0.145  # inches
LABEL = 0.36  # inches left of a panel, for component names
ROWS_UP_TO = 48
ROLES = ("members", "separators", "last", "bos")


def draw(positions: pd.DataFrame, main_tasks: list[str], diverging: str) -> Figure:
    """A panel for each task: components x roles of positions, in percentage points of the full model's score.

    Negative change (a loss) is the lower end of the map, as in the maps of component effects.
    """
    roles = [role for role in ROLES if (positions["role"] == role).any()]
    parts = {task: strongest(positions[positions["task"] == task], roles) for task in main_tasks}
    limit = max((np.nanmax(np.abs(change)) for change, _, _ in parts.values() if change.size), default=1)
    width = LABEL + CELL * len(roles) + 0.1
    across = min(len(main_tasks), max(1, int((style.PAGE - 0.7) / width)))
    bands = [main_tasks[i : i + across] for i in range(0, len(main_tasks), across)]
    tall = [max(0.55, ROW * max(len(parts[t][0]) for t in band)) + 0.9 for band in bands]
    fig = style.figure(max(across * width + 0.7, style.COLUMN), sum(tall) + 0.2, layout=None)
    for b, band in enumerate(bands):
        top = 0.4 + sum(tall[:b])
        for i, task in enumerate(band):
            change, kept, left_out = parts[task]
            ax = style.axes_at(fig, i * width + LABEL, top, CELL * len(roles), max(ROW, ROW * len(change)))
            image = _panel(ax, change, kept, roles, limit, diverging)
            ax.set_title(wording.words(task), pad=4)
            if left_out:
                text = f"{wording.count(left_out, 'weaker component')} not shown"
                ax.annotate(text, (0, 0), (0, -33), "axes fraction", "offset points", size=style.TINY, color=style.GREY)
    bar = style.axes_at(fig, across * width + 0.08, 0.4, 0.1, min(1.6, tall[0] - 0.9))
    fig.colorbar(image, cax=bar)
    bar.tick_params(labelsize=style.TINY)
    bar.set_title("change of\n% of full", size=style.TINY, weight="normal", loc="left")
    across_inches, down = fig.get_size_inches()
    fig.text(
        LABEL / across_inches,
        0.08 / down,
        "dot: kept at these positions in the position-level circuit",
        size=style.TINY,
        color=style.GREY,
    )
    return fig


def strongest(rows: pd.DataFrame, roles: list[str]) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """(change of percent of full, kept), components x roles in the order of the model; and how many are left out."""
    change = -rows.pivot(index="component", columns="role", values="value").reindex(columns=roles)
    kept = rows.pivot(index="component", columns="role", values="kept").reindex(columns=roles).fillna(False)
    largest = change.abs().max(axis=1).sort_values(ascending=False)
    shown = sorted(largest.index[:ROWS_UP_TO], key=wording.place)
    return change.loc[shown], kept.loc[shown].astype(bool), len(change) - len(shown)


def _panel(
    ax: Axes, change: pd.DataFrame, kept: pd.DataFrame, roles: list[str], limit: float, diverging: str
) -> QuadMesh:
    cmap, norm = matplotlib.colormaps[diverging], style.centred(limit)
    image = ax.pcolormesh(
        np.arange(len(roles) + 1) - 0.5,
        np.arange(len(change) + 1) - 0.5,
        np.ma.masked_invalid(change.to_numpy()),
        cmap=cmap,
        norm=norm,
        edgecolor="white",
        linewidth=0.5,
    )
    for y, (values, marks) in enumerate(zip(change.to_numpy(), kept.to_numpy(), strict=True)):
        for x, (value, mark) in enumerate(zip(values, marks, strict=True)):
            if value != value:
                continue
            ink = style.ink_on(cmap(norm(value)))
            digits = 0 if abs(value) >= 9.95 else 1
            text = wording.number(value, digits)
            ax.text(x + 0.4, y, text, ha="right", va="center_baseline", size=style.TINY, color=ink)
            if mark:
                ax.scatter(x - 0.36, y, s=7, color=ink, linewidth=0, zorder=3)
    ax.set(xlim=(-0.5, len(roles) - 0.5), ylim=(len(change) - 0.5, -0.5))
    ax.set_yticks(range(len(change)), change.index, size=style.TINY)
    ax.set_xticks(range(len(roles)), roles, size=style.TINY, rotation=30, ha="right", rotation_mode="anchor")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    for y in range(1, len(change)):
        if wording.place(change.index[y])[0] != wording.place(change.index[y - 1])[0]:
            ax.axhline(y - 0.5, color=style.GREY, lw=0.6)
    return image
