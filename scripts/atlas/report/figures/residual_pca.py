"""Where members lie: the first two principal components of each class's residuals, at a few points of the model."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from atlas.report import maps, style, wording

SHOWN = 4  # points, from the embedding to the last block
NAMED = 12  # members of a class that are named; of a larger class its ends and some between
HIGH, GAP = 1.18, 0.14  # inches


def points_shown(points: list[int]) -> list[int]:
    """At most `SHOWN` of them, first and last among these."""
    return [points[i] for i in np.unique(np.linspace(0, len(points) - 1, min(SHOWN, len(points))).round().astype(int))]


def draw(pca: pd.DataFrame, main_tasks: list[str], sequential: str) -> Figure:
    """A row for each class at its members, and one at the answers of each main task that has one."""
    pca = pca[(pca["at"] == "member") | pca["task"].isin(main_tasks)]
    rows = [(name, at) for at in ("member", "answer") for name in pca.loc[pca["at"] == at, "class"].unique()]
    columns = len(points_shown(sorted(pca["point"].unique())))
    wide = (style.PAGE - 0.75) / SHOWN - GAP
    fig = style.figure(0.75 + columns * (wide + GAP), 0.35 + len(rows) * (HIGH + GAP + 0.1), layout=None)
    for r, (name, at) in enumerate(rows):
        of = pca[(pca["class"] == name) & (pca["at"] == at)]
        for c, point in enumerate(points_shown(sorted(of["point"].unique()))):
            left, top = 0.7 + c * (wide + GAP), 0.3 + r * (HIGH + GAP + 0.1)
            ax = style.axes_at(fig, left, top, wide, HIGH)
            _panel(ax, of[of["point"] == point].sort_values("place"), sequential)
            ax.set_title(_title(of[of["point"] == point]), size=style.LEAST, weight="normal", pad=2)
            if c == 0:
                said = wording.words(name, 14) + ("\nat the answer" if at == "answer" else "")
                ax.set_ylabel(said, size=style.SMALL, labelpad=3)
    return fig


def _title(of: pd.DataFrame) -> str:
    """The point, and what the two components explain there."""
    first = of.iloc[0]
    where = "embedding" if first["point"] == 0 else f"after {wording.count(first['point'], 'block')}"
    return f"{where} ({100 * first['share1']:.0f} + {100 * first['share2']:.0f} %)"


def _panel(ax: Axes, of: pd.DataFrame, sequential: str) -> None:
    x, y, n = of["pc1"].to_numpy(), of["pc2"].to_numpy(), len(of)
    colours = matplotlib.colormaps[sequential](np.linspace(0.05, 0.9, n))
    ax.plot(x, y, color=style.FAINT, lw=0.7, zorder=1)
    ax.scatter(x, y, s=7 if n <= 30 else 3, c=colours, linewidth=0, zorder=2)
    ax.set_aspect("equal", adjustable="datalim")
    ax.margins(0.16)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_color(style.GHOST)
    ax.spines[:].set_visible(True)
    ax.apply_aspect()
    ax.set(xlim=ax.get_xlim(), ylim=ax.get_ylim())
    which = np.arange(n) if n <= NAMED else np.unique(np.linspace(0, n - 1, NAMED).round().astype(int))
    first = np.concatenate([which, np.setdiff1d(np.arange(n), which)])
    # With a space behind each, since some letters are wider than `maps.label` takes them to be
    words = [f"{word} " if len(word) <= 9 else f"{word[:8]}. " for word in of["word"]]
    points = pd.DataFrame({"x": x, "y": y, "word": words}).iloc[first].reset_index(drop=True)
    maps.label(ax, points, "word", len(which), style.LEAST)
