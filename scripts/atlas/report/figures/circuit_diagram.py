"""A node circuit by layer: which heads and MLPs it keeps, how strong each one is, which other tasks use it.

Only nodes are known at this level, so no edge between components is drawn; the line beside the layers stands for the
residual stream, which every component reads and writes.
"""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, Patch, Rectangle

from atlas.report import style, wording

LARGEST = 0.47  # radius of a node, in steps of the grid
TALLEST = 9.5  # inches of all layers together: what fits on a page
GHOSTS_UP_TO = 16  # heads per layer; beyond that, a row shows its kept heads side by side


def kinship(membership: pd.DataFrame, circuit: str, tasks: list[str]) -> dict[str, str]:
    """For each component of the circuit: `all`, `some` or `only`, by how many main tasks' circuits hold it."""
    main = membership[membership["circuit"].isin(tasks)]
    holders = main.groupby("component")["circuit"].nunique()
    members = membership.loc[membership["circuit"] == circuit, "component"]

    def kin(component: str) -> str:
        n = holders.get(component, 0)
        return "all" if n == len(tasks) and n > 1 else "some" if n > 1 else "only"

    return {component: kin(component) for component in sorted(members, key=wording.place)}


def drops(effects: pd.DataFrame, kind: str) -> pd.Series:
    """Percent of full lost when the component alone is ablated, averaged over the tasks in the table."""
    rows = effects[(effects["kind"] == style.one_kind(effects, kind)) & (effects["metric"] == "percent_of_full")]
    return 100 - rows.groupby("component")["value"].mean()


def draw(
    membership: pd.DataFrame,
    effects: pd.DataFrame,
    circuit: str,
    main_tasks: list[str],
    kind: str,
    colours: dict[str, str],
) -> Figure:
    """`circuit` is a main task or `shared`; `effects` are the tables of that task (of all main tasks for `shared`).

    `colours` has `circuit` (components shared by main tasks) and `clean` (components of this task alone).
    """
    members, lost = kinship(membership, circuit, main_tasks), drops(effects, kind)
    layers, heads = int(effects["layer"].max()) + 1, int(effects["head"].max()) + 1
    ghosts = heads <= GHOSTS_UP_TO
    widest = max((sum(wording.place(c)[:2] == (layer, 0) for c in members) for layer in range(layers)), default=0)
    columns = heads if ghosts else max(widest, 8)
    mlp_x, spine = columns + 0.25, -1.35
    left, right = spine - 0.95, mlp_x + 0.6
    unit = min(0.5, style.PAGE / (right - left), TALLEST / (layers + 2.3))  # inches
    width = max(unit * (right - left), 5.6)
    fig = style.figure(width, unit * (layers + 2.3) + 1.15, layout=None)
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set(xlim=(left, left + width / unit), ylim=(layers + 0.65 + 0.85 / unit, -1.65 - 0.3 / unit))
    ax.axis("off")
    _spine(ax, spine, layers, mlp_x, unit)

    letters = len(f"{layers - 1}.{heads - 1}")
    smallest = min(0.36, max(0.24, 0.31 * letters * style.TINY / (72 * unit)))  # a node that its label fits in
    font = min(style.SMALL, 72 * unit * 2 * smallest / (0.62 * letters))
    largest_drop = max(lost.reindex(list(members)).max() if members else 0, 1e-9)
    seen = dict.fromkeys(range(layers), 0)
    for component in sorted(effects["component"].unique(), key=wording.place) if ghosts else members:
        layer, mlp, head = wording.place(component)
        x = mlp_x if mlp else head if ghosts else seen[layer]
        seen[layer] += not mlp
        size = radius(lost.get(component, 0) / largest_drop, smallest) if component in members else 0.85 * smallest
        _node(ax, x, layer, size, component, members.get(component), colours, font)
    n_mlps = sum(map(wording.is_mlp, members))
    name = "Shared by all main tasks" if circuit == "shared" else wording.words(circuit)
    counted = f"{wording.count(len(members) - n_mlps, 'head')}, {wording.count(n_mlps, 'MLP')}" if members else "empty"
    ax.text(left + 0.05, -1.65 - 0.15 / unit, f"{name}: {counted}", weight="bold", va="center")
    if members:
        several = circuit == "shared" and len(main_tasks) > 1
        over = f"{style.one_kind(effects, kind)}-ablated alone" + (",\nmean over the main tasks" if several else "")
        _size_legend(ax, left + 0.1, layers + 0.65 + 0.25 / unit, unit, smallest, largest_drop, over)
    _kin_legend(fig, set(members.values()), len(main_tasks), colours, ghosts)
    return fig


def radius(share: float, smallest: float) -> float:
    """The node's area grows in proportion to the drop; share is the drop over the largest drop."""
    return float((smallest**2 + min(max(share, 0), 1) * (LARGEST**2 - smallest**2)) ** 0.5)


def _look(kin: str | None, colours: dict[str, str]) -> dict[str, Any]:
    if kin == "all":
        return {"facecolor": colours["circuit"], "edgecolor": style.INK, "linewidth": 0.8}
    if kin == "some":
        return {
            "facecolor": style.tint(colours["circuit"], 0.3),
            "edgecolor": colours["circuit"],
            "hatch": "/////",
            "linewidth": 0.8,
        }
    if kin == "only":
        return {"facecolor": colours["clean"], "edgecolor": style.INK, "linewidth": 0.8}
    return {"facecolor": "white", "edgecolor": style.FAINT, "linewidth": 0.5}


def _node(
    ax: Axes, x: float, y: float, size: float, label: str, kin: str | None, colours: dict[str, str], font: float
) -> None:
    look = _look(kin, colours)
    if wording.is_mlp(label):
        ax.add_patch(Rectangle((x - 0.9 * size, y - 0.9 * size), 1.8 * size, 1.8 * size, zorder=2, **look))
    else:
        ax.add_patch(Circle((x, y), size, zorder=2, **look))
    ink = style.FAINT if kin is None else style.INK if kin == "some" else style.ink_on(look["facecolor"])
    # Letters on a hatch need a plain ground.
    ground = {"boxstyle": "round,pad=0.08", "facecolor": look["facecolor"], "edgecolor": "none"}
    ax.text(
        x, y, label, ha="center", va="center", size=font, color=ink, zorder=3, bbox=ground if kin == "some" else None
    )


def _spine(ax: Axes, x: float, layers: int, right: float, unit: float) -> None:
    for layer in range(layers):
        ax.plot([x, right], [layer, layer], color=style.GHOST, lw=0.6, zorder=0)
        ax.text(
            x - 0.2,
            layer,
            f"layer {layer}" if unit > 0.4 else str(layer),
            ha="right",
            va="center",
            size=style.TINY,
            color=style.GREY,
        )
    ax.add_patch(
        FancyArrowPatch(
            (x, -0.9),
            (x, layers - 0.05),
            arrowstyle="-|>",
            mutation_scale=8,
            lw=2.2,
            color=style.FAINT,
            zorder=1,
            shrinkA=0,
            shrinkB=0,
        )
    )
    for y, text in ((-1.2, "embeddings"), (layers + 0.25, "logits")):
        ax.text(
            x - 0.55,
            y,
            text,
            ha="left",
            va="center",
            size=style.SMALL,
            bbox={"boxstyle": "round,pad=0.3", "facecolor": "white", "edgecolor": style.GREY, "linewidth": 0.6},
        )


def _size_legend(ax: Axes, x: float, y: float, unit: float, smallest: float, largest_drop: float, over: str) -> None:
    text = f"Size: drop of % of full when {over}"
    ax.text(x, y, text, size=style.SMALL, va="center")
    x += max(map(len, text.split("\n"))) * 0.56 * style.SMALL / (72 * unit) + 0.4
    for share in (0, 0.5, 1):
        size = radius(share, smallest)
        ax.add_patch(Circle((x + size, y), size, facecolor="white", edgecolor=style.GREY, linewidth=0.8))
        label = f"{wording.number(share * largest_drop, 0 if largest_drop >= 10 else 1)} %"
        ax.text(x + 2 * size + 0.05 / unit, y, label, size=style.SMALL, va="center")
        x += 2 * size + 0.6 / unit


def _kin_legend(fig: Figure, kins: set[str], n_tasks: int, colours: dict[str, str], ghosts: bool) -> None:
    everywhere = "in both main tasks" if n_tasks == 2 else f"in all {n_tasks} main tasks"
    names = {"all": everywhere, "some": "in some of them", "only": "in this task alone"}
    if n_tasks == 1:
        names = {"only": "in the circuit"}
    handles = [Patch(label=label, **_look(kin, colours)) for kin, label in names.items() if kin in kins]
    if ghosts:
        handles.append(Patch(label="not in the circuit", **_look(None, colours)))
    if handles:
        fig.legend(
            handles=handles,
            loc="lower left",
            bbox_to_anchor=(0, 0),
            ncols=len(handles),
            handlelength=1.4,
            handleheight=1.1,
            borderaxespad=0.3,
            columnspacing=1.2,
            handletextpad=0.5,
        )
