"""A circuit beside random sets of the same shape: what is left when only it is kept, and when it is ablated."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from atlas.report import style, wording

QUESTIONS = {
    "sufficiency": "Sufficiency: of all heads, only these kept",
    "necessity": "Necessity: these heads ablated",
}
ROW = 0.34  # inches


def draw(controls: pd.DataFrame, summary: pd.DataFrame, tasks: list[str], colours: dict[str, str]) -> Figure:
    """A panel for each question, a row for each (circuit, task). `colours` has `circuit`."""
    pairs = {question: _pairs(summary[summary["question"] == question], tasks) for question in QUESTIONS}
    pairs = {question: found for question, found in pairs.items() if found} or {"sufficiency": []}
    heights = [max(1, len(found)) for found in pairs.values()]
    fig = style.figure(5.6, ROW * sum(heights) + 0.42 * len(pairs) + 0.75)
    axes = fig.subplots(len(pairs), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for ax, (question, found) in zip(axes, pairs.items(), strict=True):
        _panel(ax, controls[controls["question"] == question], summary[summary["question"] == question], found, colours)
        ax.set_title(QUESTIONS[question])
        ax.set_yticks(range(len(found)), [_name(circuit, task) for circuit, task in found])
    _limits(axes)
    for ax, (question, found) in zip(axes, pairs.items(), strict=True):
        _notes(ax, summary[summary["question"] == question], found)
    axes[-1].set_xlabel("% of full")
    labels: dict[str, Artist] = {}
    for ax in axes:
        labels |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    fig.legend(list(labels.values()), list(labels), loc="outside upper center", ncols=3)
    return fig


def _pairs(summary: pd.DataFrame, tasks: list[str]) -> list[tuple[str, str]]:
    """(circuit, task): each task's own circuit first, then the others, tasks in the study's order."""
    order = {name: i for i, name in enumerate([*tasks, "shared", "union"])}
    found = set(zip(summary["circuit"], summary["task"], strict=True))
    return sorted(found, key=lambda pair: (pair[0] != pair[1], *(order.get(name, len(order)) for name in pair), *pair))


def _name(circuit: str, task: str) -> str:
    return wording.words(task) if circuit == task else f"{wording.words(circuit)} \u2192 {wording.words(task)}"


def _row(summary: pd.DataFrame, circuit: str, task: str) -> pd.Series:
    return summary[(summary["circuit"] == circuit) & (summary["task"] == task)].iloc[0]


def _panel(
    ax: Axes, draws: pd.DataFrame, summary: pd.DataFrame, pairs: list[tuple[str, str]], colours: dict[str, str]
) -> None:
    ax.grid(axis="x")
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(max(1, len(pairs)) - 0.5, -0.5)
    for y, (circuit, task) in enumerate(pairs):
        row = _row(summary, circuit, task)
        here = draws[(draws["circuit"] == circuit) & (draws["task"] == task) & (draws["set"] == "control")]
        spread = 0.56 * ((np.arange(len(here)) * 0.618034) % 1 - 0.5)  # even, and the same in every run
        ax.scatter(
            here["value"], y + spread, s=7, color=style.tint(style.GREY, 0.55), linewidth=0, label="random control"
        )
        if row.controls:
            ax.plot(
                [row.control_median] * 2,
                [y - 0.34, y + 0.34],
                color=style.INK,
                lw=1.6,
                label="median of the controls",
                zorder=3,
            )
        ax.hlines(y, row.ci_low, row.ci_high, color=colours["circuit"], lw=1.8, zorder=4)
        ax.scatter(
            row.value,
            y,
            s=30,
            marker="D",
            color=colours["circuit"],
            edgecolor=style.INK,
            linewidth=0.7,
            zorder=5,
            label="circuit, 95 % interval",
        )
        if y:
            ax.axhline(y - 0.5, color=style.GHOST, lw=0.6, zorder=0)
        text = "no controls"
        if row.controls:
            corrected = "" if row.p_holm != row.p_holm else f" ({wording.p_value(row.p_holm, '')})"
            text = f"{wording.p_value(row.p)}{corrected}, n = {int(row.controls)}"
        ax.text(
            1.02,
            y,
            text,
            transform=ax.get_yaxis_transform(),
            va="center",
            size=style.SMALL,
            color=style.INK if row.controls else style.GREY,
        )
    ax.axvline(100, color=style.GREY, lw=0.7, ls=(0, (5, 3)), zorder=0)


def _limits(axes: np.ndarray) -> None:
    """Nothing kept (0) and the full model (100) are always in view."""
    low, high = axes[0].get_xlim()
    axes[0].set_xlim(min(low, -3), max(high, 103))


def _notes(ax: Axes, summary: pd.DataFrame, pairs: list[tuple[str, str]]) -> None:
    """Why a row has no controls, written on the side where the circuit's point is not."""
    middle = sum(ax.get_xlim()) / 2
    for y, (circuit, task) in enumerate(pairs):
        row = _row(summary, circuit, task)
        if not row.controls:
            x, ha = (0.98, "right") if row.value < middle else (0.02, "left")
            ax.text(
                x,
                y,
                textwrap.fill(row.note, 30, max_lines=2),
                ha=ha,
                va="center",
                size=style.TINY,
                color=style.GREY,
                transform=ax.get_yaxis_transform(),
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            )
