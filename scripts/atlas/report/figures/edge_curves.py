"""How much of the task edge circuits of every size keep, by the method that chose the edges; and the areas under it."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from atlas.edges.methods import CHOSEN, NODE_CIRCUIT, RANDOM, RANKINGS, REPORTED, SCORING, SEARCHING, title
from atlas.report import style, wording

# Methods that score all edges in few passes come first; the reported circuit stands before those that searches found
RANKED = {m.name: m.title for m in sorted(SCORING.values(), key=lambda m: not m.few_passes)}
OTHERS = [name for name in SEARCHING if name != REPORTED.name]
SEARCHED = {name: title(name) for name in (CHOSEN, REPORTED.name, *OTHERS, NODE_CIRCUIT)}
MARKERS = {CHOSEN: "*", REPORTED.name: "X"} | dict(zip(OTHERS, "Dov^<>P", strict=False)) | {NODE_CIRCUIT: "s"}
THIRD, FOURTH, FIFTH = "#228833", "#AA3377", "#CCBB44"  # beside the two colours of the configuration
MORE = ("#66CCEE", "#EE6677", "#DDAA33", "#994455")  # of methods beyond those that ship
# By ranking, later ones in front
LINES: dict[str, Any] = {"absolute": (0, (3, 1.5)), "signed": "-", "greedy": (0, (1, 1))}
LOW, HIGH = -0.35, 1.35  # of faithfulness shown; beyond lie only circuits too small to run


def colours_of(colours: dict[str, str]) -> dict[str, str]:
    """By method. `colours` has `clean` and `circuit`."""
    ranked = dict(zip(RANKED, (colours["clean"], colours["circuit"], THIRD, *MORE), strict=False))
    ends = {CHOSEN: style.INK, REPORTED.name: style.GREY, NODE_CIRCUIT: FIFTH}
    return ranked | dict(zip(OTHERS, (FOURTH, *reversed(MORE)), strict=False)) | ends


def on_split(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of held-out prompts; of the prompts searched on where none were held out."""
    held_out = table[table["split"] == "held_out"]
    return held_out if len(held_out) else table


def method_name(method: str, ranking: str) -> str:
    """As the legend calls a method, `EAP, signed`; ``ranking`` is empty where it has none."""
    name = wording.words(method) if method == RANDOM else title(method)
    return f"{name}, {ranking}" if ranking else name


def draw(curves: pd.DataFrame, areas: pd.DataFrame, main_tasks: list[str], colours: dict[str, str]) -> Figure:
    """A column for each task: size against faithfulness, and below the areas CPR and CMD of the ranked methods."""
    shades = colours_of(colours)
    curves, areas = on_split(curves[curves["metric"] == "faithfulness"]), on_split(areas)
    methods = list(dict.fromkeys(zip(areas["method"], areas["ranking"], strict=True)))
    columns = min(3, len(main_tasks))
    bands = -(-len(main_tasks) // columns)
    low = 0.17 * len(methods) + 0.3
    fig = style.figure(min(style.PAGE, 1.6 + 2.4 * columns), bands * (2.5 + low) + 0.95)
    grid = fig.subplots(2 * bands, columns, squeeze=False, height_ratios=[1.9, low] * bands)
    for i, task in enumerate(main_tasks):
        band, column = divmod(i, columns)
        upper, lower = grid[2 * band, column], grid[2 * band + 1, column]
        _curves(upper, curves[curves["task"] == task], shades)
        upper.set_title(wording.words(task))
        _areas(lower, areas[areas["task"] == task], methods, shades)
        if column == 0:
            upper.set_ylabel("faithfulness")
            lower.set_yticks(range(len(methods)), [method_name(*m) for m in methods])
        else:
            upper.tick_params(labelleft=False)
            lower.set_yticks(range(len(methods)), [])
    for i in range(len(main_tasks), bands * columns):
        for row in (0, 1):
            grid[2 * (i // columns) + row, i % columns].axis("off")
    fig.legend(handles=_legend(curves, areas, shades), loc="outside upper center", ncols=4 if columns > 1 else 2)
    return fig


def _curves(ax: Axes, rows: pd.DataFrame, shades: dict[str, str]) -> None:
    smallest = max(rows["share"].min(), 1e-5)
    ax.set(xscale="log", xlim=(0.8 * smallest, 1.25), ylim=(LOW, HIGH), xlabel="share of all edges")
    ax.grid()
    for y in (0, 1):
        ax.axhline(y, color=style.GREY, lw=0.7, ls=(0, (5, 3)), zorder=1)
    random = rows[rows["method"] == RANDOM].groupby("share")["value"]
    if random.ngroups:
        spread = random.agg(["min", "median", "max"])
        ax.fill_between(spread.index, spread["min"], spread["max"], color=style.FAINT, alpha=0.6, lw=0, zorder=1)
        ax.plot(spread.index, spread["median"], color=style.GREY, lw=1, zorder=2)
    hidden = 0
    for method in RANKED:
        for ranking, line in LINES.items():
            part = rows[(rows["method"] == method) & (rows["ranking"] == ranking)].sort_values("share")
            if part.empty:
                continue
            ax.fill_between(
                part["share"], part["ci_low"], part["ci_high"], color=shades[method], alpha=0.14, lw=0, zorder=2
            )
            ax.plot(
                part["share"],
                part["value"],
                color=shades[method],
                lw=1.3,
                ls=line,
                zorder=3,
            )
            hidden += _outside(ax, part, shades[method])
    for method, marker in MARKERS.items():
        part = rows[rows["method"] == method]
        ax.vlines(part["share"], part["ci_low"], part["ci_high"], color=shades[method], lw=1, zorder=4)
        ax.scatter(
            part["share"],
            part["value"],
            s=42 if marker == "*" else 15,
            marker=marker,
            color=shades[method],
            edgecolor=style.INK if method != CHOSEN else "white",
            linewidth=0.5,
            zorder=6 if marker == "*" else 5,
            label=method,
        )
        hidden += _outside(ax, part, shades[method])
    if hidden:
        text = f"{wording.count(hidden, 'value')} beyond the axis"
        ax.text(0.98, 0.03, text, transform=ax.transAxes, ha="right", size=style.TINY, color=style.GREY)


def _outside(ax: Axes, rows: pd.DataFrame, colour: str) -> int:
    """Mark values beyond the axis with a triangle at its end; how many there are."""
    out = rows[(rows["value"] < LOW) | (rows["value"] > HIGH)]
    for row in out.itertuples():
        up = row.value > HIGH
        y, marker = (HIGH - 0.05, "^") if up else (LOW + 0.05, "v")
        ax.scatter(row.share, y, s=12, marker=marker, color=colour, linewidth=0, zorder=6)
    return len(out)


def _areas(ax: Axes, rows: pd.DataFrame, methods: list[tuple[str, str]], shades: dict[str, str]) -> None:
    for y, (method, ranking) in enumerate(methods):
        here = rows[(rows["method"] == method) & (rows["ranking"] == ranking)]
        for row in here.itertuples():
            colour = shades.get(method, style.GREY)
            ax.hlines(y, row.ci_low, row.ci_high, color=colour, lw=1.3)
            face = colour if row.metric == "cpr" else "white"
            marker = "o" if row.metric == "cpr" else "s"
            ax.scatter(row.value, y, s=17, marker=marker, facecolor=face, edgecolor=colour, linewidth=0.9, zorder=3)
    ax.set_ylim(max(1, len(methods)) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ends = rows[["ci_low", "ci_high"]].to_numpy()
    low, high = (min(0, np.nanmin(ends)), max(1, np.nanmax(ends))) if len(rows) else (0, 1)
    ax.set(xlim=(low - 0.04, high + 0.04), xlabel="area under the curve")
    ax.grid()


def _legend(curves: pd.DataFrame, areas: pd.DataFrame, shades: dict[str, str]) -> list[Artist]:
    found = set(curves["method"])
    handles: list[Artist] = [
        Line2D([], [], color=shades[m], lw=1.5, label=name) for m, name in RANKED.items() if m in found
    ]
    used = set(curves["ranking"])
    handles += [
        Line2D([], [], color=style.GREY, lw=1.3, ls=LINES[ranking], label=f"{ranking} ranking")
        for ranking in RANKINGS
        if ranking in used
    ]
    if RANDOM in found:
        handles.append(Patch(color=style.FAINT, label="random edges (range)"))
    handles += [
        Line2D([], [], ls="", marker=MARKERS[m], markersize=7 if m == CHOSEN else 4, color=shades[m], label=name)
        for m, name in SEARCHED.items()
        if m in found
    ]
    if len(areas):
        handles.append(Line2D([], [], ls="", marker="o", markersize=4, color=style.GREY, label="CPR (1 is best)"))
        hollow: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": style.GREY}
        handles.append(Line2D([], [], ls="", marker="s", markersize=4, label="CMD (0 is best)", **hollow))
    return handles
