"""Does the answer follow when members are moved within a shape alone: shares of what their tokens do."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from atlas.report import style, wording

PATCHED = ("whole", "fitted", "pca", "permuted", "random")
NAMES = {
    "whole": "whole difference",
    "fitted": "the shape alone",
    "pca": "first components",
    "permuted": "same shape, random orders",
    "random": "random subspaces",
}
HIGH, MOST = 1.35, 6  # inches; shapes in a line


def draw(shape_patches: pd.DataFrame, colours: dict[str, str]) -> Figure:
    """Bars for each class and shape at the point chosen, and lines of the whole and the shape by point below them."""
    if shape_patches.empty:
        fig = style.figure(style.COLUMN, 0.6)
        fig.text(0.05, 0.5, "No task's prompts could be moved along a class.", size=style.SMALL)
        return fig
    groups = list(dict.fromkeys(zip(shape_patches["class"], shape_patches["shape"], strict=True)))
    across = min(MOST, len(groups))
    lines = -(-len(groups) // across)
    across = -(-len(groups) // lines)
    wide = min(1.6, (style.PAGE - 0.6) / across - 0.12)
    line = 2 * HIGH + 1.0
    fig = style.figure(max(style.COLUMN, 0.6 + across * (wide + 0.12)), 0.4 + lines * line, layout=None)
    shades = _shades(colours)
    low = min(-0.05, shape_patches[["ci_low", "draws_low"]].min().min()) - 0.03
    top_of = max(1.1, shape_patches[["ci_high", "draws_high"]].max().max() + 0.05)
    for i, (name, shape) in enumerate(groups):
        own = shape_patches[(shape_patches["class"] == name) & (shape_patches["shape"] == shape)]
        left, top = 0.55 + (i % across) * (wide + 0.12), 0.4 + (i // across) * line
        bars, curves = (style.axes_at(fig, left, top + 0.38 + k * (HIGH + 0.12), wide, HIGH) for k in (0, 1))
        _bars(bars, own[own["chosen"]], shades)
        _curves(curves, own, shades)
        dimensions = own.loc[own["patched"] == "fitted", "dimensions"].iloc[0]
        where = int(own.loc[own["chosen"], "point"].iloc[0])
        at = "at the embedding" if not where else f"after {wording.count(where, 'block')}"
        said = f"{wording.words(name, 22)}\n{shape}, {wording.count(dimensions, 'dimension')}\n{at}"
        bars.set_title(said, size=style.TINY, pad=3)
        for ax in (bars, curves):
            ax.set_ylim(low, top_of)
            ax.axhline(0, color=style.GREY, lw=0.6)
            ax.tick_params(labelsize=style.TINY, labelleft=i % across == 0)
            ax.grid(axis="y")
        curves.set_xlabel("blocks passed", size=style.TINY, labelpad=1)
        if i % across == 0:
            bars.set_ylabel("share of what\nthe tokens do", size=style.TINY)
            curves.set_ylabel("by point", size=style.TINY)
    patches = [Patch(color=shades[kind], label=NAMES[kind]) for kind in PATCHED]
    fig.legend(handles=patches, loc="upper left", ncols=3, fontsize=style.TINY, borderaxespad=0.1)
    return fig


def _shades(colours: dict[str, str]) -> dict[str, str]:
    return {
        "whole": style.GREY,
        "fitted": colours["circuit"],
        "pca": colours["clean"],
        "permuted": style.tint(colours["circuit"], 0.4),
        "random": style.FAINT,
    }


def _bars(ax: Axes, own: pd.DataFrame, shades: dict[str, str]) -> None:
    """Whiskers: 95 % intervals over prompts; of several draws the range of these."""
    own = own.set_index("patched")
    for i, kind in enumerate(PATCHED):
        row = own.loc[kind]
        ax.bar(i, row["value"], 0.8, color=shades[kind])
        low, high = (row["draws_low"], row["draws_high"]) if row["draws"] > 1 else (row["ci_low"], row["ci_high"])
        ax.plot([i, i], [low, high], color=style.INK, lw=0.8)
    ax.set_xticks([])


def _curves(ax: Axes, own: pd.DataFrame, shades: dict[str, str]) -> None:
    for kind in ("whole", "fitted"):
        rows = own[own["patched"] == kind].sort_values("point")
        ax.fill_between(rows["point"], rows["ci_low"], rows["ci_high"], color=style.tint(shades[kind], 0.25), lw=0)
        ax.plot(rows["point"], rows["value"], color=shades[kind], lw=1.1, marker="o", markersize=2)
    last = int(own["point"].max())
    ax.set_xticks(np.unique([0, last // 2, last]))
