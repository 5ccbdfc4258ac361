"""What a model writes while heads are ablated: how often it is still right, beside random heads, and the outputs."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from atlas.circuit.verdicts import BEYOND
from atlas.core.multiple import ALPHA
from atlas.report import pages, style, wording

ACROSS = 4  # panels in a row
ROW = 0.24  # inches


def draw(outputs: pd.DataFrame, summary: pd.DataFrame, colours: dict[str, str]) -> Figure:
    """A panel for each prompt set, a row for each head set; sensitive prompts left out. `colours` has `circuit`."""
    summary = summary[summary["over"] == "robust"]
    names, heads = (list(dict.fromkeys(summary[key])) for key in ("set", "heads"))
    down = -(-len(names) // ACROSS)
    across = min(ACROSS, len(names))
    fig = style.figure(max(3.6, 1.1 + 1.5 * across), down * (ROW * len(heads) + 0.62) + 0.4)
    axes = fig.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    for ax in axes.flat[len(names) :]:
        ax.set_visible(False)
    for ax, name in zip(axes.flat, names, strict=False):
        rows = summary[summary["set"] == name].set_index("heads").loc[heads]
        _panel(ax, outputs[(outputs["set"] == name) & ~outputs["sensitive"]], rows, colours)
        ax.set_title(wording.words(name))
        ax.tick_params(labelbottom=True)
    axes[0, 0].set_yticks(range(len(heads)), [wording.words(name) for name in heads])
    axes[0, 0].set_ylim(len(heads) - 0.5, -0.5)
    axes[0, 0].set_xlim(-6, 106)
    for ax in axes[:, 0]:
        ax.set_ylabel("heads ablated")
    fig.supxlabel("% of prompts still right", size=style.TEXT)
    labels: dict[str, Artist] = {}
    for ax in axes.flat:
        labels |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    fig.legend(list(labels.values()), list(labels), loc="outside upper center", ncols=3)
    return fig


def _panel(ax: Axes, outputs: pd.DataFrame, rows: pd.DataFrame, colours: dict[str, str]) -> None:
    ax.grid(axis="x")
    ax.tick_params(axis="y", length=0)
    ax.set_xticks([0, 50, 100])
    ax.text(1.02, 1, "n", transform=ax.transAxes, va="bottom", size=style.TINY, color=style.GREY)
    for y, (name, row) in enumerate(rows.iterrows()):
        ax.text(
            1.02,
            y,
            f"{row['prompts']:.0f}",
            transform=ax.get_yaxis_transform(),
            va="center",
            size=style.TINY,
            color=style.GREY,
        )
        if not row["prompts"]:
            text = "no prompt left"
            ax.text(0.5, y, text, transform=ax.get_yaxis_transform(), va="center", ha="center", size=style.TINY)
            continue
        controls = outputs[(outputs["heads"] == name) & (outputs["draw"] >= 0)].groupby("draw")["right"].mean()
        spread = 0.56 * ((np.arange(len(controls)) * 0.618034) % 1 - 0.5)  # even, and the same in every run
        faint = style.tint(style.GREY, 0.55)
        if len(controls):
            ax.scatter(100 * controls, y + spread, s=6, color=faint, linewidth=0, label="random heads")
            middle, ends = [100 * row["control_median"]] * 2, [y - 0.34, y + 0.34]
            ax.plot(middle, ends, color=style.INK, lw=1.4, zorder=3, label="their median")
        ax.hlines(y, 100 * row["ci_low"], 100 * row["ci_high"], color=colours["circuit"], lw=1.6, zorder=4)
        face, edge, label = _verdict(row, colours["circuit"])
        ax.scatter(
            100 * row["value"], y, s=24, marker="D", color=face, edgecolor=edge, linewidth=0.8, zorder=5, label=label
        )


def _verdict(row: pd.Series, colour: str) -> tuple[str, str, str]:
    """Face, edge and legend of a head set's mark."""
    if not row["controls"]:
        return "white", style.GREY, "these heads, no random sets possible"
    if row["state"] == BEYOND:
        return colour, style.INK, f"these heads, fewer than random (corrected p < {ALPHA})"
    return "white", colour, "these heads, not told from random"


def page(prompts: pd.DataFrame, outputs: pd.DataFrame, heads: pd.DataFrame, kind: str, note: str) -> str:
    """What the model wrote for every prompt, unablated and under every head set; random sets stay in the table.

    `note`: which circuits the heads are of.
    """
    title = f"{heads['model'].iloc[0]} under {kind} ablation: what it wrote"
    sections = [pages.Section("Heads ablated", table=_heads_table(heads))]
    for name, rows in prompts.groupby("set", sort=False):
        here = outputs[(outputs["set"] == name) & (outputs["draw"] < 0)]
        columns = list(dict.fromkeys(heads["heads"]))
        cells = {(row.prompt, row.heads): row for row in here.itertuples()}
        table = [
            [quoted(row.text), quoted(row.answer), unablated(row)]
            + [_cell(cells.get((row.prompt, column))) for column in columns]
            for row in rows.head(pages.ROWS_UP_TO).itertuples()
        ]
        header = ["prompt", "answer", "unablated", *map(wording.words, columns)]
        marks = "\u2713: the answer, token by token. *: sensitive, more than half of the random sets fail on it too."
        if len(rows) > pages.ROWS_UP_TO:
            marks += f" The first {pages.ROWS_UP_TO} of {len(rows)} prompts."
        whole = {"header": header, "rows": table}
        sections.append(pages.Section(wording.words(name).capitalize(), table=whole, note=marks))
    lead = (
        "Greedy decoding, cut where the model ends its text. Outputs with token ids, and those under random heads, are "
        f"in outputs.parquet. {note}."
    )
    return pages.page(title, lead, sections)


def quoted(text: str) -> str:
    """The text in typographic quotation marks."""
    return f"\u201c{text}\u201d"


def unablated(row: pd.Series) -> str:
    """The cell of a row of `generation/prompts.parquet`: a tick, what was written instead, or why it was rejected."""
    if row.status == "rejected":
        return f"rejected: {row.reason}"
    return "\u2713" if row.status == "used" else f"{quoted(row.output)}, set aside"


def _cell(row: pd.Series | None) -> str:
    """An output under ablation; a dash for a prompt that was not used."""
    if row is None:
        return "\u2013"
    return ("\u2713" if row.right else quoted(row.output)) + (" *" if row.sensitive else "")


def _heads_table(heads: pd.DataFrame) -> dict[str, Any]:
    counts = heads[heads["draw"] >= 0].groupby("heads").size()
    rows = [
        [wording.words(row.heads), row.components.replace(" ", ", "), str(counts.get(row.heads, 0)), row.note]
        for row in heads[heads["draw"] < 0].itertuples()
    ]
    return {"header": ["set", "heads", "random sets", "note"], "rows": rows}
