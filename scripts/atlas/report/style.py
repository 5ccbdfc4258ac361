"""What all figures have in common: sizes in inches, text, colours, saving."""

from __future__ import annotations

import html
import json
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.typing import ColorType

from atlas.store.artifacts import atomic

if TYPE_CHECKING:
    import pandas as pd

COLUMN, PAGE = 3.3, 6.8  # inches: width of one column of a paper and of both
TEXT, SMALL, TINY, LEAST = 8, 7, 6, 5.5  # points, at the size the figure is drawn
INK, GREY, FAINT, GHOST = "#222222", "#767676", "#C4C4C4", "#E8E8E8"

matplotlib.rcParams.update(
    {
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica", "sans-serif"],
        "font.monospace": ["DejaVu Sans Mono", "Menlo", "Consolas", "monospace"],
        "font.size": TEXT,
        "axes.titlesize": TEXT,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": TEXT,
        "axes.edgecolor": GREY,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "text.color": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "xtick.labelsize": SMALL,
        "ytick.labelsize": SMALL,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        "grid.color": GHOST,
        "grid.linewidth": 0.6,
        "legend.fontsize": SMALL,
        "legend.frameon": False,
        "hatch.linewidth": 0.7,
        "text.hinting": "none",  # letters keep their widths in the PNG, so that marks sit under their words
        "svg.fonttype": "none",  # text stays text: searchable, and editable in a drawing program
        "pdf.fonttype": 42,  # the same; publishers ask for it
        "svg.hashsalt": "circuit-atlas",  # ids in the SVG are the same in every run
    }
)


def figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """An empty figure, sizes in inches."""
    return Figure(figsize=(width, height), layout=layout)


def axes_at(fig: Figure, left: float, top: float, width: float, height: float, **options: Any) -> Axes:
    """Axes placed in inches from the figure's top left corner."""
    across, down = fig.get_size_inches()
    return fig.add_axes((left / across, 1 - (top + height) / down, width / across, height / down), **options)


def save(
    fig: Figure,
    svg: Path | str,
    dpi: int = 150,
    provenance: dict[str, Any] | None = None,
    note: str = "",
    title: str = "",
    caption: str = "",
) -> None:
    """Write the figure as SVG and, beside it, as PNG and PDF. Each file appears whole or not at all, and equal figures
    give equal bytes.

    The files hold where the figure comes from (``provenance``), its ``title`` and what it shows (``caption``, plain
    text): in the SVG for screen readers too. ``note`` stands below the figure.
    """
    if note:
        write_below(fig, note)
    about = json.dumps(provenance or {}, sort_keys=True)
    named = {"Title": title} if title else {}
    for kind, options in (
        ("svg", {"metadata": {"Date": None, "Description": about} | named}),
        ("png", {"metadata": {"Description": about} | named, "dpi": dpi}),
        ("pdf", {"metadata": {"CreationDate": None, "Keywords": about, "Subject": caption} | named}),
    ):
        with atomic(Path(svg).with_suffix(f".{kind}")) as part:
            fig.savefig(part, format=kind, bbox_inches="tight", pad_inches=0.04, **options)
            if kind == "svg":
                Path(part).write_text(readable(Path(part).read_text(), caption))


def readable(svg: str, caption: str) -> str:
    """The SVG as one picture to screen readers, with what it shows behind its title."""
    svg = svg.replace("<svg ", '<svg role="img" ', 1)
    about = f"\n <desc>{html.escape(caption, quote=False)}</desc>" if caption else ""
    place = re.search("</title>", svg) or re.search("<svg [^>]*>", svg)
    assert place is not None, "matplotlib writes an <svg>"
    return svg[: place.end()] + about + svg[place.end() :]


def write_below(fig: Figure, note: str) -> None:
    """A line in small print right below all that is drawn, wrapped at the figure's width."""
    fig.draw_without_rendering()  # so that a layout of its own has placed everything
    extent, (across, down) = fig.get_tightbbox(), fig.get_size_inches()
    lines = textwrap.fill(note, int(across * 72 / (0.5 * TINY)))
    left, top = max(extent.x0, 0.05), extent.y0 - 0.06
    fig.text(left / across, top / down, lines, size=TINY, color=GREY, ha="left", va="top", gid="note")


def centred(limit: float) -> CenteredNorm:
    """Colour scale from -limit to limit, for diverging maps: no effect is always the middle colour."""
    return CenteredNorm(vcenter=0, halfrange=limit if limit > 0 else 1)


def ink_on(colour: ColorType) -> str:
    """Black or white, whichever reads better on this colour."""
    red, green, blue = to_rgb(colour)
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else "white"


def tint(colour: ColorType, share: float) -> str:
    """The colour mixed with white; share 1 is the colour itself."""
    red, green, blue = (share * part + (1 - share) for part in to_rgb(colour))
    return to_hex((red, green, blue))


def one_kind(effects: pd.DataFrame, kind: str) -> str:
    """The kind of ablation asked for, or the first one there is: effects need not be scored under the search's kind."""
    return kind if (effects["kind"] == kind).any() else effects["kind"].iloc[0]
