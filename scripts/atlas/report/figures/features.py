"""Features of a sparse autoencoder: which members own features fire on, and what heads and answers lose by them."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from atlas.report import maps, style, wording

ACROSS = 8  # maps of classes in a line
SHOWN = 40  # members of a class that a map shows, the first
LEFT, GAP, RIGHT = 0.1, 0.12, 0.5  # inches
ABOVE, BELOW, LINE = 0.32, 0.16, 0.105  # inches; LINE: of a head or task in the lower panels
PARTS = {"reconstruction": "reconstruction", "own feature": "own feature", "random features": "random feature"}


def draw(
    activity: pd.DataFrame, heads: pd.DataFrame, effects: pd.DataFrame, colours: dict[str, str], sequential: str
) -> Figure:
    """Above, a map for each class; below, what ablating and swapping own features does in heads and to answers."""
    classes = list(dict.fromkeys(activity["class"]))
    if not classes:
        fig = style.figure(style.COLUMN, 0.6)
        fig.text(0.05, 0.5, "No class has enough members of one token each.", size=style.SMALL)
        return fig
    lines = -(-len(classes) // ACROSS)
    across = -(-len(classes) // lines)
    side = min((style.PAGE - LEFT - RIGHT - GAP * across) / across, 0.95)
    maps_down = lines * (side + ABOVE + BELOW)
    of_class = {name: own for name, own in heads.groupby("class", sort=False)}
    tasks = list(dict.fromkeys(effects["task"]))
    rows = max(sum(len(own) // 2 + 1 for own in of_class.values()), len(tasks) * (len(PARTS) + 1), 4)
    fig = style.figure(style.PAGE, maps_down + 0.45 + rows * LINE + 0.45, layout=None)
    norm, cmap = Normalize(0, 1), maps.from_white(sequential)
    for i, name in enumerate(classes):
        line, column = divmod(i, across)
        place = LEFT + column * (side + GAP), ABOVE + line * (side + ABOVE + BELOW)
        _map(style.axes_at(fig, *place, side, side), activity[activity["class"] == name], name, cmap, norm, column == 0)
    maps.bar(fig, style.PAGE - RIGHT + 0.05, 0.55, min(side, 0.8), cmap, norm, "activity\n(share of\nlargest)")
    top, down = maps_down + 0.45, rows * LINE
    panels = [("ablate", "advantage of next lost"), ("swap", "other's next gained")]
    for i, (edit, label) in enumerate(panels):
        ax = style.axes_at(fig, 1.02 + i * 1.6, top, 1.5, down)
        _heads(ax, {name: own[own["edit"] == edit] for name, own in of_class.items()}, colours, i == 0)
        ax.set_title(f"Heads: own feature {edit}{'d' if edit == 'ablate' else 'ped'}", size=style.SMALL, pad=3)
        ax.set_xlabel(f"{label} (logits)", size=style.SMALL)
    _answers(style.axes_at(fig, 5.1, top, style.PAGE - 5.2, down), effects, tasks, colours)
    return fig


def _map(ax: Axes, rows: pd.DataFrame, name: str, cmap: Any, norm: Normalize, first: bool) -> None:
    """Members down, the own features of members across, in order."""
    members = list(dict.fromkeys(rows["member"]))[:SHOWN]
    grid = rows.pivot(index="member", columns="own_of", values="value").reindex(index=members, columns=members)
    maps.draw(ax, grid.to_numpy(float), cmap, norm, lines=style.GHOST if len(members) <= 14 else "none")
    ax.set(xticks=[], yticks=[], aspect="auto")
    ax.spines[:].set(visible=True, color=style.FAINT)
    more = rows["member"].nunique() - len(members)
    left = f"\nfirst {len(members)} of {len(members) + more}" if more else ""
    ax.set_title(f"{wording.words(name, 14)}{left}", size=style.TINY, weight="normal", pad=2)
    ax.set_xlabel("own feature of", size=style.LEAST, labelpad=1, color=style.GREY)
    if first:
        ax.set_ylabel("member", size=style.LEAST, labelpad=1, color=style.GREY)


def _heads(ax: Axes, of_class: dict[str, pd.DataFrame], colours: dict[str, str], named: bool) -> None:
    """A line for each class and head: interval of the own feature, middle 95 % of random ones, error alone."""
    y, ticks, labels = 0.0, [], []
    for name, own in of_class.items():
        ax.text(
            -0.65,  # from the edge of the page: a line of its own, so that a long name may reach into the axes
            y,
            wording.words(name) if named else "",
            transform=ax.get_yaxis_transform(),
            ha="left",
            va="center",
            size=style.TINY,
            weight="bold",
        )
        y += 1
        for row in own.itertuples():
            ax.plot([row.random_low, row.random_high], [y, y], color=style.FAINT, lw=3.4, solid_capstyle="butt")
            ax.plot([row.ci_low, row.ci_high], [y, y], color=colours["circuit"], lw=0.9)
            sure = row.p_holm < 0.05
            face = colours["circuit"] if sure else "white"
            ax.plot(row.value, y, "o", ms=3, mfc=face, mec=colours["circuit"], mew=0.7)
            if row.edit == "ablate":
                ax.plot(row.untouched - row.reconstruction, y, "|", ms=4.5, color=style.INK, mew=0.9)
            ticks.append(y)
            labels.append(f"{row.layer}.{row.head}{'*' if row.in_circuit else ''}")
            y += 1
    ax.axvline(0, color=style.GREY, lw=0.5, zorder=0)
    ax.set(ylim=(max(y, 1) - 0.4, -0.7), yticks=ticks, yticklabels=labels if named else [""] * len(ticks))
    ax.tick_params(labelsize=style.LEAST, length=0, axis="y", pad=1.5)
    ax.tick_params(labelsize=style.TINY, axis="x")
    ax.spines["left"].set_visible(False)


def _answers(ax: Axes, effects: pd.DataFrame, tasks: list[str], colours: dict[str, str]) -> None:
    """For each task what the reconstruction, the own feature and random ones cost of the logit difference."""
    looks = {"reconstruction": style.INK, "own feature": colours["circuit"], "random features": style.GREY}
    y, ticks, labels = 0.0, [], []
    for task in tasks:
        ax.text(
            0,
            y,
            wording.words(task),
            transform=ax.get_yaxis_transform(),
            ha="left",
            va="center",
            size=style.TINY,
            weight="bold",
        )
        y += 1
        for part, label in PARTS.items():
            own = effects[(effects["task"] == task) & (effects["edit"] == part)]
            for row in own.itertuples():
                ax.barh(y, row.value, 0.66, color=style.tint(looks[part], 0.45))
                ax.plot([row.ci_low, row.ci_high], [y, y], color=looks[part], lw=0.9)
            ticks.append(y)
            labels.append(label)
            y += 1
    ax.axvline(0, color=style.GREY, lw=0.5, zorder=0)
    ax.set(ylim=(max(y, 1) - 0.4, -0.7), yticks=ticks, yticklabels=labels)
    ax.set_title("Answers: ablated", size=style.SMALL, pad=3)
    ax.set_xlabel("logit difference lost", size=style.SMALL)
    ax.tick_params(labelsize=style.LEAST, length=0, axis="y", pad=1.5)
    ax.tick_params(labelsize=style.TINY, axis="x")
    ax.spines["left"].set_visible(False)
    if effects["value"].isna().all():  # of an empty table too, whose columns have no type
        ax.text(0.5, 0.5, "no task has members\nof these classes", transform=ax.transAxes, size=style.TINY, ha="center")
