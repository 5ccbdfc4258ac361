"""What heads write about the member they read: itself, the next one, the one before, a member of another task."""

import math
from typing import Any

import pandas as pd
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from atlas.report import maps, style, wording

OWN, IN_PLACE = "own", "in place"
LEAST = 0.2  # a cross-type map needs a head that reaches this share
ACROSS, GAP = 8, 0.11  # maps in a line at most; inches between them
LINE = 0.42  # inches of a line of maps beside the maps


def title_of(norm: str, score: str) -> str:
    """The title of a score of `ov.parquet` under a norm: `as months`, `next, in place`."""
    name = wording.words(score.removeprefix("cross:").replace("next_next", "next but one"))
    name = f"as {name}" if score.startswith("cross:") else name
    return f"{name}, in place" if norm == IN_PLACE else name


def panels(table: pd.DataFrame, k: int) -> tuple[list[tuple[str, str]], list[str]]:
    """(norm, score) of the maps of one task, own norm before in place; and the cross types that no head writes."""
    rows = table[(table["k"] == k) & table["norm"].isin([OWN, IN_PLACE])]
    largest = rows.groupby(["norm", "score"], sort=False)["value"].max()
    first = {score: place for place, score in enumerate(("next", "copy", "previous", "next_next"))}
    ordered = sorted(largest.index, key=lambda p: (p[0] != OWN, p[1].startswith("cross"), first.get(p[1], 9)))
    weak = {p for p in ordered if p[1].startswith("cross") and largest[p] < LEAST}
    return [p for p in ordered if p not in weak], [title_of(*p) for p in ordered if p in weak]


def columns_of(counts: list[int]) -> int:
    """Maps in a line, so that the lines of a task are as even as can be: 7 for 7, 5 for 9 or 10."""
    return max(math.ceil(n / math.ceil(n / ACROSS)) for n in counts if n)


def draw(ov: pd.DataFrame, membership: pd.DataFrame, main_tasks: list[str], k: int, sequential: str) -> Figure:
    """Maps of all heads, task by task; a dot where the interval lies above the score with a random member."""
    shown = {task: panels(ov[ov["task"] == task], k) for task in main_tasks}
    if not any(found for found, _ in shown.values()):
        fig = style.figure(style.COLUMN, 0.6)
        fig.text(0.05, 0.5, "No head was scored: where members stand is not known.", size=style.SMALL)
        return fig
    layers, heads = ov["layer"].max() + 1, ov["head"].max() + 1
    across = columns_of([len(found) for found, _ in shown.values()])
    wide, tall = (style.PAGE - 0.9) / across - GAP, layers * maps.cell_height(layers, 0.13, 2.1)
    wide = min(wide, 0.2 * heads)
    line = tall + LINE
    lines = {task: max(1, math.ceil(len(found) / across)) for task, (found, _) in shown.items()}
    fig = style.figure(style.PAGE, sum(n * line + 0.3 for n in lines.values()), layout=None)
    down, top, norm, cmap = fig.get_size_inches()[1], 0.0, Normalize(0, 1), maps.from_white(sequential)
    for task, (found, weak) in shown.items():
        fig.text(0.05 / style.PAGE, 1 - (top + 0.08) / down, wording.words(task), weight="bold", size=style.TEXT)
        note = f"no head reaches {100 * LEAST:.0f} %: {wording.listing(weak)}" if weak else ""
        note = note if found else "not scored: where members stand is not known"
        look: dict[str, Any] = {"size": style.TINY, "color": style.GREY, "ha": "right"}
        fig.text(1 - 0.6 / style.PAGE, 1 - (top + 0.08) / down, note, **look)
        circuit = maps.circuit_heads(membership, task)
        for i, (kind, score) in enumerate(found):
            row, column = divmod(i, across)
            ax = style.axes_at(fig, 0.42 + column * (wide + GAP), top + 0.28 + row * line, wide, tall)
            rows = ov[(ov["task"] == task) & (ov["norm"] == kind) & (ov["score"] == score) & (ov["k"] == k)]
            above = rows.assign(above=rows["ci_low"] > rows["baseline"])
            maps.draw(
                ax, maps.head_grid(rows), cmap, norm, circuit, maps.head_grid(above, "above") == 1, lines=style.GHOST
            )
            maps.number_ticks(ax, heads, layers if column == 0 else None)
            ax.set_title(title_of(kind, score), size=style.TINY, weight="normal", pad=2)
            ax.set_xlabel(
                f"random {100 * rows['baseline'].mean():.0f} %", size=style.LEAST, color=style.GREY, labelpad=1
            )
            if column == 0:
                ax.set_ylabel("layer", size=style.TINY, labelpad=1)
        top += lines[task] * line + 0.3
    maps.bar(fig, style.PAGE - 0.42, 0.45, min(1.4, down - 0.8), cmap, norm, f"in top {k}\n(share)")
    return fig
