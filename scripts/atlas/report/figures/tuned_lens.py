"""Where the answer appears by the tuned lens, beside the logit lens and what is said without looking at a prompt."""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from atlas.geometry.read_names import CONSTANT, LOGIT, NO_POINT, TUNED
from atlas.report import style, wording
from atlas.report.order_words import nearer

ACROSS = 4
LEAST = 0.01  # nats; what is less is drawn here
ROWS = (
    ("kl", "KL to the final\nanswer (nats)"),
    ("probability", "probability of\nthe answer"),
    ("leads", "answer leads\n(share of prompts)"),
)


def draw(tuned_lens: pd.DataFrame, main_tasks: list[str], colours: dict[str, str]) -> Figure:
    """A column for each task; rows: KL, probability of the answer, share of prompts that it leads."""
    columns = min(ACROSS, len(main_tasks))
    bands = math.ceil(len(main_tasks) / columns)
    gap, high, between = 0.14, 0.95, 0.16
    wide = min(2.6, (style.PAGE - 0.72) / columns - gap)
    band = len(ROWS) * (high + between) + 0.55
    fig = style.figure(max(style.COLUMN, columns * (wide + gap) + 0.72), 0.45 + bands * band, layout=None)
    points = int(tuned_lens["point"].max())
    top = float(tuned_lens.loc[(tuned_lens["metric"] == "kl") & (tuned_lens["point"] >= 0), "ci_high"].max())
    for i, task in enumerate(main_tasks):
        left, start = 0.66 + (i % columns) * (wide + gap), 0.5 + (i // columns) * band
        own = tuned_lens[tuned_lens["task"] == task]
        for r, (metric, label) in enumerate(ROWS):
            ax = style.axes_at(fig, left, start + r * (high + between), wide, high)
            _curves(ax, own, metric, colours)
            ax.set_xlim(-0.3, points + 0.3)
            ax.set_xticks(range(0, points + 1, math.ceil((points + 1) / 8)))
            ax.tick_params(labelsize=style.TINY, labelbottom=r == len(ROWS) - 1, labelleft=i % columns == 0)
            ax.grid()
            if metric == "kl":
                ax.set_yscale("log")
                ax.minorticks_off()
                ax.set_ylim(0.8 * LEAST, 1.5 * max(top, 1))
                ax.set_title(wording.words(task))
            else:
                ax.set_ylim(-0.03, 1.05)
                ax.set_yticks([0, 0.5, 1])
            if i % columns == 0:
                ax.set_ylabel(label, size=style.SMALL)
        ax.set_xlabel("layers passed", size=style.SMALL)
    fig.legend(handles=_legend(colours), loc="upper left", ncols=4, borderaxespad=0.2, fontsize=style.TINY)
    return fig


def _curves(ax: Axes, rows: pd.DataFrame, metric: str, colours: dict[str, str]) -> None:
    floor = LEAST if metric == "kl" else -np.inf
    for lens, colour in ((LOGIT, colours["circuit"]), (TUNED, colours["clean"])):
        own = rows[(rows["lens"] == lens) & (rows["metric"] == metric) & (rows["point"] > NO_POINT)].sort_values(
            "point"
        )
        x, low, high = own["point"], own["ci_low"].clip(floor), own["ci_high"].clip(floor)
        ax.fill_between(x, low, high, color=style.tint(colour, 0.3), lw=0)
        ax.plot(x, own["value"].clip(floor), color=colour, lw=1.1)
        filled = own["point"].isin(nearer(rows)) if (lens, metric) == (TUNED, "kl") else own["point"] > NO_POINT
        for some, face in ((filled, colour), (~filled, "white")):
            ax.scatter(x[some], own["value"].clip(floor)[some], s=8, facecolor=face, edgecolor=colour, lw=0.6, zorder=3)
    if metric == "kl":
        (constant,) = rows.loc[rows["lens"] == CONSTANT, "value"]
        ax.axhline(constant, color=style.GREY, lw=0.8, ls="--")


def _legend(colours: dict[str, str]) -> list[Any]:
    mark: dict[str, Any] = {"marker": "o", "markersize": 3, "lw": 1.1}
    hollow = Line2D([], [], color=colours["clean"], markerfacecolor="white", label="not surely nearer", **mark)
    hollow.set_linestyle("")
    return [
        Line2D([], [], color=colours["clean"], label="tuned lens", **mark),
        Line2D([], [], color=colours["circuit"], label="logit lens", **mark),
        Line2D([], [], color=style.GREY, ls="--", lw=0.8, label="best of what is the same for every prompt"),
        hollow,
    ]
