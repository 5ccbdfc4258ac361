"""Which heads step in when another one is ablated: direct attribution before and after."""

import math

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from atlas.core.multiple import ALPHA
from atlas.report import style, wording

ACROSS = 3
NAMED = 5  # changes listed in a panel
LEAST = 0.01  # logits; smaller changes are not told apart


def others(backup: pd.DataFrame) -> pd.DataFrame:
    """Rows of all heads but the ablated one, with ``verdict``: `rises` or `falls` where the corrected p says so."""
    name = backup["layer"].astype(str) + "." + backup["head"].astype(str)
    rows = backup[name != backup["ablated"]].assign(name=name[name != backup["ablated"]])
    sure = (rows["change"].abs() >= LEAST) & (rows["p_holm"] < ALPHA)
    rises, falls = sure & (rows["change"] > 0), sure & (rows["change"] < 0)
    return rows.assign(verdict=rises.map({True: "rises", False: ""}) + falls.map({True: "falls", False: ""}))


def draw(backup: pd.DataFrame, main_tasks: list[str], colours: dict[str, str]) -> Figure:
    """A column for each task: above, every head before and after each ablation; below, the norm's scale ratio."""
    rows = others(backup)
    columns = min(ACROSS, len(main_tasks))
    bands = math.ceil(len(main_tasks) / columns)
    side = min(2.0, (style.PAGE - 0.6) / columns - 0.18)
    ablated = sorted(set(backup["ablated"]), key=wording.place)
    band = side + 1.75
    fig = style.figure(max(style.COLUMN, columns * (side + 0.18) + 0.6), bands * band + 0.35, layout=None)
    ends = (backup[["before", "after"]].min().min(), backup[["before", "after"]].max().max())
    ends = (min(ends[0], 0), max(ends[1], 0)) if len(backup) else (0, 1)
    edge = 0.06 * (ends[1] - ends[0]) or 1
    looks = {"rises": (colours["clean"], 11), "falls": (colours["circuit"], 11), "": (style.FAINT, 5)}
    for i, task in enumerate(main_tasks):
        left, top = 0.55 + (i % columns) * (side + 0.18), 0.55 + (i // columns) * band
        ax, of_task = style.axes_at(fig, left, top, side, side), rows[rows["task"] == task]
        ax.plot(ends, ends, color=style.GREY, lw=0.7, ls=(0, (5, 3)), zorder=1)
        for verdict, (colour, size) in looks.items():
            part = of_task[of_task["verdict"] == verdict]
            ax.scatter(part["before"], part["after"], s=size, color=colour, linewidth=0, zorder=3 if verdict else 2)
        sure = of_task[of_task["verdict"] != ""]
        top_rows = sure.loc[sure["change"].abs().sort_values(ascending=False, kind="stable").index].head(NAMED)
        said = [f"{r.name} without {r.ablated}: {wording.number(r.change, 2)}" for r in top_rows.itertuples()]
        if said:
            text = "\n".join(["largest changes", *said])
            ax.text(0.04, 0.96, text, transform=ax.transAxes, va="top", size=5.5, linespacing=1.35)
        ax.set(xlim=(ends[0] - edge, ends[1] + edge), ylim=(ends[0] - edge, ends[1] + edge))
        ax.set_title(wording.words(task))
        ax.set_xlabel("before (logits)", size=style.SMALL, labelpad=1)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(5))
        ax.grid()
        low = style.axes_at(fig, left, top + side + 0.5, side, 0.6)
        ratio = backup[backup["task"] == task].drop_duplicates("ablated").set_index("ablated")["scale_ratio"]
        x = [ablated.index(name) for name in ratio.index]
        low.vlines(x, 1, ratio, color=style.GREY, lw=1)
        low.scatter(x, ratio, s=9, color=style.INK, linewidth=0, zorder=3)
        low.axhline(1, color=style.GREY, lw=0.7)
        low.set_xticks(range(len(ablated)), ablated, rotation=90)
        low.set_xlim(-0.8, len(ablated) - 0.2)
        ratios = backup["scale_ratio"]
        spread = max(float((ratios - 1).abs().max()), 0.005) if len(ratios) else 0.1
        low.set_ylim(1 - 1.25 * spread, 1 + 1.25 * spread)
        low.grid(axis="y")
        low.set_xlabel("ablated head", size=style.SMALL, labelpad=1)
        for panel, label in ((ax, "after (logits)"), (low, "scale after\n/ before")):
            panel.tick_params(labelsize=style.TINY, labelleft=i % columns == 0)
            if i % columns == 0:
                panel.set_ylabel(label, size=style.SMALL)
    handles = [
        Line2D([], [], ls="", marker="o", markersize=4, color=colours["clean"], label="surely higher after"),
        Line2D([], [], ls="", marker="o", markersize=4, color=colours["circuit"], label="surely lower after"),
        Line2D([], [], ls="", marker="o", markersize=3, color=style.FAINT, label="other heads"),
    ]
    fig.legend(handles=handles, loc="upper left", ncols=3, borderaxespad=0.2)
    return fig
