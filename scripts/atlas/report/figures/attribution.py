"""What writes the answer: the logit difference gathered along the model, layer by layer and head by head."""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from atlas.report import maps, style, wording

CONSTANTS = {"embed": "embeddings", "positions": "positions", "final norm bias": "norm bias", "unembedding bias": "b_U"}
ACROSS = 3
LOOKS = {"attn": ("clean", "o", "attention layer"), "m": ("circuit", "s", "MLP"), "bias": (None, "D", "b_O")}


def draw(
    attribution: pd.DataFrame, membership: pd.DataFrame, main_tasks: list[str], colours: dict[str, str], diverging: str
) -> Figure:
    """A column for each task: the accumulated residual, what each layer writes, what each head writes."""
    heads = attribution[(attribution["part"] == "head") & (attribution["head"] >= 0)]
    norm = style.centred(float(heads["value"].abs().max()) if len(heads) else 1)
    layers = int(heads["layer"].max()) + 1
    tall = layers * maps.cell_height(layers, 0.17)
    columns = min(ACROSS, len(main_tasks))
    bands = math.ceil(len(main_tasks) / columns)
    wide = (style.PAGE - 1.1) / columns - 0.2 if columns > 1 else 3.6
    high = (1.0, 1.35, tall)
    band = sum(high) + 1.95
    fig = style.figure(max(columns * (wide + 0.2) + 1.1, style.COLUMN), 0.5 + bands * band, layout=None)
    curves = attribution[attribution["part"].isin(["accumulated", "write"])]
    ends = [[min(0, c["ci_low"].min()), max(0, c["ci_high"].max())] for _, c in curves.groupby("part")]
    for i, task in enumerate(main_tasks):
        rows = attribution[attribution["task"] == task]
        left, top = 0.5 + (i % columns) * (wide + 0.2), 0.5 + (i // columns) * band
        upper = style.axes_at(fig, left, top, wide, high[0])
        _accumulated(upper, rows[rows["part"] == "accumulated"], colours["clean"], layers)
        upper.set_title(wording.words(task))
        middle = style.axes_at(fig, left, top + high[0] + 0.5, wide, high[1])
        _writes(middle, rows[rows["part"] == "write"], colours, layers)
        lower = style.axes_at(fig, left, top + high[0] + high[1] + 1.35, wide, high[2])
        _heads(lower, rows[rows["part"] == "head"], maps.circuit_heads(membership, task), norm, diverging)
        for ax, (low, up), label in zip(
            (upper, middle), ends, ("accumulated\n(logits)", "written\n(logits)"), strict=True
        ):
            ax.set_ylim(low - 0.06 * (up - low), up + 0.06 * (up - low))
            ax.axhline(0, color=style.GREY, lw=0.7, zorder=1)
            if i % columns == 0:
                ax.set_ylabel(label, size=style.SMALL)
            else:
                ax.tick_params(labelleft=False)
        if i % columns == 0:
            lower.set_ylabel("layer", size=style.SMALL)
    bar_top = 0.5 + high[0] + high[1] + 1.35
    maps.bar(fig, 0.5 + columns * (wide + 0.2) - 0.06, bar_top, min(1.4, tall), diverging, norm, "heads\n(logits)")
    fig.legend(handles=_legend(colours, attribution), loc="upper left", ncols=4, borderaxespad=0.2)
    return fig


def _accumulated(ax: Axes, rows: pd.DataFrame, colour: str, layers: int) -> None:
    x = np.arange(len(rows)) / 2
    ax.fill_between(x, rows["ci_low"], rows["ci_high"], color=style.tint(colour, 0.3), lw=0)
    ax.plot(x, rows["value"], color=colour, lw=1.2, marker="o", markersize=2.5)
    ax.set_xticks(range(0, layers + 1, math.ceil((layers + 1) / 8)))
    ax.set_xlabel("layers passed", size=style.SMALL, labelpad=1)
    ax.tick_params(labelsize=style.TINY)
    ax.grid()


def _kind(name: str) -> str:
    """`attn 3` -> `attn`, `bias 3` -> `bias`, `m3` -> `m`."""
    return "m" if wording.is_mlp(name) else name.split(" ")[0]


def places(names: list[str], layers: int) -> dict[str, float]:
    """x of every write: constants before the layers and after them, three places within a layer."""
    shift: dict[str, float] = {"attn": -0.25, "bias": 0.0, "m": 0.25}
    x: dict[str, float] = {}
    for name in names:
        if name in CONSTANTS:
            nth = list(CONSTANTS).index(name)
            x[name] = nth - 2 if nth < 2 else layers + nth - 2
        else:
            x[name] = int(name.removeprefix(_kind(name))) + shift[_kind(name)]
    return x


def _writes(ax: Axes, rows: pd.DataFrame, colours: dict[str, str], layers: int) -> None:
    at = places(list(rows["name"]), layers)
    kinds = rows["name"].map(lambda name: "bias" if name in CONSTANTS else _kind(name))
    for kind, part in rows.assign(x=rows["name"].map(at)).groupby(kinds, sort=False):
        colour, marker, _ = LOOKS[kind]
        colour = colours[colour] if colour else style.GREY
        ax.vlines(
            part["x"], part["value"].clip(upper=0), part["value"].clip(lower=0), color=style.tint(colour, 0.5), lw=1
        )
        ax.vlines(part["x"], part["ci_low"], part["ci_high"], color=colour, lw=1.6)
        size = 7 if marker == "D" else 13
        ax.scatter(part["x"], part["value"], s=size, marker=marker, color=colour, linewidth=0, zorder=3)
    constants = {at[name]: text for name, text in CONSTANTS.items() if name in at}
    step = math.ceil(layers / 12)
    ticks: dict[float, str] = {**{layer: str(layer) for layer in range(0, layers, step)}, **constants}
    ax.set_xticks(list(ticks), list(ticks.values()))
    for tick in ax.get_xticklabels():
        if not tick.get_text().isdigit():
            tick.set(rotation=45, ha="right", rotation_mode="anchor")
    ax.set_xlabel("layer", size=style.SMALL, labelpad=1)
    ax.tick_params(labelsize=style.TINY)
    ax.grid(axis="y")


def _heads(ax: Axes, rows: pd.DataFrame, circuit: list[str], norm: Normalize, diverging: str) -> None:
    grid = maps.head_grid(rows)
    heads = rows[rows["head"] >= 0]
    sure = (heads["ci_low"] > 0) | (heads["ci_high"] < 0)
    maps.draw(ax, grid, diverging, norm, circuit, maps.head_grid(heads.assign(sure=sure), "sure") == 1)
    maps.number_ticks(ax, grid.shape[1], grid.shape[0])
    ax.set_xlabel("head", size=style.SMALL, labelpad=1)


def _legend(colours: dict[str, str], attribution: pd.DataFrame) -> list[Artist]:
    names = set(attribution.loc[attribution["part"] == "write", "name"])
    handles: list[Artist] = []
    for kind, (colour, marker, label) in LOOKS.items():
        if kind == "bias" and not any(name.startswith("bias") for name in names):
            continue
        shade = colours[colour] if colour else style.GREY
        label = "b_O and other constants" if kind == "bias" else label
        handles.append(Line2D([], [], ls="", marker=marker, markersize=4, color=shade, label=label))
    framed: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": style.INK}
    handles.append(Line2D([], [], ls="", marker="s", markersize=6, label="head of the circuit", **framed))
    return handles
