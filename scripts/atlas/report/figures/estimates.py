"""How near gradients come to what ablating each component does: estimates against effects, heads and MLPs apart."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from atlas.circuit.node_methods import METHODS
from atlas.report import maps, style
from atlas.report.wording import number

GROUPS = ("heads", "MLPs")
NAMED = 5  # components named in a panel, those whose estimates are furthest off
ACROSS = 3
TITLE = 21  # points above a panel, for two lines of figures below it
EDGE = 0.06  # of the range, free at either end


def points(attribution: pd.DataFrame, effects: pd.DataFrame) -> pd.DataFrame:
    """A row for each method and component: `estimate` and `effect`, changes of the logit difference without it."""
    measured = effects[effects["metric"] == "logit_diff"].set_index("component")
    measured = (measured["value"] - measured["clean"]).rename("effect")
    table = attribution.rename(columns={"value": "estimate"}).join(measured, on="component", validate="many_to_one")
    return table.assign(group=np.where(table["head"] >= 0, *GROUPS))


def draw(
    node_attribution: pd.DataFrame,
    node_accuracy: pd.DataFrame,
    component_effects: pd.DataFrame,
    kind: str,
    colours: dict[str, str],
) -> Figure:
    """A panel for each method, all on the same axes; on the dashed line an estimate is exact."""
    kind = style.one_kind(component_effects, kind)
    scores, accuracy, effects = (t[t["kind"] == kind] for t in (node_attribution, node_accuracy, component_effects))
    table = points(scores, effects)
    methods = [name for name in METHODS if name in set(table["method"])]
    columns = max(1, min(ACROSS, len(methods)))
    bands = max(1, -(-len(methods) // columns))
    side = 2.05
    fig = style.figure(0.7 + columns * (side + 0.12), 0.3 + bands * (side + 0.82), layout=None)
    both = table[["estimate", "effect"]]
    low, high = (float(both.min().min()), float(both.max().max())) if len(table) else (-1.0, 1.0)
    room = EDGE * (high - low) or 1
    for i, method in enumerate(methods):
        left, top = 0.55 + (i % columns) * (side + 0.12), 0.72 + (i // columns) * (side + 0.82)
        ax = style.axes_at(fig, left, top, side, side)
        ax.set(xlim=(low - room, high + room), ylim=(low - room, high + room))
        _panel(ax, table[table["method"] == method], accuracy[accuracy["method"] == method], colours)
        ax.set_title(METHODS[method].title, pad=TITLE)
        ax.set_xlabel("estimate by gradients", size=style.SMALL, labelpad=1)
        if i % columns == 0:
            ax.set_ylabel(f"effect of {kind} ablation", size=style.SMALL, labelpad=1)
        else:
            ax.tick_params(labelleft=False)
    handles = [_mark(group, colours, label=group) for group in GROUPS]
    fig.legend(handles=handles, loc="upper center", ncols=2)
    return fig


def _look(group: str, colours: dict[str, str]) -> dict[str, Any]:
    return {"marker": "os"[GROUPS.index(group)], "color": colours[("clean", "circuit")[GROUPS.index(group)]]}


def _mark(group: str, colours: dict[str, str], label: str) -> Line2D:
    return Line2D([], [], ls="", markersize=3.5, label=label, **_look(group, colours))


def _panel(ax: Axes, table: pd.DataFrame, accuracy: pd.DataFrame, colours: dict[str, str]) -> None:
    ends = ax.get_xlim()
    ax.plot(ends, ends, color=style.GREY, lw=0.7, ls="--", zorder=1)
    for line in (ax.axvline, ax.axhline):
        line(0, color=style.GREY, lw=0.5, zorder=1)
    for group in GROUPS:
        rows = table[table["group"] == group]
        ax.scatter(rows["estimate"], rows["effect"], s=9, alpha=0.8, linewidth=0, zorder=2, **_look(group, colours))
    ax.xaxis.set_major_locator(MaxNLocator(4, prune="both"))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.tick_params(labelsize=style.TINY)
    ax.grid()
    said = [_said(group, accuracy[accuracy["group"] == group]) for group in GROUPS]
    text = "\n".join(line for line in said if line)
    ax.annotate(text, (0, 1), (0, 3), "axes fraction", "offset points", size=style.TINY, va="bottom")
    off = table.assign(x=table["estimate"], y=table["effect"], off=(table["estimate"] - table["effect"]).abs())
    maps.label(ax, off.sort_values("off", ascending=False, kind="stable"), "component", min(NAMED, len(off)))


def _said(group: str, accuracy: pd.DataFrame) -> str:
    """`heads: r 0.93 [0.91, 0.94], error 0.67`; empty for a group too small to compare."""
    found = accuracy.set_index("metric")
    if found.empty:
        return ""
    r, error = found.loc["pearson"], found.loc["error"]
    ends = f"[{number(r['ci_low'], 2)}, {number(r['ci_high'], 2)}]"
    return f"{group}: r {number(r['value'], 2)} {ends}, error {number(error['value'], 2)}"
