"""What patching one activation restores or takes away: by layer and position, and by head."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from atlas.report import maps, style, wording

POSITIONS = {"resid_pre": "residual before the layer", "attn_out": "attention output", "mlp_out": "MLP output"}
HEADS = {"z": "output (z)", "q": "query", "k": "key", "v": "value", "pattern": "pattern"}
DIRECTIONS = {"denoising": "Denoising: clean into corrupted", "noising": "Noising: corrupted into clean"}
START = {"denoising": 0, "noising": 1}  # the normalised score that a patch starts from
LEAST = 0.01  # changes that are surely larger have a dot
LEFT, GAP, BAR, TOP = 0.46, 0.12, 0.62, 0.58  # inches


def changes(patching: pd.DataFrame) -> pd.DataFrame:
    """Values less what the run starts from: positive towards the clean score, negative towards the corrupted one."""
    table, start = patching.copy(), patching["direction"].map(START)
    for column in ("value", "ci_low", "ci_high"):
        table[column] -= start
    return table


def draw(patching: pd.DataFrame, membership: pd.DataFrame, task: str, diverging: str) -> Figure:
    """One task: above, layer x position for three sites; below, layer x head for five, its circuit's heads outlined."""
    table, circuit = changes(patching), maps.circuit_heads(membership, task)
    at, of_heads = table[table["head"] < 0], table[table["head"] >= 0]
    layers, heads = table["layer"].max() + 1, int(of_heads["head"].max()) + 1
    tall = layers * maps.cell_height(layers, 0.13, 1.5)
    second = TOP + len(POSITIONS) * (tall + 0.2) + 0.72
    fig = style.figure(style.PAGE, second + 2 * (tall + 0.1) + 0.25, layout=None)
    width, down = style.PAGE - LEFT - BAR, fig.get_size_inches()[1]
    partners = wording.words(patching["corruption"].iloc[0])
    said = "the task's own" if partners == "own" else f"of the corruption {partners}"
    fig.text(
        LEFT / style.PAGE, 1 - 0.08 / down, f"{wording.words(task)}: corrupted prompts are {said}", size=style.SMALL
    )
    _positions(fig, at, layers, (width - GAP) / 2, tall, diverging)
    _heads(fig, of_heads, (layers, heads), second, (width + GAP) / len(HEADS) - GAP, tall, circuit, diverging)
    return fig


def limit(rows: pd.DataFrame) -> float:
    """The largest size of a value, at which colours end on both sides of 0; 1 where there is none."""
    values = rows["value"].abs()
    return float(values.max()) if values.notna().any() else 1.0


def _positions(fig: Figure, rows: pd.DataFrame, layers: int, wide: float, tall: float, diverging: str) -> None:
    roles = rows.drop_duplicates("position").set_index("position")["role"].sort_index()
    named = roles[roles != "separators"]
    norm = style.centred(limit(rows))
    for d, (direction, title) in enumerate(DIRECTIONS.items()):
        for s, (site, name) in enumerate(POSITIONS.items()):
            ax = style.axes_at(fig, LEFT + d * (wide + GAP), TOP + s * (tall + 0.2), wide, tall)
            part = rows[(rows["direction"] == direction) & (rows["site"] == site)]
            grid = np.full((layers, len(roles)), np.nan)
            grid[part["layer"], part["position"]] = part["value"]
            maps.draw(ax, grid, diverging, norm)
            maps.number_ticks(ax, None, layers if d == 0 else None)
            last = s == len(POSITIONS) - 1
            ax.set_xticks(named.index, named if last else [], rotation=90)
            ax.tick_params(axis="x", length=2 if last else 0)
            ax.set_title(name, size=style.SMALL, weight="normal", pad=2)
            if s == 0:
                ax.annotate(title, (0, 1), (0, 16), "axes fraction", "offset points", weight="bold", size=style.TEXT)
            if d == 0:
                ax.set_ylabel("layer", size=style.SMALL)
    maps.bar(
        fig, style.PAGE - BAR + 0.12, TOP + 0.28, min(1.6, 2.4 * tall), diverging, norm, "change of the\nscore, 0 to 1"
    )


def _heads(
    fig: Figure,
    rows: pd.DataFrame,
    size: tuple[int, int],
    top: float,
    wide: float,
    tall: float,
    circuit: list[str],
    diverging: str,
) -> None:
    norm, (layers, heads) = style.centred(limit(rows)), size
    for d, direction in enumerate(DIRECTIONS):
        for s, (site, name) in enumerate(HEADS.items()):
            ax = style.axes_at(fig, LEFT + s * (wide + GAP), top + d * (tall + 0.1), wide, tall)
            part = rows[(rows["direction"] == direction) & (rows["site"] == site)]
            grid = maps.head_grid(part)
            sure = (part["ci_low"] > LEAST) | (part["ci_high"] < -LEAST)
            dots = maps.head_grid(part.assign(sure=sure), "sure") == 1
            span = heads / grid.shape[1]
            maps.draw(ax, grid, diverging, norm, circuit, dots, span)
            maps.number_ticks(ax, heads if d == 1 else None, layers if s == 0 else None)
            if d == 0:
                shared = f", {wording.count(grid.shape[1], 'group')}" if span > 1 else ""
                ax.set_title(name + shared, size=style.SMALL, weight="normal", pad=2)
            else:
                ax.set_xlabel("head", size=style.SMALL, labelpad=1)
            if s == 0:
                ax.set_ylabel(f"{direction}\nlayer", size=style.SMALL)
    text = "Heads, at all positions together (outlined: in the circuit; dot: surely more than 0.01)"
    down = fig.get_size_inches()[1]
    fig.text(LEFT / style.PAGE, 1 - (top - 0.2) / down, text, size=style.TEXT, weight="bold")
    maps.bar(fig, style.PAGE - BAR + 0.12, top + 0.1, min(1.6, 1.7 * tall), diverging, norm, "")
