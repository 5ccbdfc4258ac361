"""Where the heads of the circuits look: mean attention between roles, on the prompts and on variants of them."""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from atlas.report import maps, style, wording

VARIANTS = {"in order": "in order", "shuffled": "shuffled", "interleaved": "inter-\nleaved", "words": "words"}
MAXIMUM = "previous member is the maximum"
ROWS_UP_TO = 24
GAP, SIDE, NAME, SHARE, BAR = 0.04, 0.14, 0.26, 0.25, 0.44  # inches: between maps, and of what stands beside them


def short(role: str) -> str:
    """`member 2` -> `2`, so that names fit beside a map."""
    return role.removeprefix("member ").replace("separators", "sep")


def axes_of(table: pd.DataFrame) -> tuple[list[str], list[str]]:
    """(query roles, key roles) of a table, in its order; `self` is last."""
    keys = [role for role in dict.fromkeys(table["key_role"]) if role != "self"]
    members = sorted((k for k in keys if k.startswith("member")), key=lambda role: int(role.split()[1]))
    rest = [k for k in keys if not k.startswith("member")]
    return list(dict.fromkeys(table["query_role"])), [*members, *rest, "self"]


def role_grid(rows: pd.DataFrame, queries: list[str], keys: list[str]) -> np.ndarray:
    """[queries, keys] mean weight of one head in one variant; nan where a key comes after the query."""
    grid = rows.pivot(index="query_role", columns="key_role", values="value").reindex(queries, columns=keys)
    return np.asarray(grid)


def strongest(heads: list[str], effects: dict[str, float]) -> list[str]:
    """At most `ROWS_UP_TO` heads, those with the largest effects, in the order of the model."""
    ranked = sorted(heads, key=lambda name: -effects.get(name, 0.0))
    return sorted(ranked[:ROWS_UP_TO], key=wording.place)


def draw(
    attention: pd.DataFrame,
    members: pd.DataFrame,
    membership: pd.DataFrame,
    effects: pd.DataFrame,
    main_tasks: list[str],
    kind: str,
    sequential: str,
) -> Figure:
    """A row for each head of any circuit, a block of columns for each task, a column of maps for each variant.

    `effects`, of all these tasks under ablation of a `kind`, decide what is left out of a very long figure.
    """
    all_heads = maps.union_heads(membership, main_tasks)
    heads = strongest(all_heads, rank_by_effect(effects, kind))
    variants = [v for v in VARIANTS if (attention["variant"] == v).any()]
    queries, keys = axes_of(attention)
    per_row = min(3, len(main_tasks))
    wide = min(0.6, ((style.PAGE - SIDE - BAR) / per_row - NAME - SHARE) / max(1, len(variants)) - GAP)
    block = NAME + len(variants) * (wide + GAP) + SHARE
    each = min(0.4, max(0.18, 0.072 * len(queries))) + GAP
    bands = [main_tasks[i : i + per_row] for i in range(0, len(main_tasks), per_row)]
    tall = max(each, each * len(heads))
    across, band = SIDE + per_row * block + BAR, tall + 0.85
    fig = style.figure(across, len(bands) * band + 0.3, layout=None)
    down, cmap = fig.get_size_inches()[1], maps.from_white(sequential)
    for i, task in enumerate(main_tasks):
        left, top = SIDE + (i % per_row) * block, 0.5 + (i // per_row) * band
        rows, own = attention[attention["task"] == task], maps.circuit_heads(membership, task)
        grids = {name: _grids(rows, name, variants, queries, keys) for name in heads}
        fig.text((left + NAME) / across, 1 - (top - 0.33) / down, wording.words(task), weight="bold", size=style.TEXT)
        for v, variant in enumerate(variants):
            ax = style.axes_at(fig, left + NAME + v * (wide + GAP), top, wide, tall)
            _column(
                ax, [grids[name][variant] for name in heads], queries, keys, cmap, GAP / each, v == i % per_row == 0
            )
            ax.set_title(VARIANTS[variant], size=style.TINY, weight="normal", loc="center", pad=2)
        maximum = members[(members["task"] == task) & (members["variant"] == "in order")]
        shares = _shares(maximum, heads)
        for r, name in enumerate(heads):
            y = 1 - (top + (r + 0.5) * each - GAP / 2) / down
            look: dict[str, Any] = {"weight": "bold", "color": style.INK} if name in own else {"color": style.GREY}
            fig.text((left + NAME - 0.05) / across, y, name, ha="right", va="center", size=style.TINY, **look)
            if name in shares:
                text, weight = wording.number(shares[name]), "bold" if shares[name] >= 50 else "normal"
                at = (left + block - 0.08) / across
                fig.text(at, y, text, ha="right", va="center", size=style.TINY, weight=weight)
        if shares:
            look = {"ha": "right", "va": "bottom", "size": 5, "color": style.GREY, "linespacing": 0.95}
            fig.text((left + block - 0.06) / across, 1 - (top - 0.03) / down, "max.\n(%)", **look)
    maps.bar(fig, across - BAR + 0.04, 0.7, min(1.4, max(0.6, tall - 0.4)), cmap, Normalize(0, 1), "mean\nweight")
    if len(all_heads) > len(heads):
        text = f"{wording.count(len(all_heads) - len(heads), 'weaker head')} not shown"
        fig.text(SIDE / across, 0.01, text, size=style.TINY, color=style.GREY)
    return fig


def _grids(
    rows: pd.DataFrame, name: str, variants: list[str], queries: list[str], keys: list[str]
) -> dict[str, np.ndarray]:
    layer, _, head = wording.place(name)
    rows = rows[(rows["layer"] == layer) & (rows["head"] == head)]
    return {v: role_grid(rows[rows["variant"] == v], queries, keys) for v in variants}


def _column(
    ax: Axes, grids: list[np.ndarray], queries: list[str], keys: list[str], cmap: Colormap, gap: float, named: bool
) -> None:
    """Maps of one variant, head under head; ``gap``: share of a head's height that stays white."""
    step = (1 - gap) / len(queries)
    edges = [r + step * q for r in range(len(grids)) for q in range(len(queries) + 1)]
    between = np.full((1, len(keys)), np.nan)
    stacked = np.concatenate([row for grid in grids for row in (grid, between)])[:-1] if grids else between
    for r in range(len(grids)):
        frame: dict[str, Any] = {"facecolor": style.GHOST, "edgecolor": style.FAINT, "linewidth": 0.4}
        ax.add_patch(Rectangle((-0.5, r), len(keys), 1 - gap, zorder=0, **frame))
    ax.pcolormesh(
        np.arange(len(keys) + 1) - 0.5,
        edges or [0, 1],
        np.ma.masked_invalid(stacked),
        cmap=cmap,
        norm=Normalize(0, 1),
        linewidth=0,
    )
    ax.set(xlim=(-0.6, len(keys) - 0.4), ylim=(max(1, len(grids)), -0.02))
    ax.set_xticks(range(len(keys)), [short(k) for k in keys], rotation=90, size=5)
    rows = [r + step * (q + 0.5) for r in range(len(grids)) for q in range(len(queries))]
    ax.set_yticks(rows if named else [], [short(q) for q in queries] * len(grids) if named else [], size=3.4)
    ax.tick_params(length=0, pad=1)
    ax.tick_params(axis="y", pad=16)  # left of the head's name
    ax.spines[:].set_visible(False)


def _shares(maximum: pd.DataFrame, heads: list[str]) -> dict[str, float]:
    """How often the previous member is the largest weight of a member's row, in percent."""
    found = maximum[maximum["statistic"] == MAXIMUM]
    names = found["layer"].astype(str) + "." + found["head"].astype(str)
    shares = dict(zip(names, 100 * found["value"], strict=True))
    return {name: shares[name] for name in heads if name in shares}


def rank_by_effect(effects: pd.DataFrame, kind: str) -> dict[str, float]:
    """Head -> the largest loss in any task when it is ablated alone, in percentage points of full."""
    table = effects[(effects["kind"] == kind) & (effects["metric"] == "percent_of_full") & (effects["head"] >= 0)]
    lost = (100 - table["value"]).groupby(table["component"]).max()
    return {name: 0.0 if math.isnan(value) else float(value) for name, value in lost.items()}
