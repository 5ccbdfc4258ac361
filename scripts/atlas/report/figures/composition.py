"""How much of what one head of a circuit writes another one can read, and whether edges follow that."""

import math

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from atlas.report import maps, style, wording

INTO = {"Q": "into queries", "K": "into keys", "V": "into values"}
GAP, LEFT = 0.42, 0.5  # inches between the maps and before them
ROW = 0.15  # inches of a circuit below


def draw(
    composition: pd.DataFrame,
    composition_edges: pd.DataFrame,
    edge_membership: pd.DataFrame,
    membership: pd.DataFrame,
    main_tasks: list[str],
    sequential: str,
    colours: dict[str, str],
) -> Figure:
    """Above, a map for each kind: senders across, receivers down, of all heads of the circuits; below, the areas."""
    heads = maps.union_heads(membership, main_tasks)
    side = (style.PAGE - LEFT - 2 * GAP - 0.75) / 3
    fig = style.figure(style.PAGE, side + 1.4 + ROW * len(main_tasks), layout=None)
    own = composition[composition["sender"].isin(heads) & composition["receiver"].isin(heads)]
    own = own.assign(times=own["value"] / own["baseline"])
    norm, cmap = Normalize(1, max(2.0, math.ceil(own["times"].max() if len(own) else 2))), maps.from_white(sequential)
    kept = edges_of(edge_membership, main_tasks)
    for i, (kind, title) in enumerate(INTO.items()):
        left = LEFT + i * (side + GAP)
        ax = style.axes_at(fig, left, 0.42, side, side)
        of_kind = own[own["kind"] == kind]
        draw_map(ax, of_kind, heads, cmap, norm, kept)
        ax.set_title(f"{kind}: {title}")
        ax.set_xlabel("writes", size=style.SMALL, labelpad=1)
        if i == 0:
            ax.set_ylabel("reads", size=style.SMALL, labelpad=1)
        below = style.axes_at(fig, left, side + 1.0, side - 0.62, ROW * max(1, len(main_tasks)))
        rows = composition_edges[composition_edges["kind"] == kind].set_index("circuit")
        draw_areas(below, rows, main_tasks, colours["circuit"], labels=i == 0)
    maps.bar(fig, style.PAGE - 0.55, 0.55, 1.2, cmap, norm, "times\nrandom", extend="both")
    handles = [
        Line2D([], [], ls="", marker="o", markersize=2.5, color=style.INK, label="above 95 % of random orientations"),
        Rectangle((0, 0), 1, 1, facecolor="none", edgecolor=style.INK, lw=0.8, label="edge in a circuit"),
    ]
    fig.legend(handles=handles, loc="upper left", ncols=2, borderaxespad=0.1)
    return fig


def edges_of(edge_membership: pd.DataFrame, tasks: list[str]) -> set[tuple[str, str]]:
    """(sender, receiving input) of the edges that the circuit of one of the tasks keeps."""
    rows = edge_membership[edge_membership["circuit"].isin(tasks)]
    return set(zip(rows["sender"], rows["receiver"], strict=True))


def draw_map(
    ax: Axes,
    rows: pd.DataFrame,
    heads: list[str],
    cmap: matplotlib.colors.Colormap,
    norm: Normalize,
    kept: set[tuple[str, str]],
) -> None:
    """Receivers down, senders across; pairs of a layer or against the order of layers are left white."""
    at, n = {name: i for i, name in enumerate(heads)}, len(heads)
    grid, dots = np.full((n, n), np.nan), np.zeros((n, n), dtype=bool)
    y, x = rows["receiver"].map(at).to_numpy(dtype=int), rows["sender"].map(at).to_numpy(dtype=int)
    grid[y, x], dots[y, x] = rows["times"], rows["value"] > rows["null_high"]
    maps.draw(ax, grid, cmap, norm, dots=dots, lines=style.GHOST)
    for sender, receiver, port in zip(rows["sender"], rows["receiver"], rows["port"], strict=True):
        if (sender, port) in kept:
            corner = at[sender] - 0.5, at[receiver] - 0.5
            ax.add_patch(Rectangle(corner, 1, 1, facecolor="none", edgecolor=style.INK, lw=0.7))
    every = math.ceil(n / 30)
    ax.set_xticks(range(0, n, every), heads[::every], rotation=90, size=5)
    ax.set_yticks(range(0, n, every), heads[::every], size=5)


def draw_areas(ax: Axes, rows: pd.DataFrame, tasks: list[str], colour: str, labels: bool) -> None:
    """The area of each circuit on the range of its null; a circuit that keeps no edge of the kind, or all, has none."""
    for y, task in enumerate(tasks):
        row = rows.loc[task]
        if np.isnan(row["auroc"]):
            ax.text(
                0.5,
                y,
                f"{row['edges']:.0f} of {row['pairs']:.0f} kept",
                ha="center",
                va="center",
                size=5,
                color=style.GREY,
            )
            continue
        ax.plot([row["null_low"], row["null_high"]], [y, y], color=style.FAINT, lw=4, solid_capstyle="butt", zorder=1)
        ax.scatter(row["auroc"], y, s=12, color=colour, linewidth=0, zorder=3)
        said = f"{row['edges']:.0f} of {row['pairs']:.0f}, {wording.p_value(row['p_holm'])}"
        ax.annotate(
            said, (1, y), (5, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center", size=5
        )
    ax.axvline(0.5, color=style.GREY, lw=0.6)
    ax.set(xlim=(0, 1), ylim=(len(tasks) - 0.5, -0.5))
    ax.set_yticks(range(len(tasks)), [wording.words(task) for task in tasks] if labels else [])
    ax.tick_params(labelsize=style.TINY, length=0)
    ax.set_xlabel("area: kept edges above other pairs", size=style.TINY, labelpad=1)
