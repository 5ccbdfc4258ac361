"""What the circuits of the main tasks share, whether chance explains it, and what is in one of them alone."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from atlas.core.multiple import ALPHA
from atlas.report.pages import Section
from atlas.report.sections.circuits import found_by
from atlas.report.sections.study import Study, led
from atlas.report.wording import count, is_mlp, listing, number, p_of_tests, p_value, place, words

TOGETHER = "corrected for all pairs"


def findings(membership: pd.DataFrame, overlap: pd.DataFrame, tasks: list[str], where: str = "") -> list[str]:
    """What the circuits share, whether chance explains it, and what is in one circuit only.

    where: at which threshold they were found, and how they were chosen. What more than one search says of sharing is in
    `consensus`.
    """
    if len(tasks) == 1:
        return [f"Only one task was searched ({words(tasks[0])}), so there is no overlap to report."]
    circuits = {task: _members(membership, task) for task in tasks}
    everything, shared = set.union(*circuits.values()), set.intersection(*circuits.values())
    everyone = "both main tasks" if len(tasks) == 2 else f"all {len(tasks)} main tasks"
    pairs = overlap[(overlap["level"] == "heads") & overlap["circuit_a"].isin(tasks) & overlap["circuit_b"].isin(tasks)]
    beyond = f"{(pairs['p_holm'] < ALPHA).sum()} of {count(len(pairs), 'pair')}"
    said = []
    for noun, mlps in (("head", False), ("MLP", True)):
        of_all, of_any = ({c for c in found if is_mlp(c) == mlps} for found in (shared, everything))
        named = f" ({listing(sorted(of_all, key=place))})" if of_all else ""
        said += [f"{len(of_all)} of the {count(len(of_any), noun)} that any of them holds{named}"] if of_any else []
    given = f" ({where})" if where else ""
    first = f"The reported circuits of {everyone}{given} all hold {' and '.join(said) or 'nothing'}."
    sentences = [f"{first} {beyond} of circuits share more heads than chance gives (p < {ALPHA}, {TOGETHER})."]
    sentences += [_pair(row) for _, row in pairs.iterrows()]
    for task in tasks:
        own = circuits[task] - set[str]().union(*(c for t, c in circuits.items() if t != task))
        sentences.append(
            f"In the {words(task)} circuit alone: {listing(sorted(own, key=place))}."
            if own
            else f"Every component of the {words(task)} circuit is in another circuit too."
        )
    return sentences


def _members(membership: pd.DataFrame, circuit: str) -> set[str]:
    return set(membership.loc[membership["circuit"] == circuit, "component"])


def _pair(row: Mapping[str, Any]) -> str:
    names = f"{words(row['circuit_a']).capitalize()} and {words(row['circuit_b'])}"
    text = (
        f"{names} share {count(row['shared'], 'head')} of {row['size_a']:.0f} and {row['size_b']:.0f} "
        f"(Jaccard index {number(row['jaccard'], 2)}; {number(row['expected'], 1)} expected for random heads in the "
        f"same layers). "
    )
    if pd.isna(row["p_layer_matched"]):
        return text + "No p-value was computed."
    matched, plain = p_of_tests(row, p="p_layer_matched"), row["p_hypergeometric"]
    if row["p_holm"] < ALPHA:
        return text + f"That is more than chance gives ({matched}, with the heads per layer held fixed)."
    if plain < ALPHA:
        return text + (
            f"That is more than chance gives if layers are ignored ({p_value(plain)}, not corrected) but not with the "
            f"heads per layer held fixed ({matched}): the circuits share layers rather than heads."
        )
    return text + f"Chance explains that ({matched}, with the heads per layer held fixed)."


def table(overlap: pd.DataFrame) -> dict[str, Any] | None:
    """A row for each pair of circuits and level of `overlap.parquet`; None where there is none."""
    rows = [
        [
            f"{words(row['circuit_a'])}, {words(row['circuit_b'])}",
            row["level"].replace("mlps", "MLPs"),
            f"{row['size_a']:.0f}",
            f"{row['size_b']:.0f}",
            f"{row['shared']:.0f}",
            number(row["expected"], 1),
            number(row["jaccard"], 2),
            *(p_value(row[key], name="") for key in ("p_layer_matched", "p_hypergeometric", "p_holm")),
        ]
        for _, row in overlap.iterrows()
    ]
    header = ["circuits", "level", "first", "second", "shared", "expected", "Jaccard"]
    header += ["p, layers held", "p, free", "p, corrected"]
    return {"header": header, "rows": rows} if rows else None


def section(study: Study) -> Section:
    """Components that circuits share."""
    where = found_by(study.tables["choice"], study.main, study.settings["threshold"])
    return Section(
        title="What the reported circuits share, and what they do not",
        **led(findings(study.tables["membership"], study.tables["overlap"], study.main, where)),
        table=table(study.tables["overlap"]),
        note="Corrected: Holm, over the pairs of one level; of heads the p with layers held, of edges that "
        "with heads exchanged."
        if len(study.main) > 2
        else "",
    )
