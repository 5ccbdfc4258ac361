"""The reported circuits on every metric, and whether they are complete and minimal."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from atlas.core.metrics import METRICS as PER_PROMPT
from atlas.report import style, wording

TITLES = {name: (metric.title, 2) for name, metric in PER_PROMPT.items()}
METRICS = {  # with the digits that a figure prints
    "logit_diff": TITLES.pop("logit_diff"),
    "percent_of_full": ("% of full", 1),
    "faithfulness": ("faithfulness", 2),
    **TITLES,
    "noising": ("noising", 2),
    "denoising": ("denoising", 2),
    "noising_heads": ("noising, heads alone", 2),
    "denoising_heads": ("denoising, heads alone", 2),
}
PATCHED = (
    "noising",
    "denoising",
    "noising_heads",
    "denoising_heads",
)  # normalised as they are: 0 as the corrupted run, 1 as the clean one
MARKERS = ["o", "D", "s", "^", "v", "P"]
NAMED_UP_TO = 26  # bars with a name under them
ROW = 0.178  # inches
RIGHT = {0: 2.7, 1: 3.65, 2: 4.3}  # inches from the left to minimality, by how many circuits have their numbers beside
NUMBERS = 0.88  # inches of a circuit's numbers


def scaled(rows: pd.DataFrame) -> pd.DataFrame:
    """Values of circuits, with `x`, `x_low`, `x_high`: 0 as with everything ablated, 1 as the full model.

    Patching scores stay as they are. A metric on which full and empty agree has no such scale, and NaN here.
    """
    ends = rows[rows["circuit"].isin(["full", "empty"])].pivot(index="metric", columns="circuit", values="value")
    circuits = rows[~rows["circuit"].isin(["full", "empty"])]
    ends = ends.reindex(index=circuits["metric"], columns=["full", "empty"])
    patched = circuits["metric"].isin(PATCHED).to_numpy()
    zero = np.where(patched, 0.0, ends["empty"].to_numpy(float))
    one = np.where(patched, 1.0, ends["full"].to_numpy(float))
    span = np.where(one == zero, np.nan, one - zero)
    at = (circuits[["value", "ci_low", "ci_high"]].to_numpy() - zero[:, None]) / span[:, None]
    return circuits.assign(x=at[:, 0], x_low=at[:, 1:].min(axis=1), x_high=at[:, 1:].max(axis=1))


def draw(
    evaluation: pd.DataFrame,
    completeness: pd.DataFrame,
    minimality: pd.DataFrame,
    main_tasks: list[str],
    colours: dict[str, str],
) -> Figure:
    """A row of panels for each task: metrics, minimality and completeness. `colours` has `circuit` and `clean`."""
    held_out = evaluation[evaluation["split"] == "held_out"]
    evaluation = held_out if len(held_out) else evaluation
    circuits = [c for c in dict.fromkeys(evaluation["circuit"]) if c not in ("full", "empty")]
    shades = [colours["circuit"], colours["clean"], style.INK, style.GREY]
    looks = {c: (shades[min(i, 3)], MARKERS[i % len(MARKERS)]) for i, c in enumerate(circuits)}
    metrics = [m for m in METRICS if (evaluation["metric"] == m).any()]
    shown = [c for c in ("nodes", "edges") if c in circuits]
    tall = max(2.1, ROW * len(metrics) + 0.24)
    fig = style.figure(style.PAGE, (tall + 0.42) * len(main_tasks) + 0.25, layout=None)
    down, right = fig.get_size_inches()[1], RIGHT[min(len(shown), 2)]
    for i, task in enumerate(main_tasks):
        top = 0.55 + i * (tall + 0.42)
        fig.text(0.06 / style.PAGE, 1 - (top - 0.2) / down, wording.words(task), weight="bold", size=style.TEXT + 1)
        ax = style.axes_at(fig, 1.3, top, 0.95, ROW * len(metrics))
        _metrics(ax, scaled(evaluation[evaluation["task"] == task]), metrics, looks, shown)
        of_task, wide = minimality[minimality["task"] == task], style.PAGE - right - 0.05
        ax = style.axes_at(fig, right, top, wide, 0.7)
        _bars(ax, of_task[of_task["circuit"] == "nodes"], colours["circuit"])
        ax.set_title("Minimality: points of % of full lost without it", size=style.SMALL, pad=3)
        side = (wide - 0.52) / 2
        ax = style.axes_at(fig, right + side + 0.52, top + 1.12, side, 0.9)
        _completeness(ax, completeness[completeness["task"] == task], looks)
        if "edges" in shown:
            ax = style.axes_at(fig, right, top + 1.12, side, 0.9)
            _curve(ax, of_task[of_task["circuit"] == "edges"], colours["clean"])
    fig.legend(handles=_legend(looks), loc="upper left", ncols=4, borderaxespad=0.2)
    return fig


def _metrics(ax: Axes, rows: pd.DataFrame, metrics: list[str], looks: dict[str, Any], shown: list[str]) -> None:
    ax.set(xlim=(-0.25, 1.35), ylim=(len(metrics) - 0.5, -0.5))
    for i in range(0, len(metrics), 2):
        ax.axhspan(i - 0.5, i + 0.5, color=style.GHOST, alpha=0.5, lw=0, zorder=0)
    for x in (0, 1):
        ax.axvline(x, color=style.GREY, lw=0.7, ls=(0, (5, 3)), zorder=1)
    step = 0.34 / max(1, len(looks) - 1)
    for k, (circuit, (colour, marker)) in enumerate(looks.items()):
        for row in rows[rows["circuit"] == circuit].itertuples():
            if row.metric not in metrics:
                continue
            y = metrics.index(row.metric) + (k * step - 0.17 if len(looks) > 1 else 0)
            x = min(max(row.x, -0.22), 1.32)
            ends = np.clip([row.x_low, row.x_high], -0.25, 1.35)
            ax.hlines(y, *ends, color=colour, lw=1.1)
            outside = x != row.x and row.x == row.x
            beyond = "<" if row.x < 0 else ">"
            ax.scatter(x, y, s=13, marker=beyond if outside else marker, color=colour, linewidth=0, zorder=3)
            if circuit in shown:
                text = wording.interval(row._asdict(), METRICS[row.metric][1])
                ax.text(
                    1.08 + NUMBERS / 0.95 * shown.index(circuit),
                    metrics.index(row.metric),
                    text,
                    size=style.TINY,
                    transform=ax.get_yaxis_transform(),
                    va="center",
                )
    for k, circuit in enumerate(shown):
        ax.text(
            1.08 + NUMBERS / 0.95 * k,
            1.03,
            wording.words(circuit),
            size=style.SMALL,
            weight="bold",
            transform=ax.transAxes,
            color=looks[circuit][0],
        )
    ax.set_yticks(range(len(metrics)), [METRICS[m][0] for m in metrics], size=style.SMALL)
    ax.set_xticks([0, 1], ["empty", "full"])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _bars(ax: Axes, rows: pd.DataFrame, colour: str) -> None:
    """Percentage points of full that each component's removal costs, dearest first; hollow where the interval has 0."""
    if len(rows) > NAMED_UP_TO:
        text = f"{len(rows) - NAMED_UP_TO} smaller ones not shown"
        ax.text(1, 0.97, text, transform=ax.transAxes, ha="right", va="top", size=style.TINY, color=style.GREY)
    rows = rows.sort_values("value", ascending=False, kind="stable").head(NAMED_UP_TO)
    sure = (rows["ci_low"] > 0) | (rows["ci_high"] < 0)
    x = np.arange(len(rows))
    faces = [colour if s else "white" for s in sure]
    ax.bar(x, rows["value"], width=0.7, color=faces, edgecolor=colour, linewidth=0.7)
    ax.vlines(x, rows["ci_low"], rows["ci_high"], color=style.INK, lw=0.7)
    ax.axhline(0, color=style.INK, lw=0.6)
    ax.set_xlim(-0.7, max(len(rows), 8) - 0.3)
    ax.set_xticks(x, rows["name"], rotation=90, size=style.LEAST)
    ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.tick_params(axis="x", length=0, pad=2)
    ax.spines["bottom"].set_visible(False)


def _curve(ax: Axes, rows: pd.DataFrame, colour: str) -> None:
    """The same for edges, too many to name."""
    rows = rows.sort_values("value", ascending=False, kind="stable")
    x = np.arange(1, len(rows) + 1)
    ax.fill_between(x, rows["ci_low"], rows["ci_high"], color=style.tint(colour, 0.4), lw=0)
    ax.plot(x, rows["value"], color=colour, lw=1.1)
    ax.axhline(0, color=style.INK, lw=0.6)
    ax.set_xlabel("edges, dearest first", size=style.SMALL)
    ax.set_title("The same, edges", size=style.SMALL, pad=3)
    ax.yaxis.set_major_locator(MaxNLocator(4))


def _completeness(ax: Axes, rows: pd.DataFrame, looks: dict[str, Any]) -> None:
    for circuit, (colour, marker) in looks.items():
        part = rows[rows["circuit"] == circuit]
        ax.scatter(
            part["f_full"], part["f_circuit"], s=9, marker=marker, color=colour, alpha=0.75, linewidth=0, zorder=3
        )
    both = rows[["f_full", "f_circuit"]].to_numpy()
    low, high = (min(0, both.min()), max(1, both.max())) if len(rows) else (0, 1)
    room = 0.06 * (high - low)
    ax.plot([low, high], [low, high], color=style.GREY, lw=0.7, ls=(0, (5, 3)))
    ax.set(xlim=(low - room, high + room), ylim=(low - room, high + room))
    ax.set_xlabel("F(full without K)", size=style.SMALL)
    ax.set_ylabel("F(circuit without K)", size=style.SMALL, labelpad=1)
    ax.set_title("Completeness", size=style.SMALL, pad=3)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(3))
    ax.grid()


def _legend(looks: dict[str, Any]) -> list[Artist]:
    return [
        Line2D([], [], ls="", marker=marker, color=colour, markersize=4, label=f"circuit: {wording.words(circuit)}")
        for circuit, (colour, marker) in looks.items()
    ]
