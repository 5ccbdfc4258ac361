"""How few neurons carry what an MLP does for the answer, beside random ones, and which answers they are active on."""

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from atlas.core.multiple import ALPHA
from atlas.report import maps, style, wording

SHOWN, ANSWERS = 8, 22  # neurons and answers of a map, at most
TALL, LEFT, MAP, LINE = 1.0, 0.42, 2.2, 1.75  # inches: of a panel, what stands left, a map, a line


def draw(
    neurons: pd.DataFrame,
    neuron_sets: pd.DataFrame,
    neuron_members: pd.DataFrame,
    main_tasks: list[str],
    colours: dict[str, str],
    diverging: str,
) -> Figure:
    """A line for each task: left, logits lost by the number of neurons ablated, a panel for each MLP; right, the mean
    activation of the neurons that cost most by themselves, answer by answer."""
    mlps = sorted(set(neuron_sets["component"]), key=wording.place)
    if not mlps:
        fig = style.figure(style.COLUMN, 0.6)
        fig.text(0.05, 0.5, "No neuron was looked at: the circuits have no MLP.", size=style.SMALL)
        return fig
    fig = style.figure(style.PAGE, 0.35 + LINE * len(main_tasks), layout=None)
    wide = (style.PAGE - LEFT - MAP - 0.75) / len(mlps)
    for i, task in enumerate(main_tasks):
        top = 0.5 + i * LINE
        of_task = neuron_sets[neuron_sets["task"] == task]
        high = 1.08 * max(of_task[["ci_high", "random_high"]].max().max(), 1e-9)
        low = min(0, of_task[["ci_low", "random_low"]].min().min())
        for k, mlp in enumerate(mlps):
            ax = style.axes_at(fig, LEFT + k * wide, top, wide - 0.16, TALL)
            _curve(ax, of_task[of_task["component"] == mlp], colours)
            ax.set_ylim(low - 0.02 * high, high)
            ax.set_title(f"MLP {mlp}", size=style.TINY, weight="normal", pad=2)
            if k:
                ax.set_yticklabels([])
            else:
                ax.set_ylabel("logits lost", size=style.TINY, labelpad=1)
                ax.annotate(wording.words(task), (0, 1), (-26, 13), "axes fraction", "offset points", weight="bold")
        own, members = (table[table["task"] == task] for table in (neurons, neuron_members))
        _map(style.axes_at(fig, style.PAGE - MAP - 0.06, top, MAP, TALL), own, members, diverging)
    _legend(fig, colours, diverging)
    return fig


def strongest(neurons: pd.DataFrame) -> pd.DataFrame:
    """The neurons of a task that cost most by themselves, of all its MLPs."""
    return neurons.sort_values("value", ascending=False, kind="stable").head(SHOWN)


def _curve(ax: Axes, rows: pd.DataFrame, colours: dict[str, str]) -> None:
    """By attribution with its interval, and random orders; a line at the whole MLP, and one at the smallest set."""
    curve = rows[rows["set"] == "curve"].sort_values("neurons")
    whole = rows[rows["set"] == "whole"].iloc[0]
    ax.set_xscale("log", base=2)
    ax.fill_between(curve["neurons"], curve["random_low"], curve["random_high"], color=style.FAINT, lw=0, alpha=0.6)
    ax.plot(curve["neurons"], curve["random"], color=style.GREY, lw=1)
    ax.fill_between(curve["neurons"], curve["ci_low"], curve["ci_high"], color=colours["circuit"], lw=0, alpha=0.25)
    ax.plot(curve["neurons"], curve["value"], color=colours["circuit"], lw=1.3)
    ax.axhline(whole["value"], color=style.INK, lw=0.7, ls=(0, (3, 2)))
    found = rows[rows["set"] == "smallest"]
    for row in found.to_dict("records"):
        ax.axvline(row["neurons"], color=colours["circuit"], lw=0.7)
        ax.scatter([row["neurons"]], [row["value"]], s=14, color=colours["circuit"], linewidth=0, zorder=3)
        star = "*" if row["p_holm"] < ALPHA else ""
        left = row["neurons"] > row["of"] ** 0.75
        ax.annotate(
            f"{row['neurons']}{star}",
            (row["neurons"], row["value"]),
            (-3, 3) if left else (3, -8),
            "data",
            "offset points",
            size=style.TINY,
            color=colours["circuit"],
            ha="right" if left else "left",
        )
    if found.empty:
        ax.text(0.04, 0.9, "no effect to carry", transform=ax.transAxes, size=style.LEAST, color=style.GREY)
    last = int(whole["of"])
    ticks = [1, 2 ** round(np.log2(last) / 2), last]
    ax.set_xticks(ticks, list(map(str, ticks)))
    ax.minorticks_off()
    ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.tick_params(labelsize=style.LEAST, pad=1.5)
    ax.set_xlabel("neurons ablated", size=style.TINY, labelpad=1)


def _map(ax: Axes, neurons: pd.DataFrame, members: pd.DataFrame, diverging: str) -> None:
    """Mean activations, in shares of each neuron's largest, the mean over corrupted prompts first; a star where answers
    surely differ."""
    top = strongest(neurons)
    shown = members.sort_values("place", kind="stable")
    answers = list(dict.fromkeys(shown["answer"]))[:ANSWERS]
    grid, names = np.full((len(top), 1 + len(answers)), np.nan), []
    for i, row in enumerate(top.to_dict("records")):
        own = shown[(shown["component"] == row["component"]) & (shown["neuron"] == row["neuron"])].set_index("answer")
        grid[i] = [row["ablated"], *own["value"].reindex(answers)]
        largest = np.nanmax(np.abs(grid[i]))
        grid[i] /= largest if largest > 0 else 1
        names.append(f"{row['component']}:{row['neuron']}{'*' if row['p_holm'] < ALPHA else ''}")
    maps.draw(ax, grid, diverging, style.centred(1), lines="white")
    ax.axvline(0.5, color=style.INK, lw=0.8)
    ax.set_yticks(range(len(names)), names, size=style.LEAST)
    ax.set_xticks(range(1 + len(answers)), ["corrupted", *answers], size=style.LEAST, rotation=90)
    ax.set_title("mean activation, by answer", size=style.TINY, weight="normal", pad=2)


def _legend(fig: Figure, colours: dict[str, str], diverging: str) -> None:
    cmap = matplotlib.colormaps[diverging]
    down = fig.get_size_inches()[1]
    look: dict[str, Any] = {"size": style.TINY, "va": "center"}
    at = 1 - 0.1 / down
    for x, mark, text, colour in (
        (0.05, "\u25a0", "by attribution; the smallest set (* p < 0.05)", colours["circuit"]),
        (2.4, "\u25a0", "in random order", style.FAINT),
        (3.35, "- -", "the whole MLP", style.INK),
        (4.45, "\u25a0", "activation above 0", cmap(0.9)),
        (5.6, "\u25a0", "below 0", cmap(0.1)),
    ):
        fig.text(x / style.PAGE, at, mark, color=colour, **look)
        fig.text((x + (0.18 if mark else 0)) / style.PAGE, at, text, **look)
