"""Directions of heads and MLPs: what ablating one costs beside the whole and random ones, and which write next."""

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from atlas.core.multiple import ALPHA
from atlas.report import maps, style, wording

WHOLE = -1  # in place of a direction (`geometry.directions`)
COLUMNS = 12  # directions of a map, at most: those of largest singular values
LINE, LEFT, MAP, BELOW = 0.125, 0.92, 1.7, 0.55  # inches: of a line, what stands left, a map, what stands below a panel
CLIPPED = 66  # characters of a list of tokens


def draw(
    directions: pd.DataFrame,
    direction_next: pd.DataFrame,
    direction_ablations: pd.DataFrame,
    main_tasks: list[str],
    colours: dict[str, str],
    diverging: str,
) -> Figure:
    """A band for each component: left, logits lost at the answer position, a panel for each task; right, of a head,
    what each direction adds to the next member's logit, class by class; below, what its first directions read and
    write."""
    components = list(dict.fromkeys(direction_ablations["component"]))
    if not components:
        fig = style.figure(style.COLUMN, 0.6)
        fig.text(0.05, 0.5, "No direction was ablated: no component of a circuit writes anything.", size=style.SMALL)
        return fig
    shown = {c: leads(direction_ablations, c) for c in components}
    lines = {c: 1 + direction_ablations.loc[direction_ablations["component"] == c, "rank"].max() for c in components}
    tall = {c: LINE * max(lines[c], 6) for c in components}
    heights = {c: tall[c] + BELOW + 0.2 * len(shown[c]) for c in components}
    fig = style.figure(style.PAGE, sum(heights.values()) + 0.55, layout=None)
    wide = (style.PAGE - LEFT - MAP - 0.72) / len(main_tasks)
    top = 0.5
    for component in components:
        rows = direction_ablations[direction_ablations["component"] == component]
        reach = 1.05 * max(rows[["ci_high", "random_high"]].max().max(), 1e-9)
        low = min(0, 1.05 * rows[["ci_low", "random_low"]].min().min())
        for i, task in enumerate(main_tasks):
            ax = style.axes_at(fig, LEFT + i * wide, top, wide - 0.3, tall[component])
            _losses(ax, rows[rows["task"] == task], colours)
            ax.set_xlim(low, reach)
            if component == components[0]:
                ax.set_title(wording.words(task), size=style.SMALL, pad=3)
            ax.set_xlabel("logits lost", size=style.TINY, labelpad=1)
        name = ("MLP " if wording.is_mlp(component) else "head ") + component
        fig.text(0.04 / style.PAGE, 1 - top / fig.get_size_inches()[1], name, weight="bold", size=style.TEXT, va="top")
        if not wording.is_mlp(component):
            ax = style.axes_at(fig, style.PAGE - MAP - 0.08, top, MAP, tall[component])
            _next(ax, direction_next[direction_next["component"] == component], diverging, component == components[0])
        _said(fig, directions[directions["component"] == component], shown[component], top + tall[component] + 0.31)
        top += heights[component]
    _legend(fig, colours, diverging)
    return fig


def leads(ablations: pd.DataFrame, component: str) -> list[int]:
    """The directions of a component that any task's attribution puts first, those of most tasks before others."""
    first = ablations[(ablations["component"] == component) & (ablations["rank"] == 1)]["direction"]
    return [int(j) for j in first.value_counts(sort=True).index][:3]


def _losses(ax: Axes, rows: pd.DataFrame, colours: dict[str, str]) -> None:
    """The whole component on top, then its directions in the order of attribution; grey, 95 % of random directions."""
    y = range(len(rows))
    ink = [style.INK if j == WHOLE else colours["circuit"] for j in rows["direction"]]
    random = rows.iloc[0]
    ax.axvspan(random["random_low"], random["random_high"], color=style.GHOST, lw=0, zorder=0)
    ax.axvline(random["random"], color=style.FAINT, lw=0.8, zorder=1)
    ax.axvline(0, color=style.GREY, lw=0.6, zorder=1)
    ax.hlines(y, rows["ci_low"], rows["ci_high"], color=ink, lw=1.2, zorder=2)
    ax.scatter(rows["value"], y, s=11, color=ink, linewidth=0, zorder=3)
    names = [
        "all" if j == WHOLE else f"{j}{'*' if p < ALPHA else ''}"
        for j, p in zip(rows["direction"], rows["p_holm"], strict=True)
    ]
    ax.set_yticks(y, names, size=style.LEAST)
    ax.set_ylim(max(len(rows), 1) - 0.4, -0.6)
    ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.tick_params(labelsize=style.LEAST, pad=1.5)
    ax.tick_params(axis="y", length=0)


def _next(ax: Axes, rows: pd.DataFrame, diverging: str, first: bool) -> None:
    """Classes by directions, the whole head in the first column; in shares of the head's largest number, of which the
    sum of all directions is the whole."""
    names = list(dict.fromkeys(rows["class"]))
    columns = [WHOLE, *range(min(COLUMNS, int(rows["direction"].max()) + 1))]
    wide = rows.pivot(index="class", columns="direction", values="value").reindex(index=names, columns=columns)
    sure = rows.assign(sure=rows["p_holm"] < ALPHA).pivot(index="class", columns="direction", values="sure")
    largest = np.nanmax(np.abs(wide.to_numpy()))
    grid = wide.to_numpy() / (largest if largest > 0 else 1)
    dots = sure.reindex(index=names, columns=columns).fillna(False).to_numpy(dtype=bool)
    maps.draw(ax, grid, diverging, style.centred(1), dots=dots, lines="white")
    ax.set_yticks(range(len(names)), [short(name) for name in names], size=style.LEAST)
    ax.set_xticks(range(len(columns)), ["all", *map(str, columns[1:])], size=style.LEAST)
    ax.axvline(0.5, color=style.GREY, lw=0.6)
    ax.set_xlabel("direction", size=style.TINY, labelpad=1)
    if first:
        ax.set_title("next member, from the weights", size=style.SMALL, pad=3, loc="right")


def short(name: str) -> str:
    """The name of a class in a narrow column."""
    found = wording.words(name)
    return found if len(found) <= 14 else f"{found[:13]}."


def _said(fig: Figure, rows: pd.DataFrame, shown: list[int], top: float) -> None:
    """Two lines for each direction: what it reads and writes where its output is as on the prompts (sign +)."""
    down = fig.get_size_inches()[1]
    look: dict[str, Any] = {"size": style.LEAST, "va": "top"}
    for i, j in enumerate(shown):
        row = rows[(rows["direction"] == j) & (rows["sign"] == "+")].iloc[0]
        parts = [("writes", row["writes"], row["label"], row["label_p_holm"])]
        if row["reads"]:
            parts.insert(0, ("reads", row["reads"], row["read_label"], row["read_p_holm"]))
        fig.text(LEFT / style.PAGE, 1 - (top + 0.2 * i) / down, f"{j}", weight="bold", ha="right", **look)
        for k, (verb, tokens, label, p) in enumerate(parts):
            said = f"{verb} {clip(tokens)}  ({wording.words(label)}{'*' if p < ALPHA else ''})"
            fig.text((LEFT + 0.1) / style.PAGE, 1 - (top + 0.2 * i + 0.1 * k) / down, said.replace("$", r"\$"), **look)


def clip(text: str) -> str:
    """At most CLIPPED characters, cut between tokens."""
    printed = "".join(c if c.isprintable() and c != "\ufffd" else "\u25a1" for c in text)
    return printed if len(printed) <= CLIPPED else printed[:CLIPPED].rpartition("  ")[0] + " \u2026"


def _legend(fig: Figure, colours: dict[str, str], diverging: str) -> None:
    down = fig.get_size_inches()[1]
    cmap = matplotlib.colormaps[diverging]
    look: dict[str, Any] = {"size": style.TINY, "va": "center"}
    at = 1 - 0.13 / down
    for x, text, colour in (
        (0.05, "all: the whole component", style.INK),
        (1.5, "one direction (* p < 0.05)", colours["circuit"]),
        (3.0, "95 % of random directions of its output", style.FAINT),
    ):
        fig.text(x / style.PAGE, at, "\u25a0", color=colour, **look)
        fig.text((x + 0.12) / style.PAGE, at, text, **look)
    for x, text, shade in ((5.15, "adds to next", cmap(0.95)), (6.0, "takes from it", cmap(0.05))):
        fig.text(x / style.PAGE, at, "\u25a0", color=shade, **look)
        fig.text((x + 0.12) / style.PAGE, at, text, **look)
