"""How well the full model does each task: top-1 accuracy and logit difference, clean and corrupted prompts."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from atlas.report import style, wording

PANELS = {"top1": ("top-1 accuracy (%)", 100), "logit_diff": ("logit difference", 1)}  # metric: axis label, factor
RUNS = {"clean": ("o", -0.14), "corrupted": ("s", 0.14)}  # run: marker, offset in rows


def draw(summaries: pd.DataFrame, tasks: list[str], main_tasks: list[str], colours: dict[str, str]) -> Figure:
    """`summary` is clean_summary.parquet of all tasks together; a row for each task, in the order of `tasks`."""
    table = summaries[summaries["split"] == "all"]
    metrics = [metric for metric in PANELS if (table["metric"] == metric).any()]
    fig = style.figure(style.PAGE, 0.95 + 0.3 * len(tasks))
    axes = fig.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for ax, metric in zip(axes, metrics, strict=True):
        label, factor = PANELS[metric]
        for run, (marker, offset) in RUNS.items():
            rows = table[(table["metric"] == metric) & (table["run"] == run)].set_index("task").reindex(tasks)
            y = np.arange(len(tasks)) + offset
            ax.hlines(y, factor * rows["ci_low"], factor * rows["ci_high"], color=style.INK, lw=1)
            ax.scatter(
                factor * rows["value"],
                y,
                s=26,
                marker=marker,
                color=colours[run],
                edgecolor=style.INK,
                linewidth=0.6,
                zorder=3,
                label=f"{run} prompts",
            )
        ax.set(xlabel=label, ylim=(len(tasks) - 0.5, -0.5))
        ax.grid(axis="x")
        ax.tick_params(axis="y", length=0)
        if metric == "top1":
            ax.set_xlim(-4, 104)
        else:
            ax.axvline(0, color=style.GREY, lw=0.8)
        if 0 < len(main_tasks) < len(tasks):
            ax.axhline(len(main_tasks) - 0.5, color=style.GREY, lw=0.8, ls=(0, (4, 3)))
    axes[0].set_yticks(range(len(tasks)), [wording.words(task) for task in tasks])

    known = table[table["run"] == "clean"].drop_duplicates("task").set_index("task").reindex(tasks)
    for x, title, texts in (
        (1.11, "prompts", [f"{n:.0f}" for n in known["prompts"]]),
        (1.27, "kept", [f"{100 * share:.0f} %" for share in known["share_kept"]]),
    ):
        for line, text in [(-0.75, title), *enumerate(texts)]:
            axes[-1].text(
                x,
                line,
                text,
                transform=axes[-1].get_yaxis_transform(),
                ha="center",
                va="center",
                size=style.SMALL,
                color=style.GREY if line < 0 else style.INK,
            )
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return fig
