"""Figures of the page of findings: small, one for all models each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from atlas.report import style
from atlas.report.findings import claims
from atlas.report.findings.reading import Results, heads, of_shared
from atlas.report.wording import words
from atlas.store.artifacts import atomic

CIRCUIT, CONTROL = "#EE6677", "#BBBBBB"
ROW = 0.2  # inches


def drawn(models: Sequence[Results]) -> dict[str, Figure]:
    """Name -> figure, of all that the page shows."""
    return {"circuits": circuits(models), "necessity": necessity(models)}


def circuits(models: Sequence[Results]) -> Figure:
    """A panel for each model: heads of each task's circuit, and those that all cores share, by layer."""
    heights = [len(results.main) + 1 for results in models]
    fig = style.figure(style.PAGE, ROW * sum(heights) + 0.55 * len(models) + 0.2)
    for ax, results in zip(_panels(fig, heights), models, strict=True):
        sets = {words(task): heads(circuit) for task, circuit in results.circuits.items()}
        sets["all cores"] = results.shared()
        ax.set_ylim(len(sets) - 0.5, -0.5)
        ax.set_xlim(-0.7, results.n_layers - 0.3)
        ax.set_yticks(range(len(sets)), [f"{name} ({len(members)})" for name, members in sets.items()])
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="y")
        for y, (name, members) in enumerate(sets.items()):
            counts = claims.profile(members, results.n_layers)
            colour = style.INK if name == "all cores" else CIRCUIT
            at = [layer for layer, n in enumerate(counts) if n]
            ax.scatter(at, [y] * len(at), s=[14 * counts[layer] for layer in at], color=colour, linewidth=0, zorder=3)
        ax.set_title(f"{results.model}: heads of each circuit by layer; area: number of heads")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("layer")
    return fig


def necessity(models: Sequence[Results]) -> Figure:
    """A panel for each model: % of full left of each task without the shared heads, beside random sets."""
    found = [of_shared(results) for results in models]
    heights = [max(1, len(table)) for table in found]
    fig = style.figure(style.PAGE * 0.8, ROW * sum(heights) + 0.55 * len(models) + 0.3)
    for ax, results, table in zip(_panels(fig, heights), models, found, strict=True):
        for y, row in enumerate(table.itertuples()):
            if row.controls:
                ax.hlines(y, row.control_low, row.control_high, color=CONTROL, lw=5, zorder=2)
                ax.vlines(row.control_median, y - 0.3, y + 0.3, color=style.INK, lw=1.2, zorder=3)
            ax.hlines(y, row.ci_low, row.ci_high, color=CIRCUIT, lw=1.5, zorder=4)
            ax.scatter(row.value, y, s=18, marker="D", color=CIRCUIT, edgecolor=style.INK, linewidth=0.5, zorder=5)
        ax.axvline(100, color=style.GREY, lw=0.7, ls=(0, (5, 3)), zorder=1)
        ax.set_ylim(max(1, len(table)) - 0.5, -0.5)
        ax.set_yticks(range(len(table)), [words(task) for task in table["task"]])
        ax.tick_params(axis="y", length=0)
        ax.set_title(f"{results.model}: without the heads that all cores share (grey: random sets)")
        ax.set_xlabel("% of full")
    return fig


def _panels(fig: Figure, heights: list[int]) -> list[Axes]:
    return list(fig.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0])


def save(figure: Figure, path: Path) -> None:
    """As SVG, in equal bytes for equal figures."""
    with atomic(path) as part:
        figure.savefig(part, format="svg", bbox_inches="tight", pad_inches=0.04, metadata={"Date": None})
