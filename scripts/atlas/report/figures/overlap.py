"""What the circuits of the main tasks have in common: components (an UpSet plot), pair by pair, and beside chance."""

import textwrap
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from atlas.report import style, wording

LINE, CELL, HIGH = 0.135, 0.86, 0.6  # inches: a line of component names, width and height of a pair
LEFT, BARS, GAP = 0.25, 1.7, 0.2  # inches: margin, length of the bars, and between dots and bars
LEVELS = {"heads": "Heads", "mlps": "MLPs", "edges": "Edges"}
TYPES = {"shared core with branches": "shared core", "same members": "same", "disjoint": "disjoint"}  # in a cell
Groups = list[tuple[tuple[str, ...], list[str]]]  # see `intersections`


def intersections(membership: pd.DataFrame, tasks: list[str]) -> list[tuple[tuple[str, ...], list[str]]]:
    """(the tasks whose circuits hold them and no other, components), most tasks first, then most components."""
    holders: dict[str, set[str]] = {}
    for row in membership[membership["circuit"].isin(tasks)].itertuples():
        holders.setdefault(row.component, set()).add(row.circuit)
    groups: dict[tuple[str, ...], list[str]] = {}
    for component in sorted(holders, key=wording.place):
        groups.setdefault(tuple(t for t in tasks if t in holders[component]), []).append(component)
    return sorted(groups.items(), key=lambda item: (-len(item[0]), -len(item[1]), item[0]))


def draw(
    membership: pd.DataFrame,
    overlap: pd.DataFrame,
    typology: pd.DataFrame,
    main_tasks: list[str],
    colours: dict[str, str],
    sequential: str,
) -> Figure:
    """From the tables of those names. `colours` has `clean` (heads) and `circuit` (MLPs)."""
    groups = intersections(membership, main_tasks)
    if len(main_tasks) > 1 and not any(len(names) == len(main_tasks) for names, _ in groups):
        groups.insert(0, (tuple(main_tasks), []))  # an empty intersection of all tasks is a finding, so it is shown
    dots = 0.3 * len(main_tasks)
    names_at = LEFT + dots + GAP + BARS + 0.3
    columns = int((style.PAGE - names_at) * 72 / (0.602 * style.SMALL))
    texts = [textwrap.wrap(" ".join(components), columns) or ["none"] for _, components in groups]
    heights = [max(0.27, LINE * len(text) + 0.1) for text in texts]
    tops = [sum(heights[:i]) + heights[i] / 2 for i in range(len(groups))]
    head, upset = 0.5 + 0.066 * max(len(task) for task in main_tasks), sum(heights)
    pairs = overlap[overlap["circuit_a"].isin(main_tasks) & overlap["circuit_b"].isin(main_tasks)]
    levels = [level for level in LEVELS if (pairs["level"] == level).any()]
    below = 0.2 + _step(main_tasks) * -(-len(levels) // _per_row(main_tasks))
    fig = style.figure(style.PAGE, head + upset + 0.3 + below, layout=None)

    _matrix(style.axes_at(fig, LEFT, head, dots, upset), groups, tops, heights, main_tasks, membership)
    _bars(style.axes_at(fig, LEFT + dots + GAP, head, BARS, upset), groups, tops, upset, colours)
    _names(style.axes_at(fig, names_at, head, style.PAGE - names_at, upset), groups, tops, texts, upset)
    up = 1 - (head - 0.1) / fig.get_size_inches()[1]
    fig.text(names_at / style.PAGE, up, "components", size=style.SMALL, weight="bold", va="center")
    kinds = {(row.circuit_a, row.circuit_b, row.level): row.type for row in typology.itertuples()}
    wide, high = CELL * (len(main_tasks) - 1), HIGH * (len(main_tasks) - 1)
    for k, level in enumerate(levels):
        row, column = divmod(k, _per_row(main_tasks))
        left, top = _label(main_tasks) + column * (wide + 0.2), head + upset + 0.9 + row * _step(main_tasks)
        ax = style.axes_at(fig, left, top, wide, high)
        _jaccards(ax, pairs[pairs["level"] == level], kinds, main_tasks, sequential, named=column == 0)
        ax.set_title(LEVELS[level], size=style.SMALL, x=0, ha="left")
    if levels:
        said = "Pair by pair: Jaccard index, what is shared of what is in either, and the chance of sharing as much"
        up = 1 - (head + upset + 0.62) / fig.get_size_inches()[1]
        fig.text(0.05 / style.PAGE, up, said, size=style.TINY, color=style.GREY, va="center")
    return fig


def _matrix(
    ax: Axes, groups: Groups, tops: list[float], heights: list[float], tasks: list[str], membership: pd.DataFrame
) -> None:
    sizes = membership["circuit"].value_counts()
    ax.set(xlim=(-0.5, len(tasks) - 0.5), ylim=(sum(heights), 0))
    ax.axis("off")
    for i, (names, _) in enumerate(groups):
        if i % 2 == 0:
            ax.axhspan(tops[i] - heights[i] / 2, tops[i] + heights[i] / 2, color=style.GHOST, alpha=0.5, lw=0)
        inside = [j for j, task in enumerate(tasks) if task in names]
        ax.scatter(range(len(tasks)), [tops[i]] * len(tasks), s=30, color=style.FAINT, linewidth=0)
        ax.plot(inside, [tops[i]] * len(inside), "-o", color=style.INK, lw=1.4, markersize=5.5)
    for j, task in enumerate(tasks):
        ax.text(
            j,
            -0.06,
            f"{wording.words(task)} ({sizes.get(task, 0)})",
            rotation=60,
            ha="left",
            va="bottom",
            size=style.SMALL,
            rotation_mode="anchor",
        )


def _bars(ax: Axes, groups: Groups, tops: list[float], upset: float, colours: dict[str, str]) -> None:
    heads = [sum(not wording.is_mlp(c) for c in components) for _, components in groups]
    mlps = [len(components) - n for n, (_, components) in zip(heads, groups, strict=True)]
    ax.barh(tops, heads, height=0.17, color=colours["clean"])
    hatched: dict[str, Any] = {
        "facecolor": style.tint(colours["circuit"], 0.35),
        "edgecolor": colours["circuit"],
        "hatch": "/////",
    }
    for y, a, b in zip(tops, heads, mlps, strict=True):
        if b:
            ax.barh(y, b, left=a, height=0.17, linewidth=0.7, **hatched)
    largest = max((a + b for a, b in zip(heads, mlps, strict=True)), default=1)
    for y, a, b in zip(tops, heads, mlps, strict=True):
        ax.text(a + b + 0.03 * largest, y, str(a + b), va="center", size=style.SMALL)
    ax.set(ylim=(upset, 0), xlim=(0, 1.18 * max(largest, 1)), xlabel="number of components")
    ax.set_yticks([])
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.spines["left"].set_visible(False)
    ax.legend(
        handles=[Patch(color=colours["clean"], label="heads"), Patch(label="MLPs", **hatched)],
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=2,
        borderaxespad=0.1,
        handlelength=1.4,
    )


def _names(ax: Axes, groups: Groups, tops: list[float], texts: list[list[str]], upset: float) -> None:
    """The components of each group, on as many lines as they take."""
    ax.set(xlim=(0, 1), ylim=(upset, 0))
    ax.axis("off")
    look: dict[str, Any] = {"va": "center", "size": style.SMALL, "family": "monospace", "linespacing": 1.25}
    for y, text, (_, components) in zip(tops, texts, groups, strict=True):
        ax.text(0, y, "\n".join(text), color=style.INK if components else style.GREY, **look)


def _label(tasks: list[str]) -> float:
    """Inches for the names of tasks."""
    return 0.07 * max(map(len, tasks)) + 0.1


def _per_row(tasks: list[str]) -> int:
    """Matrices side by side on a page."""
    return max(1, int((style.PAGE - _label(tasks) + 0.2) / (CELL * max(1, len(tasks) - 1) + 0.2)))


def _step(tasks: list[str]) -> float:
    """Inches from one row of matrices to the next."""
    return HIGH * (len(tasks) - 1) + 0.95


def _jaccards(
    ax: Axes, rows: pd.DataFrame, kinds: dict[tuple[str, str, str], str], tasks: list[str], sequential: str, named: bool
) -> None:
    """A matrix of pairs; p-values for heads and edges, since too few MLPs exist for one."""
    cmap = matplotlib.colormaps[sequential]
    for row in rows.itertuples():
        i, j = sorted((tasks.index(row.circuit_a), tasks.index(row.circuit_b)))
        colour = style.tint(cmap(row.jaccard)[:3], 0.85)
        ax.add_patch(matplotlib.patches.Rectangle((i - 0.5, j - 1.5), 1, 1, facecolor=colour, edgecolor="white"))
        lines = [f"{row.jaccard:.2f}", f"{row.shared} of {row.size_a + row.size_b - row.shared}"]
        if row.p_holm == row.p_holm:
            lines.append(wording.p_value(row.p_holm))
        kind = kinds.get((row.circuit_a, row.circuit_b, row.level))
        lines += [TYPES.get(kind, kind)] if kind else []
        text = "\n".join(lines)
        look: dict[str, Any] = {"size": style.TINY, "linespacing": 1.2, "color": style.ink_on(colour)}
        ax.text(i, j - 1, text, ha="center", va="center", **look)
    n = len(tasks) - 1
    ax.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5))
    ax.set_xticks(range(n), [wording.words(t, 12) for t in tasks[:-1]], size=style.TINY)
    ax.set_yticks(range(n), [wording.words(t) for t in tasks[1:]] if named else [""] * n, size=style.TINY)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
