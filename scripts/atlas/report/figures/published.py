"""Our values against published ones: a panel for each figure, and a strip for each circuit."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from atlas.compare.published import COMPARED, NOT_COMPUTED
from atlas.report import style, wording

ACROSS = 4  # panels in a row
SIDE, STEP_X, STEP_Y = 1.35, 1.8, 2.05  # inches
LEFT, TOP = 0.62, 0.62
STRIP = 0.2  # inches, a row of a circuit strip
STRIPS = (("both", "in both"), ("ours", "ours alone"), ("published", "published alone"))
ROOM = 0.06  # share of an axis left free at its ends


def draw(table: pd.DataFrame, colours: dict[str, str]) -> Figure:
    """`table`: comparison/published.parquet. `colours`: `clean` within tolerance, `circuit` outside it."""
    table = table[table["status"] != NOT_COMPUTED]
    strips = circuit_strips(table[table["figure"] == "circuit"])
    panels = list(table[table["figure"] != "circuit"].groupby("title", sort=False))
    across = min(ACROSS, max(1, len(panels)))
    down, width = -(-len(panels) // across), max(style.PAGE, LEFT + across * STEP_X)
    below = TOP + down * STEP_Y
    fig = style.figure(width, below + STRIP * sum(len(s) + 1.6 for s in strips.values()) + 0.1, layout=None)
    for i, (title, rows) in enumerate(panels):
        row, column = divmod(i, across)
        ax = style.axes_at(fig, LEFT + column * STEP_X, TOP + row * STEP_Y, SIDE, SIDE)
        _panel(ax, title, rows, colours)
    _legend(fig, colours)
    for task, strip in strips.items():
        below = _strip(fig, below, width, task, strip, colours)
    if not panels and not strips:
        fig.text(0.5, 0.5, "nothing published was computed here", ha="center")
    return fig


def marks(rows: pd.DataFrame, colours: dict[str, str]) -> list[tuple[pd.DataFrame, str, str]]:
    """(rows, face colour, edge colour): within the tolerance, outside it, and not comparable."""
    compared = rows["status"] == COMPARED
    within = rows["within"].fillna(False).astype(bool)
    return [
        (rows[~compared], "white", style.GREY),
        (rows[compared & within], colours["clean"], colours["clean"]),
        (rows[compared & ~within], colours["circuit"], colours["circuit"]),
    ]


def limits(rows: pd.DataFrame) -> tuple[float, float]:
    """Ends of both axes: all that is shown and a little more."""
    values = rows[["ours", "published"]].to_numpy(dtype=float)
    low, high = np.nanmin(values), np.nanmax(values)
    room = ROOM * (high - low) or 1.0
    return low - room, high + room


def _panel(ax: Axes, title: str, rows: pd.DataFrame, colours: dict[str, str]) -> None:
    ends, tolerance = np.array(limits(rows)), rows["tolerance"].max()
    ax.fill_between(ends, ends - tolerance, ends + tolerance, color=style.GHOST, linewidth=0, zorder=0)
    ax.plot(ends, ends, color=style.GREY, lw=0.7, zorder=1)
    for part, face, edge in marks(rows, colours):
        low, high = (part[key].fillna(part["ours"]) for key in ("ours_low", "ours_high"))
        ax.vlines(part["published"], low, high, color=style.tint(edge, 0.5), lw=0.7, zorder=2)
        ax.scatter(part["published"], part["ours"], s=9, color=face, edgecolor=edge, linewidth=0.7, zorder=3)
    ax.set(xlim=ends, ylim=ends)
    ax.locator_params(nbins=4)
    ax.set_title(wrapped(title), size=style.SMALL)
    unit = rows["unit"].iloc[0]
    ax.set_xlabel(f"published ({unit})" if unit else "published", size=style.TINY, labelpad=1)
    ax.set_ylabel("ours", size=style.TINY, labelpad=1)
    ax.tick_params(labelsize=style.TINY)


def wrapped(title: str, width: int = 24) -> str:
    """The title on two lines where one is too long for a panel."""
    return wording.words(title.replace(" ", "_"), width)


def _legend(fig: Figure, colours: dict[str, str]) -> None:
    across, down = fig.get_size_inches()
    names = ((colours["clean"], colours["clean"], "within the tolerance"), (colours["circuit"],) * 2 + ("outside",))
    for i, (face, edge, name) in enumerate((*names, ("white", style.GREY, "not comparable"))):
        x = (LEFT + 1.6 * i) / across
        ax = fig.add_axes((x, 1 - 0.2 / down, 0.12 / across, 0.12 / down))
        ax.axis("off")
        ax.scatter([0], [0], s=14, color=face, edgecolor=edge, linewidth=0.8)
        fig.text(x + 0.18 / across, 1 - 0.14 / down, name, va="center", size=style.SMALL)


def circuit_strips(rows: pd.DataFrame) -> dict[str, dict[str, list[str]]]:
    """Task -> whose the components are (`both`, `ours`, `published`) -> their names, layer by layer."""
    found = {}
    for task, part in rows.groupby("task", sort=False):
        whose = {
            "both": part[(part["ours"] == 1) & (part["published"] == 1)],
            "ours": part[(part["ours"] == 1) & (part["published"] == 0)],
            "published": part[(part["ours"] == 0) & (part["published"] == 1)],
        }
        found[task] = {key: sorted(chosen["item"], key=wording.place) for key, chosen in whose.items()}
    return found


def _strip(fig: Figure, top: float, width: float, task: str, strip: dict[str, Any], colours: dict[str, str]) -> float:
    """A line of names for each of STRIPS; returns where the next strip starts, in inches from the top."""
    across, down = fig.get_size_inches()
    fig.text(LEFT / 2 / across, 1 - (top + 0.05) / down, f"Circuit of {wording.words(task)}", weight="bold", va="top")
    tones = {"both": style.INK, "ours": colours["clean"], "published": colours["circuit"]}
    for i, (key, name) in enumerate(STRIPS):
        y = 1 - (top + STRIP * (i + 1.4)) / down
        fig.text(LEFT / 2 / across, y, f"{name} ({len(strip[key])})", size=style.SMALL, va="center", color=tones[key])
        names = ", ".join(strip[key]) or "\u2013"
        fig.text((LEFT / 2 + 1.25) / across, y, names, size=style.TINY, va="center", color=tones[key])
    return top + STRIP * (len(STRIPS) + 1.6)
