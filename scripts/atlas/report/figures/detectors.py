"""Which heads are previous-token, duplicate-token or induction heads, on repeated random tokens."""

from typing import Any

import pandas as pd
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from atlas.report import maps, style, wording

NAMES = {"previous": "previous token", "duplicate": "duplicate token", "induction": "induction"}
NUMBERED = 0.19  # inches of a cell that a number fits in


def draw(
    detectors: pd.DataFrame, membership: pd.DataFrame, main_tasks: list[str], labels: dict[str, float], sequential: str
) -> Figure:
    """Three maps, layer x head, heads of any circuit outlined. `labels`: label -> the score from which a head is called
    that."""
    outlined = maps.union_heads(membership, main_tasks)
    layers, heads = detectors["layer"].max() + 1, detectors["head"].max() + 1
    wide = (style.PAGE - 1.05) / 3 - 0.15
    cell = min(0.26, wide / heads)
    tall = layers * min(0.2, max(cell, 0.12), 3.2 / layers)
    fig = style.figure(style.PAGE, tall + 0.85, layout=None)
    norm, cmap = Normalize(0, 1), maps.from_white(sequential)
    for i, (detector, title) in enumerate(NAMES.items()):
        ax = style.axes_at(fig, 0.42 + i * (wide + 0.15), 0.36, cell * heads, tall)
        rows = detectors[detectors["detector"] == detector]
        maps.draw(ax, maps.head_grid(rows), cmap, norm, outlined, lines=style.GHOST)
        label = "duplicate" if detector == "duplicate" else title
        for row in rows.itertuples():
            named = row.value >= labels.get(label, 2)
            if cell >= NUMBERED and (named or row.value >= 0.2):
                ink = style.ink_on(cmap(norm(row.value)))
                look: dict[str, Any] = {
                    "ha": "center",
                    "va": "center_baseline",
                    "weight": "bold" if named else "normal",
                }
                ax.text(row.head, row.layer, f"{row.value:.1f}", size=style.TINY - 0.5, color=ink, **look)
            elif named:
                ax.scatter(row.head, row.layer, s=5, color=style.ink_on(cmap(norm(row.value))), linewidth=0)
        maps.number_ticks(ax, heads, layers if i == 0 else None)
        called = sum(rows["value"] >= labels.get(label, 2))
        ax.set_title(f"{title} ({wording.count(called, 'head')})", size=style.TEXT, pad=4)
        ax.set_xlabel("head", size=style.SMALL, labelpad=1)
        if i == 0:
            ax.set_ylabel("layer", size=style.SMALL)
    maps.bar(fig, style.PAGE - 0.42, 0.5, min(1.3, 0.85 * tall), cmap, norm, "score")
    return fig
