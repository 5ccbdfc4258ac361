"""Which heads are previous-token, duplicate-token or induction heads, on repeated random tokens."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure

from atlas.report import maps, style, wording

NAMES = {"previous": "previous token", "duplicate": "duplicate token", "induction": "induction"}
NUMBERED = 0.17, 0.09  # width and height in inches of a cell that a number fits in
SHOWN = 0.2  # smallest score that is written out


def draw(
    detectors: pd.DataFrame, membership: pd.DataFrame, main_tasks: list[str], labels: dict[str, float], sequential: str
) -> Figure:
    """Three maps, layer x head, heads of any circuit outlined. `labels`: label -> the score from which a head is called
    that."""
    outlined = maps.union_heads(membership, main_tasks)
    layers, heads = detectors["layer"].max() + 1, detectors["head"].max() + 1
    wide = (style.PAGE - 0.95) / 3 - 0.12
    cell = wide / heads, min(0.19, 3.2 / layers)
    fig = style.figure(style.PAGE, cell[1] * layers + 0.7, layout=None)
    norm, cmap = Normalize(0, 1), maps.from_white(sequential)
    for i, (detector, title) in enumerate(NAMES.items()):
        ax = style.axes_at(fig, 0.4 + i * (wide + 0.12), 0.38, wide, cell[1] * layers)
        rows = detectors[detectors["detector"] == detector]
        least = labels.get("duplicate" if detector == "duplicate" else title)
        _map(ax, rows, outlined, cmap, norm, cell, least)
        maps.number_ticks(ax, heads, layers if i == 0 else None)
        reached = f": {wording.count((rows['value'] >= least).sum(), 'head')} from {least:g}" if least else ""
        ax.set_title(title + reached, size=style.SMALL, pad=10)
        ax.annotate(_highest(rows), (0, 1), (0, 3), "axes fraction", "offset points", size=style.TINY)
        ax.set_xlabel("head", size=style.SMALL, labelpad=1)
        if i == 0:
            ax.set_ylabel("layer", size=style.SMALL, labelpad=1)
    maps.bar(fig, style.PAGE - 0.42, 0.5, min(1.3, 0.85 * cell[1] * layers), cmap, norm, "score")
    return fig


def _highest(rows: pd.DataFrame) -> str:
    top = rows.loc[rows["value"].idxmax()]
    return f"highest: {top['layer']}.{top['head']}, {wording.interval(top, 2)}"


def _map(
    ax: Axes,
    rows: pd.DataFrame,
    outlined: list[str],
    cmap: Colormap,
    norm: Normalize,
    cell: tuple[float, float],
    least: float | None,
) -> None:
    """``cell``: its width and height in inches; numbers from SHOWN on, or dots where they find no room."""
    maps.draw(ax, maps.head_grid(rows), cmap, norm, outlined, lines=style.GHOST)
    for row in rows.itertuples():
        named, ink = least is not None and row.value >= least, style.ink_on(cmap(norm(row.value)))
        if cell[0] >= NUMBERED[0] and cell[1] >= NUMBERED[1] and (named or row.value >= SHOWN):
            look: dict[str, Any] = {"ha": "center", "va": "center_baseline", "weight": "bold" if named else "normal"}
            ax.text(row.head, row.layer, f"{row.value:.2f}".removeprefix("0"), size=style.LEAST, color=ink, **look)
        elif named:
            ax.scatter(row.head, row.layer, s=5, color=ink, linewidth=0)
