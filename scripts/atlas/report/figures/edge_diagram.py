"""An edge circuit from the embeddings to the logits: which component's write each query, key, value or MLP reads.

Rows are layers, first at the top. An edge runs from the foot of the component that writes to the port of the one that
reads; ports are the cells q, k and v on top of a head, or of a key/value head that several query heads share.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Patch, PathPatch, Rectangle
from matplotlib.path import Path

from atlas.core.graph import EMBED, LOGITS, Edge, Graph
from atlas.report import style, wording
from atlas.report.figures.edge_curves import RANKED

IN_COLOUR = 120  # edges; of a larger circuit only the strongest are coloured
COLUMNS_UP_TO = 12  # heads per layer that keep their column in every figure; beyond, rows show their heads side by side
HEIGHT, PORT = 0.29, 0.115  # inches: of a head, and of the ports on top of it
LEFT, RIGHT, TOP = 0.5, 1.0, 0.35  # inches: layer names, MLPs, title
DEEP, BARE = 12, 0.17  # layers of a model in which those that no edge touches are this high, in inches
THICK, THIN = 3.2, 0.4  # points
RAISES, NO_PATH = (0, (2.2, 1.1)), (0, (2, 1.5))  # dashes
Places = dict[str, tuple[float, float, float]]  # node -> centre and width


@dataclass(frozen=True)
class Frame:
    """Sizes of a diagram, in inches: its width, where the bar of the logits ends, where heads of a layer stand."""

    width: float
    bottom: float
    layers: list[float]

    @property
    def bar(self) -> tuple[float, float]:
        """Left and right end of the bars of embeddings and logits."""
        return LEFT, self.width - 0.1


def edges_of(membership: pd.DataFrame, circuit: str, tasks: list[str]) -> pd.DataFrame:
    """Edges of a circuit with `kin`: `all`, `some` or `only`, by how many main tasks' circuits hold them.

    The circuit `shared` holds the edges of all of them, valued by the mean over the tasks.
    """
    rows = membership[membership["circuit"].isin(tasks)].astype({"value": float})
    held = rows.groupby(["sender", "receiver"])["circuit"].nunique()
    if circuit == "shared":
        edges = rows.groupby(["sender", "receiver"], as_index=False)["value"].mean()
    else:
        edges = rows.loc[rows["circuit"] == circuit, ["sender", "receiver", "value"]]
    holders = held.reindex(pd.MultiIndex.from_frame(edges[["sender", "receiver"]])).to_numpy()
    if circuit == "shared":
        edges, holders = edges[holders == len(tasks)], holders[holders == len(tasks)]
    kin = ["all" if n == len(tasks) > 1 else "some" if n > 1 else "only" for n in holders]
    return edges.assign(kin=kin).reset_index(drop=True)


def draw(
    membership: pd.DataFrame,
    circuit: str,
    main_tasks: list[str],
    model: dict[str, Any],
    method: str | None,
    colours: dict[str, str],
) -> Figure:
    """`circuit` is a main task or `shared`; `membership` has the edges of the main tasks' circuits and their scores.

    `model` is model.json. `method` gave the scores; without one all lines are alike. `colours` has `circuit` (edges
    that main tasks share) and `clean` (edges of this task alone).
    """
    graph, edges = Graph.of(model), edges_of(membership, circuit, main_tasks)
    read = set(edges["receiver"])
    used = set(edges["sender"]) | read
    frame, places = _placed(_boxes(edges, graph), graph, used)
    fig = style.figure(max(frame.width, 5.6), frame.bottom + 0.9, layout=None)
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, max(frame.width, 5.6)), ylim=(frame.bottom + 0.9, 0))
    ax.axis("off")
    for layer, y in enumerate(frame.layers):
        ax.text(0.08, y, f"layer {layer}", va="center", size=style.TINY, color=style.GREY)
    _bar(ax, frame.bar, TOP, "embed")
    _bar(ax, frame.bar, frame.bottom - 0.2, "logits")

    lines = edges.assign(size=edges["value"].abs().fillna(0)).sort_values("size", kind="stable")
    largest = max(lines["size"].max(), 1e-12) if len(lines) else 1.0
    faint = len(lines) - min(len(lines), IN_COLOUR)
    _edges(ax, lines, faint, places, frame, largest if method else None, colours)
    lost = {str(c) for c in graph.without_path(_pairs(edges))} & set(places)
    for name, place in places.items():
        if name[0] != "m" or name in used:
            _box(ax, name, place, read, graph, name in lost)
    _ties(ax, places, graph)
    ax.text(0.05, 0.13, _title(circuit, edges, places, used, graph), weight="bold", va="center")
    if faint:
        note = f"the {IN_COLOUR} strongest in colour"
        ax.text(frame.width - 0.1, 0.13, note, size=style.SMALL, ha="right", va="center", color=style.GREY)
    _legend(fig, ax, lines, method, largest, bool(faint), bool(lost), len(main_tasks), colours, frame.bottom)
    return fig


def _placed(boxes: dict[int, list[str]], graph: Graph, used: set[str]) -> tuple[Frame, Places]:
    """Sizes of the diagram, and where each box stands: heads of a layer in a row, its MLP to the right of them.

    ``used``: nodes that edges touch. In a deep model layers without one take less room.
    """
    fixed = graph.n_heads <= COLUMNS_UP_TO and graph.n_kv_heads == graph.n_heads
    widest = max((len(row) for row in boxes.values()), default=0)
    columns = graph.n_heads if fixed else max(widest, 6)
    step = max(0.42, min(0.72, (style.PAGE - LEFT - RIGHT) / (columns + 0.5)))
    row = 0.86 if graph.n_layers <= 8 else 0.68
    bare = {n for n in range(graph.n_layers) if graph.n_layers > DEEP and not boxes[n] and f"m{n}" not in used}
    *layers, end = accumulate((BARE if n in bare else row for n in range(graph.n_layers)), initial=TOP + 0.75)
    frame = Frame(LEFT + RIGHT + step * (columns + 0.5), end + 0.55 - row / 2, layers)
    places, wide = {}, min(0.5, 0.84 * step)
    for layer, y in enumerate(frame.layers):
        for i, name in enumerate(boxes[layer]):
            column = int(name.split(".")[1]) if fixed else i + (columns - len(boxes[layer])) / 2
            shift = (0.25, 0.75)[layer % 2] if fixed else 0.5
            places[name] = (LEFT + step * (column + shift + 0.25), y, wide)
        places[f"m{layer}"] = (frame.width - 0.66, y + row / 2, 0.4)
    return frame, places


def _edges(
    ax: Axes,
    lines: pd.DataFrame,
    faint: int,
    places: Places,
    frame: Frame,
    largest: float | None,
    colours: dict[str, str],
) -> None:
    """All edges, the weakest first and lowest; the first ``faint`` without colour.

    ``largest``: the score that is drawn thickest; None where there are no scores.
    """
    for i, edge in enumerate(lines.itertuples()):
        look = {"edgecolor": style.FAINT, "alpha": 0.55} if i < faint else _look(edge.kin, colours)
        patch = PathPatch(
            _curve(edge.sender, edge.receiver, places, frame.bar, frame.bottom),
            facecolor="none",
            linewidth=thickness(edge.size / largest) if largest else 1.0,
            linestyle=RAISES if edge.value > 0 else "-",
            zorder=1 + i / max(1, len(lines)),
            **look,
        )
        patch.set_gid(f"{edge.sender}->{edge.receiver}")
        ax.add_patch(patch)


def _title(circuit: str, edges: pd.DataFrame, places: Places, used: set[str], graph: Graph) -> str:
    """The circuit's name and size."""
    name = "Shared by all main tasks" if circuit == "shared" else wording.words(circuit)
    share = f"{wording.count(len(edges), 'edge')} of {len(graph.edges)}" if len(edges) else "no edge"
    heads = sum("." in box and ".kv" not in box for box in places)
    mlps = sum(map(wording.is_mlp, used))
    return f"{name}: {share}, {wording.count(heads, 'head')}, {wording.count(mlps, 'MLP')}"


def thickness(share: float) -> float:
    """Points, growing with the square root of the score, so that weak edges can be seen beside the strongest."""
    return float(max(THIN, THICK * share**0.5))


def _pairs(edges: pd.DataFrame) -> list[Edge]:
    return [Edge(*pair) for pair in zip(edges["sender"], edges["receiver"], strict=True)]


def _boxes(edges: pd.DataFrame, graph: Graph) -> dict[int, list[str]]:
    """By layer: heads that the circuit's edges touch, and key/value heads, each before the first head of its group."""
    names = {name for name in edges["sender"] if "." in name}
    names |= {receiver.rsplit(".", 1)[0] for receiver in edges["receiver"] if "." in receiver}

    def order(name: str) -> tuple[int, ...]:
        if ".kv" in name:
            return int(graph.readers(f"{name}.k")[0].split(".")[1]), 0
        return int(name.split(".")[1]), 1

    return {
        layer: sorted((n for n in names if graph.layer_of(n) == layer), key=order) for layer in range(graph.n_layers)
    }


def _curve(sender: str, receiver: str, places: Places, bar: tuple[float, float], bottom: float) -> Path:
    """From the sender's foot to the receiver's port. Edges of the two bars start and end right above and below.

    What runs along the column of MLPs swings out to its right, so that it passes none of them.
    """
    along = wording.is_mlp(receiver) or receiver == LOGITS
    along &= wording.is_mlp(sender) or (sender == EMBED and receiver != LOGITS)
    if wording.is_mlp(receiver):
        x1, y1, wide = places[receiver]
        across = 1.2 if along else (places[sender][0] - x1) / 3
        x1, y1 = x1 + 0.4 * wide * max(-1, min(1, across)), y1 - HEIGHT / 2
    elif receiver != LOGITS:
        name, part = receiver.rsplit(".", 1)
        parts = "kv" if ".kv" in name else "qkv"
        x1, y1, wide = places[name]
        x1, y1 = x1 + wide * ((parts.index(part) + 0.5) / len(parts) - 0.5), y1 - HEIGHT / 2
    if sender == EMBED:
        x0, y0 = (bar[0] + 0.06 if receiver == LOGITS else x1 + (0.3 if along else 0)), TOP + 0.2
    else:
        x0, y0, wide = places[sender]
        x0, y0 = x0 + (0.3 * wide if along else 0), y0 + HEIGHT / 2
    if receiver == LOGITS:
        x1, y1 = x0 + (0.4 if along else 0), bottom - 0.2
    bend = 0.5 * (y1 - y0)
    aside = min(0.45, 0.2 * (y1 - y0)) if along and receiver != LOGITS else 0
    corners = [(x0, y0), (x0 + aside, y0 + bend), (x1 + aside, y1 - bend), (x1, y1)]
    return Path(corners, [Path.MOVETO] + 3 * [Path.CURVE4])


def _look(kin: str, colours: dict[str, str]) -> dict[str, Any]:
    shade = {"all": colours["circuit"], "some": style.tint(colours["circuit"], 0.5), "only": colours["clean"]}
    return {"edgecolor": shade[kin], "alpha": 0.9}


def _bar(ax: Axes, ends: tuple[float, float], top: float, text: str) -> None:
    ax.add_patch(
        FancyBboxPatch(
            (ends[0], top),
            ends[1] - ends[0],
            0.2,
            boxstyle="round,pad=0,rounding_size=0.05",
            facecolor=style.GHOST,
            edgecolor=style.GREY,
            linewidth=0.6,
            zorder=4,
        )
    )
    ax.text(sum(ends) / 2, top + 0.1, text, ha="center", va="center", size=style.SMALL, zorder=5)


def _box(ax: Axes, name: str, place: tuple[float, float, float], read: set[str], graph: Graph, lost: bool) -> None:
    x, y, wide = place
    line: dict[str, Any] = {"edgecolor": style.INK, "linewidth": 0.7, "linestyle": NO_PATH if lost else "-"}
    ax.add_patch(Rectangle((x - wide / 2, y - HEIGHT / 2), wide, HEIGHT, facecolor="white", zorder=4, **line))
    if name[0] == "m":
        ax.text(x, y, name, ha="center", va="center", size=style.SMALL, zorder=6)
        return
    parts = "kv" if ".kv" in name else "qkv"
    for i, part in enumerate(parts):
        port, cell = f"{name}.{part}", wide / len(parts)
        if ".kv" not in name and port not in graph.ports[name]:
            continue  # the key or value is read by the key/value head
        inside = port in read
        ax.add_patch(
            Rectangle(
                (x - wide / 2 + i * cell, y - HEIGHT / 2),
                cell,
                PORT,
                facecolor=style.tint(style.GREY, 0.45) if inside else "white",
                edgecolor=style.INK if inside else style.FAINT,
                linewidth=0.4,
                zorder=5,
            )
        )
        ax.text(
            x - wide / 2 + (i + 0.5) * cell,
            y - HEIGHT / 2 + PORT / 2,
            part,
            ha="center",
            va="center_baseline",
            size=5.5,
            color=style.INK if inside else style.FAINT,
            zorder=6,
        )
    ax.text(x, y + PORT / 2, name, ha="center", va="center", size=style.TINY, zorder=6)


def _ties(ax: Axes, places: Places, graph: Graph) -> None:
    """A grey line from each key/value head to the heads of its group that are drawn."""
    for name, (x, y, _) in places.items():
        if ".kv" in name:
            ends = [places[head][0] for head in graph.readers(f"{name}.k") if head in places]
            if ends:
                ax.plot([x, max(ends)], [y + 0.04, y + 0.04], color=style.GREY, lw=1.6, zorder=3.5)


def _legend(
    fig: Figure,
    ax: Axes,
    lines: pd.DataFrame,
    method: str | None,
    largest: float,
    faint: int,
    lost: bool,
    n_tasks: int,
    colours: dict[str, str],
    bottom: float,
) -> None:
    everywhere = "in both main tasks" if n_tasks == 2 else f"in all {n_tasks} main tasks"
    names = {"all": everywhere, "some": "in some of them", "only": "in this task alone"}
    if n_tasks == 1:
        names = {"only": "in the circuit"}
    present = set(lines["kin"])
    handles: list[Artist] = [
        Line2D([], [], color=_look(kin, colours)["edgecolor"], lw=2, label=label)
        for kin, label in names.items()
        if kin in present
    ]
    if faint:
        handles.append(Line2D([], [], color=style.FAINT, lw=1.2, label="weaker"))
    if method and (lines["value"] > 0).any():
        label = f"removing it would raise the logit difference, by {RANKED[method]}"
        handles.append(Line2D([], [], color=style.INK, lw=1, ls=RAISES, label=label))
    if lost:
        box: dict[str, Any] = {"facecolor": "white", "edgecolor": style.INK, "linewidth": 0.7, "linestyle": NO_PATH}
        handles.append(Patch(label="on no path from embeddings to logits", **box))
    if not handles:
        return
    x = 0.0
    if method:
        ax.text(0.05, bottom + 0.25, f"Width: |{RANKED[method]} score|", size=style.SMALL, va="center")
        x = 0.65 + 0.058 * len(f"|{RANKED[method]} score|")
        for share in (1, 0.25, 0.05):
            ax.plot([x, x + 0.3], [bottom + 0.25] * 2, color=style.INK, lw=thickness(share), solid_capstyle="butt")
            ax.text(x + 0.36, bottom + 0.25, f"{share * largest:.2g}", size=style.SMALL, va="center")
            x += 0.85
    ax.text(x + 0.05, bottom + 0.25, "Cells: query, key and value inputs, grey if read", size=style.SMALL, va="center")
    fig.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 0),
        ncols=3,
        handlelength=1.8,
        borderaxespad=0.3,
        columnspacing=1.2,
        handletextpad=0.5,
    )
