"""Can the index of a member be read by a linear probe that never saw its class?"""

from typing import Any

import pandas as pd

from atlas.core.multiple import ALPHA
from atlas.geometry.read_names import ACCURACY, ALL, ALL_CLASSES, BEYOND, OTHERS
from atlas.report.pages import Section
from atlas.report.sections.study import Study, cell, led
from atlas.report.wording import count, interval, listing, number, p_of_tests, percent, words

TITLE = "Index probes across classes"
NOISE = "shuffled probe"


def named(label: str) -> str:
    """`the index modulo 10`, or `the index`."""
    return f"the index modulo {label.removeprefix('mod ')}" if label.startswith("mod") else "the index"


def after(point: float) -> str:
    """`after 3 layers`."""
    return f"after {count(point, 'layer')}"


def score(row: Any) -> str:
    """`71.0 % [62.0, 80.0]`, or `correlation 0.78 [0.70, 0.85]`."""
    return percent(row, 100) if row["metric"] == ACCURACY else f"correlation {interval(row, 2)}"


def beside(row: Any) -> str:
    """What shuffled probes reach, and p."""
    high = f"{number(100 * row['null_high'], 1)} %" if row["metric"] == ACCURACY else number(row["null_high"], 2)
    chance = f"chance {number(100 * row['chance'], 0)} %, " if row["metric"] == ACCURACY else ""
    return f"{chance}95 % of shuffled probes below {high}; {p_of_tests(row, row['shuffles'], noun=NOISE)}"


def best(rows: pd.DataFrame) -> Any:
    """The row of least p, of equal ones that of the largest score."""
    return rows.sort_values(["p", "value"], ascending=[True, False], kind="stable").iloc[0]


def tested(probes: pd.DataFrame, label: str, tested_on: str) -> pd.DataFrame:
    """Rows of probes that never saw the class, by point."""
    own = probes[(probes["label"] == label) & (probes["tested_on"] == tested_on) & (probes["trained_on"] == OTHERS)]
    return own.sort_values("point")


def findings(probes: pd.DataFrame) -> list[str]:
    """The headline, then each label, members beyond ten, and each class; of the rows of `probes.parquet`."""
    if probes.empty:
        return ["Fewer than two classes have members of one token, so no probe was tested on a class it never saw."]
    labels = list(dict.fromkeys(probes["label"]))
    carried = [label for label in labels if (tested(probes, label, ALL)["p_holm"] < ALPHA).any()]
    members = count(probes.loc[probes["tested_on"] == ALL, "members"].iloc[0], "member")
    classes = [name for name in dict.fromkeys(probes["tested_on"]) if name not in (ALL, BEYOND)]
    whose = f"of {members} of {len(classes)} classes, each left out in turn"
    if carried:
        top = best(tested(probes, carried[0], ALL))
        which = f"{named(carried[0])} " if len(carried) > 1 else ""
        first = (
            f"A linear probe that never saw a member's class reads {listing(map(named, carried))} ({whose}): "
            f"{which}best {after(top['point'])}, {score(top)} ({beside(top)})."
        )
    else:
        first = (
            f"No linear probe surely reads {listing(map(named, labels))} of members of a class that it never saw "
            f"({whose})."
        )
    sentences = [first, *(_label(probes, label) for label in labels if label not in carried[:1])]
    return sentences + _beyond(probes, labels) + _classes(probes, labels[0], classes)


def _label(probes: pd.DataFrame, label: str) -> str:
    """At how many points a label is read, and the best; with the upper bound there."""
    rows = tested(probes, label, ALL)
    sure, top = int((rows["p_holm"] < ALPHA).sum()), best(rows)
    bound = cell(probes, label=label, tested_on=ALL, trained_on=ALL_CLASSES, point=top["point"])
    where = f"surely read at {sure} of {count(len(rows), 'point')}" if sure else "surely read at no point"
    said = f"; with other contexts of the class trained on, {score(bound)}" if bound is not None else ""
    name = named(label)
    return f"{name[:1].upper()}{name[1:]}: {where}, best {after(top['point'])}, {score(top)} ({beside(top)}){said}."


def _beyond(probes: pd.DataFrame, labels: list[str]) -> list[str]:
    """The last digit where it is not the index."""
    rows = tested(probes, labels[0], BEYOND)
    if rows.empty:
        return []
    sure, top = int((rows["p_holm"] < ALPHA).sum()), best(rows)
    where = f"surely at {sure} of {count(len(rows), 'point')}" if sure else "surely at no point"
    return [
        f"Beyond ten, where an index and its last digit differ, {named(labels[0])} of "
        f"{count(top['members'], 'member')} is read {where}, best {after(top['point'])}, {score(top)} ({beside(top)})."
    ]


def _classes(probes: pd.DataFrame, label: str, classes: list[str]) -> list[str]:
    """In which classes a label is read when they are left out."""
    found, none = [], []
    for name in classes:
        rows = tested(probes, label, name)
        if (rows["p_holm"] < ALPHA).any():
            top = best(rows)
            found.append(f"{words(name)} {score(top)} {after(top['point'])}")
        else:
            none.append(words(name))
    said = f"{named(label)} is surely read in {listing(found)}" if found else f"{named(label)} is surely read in none"
    rest = f"; not in {listing(none)}" if found and none else ""
    return [f"Class by class, corrected over points and classes, {said}{rest}."]


def section(study: Study) -> Section:
    """What probes read across classes; empty where a study makes none."""
    probes = study.tables.get("probes")
    if probes is None:
        return Section(title=TITLE)
    return Section(
        title=TITLE,
        anchor="probes",
        **led(findings(probes)),
        note="Ridge probes on residuals at members after a few contexts, trained on all classes but one, tested on "
        "that one in contexts that no probe saw; every class centred. Intervals over members. Shuffled probes are "
        "trained with the indices of members shuffled within classes. A probe finds what can be read linearly, not "
        "what the model uses, and what follows the frequency of tokens can be read too.",
    )
