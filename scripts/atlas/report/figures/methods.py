"""Which components and edges several methods agree on: an UpSet plot for each task and level."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from atlas.report import style, wording

COLUMN, ROW = 0.135, 0.135  # inches: an intersection, a method
BARS, SIZES = 0.55, 0.5  # inches: height of the bars above, width of the bars at the side
UP_TO, AT_LEAST = 20, 6  # intersections shown if the page has room; the smaller ones are counted
LEVELS = {"component": "components", "edge": "edges"}


def intersections(found: pd.DataFrame) -> tuple[list[str], list[tuple[tuple[str, ...], int]]]:
    """(methods, largest first; and for each set of methods, how many names exactly these find, most names first)."""
    sizes = found.groupby("method", sort=False)["name"].nunique().sort_values(ascending=False, kind="stable")
    methods = list(sizes.index)
    holders = found.groupby("name")["method"].agg(set)
    groups: dict[tuple[str, ...], int] = {}
    for held in holders:
        key = tuple(m for m in methods if m in held)
        groups[key] = groups.get(key, 0) + 1
    return methods, sorted(groups.items(), key=lambda item: (-item[1], -len(item[0]), item[0]))


def at_threshold(methods: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Without node searches of other thresholds, which find circuits of other sizes: `layers T=20` stays at 20."""
    level, t = methods["level"], methods["method"].str.extract(r" T=([\d.]+)$")[0].astype(float)
    edges = set(methods.loc[level == "edge", "method"])
    return methods[(level == "edge") | methods["method"].isin(edges) | t.isna() | np.isclose(t, threshold)]


def draw(methods: pd.DataFrame, main_tasks: list[str], threshold: float, colours: dict[str, str]) -> Figure:
    """A row for each task: components left, edges right. `colours` has `clean` (bars) and `circuit` (found by all).

    ``threshold``: of the node searches that are shown.
    """
    methods = at_threshold(methods, threshold)
    levels = [level for level in LEVELS if (methods["level"] == level).any()]
    names = [len(wording.words(m)) for m in methods["method"].unique()]
    label = 0.06 * max(names, default=0) + 0.12
    side = label + SIZES + 0.12
    room = style.PAGE / len(levels) - side - 0.15
    columns = min(UP_TO, max(AT_LEAST, int(room / COLUMN)))
    across = side + COLUMN * columns + 0.15
    counts = methods.groupby(["task", "level"])["method"].nunique()
    tall = [BARS + 0.52 + ROW * counts.loc[task].max() for task in main_tasks]
    fig = style.figure(across * len(levels), sum(tall) + 0.05, layout=None)
    for i, task in enumerate(main_tasks):
        for j, level in enumerate(levels):
            found = methods[(methods["task"] == task) & (methods["level"] == level)]
            if len(found):
                title = f"{wording.words(task)}: {LEVELS[level]}"
                _upset(fig, found, j * across, 0.32 + sum(tall[:i]), side, columns, title, colours)
    return fig


def _upset(
    fig: Figure,
    found: pd.DataFrame,
    left: float,
    top: float,
    side: float,
    columns: int,
    title: str,
    colours: dict[str, str],
) -> None:
    methods, groups = intersections(found)
    shown, rest = groups[:columns], groups[columns:]
    deep = ROW * len(methods)
    x = range(len(shown))
    bars = style.axes_at(fig, left + side, top, COLUMN * columns, BARS)
    shades = [colours["circuit"] if len(key) == len(methods) else colours["clean"] for key, _ in shown]
    bars.bar(x, [n for _, n in shown], width=0.62, color=shades)
    for i, (_, n) in enumerate(shown):
        bars.text(i, n, str(n), ha="center", va="bottom", size=style.TINY)
    bars.set(xlim=(-0.6, columns - 0.4), ylim=(0, 1.08 * max(n for _, n in shown)), xticks=[])
    bars.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    bars.tick_params(labelsize=style.TINY)
    bars.spines["bottom"].set_visible(False)
    across, down = fig.get_size_inches()
    fig.text((left + 0.08) / across, 1 - (top - 0.16) / down, title, weight="bold", va="bottom")
    if rest:
        text = f"{wording.count(len(rest), 'smaller group')}: {sum(n for _, n in rest)}"
        right = (left + side + COLUMN * columns) / across
        look: dict[str, Any] = {"size": style.TINY, "color": style.GREY, "ha": "right", "va": "bottom"}
        fig.text(right, 1 - (top - 0.17) / down, text, **look)

    grid = style.axes_at(fig, left + side, top + BARS + 0.06, COLUMN * columns, deep)
    grid.set(xlim=(-0.6, columns - 0.4), ylim=(len(methods) - 0.5, -0.5))
    grid.axis("off")
    for y in range(0, len(methods), 2):
        grid.axhspan(y - 0.5, y + 0.5, color=style.GHOST, alpha=0.5, lw=0)
    for i, (key, _) in enumerate(shown):
        inside = [y for y, method in enumerate(methods) if method in key]
        grid.scatter([i] * len(methods), range(len(methods)), s=9, color=style.FAINT, linewidth=0)
        grid.plot([i] * len(inside), inside, "-o", color=style.INK, lw=0.9, markersize=3)

    sizes = style.axes_at(fig, left + side - SIZES - 0.12, top + BARS + 0.06, SIZES, deep)
    values = [found.loc[found["method"] == method, "name"].nunique() for method in methods]
    sizes.barh(range(len(methods)), values, height=0.6, color=style.tint(style.GREY, 0.6))
    for y, value in enumerate(values):
        sizes.text(value, y, f"{value} ", ha="right", va="center", size=5.5)
    sizes.set(xlim=(1.7 * max(values), 0), ylim=(len(methods) - 0.5, -0.5), xticks=[])
    sizes.set_yticks(range(len(methods)), [wording.words(m) for m in methods], size=style.TINY)
    sizes.tick_params(length=0)
    sizes.spines[:].set_visible(False)
