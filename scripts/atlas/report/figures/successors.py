"""Successor heads: of each class, how often each head's values and output alone take a member to the next one."""

import pandas as pd
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from atlas.core.multiple import ALPHA
from atlas.report import maps, style, wording

INPUTS = {"mlp0": "through MLP 0", "without_mlp0": "embedding alone"}  # input -> how a line of maps is named
ACROSS, GAP = 8, 0.1  # maps in a line at most; inches between them
LEFT, RIGHT, ABOVE, BELOW = 0.5, 0.62, 0.3, 0.34  # inches
NAMED = 14  # characters in a line of a title


def draw(successors: pd.DataFrame, membership: pd.DataFrame, main_tasks: list[str], sequential: str) -> Figure:
    """A map of all heads for each class and input; a dot where random heads do not reach a score (corrected), heads of
    any circuit framed; below each what random heads score in the median, and what is written before any head."""
    rows = successors[successors["target"] == "next"]
    if rows.empty:
        fig = style.figure(style.COLUMN, 0.6)
        fig.text(0.05, 0.5, "No class has enough members of one token each: no head is scored.", size=style.SMALL)
        return fig
    classes, heads = list(dict.fromkeys(rows["class"])), rows["head"].max() + 1
    layers, circuit = rows["layer"].max() + 1, maps.union_heads(membership, main_tasks)
    lines = [classes[i : i + ACROSS] for i in range(0, len(classes), ACROSS)]
    across = len(lines[0])
    wide = min((style.PAGE - LEFT - RIGHT - GAP * (across - 1)) / across, 0.2 * heads)
    wide, tall = max(wide, 0.55), layers * maps.cell_height(layers, 0.12, 1.9)
    block = ABOVE + len(INPUTS) * (tall + BELOW)
    width = LEFT + across * (wide + GAP) + RIGHT
    fig = style.figure(width, block * len(lines), layout=None)
    norm, cmap = Normalize(0, 1), maps.from_white(sequential)
    for line, own in enumerate(lines):
        for (column, name), (row, source) in ((c, r) for c in enumerate(own) for r in enumerate(INPUTS)):
            top = line * block + ABOVE + row * (tall + BELOW)
            ax = style.axes_at(fig, LEFT + column * (wide + GAP), top, wide, tall)
            cells = rows[(rows["class"] == name) & (rows["input"] == source)]
            padded = pd.concat([cells, pd.DataFrame({"layer": [layers - 1], "head": [heads - 1]})])
            padded = padded.drop_duplicates(["layer", "head"])  # as large as that of all heads
            sure = maps.head_grid(padded.assign(sure=padded["p_holm"] < ALPHA), "sure") == 1
            maps.draw(ax, maps.head_grid(padded), cmap, norm, circuit, sure, lines=style.GHOST)
            maps.number_ticks(ax, heads, layers if column == 0 else None)
            if row == 0:
                ax.set_title(wording.words(name, NAMED), size=style.TINY, weight="normal", pad=2)
            alone, median = cells.loc[cells["head"] < 0, "value"].item(), cells.loc[cells["head"] >= 0, "random_median"]
            said = f"random {wording.number(100 * median.mean())} %\nno head {wording.number(100 * alone)} %"
            ax.set_xlabel(said, size=style.LEAST, color=style.GREY, labelpad=1, linespacing=1.1)
            if column == 0:
                ax.set_ylabel(f"{INPUTS[source]}\nlayer", size=style.TINY, labelpad=1)
    maps.bar(fig, width - RIGHT + 0.12, 0.4, min(1.4, block - 0.6), cmap, norm, "next on top\n(share)")
    return fig
