"""What a model writes while heads are ablated: how often it is still right, beside random heads, and the outputs."""

import re
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from atlas.circuit.verdicts import BEYOND, LIKE, UNTESTABLE
from atlas.core.multiple import ALPHA
from atlas.report import pages, style, wording

ACROSS = 4  # panels in a row
ROW = 0.2  # inches
REASONS = 4  # lines that say why no test is possible
SINGLE = r"\d+\.\d+"  # the name of a set that is one head


def draw(outputs: pd.DataFrame, summary: pd.DataFrame, colours: dict[str, str]) -> Figure:
    """A panel for each prompt set, a row for each head set; sensitive prompts left out. `colours` has `circuit`."""
    summary = summary[summary["over"] == "robust"]
    names, heads = (list(dict.fromkeys(summary[key])) for key in ("set", "heads"))
    left, across, down = _place(len(names), heads)
    wide, tall = (style.PAGE - left) / across - 0.22, ROW * len(heads)
    said = why_untestable(summary)
    fig = style.figure(style.PAGE, 0.5 + down * (tall + 0.5) + 0.12 * len(said), layout=None)
    for i, name in enumerate(names):
        row, column = divmod(i, across)
        ax = style.axes_at(fig, left + column * (wide + 0.22), 0.5 + row * (tall + 0.5), wide, tall)
        rows = summary[summary["set"] == name].set_index("heads").loc[heads]
        _panel(ax, outputs[(outputs["set"] == name) & ~outputs["sensitive"]], rows, colours)
        ax.set_title(wording.words(name))
        ax.set(ylim=(len(heads) - 0.5, -0.5), xlim=(-6, 106))
        ax.set_yticks(range(len(heads)), [wording.words(h) for h in heads] if column == 0 else [], size=style.SMALL)
        if i + across >= len(names):
            ax.set_xlabel("% still right", size=style.SMALL, labelpad=1)
        if i == 0:
            ax.text(-0.1, 1.02, "heads ablated", transform=ax.transAxes, ha="right", size=style.TINY, color=style.GREY)
    fig.legend(handles=_legend(summary, colours["circuit"]), loc="upper left", ncols=3, borderaxespad=0.1)
    for i, line in enumerate(said):
        y = (0.12 * (len(said) - i) - 0.06) / fig.get_size_inches()[1]
        fig.text(0.05 / style.PAGE, y, line, size=style.TINY, color=style.GREY, va="center")
    return fig


def _place(panels: int, heads: list[str]) -> tuple[float, int, int]:
    """(inches left of the panels, panels across, rows of them), the rows as even as can be."""
    down = -(-panels // ACROSS)
    return 0.2 + 0.058 * max(len(name) for name in [*heads, "heads ablated"]), -(-panels // down), down


def why_untestable(summary: pd.DataFrame) -> list[str]:
    """A line for each reason for which rows cannot be told from random ones, with the sets of heads that it is true of.

    Single heads come together: a layer has few other ones.
    """
    found: dict[str, list[str]] = {}
    for row in summary[summary["state"] == UNTESTABLE].itertuples():
        name = "single heads" if re.fullmatch(SINGLE, row.heads) else wording.words(row.heads)
        found.setdefault(row.reason, []).append(name)
    lines = [f"{wording.listing(dict.fromkeys(names))}: {reason}" for reason, names in found.items()]
    more = f"and {len(lines) - REASONS} more reasons (summary.parquet)"
    lines = lines if len(lines) <= REASONS + 1 else [*lines[:REASONS], more]
    return [f"Hollow in grey, no test possible. {lines[0][:1].upper()}{lines[0][1:]}", *lines[1:]] if lines else []


def _panel(ax: Axes, outputs: pd.DataFrame, rows: pd.DataFrame, colours: dict[str, str]) -> None:
    ax.grid(axis="x")
    ax.tick_params(axis="y", length=0)
    ax.set_xticks([0, 50, 100])
    look: dict[str, Any] = {"va": "center", "size": style.LEAST, "color": style.GREY}
    ax.text(1.02, 1.02, "n", transform=ax.transAxes, **(look | {"va": "bottom"}))
    for y, (name, row) in enumerate(rows.iterrows()):
        ax.text(1.02, y, f"{row['prompts']:.0f}", transform=ax.get_yaxis_transform(), **look)
        if not row["prompts"]:
            text = "no prompt left"
            ax.text(0.5, y, text, transform=ax.get_yaxis_transform(), va="center", ha="center", size=style.TINY)
            continue
        controls = outputs[(outputs["heads"] == name) & (outputs["draw"] >= 0)].groupby("draw")["right"].mean()
        spread = 0.56 * ((np.arange(len(controls)) * 0.618034) % 1 - 0.5)  # even, and the same in every run
        if len(controls):
            ax.scatter(100 * controls, y + spread, s=5, color=style.tint(style.GREY, 0.55), linewidth=0)
            ax.plot([100 * row["control_median"]] * 2, [y - 0.34, y + 0.34], color=style.INK, lw=1.2, zorder=3)
        face, edge = _faces(row["state"], colours["circuit"])
        ax.hlines(y, 100 * row["ci_low"], 100 * row["ci_high"], color=edge, lw=1.5, zorder=4)
        ax.scatter(100 * row["value"], y, s=20, marker="D", color=face, edgecolor=edge, linewidth=0.8, zorder=5)


def _faces(state: str, colour: str) -> tuple[str, str]:
    """Face and edge of a head set's mark."""
    return {BEYOND: (colour, style.INK), UNTESTABLE: ("white", style.GREY)}.get(state, ("white", colour))


def _legend(summary: pd.DataFrame, colour: str) -> list[Artist]:
    labels = {
        BEYOND: f"fewer right than random (corrected p < {ALPHA})",
        LIKE: "not told from random",
        UNTESTABLE: "no test possible",
    }
    handles: list[Artist] = []
    for state, label in labels.items():
        if (summary["state"] == state).any():
            face, edge = _faces(state, colour)
            look: dict[str, Any] = {"markersize": 4, "markerfacecolor": face, "markeredgecolor": edge}
            handles.append(Line2D([], [], ls="", marker="D", label=label, **look))
    tested = (summary["state"] != UNTESTABLE).any()
    handles.append(Line2D([], [], color=colour if tested else style.GREY, lw=1.5, label="95 % interval"))
    if (summary["controls"] > 0).any():
        faint = style.tint(style.GREY, 0.55)
        handles.append(Line2D([], [], ls="", marker="o", markersize=2.5, color=faint, label="random heads"))
        handles.append(Line2D([], [], ls="", marker="|", markersize=7, color=style.INK, label="their median"))
    return handles


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
