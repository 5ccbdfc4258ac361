"""Every evaluation of the node search, in order: what each candidate's removal would leave, and what was decided."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from atlas.circuit.search import ANNEALED, GATES, jumps
from atlas.report import style, wording

WALK = "removals and returns"  # over the part of an annealed search in which components also come back
WITH_WALKS = ("candidate removed, or move made", "candidate kept, or move refused")
PART = {GATES: "penalty"}  # what the sweeps of a search are


def draw(trace: pd.DataFrame, choice: pd.DataFrame, colours: dict[str, str]) -> Figure:
    """A panel for each search that found what is reported at a threshold (`choice`: of `choice.parquet`).

    `colours` has `clean` (removed candidates) and `circuit` (kept ones).
    """
    found = choice[choice["reported"]].drop_duplicates(["order", "searched"]).sort_values(["searched", "order"])
    searches = list(zip(found["order"], found["searched"], strict=True))
    labels = WITH_WALKS if any(map(jumps, found["order"])) else ("candidate removed", "candidate kept")
    fig = style.figure(style.PAGE, 2.15 * len(searches) + 0.35)
    ratios = [3, 1] * len(searches)
    axes = fig.subplots(len(ratios), 1, height_ratios=ratios, squeeze=False)[:, 0]
    for i, (order, threshold) in enumerate(searches):
        rows = trace[(trace["order"] == order) & (trace["threshold"] == threshold)].sort_values("step")
        _search(axes[2 * i], rows, order, threshold, colours, labels)
        _sizes(axes[2 * i + 1], axes[2 * i], rows)
    axes[-1].set_xlabel("evaluation")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return fig


def _search(
    ax: Axes, rows: pd.DataFrame, order: str, threshold: float, colours: dict[str, str], labels: tuple[str, str]
) -> None:
    removed, kept = rows[rows["removed"]], rows[~rows["removed"]]
    ax.scatter(
        removed["step"],
        removed["percent"],
        s=9,
        marker="o",
        color=colours["clean"],
        linewidth=0,
        label=labels[0],
    )
    ax.scatter(
        kept["step"],
        kept["percent"],
        s=17,
        marker="v",
        facecolor="white",
        edgecolor=colours["circuit"],
        linewidth=0.9,
        label=labels[1],
        zorder=3,
    )
    ax.axhline(100 - threshold, color=style.INK, lw=0.8, ls=(0, (5, 3)), label="floor")
    low, high = min(rows["percent"].min(), 100 - threshold), max(rows["percent"].max(), 100)
    span = high - low
    ax.set(xlim=(0, rows["step"].max() + 1), ylim=(low - 0.06 * span, high + 0.2 * span), ylabel="% of full")
    ax.tick_params(labelbottom=False)
    last = rows.iloc[-1]
    left = f"{wording.count(int(last['heads']), 'head')} and {wording.count(int(last['mlps']), 'MLP')}"
    ax.set_title(
        f"Threshold {threshold:g} %, order {wording.words(order)}: {left} left after "
        f"{wording.count(len(rows), 'evaluation')}"
    )
    width = rows["step"].max() + 1
    for sweep, steps in rows.groupby("sweep"):
        start, end = steps["step"].min() - 0.5, steps["step"].max() + 0.5
        if sweep % 2 == 0:
            ax.axvspan(start, end, color=style.GHOST, alpha=0.6, zorder=0, lw=0)
        direction = steps["direction"].iloc[0]
        arrow = {"backward": f"{sweep} \u2191", "forward": f"{sweep} \u2193", ANNEALED: "", GATES: f"{sweep}"}[
            direction
        ]
        text = f"{PART.get(direction, 'sweep')} {sweep}, {direction}" if end - start > 0.2 * width else arrow
        text = WALK if direction == ANNEALED else text
        ax.text(
            (start + end) / 2, high + 0.15 * span, text, ha="center", va="center", size=style.TINY, color=style.GREY
        )


def _sizes(ax: Axes, above: Axes, rows: pd.DataFrame) -> None:
    ax.fill_between(rows["step"], rows["heads"] + rows["mlps"], step="mid", color=style.tint(style.GREY, 0.55), lw=0)
    ax.fill_between(rows["step"], rows["mlps"], step="mid", color=style.GREY, lw=0)
    ax.set(xlim=above.get_xlim(), ylim=(0, 1.1 * (rows["heads"] + rows["mlps"]).max()), ylabel="left")
    ax.sharex(above)
    for name, y, colour in (("heads", 0.72, style.tint(style.GREY, 0.55)), ("MLPs", 0.25, style.GREY)):
        ax.text(1.015, y, "\u25a0", color=colour, transform=ax.transAxes, size=style.SMALL, va="center")
        ax.text(1.035, y, name, transform=ax.transAxes, size=style.SMALL, va="center")
