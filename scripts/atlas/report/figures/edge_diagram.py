"""An edge circuit from the embeddings to the logits: which component's write each query, key, value or MLP reads.

Rows are layers, first at the top; heads stand in columns by their roles. An edge runs from the foot of the component
that writes to the port of the one that reads; ports are the cells q, k and v on top of a head, or of a key/value head
that several query heads share. Of a large circuit the strongest edges are drawn, with the components at their ends.
"""

import textwrap
from dataclasses import dataclass
from itertools import accumulate, pairwise
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

SHOWN = 45  # edges that are drawn, at most
HEIGHT, PORT = 0.29, 0.115  # inches: of a head, and of the ports on top of it
LEFT, RIGHT, TOP = 0.5, 0.95, 0.86  # inches: layer names, MLPs, and what stands above the embeddings
STEP = 0.34, 0.62  # inches from one head of a layer to the next, at least and at most
ROW, TALL, BARE = (0.4, 0.72), 6.6, 0.1  # inches: a layer, at least and at most, all of them, and one without a box
THICK, THIN = 3.2, 0.5  # points
RAISES, NO_PATH = (0, (2.2, 1.1)), (0, (2, 1.5))  # dashes
NO_ROLE = "no role"
LEAST_ROLE = 0.5  # inches of the columns of a role, so that its name finds room
Places = dict[str, tuple[float, float, float]]  # node -> centre and width


@dataclass(frozen=True)
class Frame:
    """Sizes of a diagram, in inches: its width, where the bar of the logits ends, where heads of a layer stand, and
    left and right end of the columns of a role."""

    width: float
    bottom: float
    layers: list[float]
    roles: dict[str, tuple[float, float]]

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


def strongest(edges: pd.DataFrame) -> pd.DataFrame:
    """The SHOWN edges of largest score, weakest first; without scores those that most tasks share. With ``size``."""
    kin = edges["kin"].map({"all": 2, "some": 1, "only": 0})
    lines = edges.assign(size=edges["value"].abs().fillna(0), kin_order=kin)
    lines = lines.sort_values(["size", "kin_order"], ascending=False, kind="stable").head(SHOWN)
    return lines.iloc[::-1].drop(columns="kin_order").reset_index(drop=True)


def roles_of(roles: pd.DataFrame | None, tasks: list[str]) -> dict[str, str]:
    """Head -> its label, of several tasks the most frequent one; heads without one are left out."""
    if roles is None:
        return {}
    own = roles[roles["task"].isin(tasks) & ~roles["label"].isin(["", "unlabelled"])]
    return {str(name): str(labels.mode().iloc[0]) for name, labels in own.groupby("component")["label"]}


def draw(
    membership: pd.DataFrame,
    circuit: str,
    main_tasks: list[str],
    model: dict[str, Any],
    method: str | None,
    colours: dict[str, str],
    roles: pd.DataFrame | None = None,
) -> Figure:
    """`circuit` is a main task or `shared`; `membership` has the edges of the main tasks' circuits and their scores.

    `model` is model.json. `method` gave the scores; without one all lines are alike. `colours` has `circuit` (edges
    that main tasks share) and `clean` (edges of this task alone). `roles` is `roles.parquet`, where there is one.
    """
    graph, edges = Graph.of(model), edges_of(membership, circuit, main_tasks)
    lines = strongest(edges)
    used = set(lines["sender"]) | set(lines["receiver"])
    labels = roles_of(roles, main_tasks if circuit == "shared" else [circuit])
    frame, places = _placed(_boxes(lines, graph), graph, used, labels)
    fig = style.figure(style.PAGE, frame.bottom + 0.9, layout=None)
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, style.PAGE), ylim=(frame.bottom + 0.9, 0))
    ax.axis("off")
    rows = {graph.layer_of(name) for name in places}
    for layer, y in enumerate(frame.layers):
        if layer in rows:
            ax.text(0.08, y, f"layer {layer}", va="center", size=style.TINY, color=style.GREY)
    _roles(ax, frame)
    _bar(ax, frame.bar, TOP, "embed")
    _bar(ax, frame.bar, frame.bottom - 0.2, "logits")

    largest = max(lines["size"].max(), 1e-12) if len(lines) else 1.0
    _edges(ax, lines, places, frame, largest if method else None, colours)
    lost = {str(c) for c in graph.without_path(_pairs(edges))} & set(places)
    for name, place in places.items():
        _box(ax, name, place, set(lines["receiver"]), graph, name in lost)
    _ties(ax, places, graph)
    title, said = _title(circuit, edges, lines, graph)
    ax.text(0.05, 0.13, title, weight="bold", va="center")
    ax.text(0.05, 0.31, said, size=style.SMALL, va="center", color=style.GREY)
    _legend(fig, ax, lines, method, largest, bool(lost), len(main_tasks), colours, frame.bottom)
    return fig


def _placed(boxes: dict[int, list[str]], graph: Graph, used: set[str], labels: dict[str, str]) -> tuple[Frame, Places]:
    """Sizes of the diagram, and where each box stands: heads of a layer in the columns of their roles, its MLP right.

    Roles stand from left to right by the mean layer of their heads. ``used``: nodes that edges touch; layers without
    one take little room.
    """
    of_role: dict[str, dict[int, list[str]]] = {}
    for layer, row in boxes.items():
        for name in row:
            head = next((h for h in graph.readers(f"{name}.k") if h in row), name) if ".kv" in name else name
            of_role.setdefault(labels.get(head, NO_ROLE), {}).setdefault(layer, []).append(name)
    ordered = sorted(of_role, key=lambda role: (role == NO_ROLE, _mean_layer(of_role[role]), role))
    columns = {role: max(map(len, of_role[role].values())) for role in ordered}
    room = style.PAGE - LEFT - RIGHT
    step = max(STEP[0], min(STEP[1], (room - 0.12 * len(columns)) / max(1, sum(columns.values()))))
    wide_roles = [max(step * n, LEAST_ROLE) + 0.12 for n in columns.values()]
    step *= min(1, room / max(sum(wide_roles), 1e-9))
    wide_roles = [width * room / sum(wide_roles) for width in wide_roles]
    starts = list(accumulate(wide_roles, initial=LEFT))
    bare = [not boxes[n] and f"m{n}" not in used for n in range(graph.n_layers)]
    high = max(ROW[0], min(ROW[1], TALL / max(1, bare.count(False))))
    *layers, end = accumulate((BARE if empty else high for empty in bare), initial=TOP + 0.62)
    ends = dict(zip(ordered, pairwise(starts), strict=True))
    frame = Frame(style.PAGE, end + 0.5 - high / 2, layers, ends)
    places, wide = {}, min(0.5, 0.9 * step)
    for role, in_layers in of_role.items():
        middle = sum(ends[role]) / 2
        for layer, names in in_layers.items():
            for i, name in enumerate(names):
                places[name] = (middle + step * (i - (len(names) - 1) / 2), layers[layer], wide)
    for layer in range(graph.n_layers):
        if f"m{layer}" in used:
            places[f"m{layer}"] = (style.PAGE - 0.62, layers[layer] + high / 2, 0.4)
    return frame, places


def _mean_layer(rows: dict[int, list[str]]) -> float:
    return sum(layer * len(row) for layer, row in rows.items()) / sum(map(len, rows.values()))


def _roles(ax: Axes, frame: Frame) -> None:
    """Names of the roles over their columns, bands behind every second one; without roles nothing is named."""
    named = dict(frame.roles) if set(frame.roles) - {NO_ROLE} else {}
    for i, (role, (left, right)) in enumerate(named.items()):
        if i % 2 == 0:
            high = frame.bottom - 0.2 - TOP
            ax.add_patch(Rectangle((left, TOP), right - left, high, facecolor=style.GHOST, alpha=0.45, lw=0, zorder=0))
        text = textwrap.fill(role, max(8, int((right - left) * 72 / (0.56 * style.TINY))))
        ax.text((left + right) / 2, TOP - 0.05, text, size=style.TINY, ha="center", va="bottom", linespacing=1.05)
    if named:
        ax.text(style.PAGE - 0.62, TOP - 0.05, "MLPs", size=style.TINY, ha="center", va="bottom")


def _edges(
    ax: Axes, lines: pd.DataFrame, places: Places, frame: Frame, largest: float | None, colours: dict[str, str]
) -> None:
    """All edges, the weakest first and lowest. ``largest``: the score that is drawn thickest; None where there are no
    scores."""
    for i, edge in enumerate(lines.itertuples()):
        look = _look(edge.kin, colours)
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


def _title(circuit: str, edges: pd.DataFrame, lines: pd.DataFrame, graph: Graph) -> tuple[str, str]:
    """The circuit's name and size; and which part of it is drawn."""
    name = "Shared by all main tasks" if circuit == "shared" else wording.words(circuit)
    share = f"{wording.count(len(edges), 'edge')} of {len(graph.edges)}" if len(edges) else "no edge"
    ends = set(edges["sender"]) | {name.rsplit(".", 1)[0] if "." in name else name for name in edges["receiver"]}
    heads, mlps = sum("." in end and ".kv" not in end for end in ends), sum(map(wording.is_mlp, ends))
    title = f"{name}: {share}, {wording.count(heads, 'head')}, {wording.count(mlps, 'MLP')}"
    if len(lines) == len(edges):
        return title, "All its edges are drawn."
    every = edges["value"].abs().sum()
    part = f", {100 * lines['size'].sum() / every:.0f} % of the sum of all |scores|" if every else ""
    return title, f"Drawn: the {len(lines)} {'strongest' if every else 'most shared'} edges{part}."


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
