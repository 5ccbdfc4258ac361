"""Layouts: prompts of a task that agree in their number of tokens and in the positions of their members.

A mean per position is worth something among such prompts alone, so every layout has means of its own. Layout 0 is that
of most prompts; analyses that need one layout read its prompts (`of_one`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from atlas.core.errors import StudyError
from atlas.core.positions import Layout
from atlas.prompts import rejections

if TYPE_CHECKING:
    import pandas as pd

MIN_LAYOUT = 8  # prompts of a file that make a layout of their own, unless told otherwise
SHARED = "all"  # the name of the means over all prompts of a layout
NUMBERED = re.compile(r", layout [0-9]+$")


# ---- prompts -------------------------------------------------------------------------------------------------
@dataclass
class Encoded:
    """Aligned prompts (``rows``, with token fields added) and what happened on the way."""

    rows: list[dict[str, Any]]
    layouts: list[dict[str, Any]]  # the largest first (`grouped`)
    rejected_rows: list[tuple[dict[str, Any], str]] = field(default_factory=list)  # row, reason (rejections.py)

    @property
    def rejected(self) -> Counter[str]:
        """Reason -> number of prompts."""
        return Counter(reason for _, reason in self.rejected_rows)

    @property
    def layout(self) -> dict[str, Any]:
        """The layout of most prompts, without their number."""
        return {key: value for key, value in self.layouts[0].items() if key != "prompts"}


def grouped(
    kept: Sequence[tuple[dict[str, Any], Layout]], min_layout: int | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows that gain ``layout``, their layouts, and the rows that are left out, each in order.

    Layouts are numbered from the largest. The largest is used, and every other of at least ``min_layout`` prompts; none
    for None. They are given as in `prompts.json`: what `Layout.to_json` says, and what `counted` counts.
    """
    sizes = Counter(layout for _, layout in kept).most_common()
    used = [layout for layout, n in sizes if layout == sizes[0][0] or (min_layout is not None and n >= min_layout)]
    number = {layout: i for i, layout in enumerate(used)}
    rows = [row | {"layout": number[layout]} for row, layout in kept if layout in number]
    found = []
    for i, layout in enumerate(used):
        found.append(layout.to_json() | counted([row for row in rows if row["layout"] == i]))
    return rows, found, [row for row, layout in kept if layout not in number]


def counted(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """``prompts``, their number; of a task of several tokens also ``answer_tokens`` and ``incorrect_tokens``: how many
    answers have how many tokens."""
    several = [name for name in ("answer_tokens", "incorrect_tokens") if name in rows[0]]
    return {name: _numbers(row[name] for row in rows) for name in several} | {"prompts": len(rows)}


def _numbers(lists: Iterable[Sequence[int]]) -> dict[str, int]:
    """Number of tokens -> how many of the lists have it, in order; text, as the keys of JSON are."""
    return {str(n): count for n, count in sorted(Counter(map(len, lists)).items())}


def without_mean(rows: Sequence[Mapping[str, Any]], by_template: bool = False) -> set[int]:
    """``prompt`` of the rows held out for which the search split has no mean.

    Such a row's layout (with ``by_template`` its template and layout) has no row to search on, or, with answers of
    several tokens, none with as many tokens, whose last positions would have no mean.
    """

    def group(row: Mapping[str, Any]) -> tuple[Any, ...]:
        return row["layout"], row["template"] if by_template else SHARED

    def sizes(row: Mapping[str, Any]) -> list[int]:
        return [len(row[name]) for name in ("answer_tokens", "incorrect_tokens") if name in row]

    longest: dict[tuple[Any, ...], list[int]] = {}
    for row in rows:
        if row["split"] == "search":
            longest[group(row)] = list(map(max, longest.get(group(row), sizes(row)), sizes(row)))
    return {
        row["prompt"]
        for row in rows
        if row["split"] != "search"
        and (group(row) not in longest or any(n > m for n, m in zip(sizes(row), longest[group(row)], strict=True)))
    }


def kept_with_mean(frame: pd.DataFrame, by_template: bool) -> pd.Series:
    """The column ``kept`` (passed the filter) without the prompts that the kept ones of the search split leave no mean.

    Only where there are several layouts: for one, `replacement.replacement` refuses what has no mean.
    """
    if not frame["layout"].any():
        return frame["kept"]
    unread = without_mean(frame[frame["kept"]].to_dict("records"), by_template)
    return frame["kept"] & ~frame["prompt"].isin(unread)


def searched(encoded: Encoded) -> Encoded:
    """The prompts that have a mean of the search split (`without_mean`), the others rejected, layouts numbered anew."""
    gone = without_mean(encoded.rows)
    if not gone:
        return encoded
    rows = [row for row in encoded.rows if row["prompt"] not in gone]
    own = [[row for row in rows if row["layout"] == i] for i in range(len(encoded.layouts))]
    order = sorted((i for i, prompts in enumerate(own) if prompts), key=lambda i: -len(own[i]))
    found = [encoded.layouts[i] | counted(own[i]) for i in order]
    number = {old: new for new, old in enumerate(order)}
    rows = [row | {"layout": number[row["layout"]]} for row in rows]
    left_out = [(row, rejections.NO_MEAN) for row in encoded.rows if row["prompt"] in gone]
    return replace(encoded, rows=rows, layouts=found, rejected_rows=encoded.rejected_rows + left_out)


def of_one(frame: pd.DataFrame, layout: int = 0) -> pd.DataFrame:
    """The prompts of one layout, by default that of most prompts; raises StudyError where there are none."""
    own = frame[frame["layout"] == layout].reset_index(drop=True)
    if not len(own):
        raise StudyError(
            f"tasks.{frame['task'].iloc[0]}: none of the {len(frame)} prompts that passed prompts.filter has the most "
            "common layout, on which heads are explained; relax the filter or add prompts"
        )
    return own


def spread(frame: pd.DataFrame, at_most: int | None) -> pd.DataFrame:
    """At most so many prompts, evenly over the first members and the templates; all of them for None.

    Rows are sorted by first member, template and number, and taken at equal distances; prompts of files have no first
    member and are sorted by template and number.
    """
    if at_most is None or len(frame) <= at_most:
        return frame
    keys = [key for key in ("start", "template", "prompt") if key in frame]
    rows = [int((i + 0.5) * len(frame) / at_most) for i in range(at_most)]
    return frame.sort_values(keys, ignore_index=True).iloc[rows].sort_values("prompt", ignore_index=True)


def all_of(info: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The layouts of `prompts.json`, the most common first; its ``layout`` where it lists none."""
    return list(info.get("layouts") or [info["layout"]])


def answer_sizes(info: Mapping[str, Any], name: str) -> dict[str, int]:
    """``answer_tokens`` or ``incorrect_tokens`` over all layouts: number of tokens -> how many answers have it."""
    total: Counter[str] = Counter()
    for layout in all_of(info):
        total.update(layout[name])
    return {size: total[size] for size in sorted(total, key=int)}


def roles_of(info: Mapping[str, Any]) -> list[dict[str, list[int]]]:
    """Of each layout of `prompts.json`: role -> its positions."""
    return [Layout.of(layout).roles for layout in all_of(info)]


# ---- groups of means -----------------------------------------------------------------------------------------
def group_name(of: str, layout: int) -> str:
    """The name of a group of means: ``all`` or a template, and, for other layouts than the most common, its number."""
    return of if layout == 0 else f"{of}, layout {layout}"


def template_of(group: str) -> str:
    """The template of a group's name, or ``all``."""
    return NUMBERED.sub("", group)


def several(groups: Iterable[str]) -> bool:
    """Are some of these groups of other layouts than the most common one?"""
    return any(NUMBERED.search(name) for name in groups)


def group_names(frame: pd.DataFrame, by_template: bool) -> list[str]:
    """The groups of means of these prompts: one for each layout, or for each template and layout.

    Raises StudyError on a template that could be taken for another group.
    """
    of = frame["template"] if by_template else [SHARED] * len(frame)
    odd = next((name for name in of if NUMBERED.search(name)), None)
    if odd is not None:
        raise StudyError(f"file.columns.template: {odd!r} ends as the name of a layout does; rename the template")
    return [group_name(*pair) for pair in sorted(set(zip(of, frame["layout"], strict=True)))]


def group_of(frame: pd.DataFrame, groups: Sequence[str]) -> list[int]:
    """[N] index of each prompt's group; raises StudyError where it has none."""
    shared = {template_of(name) for name in groups} == {SHARED}
    of = [SHARED] * len(frame) if shared else frame["template"]
    numbers = frame["layout"] if "layout" in frame else [0] * len(frame)
    names = [group_name(*pair) for pair in zip(of, numbers, strict=True)]
    index = {name: i for i, name in enumerate(groups)}
    missing = next((name for name in names if name not in index), None)
    if missing is not None:
        raise StudyError(f"means: there is none of the prompts of {missing!r}, only of {', '.join(groups)}")
    return [index[name] for name in names]
