"""The full model on clean and corrupted prompts: how well it does the tasks, and how they are scored."""

from collections.abc import Collection
from typing import Any

import pandas as pd

from atlas.prompts import layouts
from atlas.report.pages import Section
from atlas.report.sections.study import Study, ends, led
from atlas.report.wording import interval, listing, number, numbers_of_tokens, percent, words


def findings(clean: pd.DataFrame, tasks: list[str]) -> list[str]:
    """How well the full model does the tasks."""
    table = clean[(clean["split"] == "all") & (clean["metric"] == "top1")].set_index("task")
    right, corrupted = (table[table["run"] == run].reindex(tasks) for run in ("clean", "corrupted"))
    of_each = " of each task" if len(tasks) > 1 and right["value"].nunique() == 1 else ""
    top = corrupted["value"].idxmax()
    sentences = [
        f"The full model's first choice is the answer on {ends(right.reset_index(), 100)} of the clean prompts"
        f"{of_each}, searched on or held out, and on at most {percent(corrupted.loc[top], 100)} ({words(top)}) of the "
        f"corrupted ones."
    ]
    failed = right.index[right["ci_high"] < 0.5]
    if len(failed):
        sentences.append(
            f"It gets most prompts of {listing(map(words, failed))} wrong, so a percentage of its score "
            f"says little there."
        )
    return sentences


def answer_findings(info: dict[str, dict[str, Any]], tasks: list[str]) -> list[str]:
    """Which tasks have answers of several tokens, how many, and how they are scored."""
    sentences = []
    for task in tasks:
        if "answer_tokens" not in info[task]["layout"]:
            continue
        sizes = (layouts.answer_sizes(info[task], key) for key in ("answer_tokens", "incorrect_tokens"))
        right, wrong = map(numbers_of_tokens, sizes)
        sentences.append(
            f"{words(task).capitalize()}: answers are of {right}, incorrect ones of {wrong}, so its logit "
            "difference is that of their summed log-probabilities, and its edges and heads are not explained."
        )
    return sentences


def layout_findings(info: dict[str, dict[str, Any]], tasks: list[str], explained: Collection[str]) -> list[str]:
    """Of tasks whose prompts have several layouts: how many are used, and which ones explain their heads."""
    sentences = []
    for task in tasks:
        found = layouts.all_of(info[task])
        if len(found) == 1:
            continue
        used, rejected = (sum(x) for x in ([f["prompts"] for f in found], info[task]["counts"]["rejected"].values()))
        sizes, lengths = ([f[key] for f in found] for key in ("prompts", "tokens"))
        ranges = [f"{min(x)} to {max(x)}" if min(x) < max(x) else f"{x[0]}" for x in (lengths, sizes)]
        sentences.append(
            f"{words(task).capitalize()}: {used} of the {used + rejected} prompts read are used "
            f"({number(100 * used / (used + rejected), 1)} %), in {len(found)} layouts of {ranges[0]} tokens and "
            f"{ranges[1]} prompts, each with means of its own."
        )
        if task in explained:
            sentences.append(
                f"{words(task).capitalize()}: patching, attribution, logit lens, attention, OV scores and backup read "
                f"the most common layout alone: {sizes[0]} of {used} prompts, of {lengths[0]} tokens."
            )
    return sentences


def table(clean: pd.DataFrame, info: dict[str, dict[str, Any]], tasks: list[str]) -> dict[str, Any]:
    """A row a task, of `clean.parquet` over all its prompts; ``info``: task -> its prompts' `counts`."""
    rows = []
    table = clean[clean["split"] == "all"].set_index(["task", "run", "metric"]).sort_index()
    for task in tasks:
        cells = [
            words(task),
            f"{table.loc[task, 'prompts'].iloc[0]:.0f}",
            f"{100 * table.loc[task, 'share_kept'].iloc[0]:.0f} %",
            str(sum(info[task]["counts"]["rejected"].values())),
        ]
        for metric, digits, factor in (("top1", 1, 100), ("logit_diff", 2, 1)):
            for run in ("clean", "corrupted"):
                cells.append(interval(table.loc[(task, run, metric)], digits, factor))
        rows.append(cells)
    header = [
        "task",
        "prompts",
        "kept",
        "rejected",
        "top-1 clean (%)",
        "top-1 corrupted (%)",
        "logit difference clean",
        "logit difference corrupted",
    ]
    return {"header": header, "rows": rows}


def section(study: Study) -> Section:
    """Clean and corrupted scores of every task."""
    said = findings(study.tables["clean"], study.tasks) + answer_findings(study.info, study.tasks)
    return Section(
        title="The full model on clean and corrupted prompts",
        **led(said + layout_findings(study.info, study.tasks, study.explained)),
        table=table(study.tables["clean"], study.info, study.tasks),
        note="Means over all prompts of a task. Logit difference: logit of answer minus incorrect answer.",
    )
