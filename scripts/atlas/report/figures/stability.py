"""How far a circuit depends on what the search is given: order of candidates, prompts, seeds, templates, corruption."""

import math
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.typing import ColorType

from atlas.report import style, wording

WIDE, NARROW, ROW = 0.2, 0.112, 0.125  # inches: a component's column at most and at least, and a row
NAMES = 1.1  # inches left of the map, for names of tasks and families
FAMILIES = {
    "orders": "search orders",
    "bootstrap": "resampled prompts",
    "seeds": "other seeds",
    "templates": "other templates",
    "corruption": "other corruptions",
}
BESIDE: dict[str, Any] = {"borderaxespad": 0.2, "fontsize": style.TINY, "handlelength": 1.8}
LINES = ["-", (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)), (0, (6, 2, 1, 2, 1, 2))]  # one for each family


def draw(stability: pd.DataFrame, summary: pd.DataFrame, main_tasks: list[str], sequential: str) -> Figure:
    """Above: share of runs that keep each component (columns), by task and family (rows).

    Below, task by task: mean Jaccard index of pairs of runs, and for edges the sorted shares of runs.
    """
    families = [f for f in FAMILIES if (summary["family"] == f).any()]
    shares = component_shares(stability, main_tasks, families)
    room = style.PAGE - NAMES - 0.75
    bands = max(1, math.ceil(len(shares) * NARROW / room))
    per_band = max(1, math.ceil(len(shares) / bands))
    wide, tall = min(WIDE, room / per_band), ROW * (len(families) + 1) * len(main_tasks)
    below = 0.32 + max(bands * (tall + 0.38), 1.15) + 0.3
    with_edges = bool((summary["level"] == "edge").any())
    panel, spread = 0.2 + 0.16 * len(families), 1.1 if with_edges else 0
    columns = len(main_tasks) if len(main_tasks) <= 4 else 3
    step = panel + spread + (1.15 if with_edges else 0.55)
    down = below + math.ceil(len(main_tasks) / columns) * step
    fig = style.figure(style.PAGE, down, layout=None)
    norm, cmap = Normalize(0, 1), matplotlib.colormaps[sequential].reversed()
    for b in range(bands):
        part = shares.iloc[b * per_band : (b + 1) * per_band]
        ax = style.axes_at(fig, NAMES, 0.32 + b * (tall + 0.38), wide * max(1, len(part)), tall)
        _map(ax, part, main_tasks, families, cmap, norm)
    bar = style.axes_at(fig, NAMES + wide * per_band + 0.14, 0.5, 0.1, min(1.3, max(0.6, tall - 0.2)))
    fig.colorbar(matplotlib.cm.ScalarMappable(norm, cmap), cax=bar)
    bar.set_yticks([0, 0.5, 1], ["few", "half", "all"])
    bar.tick_params(labelsize=style.TINY, length=0)
    bar.set_title("kept in\n(of the runs;\nwhite: none)", size=style.TINY, weight="normal", loc="left")

    name = 1.2
    wide = min(3, (style.PAGE - name) / columns - 0.18)
    for i, task in enumerate(main_tasks):
        band, column = divmod(i, columns)
        left, top = name + column * (wide + 0.18), below + band * step
        ax = style.axes_at(fig, left, top, wide, panel)
        _jaccards(ax, summary[summary["task"] == task], families, sequential)
        ax.set_title(wording.words(task))
        ax.set_yticks(range(len(families)), [_family(summary, f) for f in families] if column == 0 else [])
        if with_edges:
            ax = style.axes_at(fig, left, top + panel + 0.7, wide, spread - 0.1)
            _survival(ax, stability[(stability["task"] == task) & (stability["level"] == "edge")], families)
            if column == 0:
                ax.set_ylabel("share of runs")
                ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(LINES), **BESIDE)
            else:
                ax.tick_params(labelleft=False)
    fig.legend(
        handles=_legend(summary, sequential),
        loc="lower right",
        bbox_to_anchor=(1, 1 - (below - 0.25) / down),
        ncols=3,
        borderaxespad=0,
    )
    return fig


def component_shares(stability: pd.DataFrame, tasks: list[str], families: list[str]) -> pd.DataFrame:
    """Components kept in any run x (task, family): share of runs; 0 where none keeps it."""
    rows = stability[(stability["level"] == "component") & stability["task"].isin(tasks)]
    columns = pd.MultiIndex.from_product([tasks, families])
    shares = rows.pivot(index="name", columns=["task", "family"], values="share").reindex(columns=columns).fillna(0)
    return shares.loc[sorted(shares.index, key=wording.place)]


def _family(summary: pd.DataFrame, family: str) -> str:
    return f"{FAMILIES[family]} ({int(summary.loc[summary['family'] == family, 'runs'].max())})"


def _map(ax: Axes, part: pd.DataFrame, tasks: list[str], families: list[str], cmap: Colormap, norm: Normalize) -> None:
    """Tasks below each other, each with its name over the rows of its families."""
    for i, task in enumerate(tasks):
        first = i * (len(families) + 1)
        ax.pcolormesh(
            np.arange(len(part) + 1) - 0.5,
            first + np.arange(len(families) + 1) + 0.5,
            np.ma.masked_equal(part[task].to_numpy().T, 0),  # white: kept in no run
            cmap=cmap,
            norm=norm,
            edgecolor=style.GHOST,
            linewidth=0.4,
        )
        ax.text(-0.7, first, wording.words(task), size=style.TINY, weight="bold", ha="right", va="center")
        for k, family in enumerate(families):
            ax.text(-0.7, first + k + 1, FAMILIES[family], size=style.LEAST, ha="right", va="center")
    down = len(tasks) * (len(families) + 1) - 0.5
    ax.set(xlim=(-0.5, max(1, len(part)) - 0.5), ylim=(down, -0.5), yticks=[])
    ax.xaxis.tick_top()
    ax.set_xticks(range(len(part)), part.index, size=style.LEAST, rotation=90)
    ax.tick_params(length=0, pad=1)
    ax.spines[:].set_visible(False)
    for i in range(1, len(part)):
        if wording.place(part.index[i])[0] != wording.place(part.index[i - 1])[0]:
            ax.axvline(i - 0.5, color=style.GREY, lw=0.6)


def _looks(sequential: str) -> dict[str, tuple[ColorType, str, float]]:
    """Colour, marker and height within the row, by level."""
    shades = matplotlib.colormaps[sequential]
    return {"component": (shades(0.15), "o", -0.17), "edge": (shades(0.6), "s", 0.17)}


def _jaccards(ax: Axes, summary: pd.DataFrame, families: list[str], sequential: str) -> None:
    both = len(set(summary["level"]) & set(_looks(sequential))) > 1
    for level, (colour, marker, shift) in _looks(sequential).items():
        for row in summary[summary["level"] == level].itertuples():
            y = families.index(row.family) + (shift if both else 0)
            ax.hlines(y, row.jaccard_low, row.jaccard_high, color=colour, lw=1.2)
            ax.scatter(row.jaccard, y, s=15, marker=marker, color=colour, linewidth=0, zorder=3)
            if row.expected == row.expected:
                ax.vlines(row.expected, y - 0.2, y + 0.2, color=style.INK, lw=1.2, zorder=3)
    ax.set(xlim=(-0.03, 1.03), ylim=(len(families) - 0.4, -0.6))
    ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    ax.set_xlabel("Jaccard index of two runs", size=style.SMALL)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")


def _survival(ax: Axes, edges: pd.DataFrame, families: list[str]) -> None:
    """The edges that any run keeps, the most frequent first."""
    for family in families:
        shares = edges.loc[edges["family"] == family, "share"].sort_values(ascending=False).to_numpy()
        if len(shares):
            ax.step(
                np.arange(len(shares) + 1),
                [*shares, 0],
                where="post",
                color=style.INK,
                lw=1,
                ls=LINES[families.index(family)],
                label=FAMILIES[family],
            )
    ax.set(ylim=(0, 1.05), xlabel="edges, most frequent first")
    ax.set_xlim(left=0)
    ax.set_yticks([0, 0.5, 1])
    ax.tick_params(labelsize=style.TINY)
    ax.grid()


def _legend(summary: pd.DataFrame, sequential: str) -> list[Artist]:
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=4, lw=1.2, label=f"{level}s: mean and range over pairs")
        for level, (colour, marker, _) in _looks(sequential).items()
        if (summary["level"] == level).any()
    ]
    chance: dict[str, Any] = {"marker": "|", "markersize": 8, "markeredgewidth": 1.2}
    return [*handles, Line2D([], [], ls="", color=style.INK, label="chance, equal numbers per layer", **chance)]
