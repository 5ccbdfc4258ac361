"""Are members in their order, along a line, around a circle, on a helix: by point, beside random orders."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from atlas.core.multiple import ALPHA
from atlas.report import style, wording

SHAPES = ("line", "circle", "closed", "helix")
LABELS = {
    "line": "line\n(rank correlation)",
    "circle": "circle\n(mean cosine)",
    "closed": "closed\n(around \u2212 along)",
    "helix": "helix\n(R\u00b2)",
}
LIMITS = {"line": (-1.05, 1.12), "circle": (-1.05, 1.12), "closed": (-0.6, 0.6), "helix": (-1.05, 1.12)}
PERIODS = "random periods"
HIGH, GAP = 0.85, 0.13  # inches


def draw(shapes: pd.DataFrame, colours: dict[str, str]) -> Figure:
    """A column for each class, a row for each shape."""
    names = list(shapes["class"].unique())
    rows = [shape for shape in SHAPES if (shapes["shape"] == shape).any()]
    wide = min(1.5, (style.PAGE - 0.75) / len(names) - 0.1)
    fig = style.figure(
        max(style.COLUMN, 0.75 + len(names) * (wide + 0.1)), 0.95 + len(rows) * (HIGH + GAP) + 0.4, layout=None
    )
    last = int(shapes["point"].max())
    for c, name in enumerate(names):
        of = shapes[shapes["class"] == name]
        for r, shape in enumerate(rows):
            left, top = 0.65 + c * (wide + 0.1), 0.8 + r * (HIGH + GAP)
            ax = style.axes_at(fig, left, top, wide, HIGH)
            _panel(ax, of[of["shape"] == shape], colours)
            ax.set(xlim=(-0.04 * last, 1.04 * last), ylim=LIMITS[shape])
            ax.set_xticks([0, last // 2, last])
            ax.set_yticks([-0.5, 0, 0.5] if shape == "closed" else [-1, 0, 1])
            ax.tick_params(labelsize=style.TINY, labelbottom=r == len(rows) - 1, labelleft=c == 0, pad=1.5)
            if r == 0:
                ax.set_title(_title(name, of), size=style.TINY, pad=3)
            if c == 0:
                ax.set_ylabel(LABELS[shape], size=style.TINY, labelpad=2)
            if r == len(rows) - 1 and c == len(names) // 2:
                ax.set_xlabel("blocks passed", size=style.SMALL)
    fig.legend(handles=_legend(shapes, colours), loc="upper left", ncols=3, fontsize=style.TINY, borderaxespad=0.1)
    return fig


def _title(name: str, of: pd.DataFrame) -> str:
    lines = wording.words(name, 9).split("\n")
    kind = "" if of.loc[of["shape"] == "circle", "control"].all() else ", cyclic"
    return "\n".join([*lines, f"{of['members'].max():.0f}{kind}"])


def _panel(ax: Axes, of: pd.DataFrame, colours: dict[str, str]) -> None:
    ax.axhline(0, color=style.FAINT, lw=0.5, zorder=0)
    if of.empty:
        ax.text(0.5, 0.5, "too few\nmembers", transform=ax.transAxes, size=style.LEAST, color=style.GREY, ha="center")
        return
    member = of[(of["at"] == "member") & (of["null"] != PERIODS)].sort_values("point")
    band = of[(of["at"] == "member") & (of["null"] == PERIODS)].sort_values("point")
    ax.fill_between(member["point"], member["null_low"], member["null_high"], color=style.GHOST, lw=0)
    if len(band):
        ax.plot(band["point"], band["null_high"].clip(-1), color=style.GREY, lw=0.8, ls=":")
    for at, colour, dashes in (("answer", colours["corrupted"], "--"), ("member", colours["circuit"], "-")):
        rows = of[(of["at"] == at) & (of["null"] != PERIODS)].sort_values("point")
        ax.plot(rows["point"], rows["value"], color=style.GREY if at == "answer" else colour, lw=0.9, ls=dashes)
        sure = rows[rows["p_holm"] < ALPHA]
        marked = style.GREY if at == "answer" else colour
        ax.plot(sure["point"], sure["value"], color=marked, lw=0, marker="o", markersize=2.4)


def _legend(shapes: pd.DataFrame, colours: dict[str, str]) -> list[Line2D | Patch]:
    found: list[Line2D | Patch] = [Line2D([], [], color=colours["circuit"], lw=1, label="at the member")]
    if (shapes["at"] == "answer").any():
        found.append(Line2D([], [], color=style.GREY, lw=1, ls="--", label="at the answer"))
    found.append(
        Line2D([], [], color=style.INK, lw=0, marker="o", markersize=3, label=f"p < {ALPHA}, corrected for the points")
    )
    found.append(Patch(color=style.GHOST, label="95 % of random orders, at the member"))
    if (shapes["null"] == PERIODS).any():
        found.append(Line2D([], [], color=style.GREY, lw=0.8, ls=":", label="97.5 % of random periods"))
    return found
