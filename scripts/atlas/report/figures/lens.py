"""Where the answer appears: the logit lens along the residual stream."""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from atlas.core.multiple import REACH
from atlas.report import style, wording

ACROSS = 3
WIDE_BAR = 0.17  # in layers


def draw(
    lens: pd.DataFrame,
    lens_lead: pd.DataFrame,
    lens_increments: pd.DataFrame,
    main_tasks: list[str],
    colours: dict[str, str],
) -> Figure:
    """A column for each task; rows: logit difference, share of prompts that the answer leads, the points where it comes
    to lead, and the prompts that turn from an earlier member to the answer within a block."""
    columns = min(ACROSS, len(main_tasks))
    bands = math.ceil(len(main_tasks) / columns)
    rows, wide = 4, (style.PAGE - 0.75) / columns - 0.16 if columns > 1 else 3.2
    high, gap = 0.95, 0.27
    band = rows * (high + gap) + 0.55
    fig = style.figure(max(style.COLUMN, columns * (wide + 0.16) + 0.75), 0.5 + bands * band, layout=None)
    lens = lens[lens["lens"] == "norm"]
    layers = int(lens["point"].max()) // 2
    span = [min(0, lens["ci_low"].min()), max(0, lens["ci_high"].max())]
    labels = ("logit\ndifference", "answer leads\n(share)", "leads from here\n(share)", "member to answer\n(share)")
    for i, task in enumerate(main_tasks):
        left, top = 0.62 + (i % columns) * (wide + 0.16), 0.5 + (i // columns) * band
        axes = [style.axes_at(fig, left, top + r * (high + gap), wide, high) for r in range(rows)]
        own = lens[lens["task"] == task].sort_values("point")
        _curve(axes[0], own, colours["clean"])
        axes[0].set_ylim(span[0] - 0.05 * (span[1] - span[0]), span[1] + 0.08 * (span[1] - span[0]))
        lead = lens_lead[lens_lead["task"] == task]
        low, up = share_interval(own["top1"].to_numpy(), len(lead))
        axes[1].fill_between(own["point"] / 2, low, up, color=style.tint(colours["clean"], 0.3), lw=0)
        axes[1].plot(own["point"] / 2, own["top1"], color=colours["clean"], lw=1.2, marker="o", markersize=2.5)
        _leads(axes[2], lead, layers, colours)
        _increments(axes[3], lens_increments[lens_increments["task"] == task], colours)
        axes[0].set_title(wording.words(task))
        for ax, label in zip(axes, labels, strict=True):
            ax.set_xlim(-0.35, layers + 0.35)
            ax.set_xticks(range(0, layers + 1, math.ceil((layers + 1) / 8)))
            ax.tick_params(labelsize=style.TINY, labelbottom=ax is axes[-1], labelleft=i % columns == 0)
            ax.grid()
            if ax is not axes[0]:
                ax.set_ylim(0, 1.05)
                ax.set_yticks([0, 0.5, 1])
            if i % columns == 0:
                ax.set_ylabel(label, size=style.SMALL)
        axes[-1].set_xlabel("layers passed", size=style.SMALL)
    fig.legend(handles=_legend(colours), loc="upper left", ncols=4, borderaxespad=0.2)
    return fig


def share_interval(share: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95 % interval of shares of ``n`` prompts; of 0 and 1 too, which resamples of the prompts never leave."""
    z2 = REACH**2 / max(n, 1)
    middle, half = (share + z2 / 2) / (1 + z2), np.sqrt(z2 * (share * (1 - share) + z2 / 4)) / (1 + z2)
    return middle - half, middle + half


def _curve(ax: Axes, rows: pd.DataFrame, colour: str) -> None:
    x = rows["point"] / 2
    ax.fill_between(x, rows["ci_low"], rows["ci_high"], color=style.tint(colour, 0.3), lw=0)
    ax.plot(x, rows["value"], color=colour, lw=1.2, marker="o", markersize=2.5)
    ax.axhline(0, color=style.GREY, lw=0.7)


def _leads(ax: Axes, lead: pd.DataFrame, layers: int, colours: dict[str, str]) -> None:
    """Bars at every point; prompts on which the answer never leads are counted in words."""
    points = np.arange(2 * layers + 1)
    for column, shift, colour in (("leads", -0.5, colours["corrupted"]), ("stays", 0.5, colours["clean"])):
        share = np.array([(lead[column] == point).mean() for point in points])
        ax.bar(points / 2 + shift * WIDE_BAR, share, width=WIDE_BAR, color=colour)
        some = share > 0
        low, up = share_interval(share[some], len(lead))
        ax.vlines(points[some] / 2 + shift * WIDE_BAR, low, up, color=style.INK, lw=0.6)
    never = int((lead["stays"] < 0).sum())
    if never:
        text = f"{never} of {len(lead)} end with another token"
        ax.text(0.03, 0.86, text, transform=ax.transAxes, size=style.TINY, color=style.GREY)


def _increments(ax: Axes, rows: pd.DataFrame, colours: dict[str, str]) -> None:
    for kind, shift, marker, colour in (("norm", -0.08, "o", colours["clean"]), ("raw", 0.08, "s", colours["circuit"])):
        part = rows[rows["lens"] == kind].sort_values("from_point")
        x = (part["from_point"] + part["to_point"]) / 4 + shift
        ax.vlines(x, part["ci_low"], part["ci_high"], color=colour, lw=1.2)
        ax.scatter(x, part["share"], s=13, marker=marker, color=colour, linewidth=0, zorder=3)


def _legend(colours: dict[str, str]) -> list[Artist]:
    marks: dict[str, Any] = {"markersize": 4, "ls": ""}
    return [
        Line2D([], [], marker="o", color=colours["clean"], label="lens with the final norm", **marks),
        Line2D([], [], marker="s", color=colours["circuit"], label="without it (last row)", **marks),
        Line2D([], [], color=colours["corrupted"], lw=5, label="leads first"),
        Line2D([], [], color=colours["clean"], lw=5, label="leads to the end"),
    ]
