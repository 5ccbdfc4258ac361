"""Steering from one sequence to another: success by layer and coefficient, beside controls, and what else it does."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from atlas.report import maps, style, wording

METRICS = {"top1": "next member on top", "class_top1": "target's class on top"}
METHODS = ("unsteered", "difference of means", "residual swap", "circuit swap", "all heads swap", "target prompts")
MEANS, HELD_OUT = "difference of means", "held_out"
MAP, MARKS, EFFECT, TALL, HEAD = 1.02, 1.3, 0.95, 1.12, 0.58  # inches
LEFT = (0.42, 0.42 + MAP + 0.14, 4.02, 5.78)  # of the two maps, the marks and the side effects
WRITTEN = 6, 12  # columns and rows of a map, up to which its cells have numbers


def draw(
    steering: pd.DataFrame, steering_side_effects: pd.DataFrame, colours: dict[str, str], sequential: str
) -> Figure:
    """A row a pair: two maps of layer by coefficient, what other edits do, and the KL on unrelated text."""
    pairs = list(dict.fromkeys(zip(steering["source"], steering["target"], strict=True)))
    if not pairs:
        fig = style.figure(style.COLUMN, 0.6)
        fig.text(0.05, 0.5, "No two sequences of the study could be matched.", size=style.SMALL)
        return fig
    fig = style.figure(style.PAGE, len(pairs) * (TALL + HEAD) + 0.3, layout=None)
    down = fig.get_size_inches()[1]
    for i, (source, target) in enumerate(pairs):
        rows = steering[(steering["source"] == source) & (steering["target"] == target)]
        other = steering_side_effects
        other = other[(other["source"] == source) & (other["target"] == target)]
        top, last = 0.4 + i * (TALL + HEAD), i == len(pairs) - 1
        title = f"{wording.words(source)} \u2192 {wording.words(target)}"
        fig.text(0.05 / style.PAGE, 1 - (top - 0.3) / down, title, weight="bold", size=style.TEXT, va="center")
        for left, metric in zip(LEFT[:2], METRICS, strict=True):
            _map(fig, left, top, rows[rows["metric"] == metric], metric, sequential, last)
        _marks(style.axes_at(fig, LEFT[2], top, MARKS, TALL), rows, colours, last)
        _effects(style.axes_at(fig, LEFT[3], top, EFFECT, TALL), other, colours, last)
    _legend(fig, colours, down)
    return fig


def _map(fig: Figure, left: float, top: float, rows: pd.DataFrame, metric: str, sequential: str, last: bool) -> None:
    """Success on held-out prompts, layers downwards; the cell that was chosen on search prompts framed."""
    swept = rows[(rows["method"] == MEANS) & (rows["split"] == HELD_OUT)]
    ax = style.axes_at(fig, left, top, MAP, TALL)
    ax.set_title(METRICS[metric] + ", %", size=style.TINY, weight="normal", pad=2)
    if swept.empty:
        ax.set_axis_off()
        ax.text(0.5, 0.5, "source and target\nare of one class", size=style.TINY, color=style.GREY, ha="center")
        return
    grid = swept.pivot(index="layer", columns="coefficient", values="value")
    cmap, norm = maps.from_white(sequential), Normalize(0, 1)
    maps.draw(ax, grid.to_numpy(), cmap, norm, lines=style.GHOST)
    if grid.shape[1] <= WRITTEN[0] and grid.shape[0] <= WRITTEN[1]:
        for (y, x), value in np.ndenumerate(grid.to_numpy()):
            ink = style.ink_on(cmap(norm(value))[:3])
            said = wording.number(100 * value)
            ax.text(x, y, said, size=style.LEAST, color=ink, ha="center", va="center")
    chosen = swept[swept["chosen"]].iloc[0]
    at = list(grid.columns).index(chosen["coefficient"]) - 0.5, list(grid.index).index(chosen["layer"]) - 0.5
    ax.add_patch(Rectangle(at, 1, 1, facecolor="none", edgecolor=style.INK, lw=1.2, zorder=4, clip_on=False))
    _ticks(ax, grid, metric == next(iter(METRICS)))
    if last:
        ax.set_xlabel("coefficient", size=style.TINY, labelpad=1)


def _ticks(ax: Axes, grid: pd.DataFrame, named: bool) -> None:
    """Coefficients below, and layers at the side of the first map."""
    across, down = (max(1, -(-n // most)) for n, most in ((grid.shape[1], 8), (grid.shape[0], 10)))
    ax.set_xticks(range(0, grid.shape[1], across), [f"{c:g}" for c in grid.columns[::across]])
    ax.set_yticks(range(0, grid.shape[0], down), [str(n) for n in grid.index[::down]] if named else [])
    if named:
        ax.set_ylabel("layer", size=style.TINY, labelpad=1)
    else:
        ax.set_yticks([])


def _marks(ax: Axes, rows: pd.DataFrame, colours: dict[str, str], last: bool) -> None:
    """Success of every edit, with random ones in grey from their mean to the largest."""
    own = rows[(rows["split"] == HELD_OUT) & ((rows["method"] != MEANS) | rows["chosen"])]
    names = [method for method in METHODS if (own["method"] == method).any()]
    look = {"top1": (colours["circuit"], "o", -0.17), "class_top1": (colours["clean"], "s", 0.17)}
    labels = []
    for y, method in enumerate(names):
        of_method = own[own["method"] == method].set_index("metric")
        heads, layer = (int(of_method[key].iloc[0]) for key in ("heads", "layer"))
        at = f", layer {layer}" if layer >= 0 else ""
        labels.append(f"{method.replace(' swap', f' swap ({heads} heads)') if heads else method + at}")
        for metric, (colour, marker, shift) in look.items():
            if metric not in of_method.index:
                continue
            row = 100 * of_method.loc[metric, ["value", "ci_low", "ci_high", "random_mean", "random_hi"]].astype(float)
            if row["random_hi"] == row["random_hi"]:
                ends = [row["random_mean"], row["random_hi"]]
                ax.plot(ends, [y + shift] * 2, color=style.FAINT, lw=3.2, solid_capstyle="butt", zorder=1)
                ax.plot(ends[:1], [y + shift], "|", color=style.GREY, ms=4, zorder=1.5)
            ax.plot([row["ci_low"], row["ci_high"]], [y + shift] * 2, color=colour, lw=0.9, zorder=2)
            ax.plot(row["value"], y + shift, marker, color=colour, ms=3, mew=0, zorder=3, clip_on=False)
    ax.set_yticks(range(len(names)), labels, size=style.LEAST)
    ax.set(xlim=(0, 100), ylim=(len(names) - 0.5, -0.5), xticks=(0, 50, 100))
    ax.tick_params(axis="x", labelsize=style.TINY, pad=1.5)
    ax.tick_params(axis="y", length=0, pad=2)
    ax.grid(axis="x")
    if last:
        ax.set_xlabel("% of held-out prompts", size=style.TINY, labelpad=1)


def _effects(ax: Axes, rows: pd.DataFrame, colours: dict[str, str], last: bool) -> None:
    """KL on unrelated text by coefficient, at the chosen layer; a line a text, random directions in grey."""
    kl, names = rows[rows["metric"] == "kl"], list(dict.fromkeys(rows["text"]))
    styles: list[Any] = ["-", "--", ":", "-."]
    for i, name in enumerate(names):
        own = kl[kl["text"] == name].sort_values("coefficient")
        x = range(len(own))
        ax.plot(x, own["value"], styles[i % 4], color=colours["circuit"], lw=1, label=wording.words(name))
        ax.vlines(x, own["ci_low"], own["ci_high"], color=colours["circuit"], lw=0.8)
        for place, (_, row) in enumerate(own.iterrows()):
            if row["chosen"]:
                ax.plot([place + 0.15] * 2, [row["random_mean"], row["random_hi"]], color=style.FAINT, lw=3.2, zorder=1)
                ax.plot(place, row["value"], "o", color=colours["circuit"], ms=3.5, mew=0)
    coefficients = sorted(kl["coefficient"].unique())
    every = max(1, -(-len(coefficients) // 6))
    ax.set_xticks(range(0, len(coefficients), every), [f"{c:g}" for c in coefficients[::every]])
    ax.set_xlim(-0.4, len(coefficients) - 0.6)
    ax.set_ylim(bottom=0)
    ax.tick_params(labelsize=style.TINY, pad=1.5)
    ax.set_title("KL elsewhere, nats", size=style.TINY, weight="normal", pad=2)
    if len(names) > 1:
        ax.legend(fontsize=style.LEAST, loc="upper left", handlelength=1.8, borderaxespad=0.1)
    if last:
        ax.set_xlabel("coefficient", size=style.TINY, labelpad=1)


def _legend(fig: Figure, colours: dict[str, str], down: float) -> None:
    """What the marks are, right of the first title."""
    handles = [
        Line2D([], [], color=colours["circuit"], marker="o", ms=3, lw=0.9, label=METRICS["top1"]),
        Line2D([], [], color=colours["clean"], marker="s", ms=3, lw=0.9, label=METRICS["class_top1"]),
        Line2D([], [], color=style.FAINT, lw=3.2, label="random: mean to largest"),
    ]
    place: dict[str, Any] = {
        "loc": "upper right",
        "bbox_to_anchor": (1 - 0.05 / style.PAGE, 1),
        "bbox_transform": fig.transFigure,
    }
    fig.legend(handles=handles, ncols=3, fontsize=style.TINY, handlelength=1.6, columnspacing=1.2, **place)
