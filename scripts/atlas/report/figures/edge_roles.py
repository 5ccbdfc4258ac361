"""At which positions edges work: parts of the reported edges by roles, scored by gradients, and the largest ablated."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from atlas.edges.methods import title
from atlas.report import style, wording

SHOWN = 16  # parts of a task, at most
ROW = 0.155  # inches of one


def draw(edge_roles: pd.DataFrame, main_tasks: list[str], colours: dict[str, str]) -> Figure:
    """A panel for each task: its parts with the largest scores, as bars; circles where a part was ablated alone."""
    columns = min(2, len(main_tasks))
    bands = -(-len(main_tasks) // columns)
    shown = {task: largest(edge_roles[edge_roles["task"] == task]) for task in main_tasks}
    most = max([len(rows) for rows in shown.values()] + [1])
    fig = style.figure(style.PAGE if columns > 1 else style.COLUMN + 0.6, bands * (ROW * most + 0.75) + 0.35)
    grid = fig.subplots(bands, columns, squeeze=False)
    for i, task in enumerate(main_tasks):
        ax = grid[i // columns, i % columns]
        rows, every = shown[task], edge_roles[edge_roles["task"] == task]
        _panel(ax, rows, colours)
        ax.set_ylim(most - 0.4, -0.6)
        ax.set_title(wording.words(task))
        text = ax.text(0.02, 0.02, _share(rows, every), transform=ax.transAxes, size=style.TINY, color=style.GREY)
        text.set(ha="left", va="bottom")
        ax.set_xlabel("change of the logit difference")
    for i in range(len(main_tasks), bands * columns):
        grid[i // columns, i % columns].axis("off")
    fig.legend(handles=_legend(edge_roles, colours), loc="outside upper center", ncols=3)
    return fig


def largest(rows: pd.DataFrame) -> pd.DataFrame:
    """The parts with the largest scores of either sign, the largest first."""
    order = np.argsort(-rows["value"].abs().to_numpy(), kind="stable")[:SHOWN]
    return rows.iloc[order]


def label(row: pd.Series) -> str:
    """`0.3 \u2192 1.2.v, members to last`; one role where both are the same."""
    roles = row["start"] if row["start"] == row["end"] else f"{row['start']} to {row['end']}"
    return f"{row['sender']} \u2192 {row['receiver']}, {roles}"


def _share(rows: pd.DataFrame, every: pd.DataFrame) -> str:
    total = every["value"].abs().sum()
    if not len(rows) or not total:
        return "no parts"
    share = 100 * rows["value"].abs().sum() / total
    return f"{len(rows)} of {len(every)} parts:\n{share:.0f} % of all |scores|"


def _panel(ax: Axes, rows: pd.DataFrame, colours: dict[str, str]) -> None:
    places = np.arange(len(rows))
    values = rows["value"].to_numpy(dtype=float)
    shades = [colours["clean"] if value < 0 else colours["circuit"] for value in values]
    ax.barh(places, values, height=0.62, color=shades, lw=0, alpha=0.75)
    ax.hlines(places, rows["ci_low"], rows["ci_high"], color=style.INK, lw=0.6)
    known = rows["exact"].notna().to_numpy()
    own = rows[known]
    ax.hlines(places[known] + 0.2, own["exact_low"], own["exact_high"], color=style.GREY, lw=0.6)
    ax.scatter(own["exact"], places[known] + 0.2, s=9, facecolor="white", edgecolor=style.INK, linewidth=0.7, zorder=3)
    ax.axvline(0, color=style.GREY, lw=0.6)
    ax.set_yticks(places, [label(row) for _, row in rows.iterrows()], size=style.TINY)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")


def _legend(table: pd.DataFrame, colours: dict[str, str]) -> list[Line2D]:
    methods = table["method"].unique().tolist()
    by = title(methods[0]) if methods else "gradients"
    bars = {"it helps": colours["clean"], "it hurts": colours["circuit"]}
    handles = [Line2D([], [], color=colour, lw=5, alpha=0.75, label=f"{by}: {text}") for text, colour in bars.items()]
    circle: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": style.INK}
    return [*handles, Line2D([], [], ls="", marker="o", markersize=3.5, label="ablated alone", **circle)]
