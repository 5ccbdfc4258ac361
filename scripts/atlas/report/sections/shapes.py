"""How order is laid out in the residual stream: lines, circles, helices, displacements, and whether they are used."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from atlas.core.multiple import ALPHA
from atlas.report.order_words import point_shown
from atlas.report.pages import Section
from atlas.report.sections.study import Study, led
from atlas.report.wording import count, listing, number, p_value, words

HELIX_FROM = 20  # members; as in geometry/shapes.py, which a page does not read
PERIODS = "random periods"
NAMED = 3  # pairs of classes that a sentence names


def at(point: float) -> str:
    """`at the embedding`, `after 3 blocks`."""
    return "at the embedding" if not point else f"after {count(point, 'block')}"


def shape_findings(shapes: pd.DataFrame) -> list[str]:
    """What is read off members that no fit has seen: circles of cyclic classes with controls, lines, helices."""
    member = shapes[(shapes["at"] == "member") & (shapes["null"] != PERIODS)]
    sentences = _circles(member)
    sentences += _lines(member)
    sentences += _answers(shapes[shapes["at"] == "answer"])
    return sentences + _helices(shapes)


def best(rows: pd.DataFrame) -> pd.Series:
    """The point that the contexts to fit choose, with what the held-out ones say of it."""
    return rows.loc[rows["value_fit"].idxmax()]


def holds(rows: pd.DataFrame) -> int:
    """Points at which a shape is found, corrected for them."""
    return int((rows["p_holm"] < ALPHA).sum())


def _value(row: Mapping[str, Any]) -> str:
    """`0.99 after 2 blocks, 95 % of random orders −0.62 to 0.41; p = 0.005, 0.03 corrected`."""
    null = f"95 % of random orders {number(row['null_low'], 2)} to {number(row['null_high'], 2)}"
    corrected = f"{p_value(row['p_holm'], '').removeprefix('= ')} corrected for {count(row['tests'], 'point')}"
    return f"{number(row['value'], 2)} {at(row['point'])}, {null}; {p_value(row['p'])}, {corrected}"


def _circles(member: pd.DataFrame) -> list[str]:
    circle, closed = (member[member["shape"] == shape] for shape in ("circle", "closed"))
    own = dict(list(circle[~circle["control"]].groupby("class", sort=False)))
    if not own:
        return ["No class is cyclic, so no circle was looked for."]
    found = {name: rows for name, rows in own.items() if holds(rows)}
    said = listing(f"{words(name)} ({_value(best(rows))})" for name, rows in found.items())
    missing = [words(name) for name in own if name not in found]
    parts = [f"Around a circle, unseen members are read in order in {said}: mean cosine of the angle's error."]
    closes = [words(name) for name in found if holds(closed[closed["class"] == name])]
    parts.append(f"The circle closes, beyond random orders, in {listing(closes) or 'none of them'}.")
    parts = (parts if found else []) + (
        [f"No circle was found of {listing(missing)}, beyond random orders."] if missing else []
    )
    return [" ".join(parts), *_controls(circle[circle["control"]]), *_closed(closed, set(own))]


def _controls(circle: pd.DataFrame) -> list[str]:
    """Classes that are no cycles under the test of circles."""
    controls = dict(list(circle.groupby("class", sort=False)))
    if not controls:
        return []
    passing = [words(name) for name, rows in controls.items() if holds(rows)]
    which = f" ({listing(passing)})" if passing else ""
    verb = "passes" if len(passing) == 1 else "pass"
    return [
        f"Of {len(controls)} other classes, which are no cycles, {len(passing)} {verb} the same test{which}: an arc is "
        "read as well as a circle, and a circle has to close."
    ]


def _closed(closed: pd.DataFrame, cyclic: set[str]) -> list[str]:
    said, arcs = [], []
    for name, rows in closed.groupby("class", sort=False):
        top = best(rows)
        if holds(rows) or name in cyclic:
            where = f"{holds(rows)} of {count(len(rows), 'point')}"
            said.append(f"{words(name)} at {where} ({number(top['value'], 2)} {at(top['point'])})")
        arcs += [words(name)] if (rows["value"] < 0).all() else []
    text = "Distances follow the steps around better than those along, beyond random orders: "
    sentences = [f"{text}{listing(said) or 'in no class'}."]
    if arcs:
        sentences.append(f"They follow the steps along at every point in {listing(arcs)}: an arc or a line.")
    return sentences


def _lines(member: pd.DataFrame) -> list[str]:
    said = []
    for name, own in member[member["shape"] == "line"].groupby("class", sort=False):
        if holds(own):
            top, where = best(own), f"{holds(own)} of {count(len(own), 'point')}"
            said.append(f"{words(name)} {number(top['value'], 2)} {at(top['point'])} ({where})")
    if not said:
        return ["In no class is the index of an unseen member read along one direction beyond random orders."]
    return [
        f"Along one direction (rank correlation of unseen members with their index; in brackets where p < {ALPHA}, "
        f"corrected for the points): {listing(said)}."
    ]


def _answers(rows: pd.DataFrame) -> list[str]:
    """Where the model answers, is the answer laid out like the members?"""
    said = []
    for name, own in rows.groupby("class", sort=False):
        shape = "line" if own.loc[own["shape"] == "circle", "control"].all() else "circle"
        of = own[(own["shape"] == shape) & (own["null"] != PERIODS)]
        sure = of[of["p_holm"] < ALPHA]["point"]
        where = f"{at(sure.min())} first" if len(sure) else "nowhere"
        points = f"{len(sure)} of {count(len(of), 'point')}"
        closes = holds(own[own["shape"] == "closed"])
        points += f", closed at {closes}" if shape == "circle" and closes else ""
        said.append(f"{words(name)} ({shape}, {count(of['members'].max(), 'member')}) {where}, at {points}")
    return [f"At the last token, by the answer that follows: {'; '.join(said)}."] if said else []


def _helices(shapes: pd.DataFrame) -> list[str]:
    member = shapes[shapes["at"] == "member"]
    few = member[(member["class"] == "numerals") & (member["members"] < HELIX_FROM)]
    sentences = [
        f"A helix of numerals cannot be tested: {n} of them are one token, and it takes {HELIX_FROM}."
        for n in few["members"].unique()
    ]
    for name, own in member[member["shape"] == "helix"].groupby("class", sort=False):
        periods = own[own["null"] == PERIODS]
        top = best(periods)
        orders = own[(own["null"] != PERIODS) & (own["point"] == top["point"])].iloc[0]
        verdict = "beyond" if top["p_holm"] < ALPHA else "not beyond"
        explained = _share(top["value"]) if top["value"] > 0 else "none"
        sentences.append(
            f"{words(name).capitalize()}: a helix of periods 2, 5, 10 and 100 explains {explained} of the variance of "
            f"unseen members {at(top['point'])} (random orders up to {_share(orders['null_high'])}), {verdict} helices "
            f"of random periods (up to {_share(top['null_high'])}, {p_value(top['p_holm'], 'corrected p')}; beyond "
            f"them at {holds(periods)} of {count(len(periods), 'point')}); as many principal components "
            f"{_share(top['bound'])}."
        )
    return sentences


def _share(value: float) -> str:
    """`45 %`."""
    return f"{number(100 * value)} %"


def displacement_findings(table: pd.DataFrame) -> list[str]:
    """Whether the way to the next member is that of other classes, and leads there, at the middle point."""
    if table.empty:
        return ["No two classes share steps whose displacements could be compared."]
    own = table[table["point"] == point_shown(sorted(table["point"].unique()))]
    inside = own["class"] == own["other"]
    pairs, steps = (own[~inside & (own["measure"] == measure)] for measure in ("cosine", "transfer"))
    return (
        _ways(pairs, at(own["point"].iloc[0])) + _arrivals(steps) + _within(own[inside & (own["measure"] == "cosine")])
    )


def _ways(pairs: pd.DataFrame, where: str) -> list[str]:
    if pairs.empty:
        return []
    sure = pairs[pairs["p_holm"] < ALPHA].sort_values("value", ascending=False, kind="stable")
    said = "; ".join(
        f"{words(row['class'])} and {words(row['other'])} {number(row['value'], 2)} (random orders "
        f"{number(row['null_low'], 2)} to {number(row['null_high'], 2)}, all other pairs of steps "
        f"{number(row['unmatched'], 2)}, {count(row['steps'], 'step')})"
        for _, row in sure.head(NAMED).iterrows()
    )
    most = f"; the largest mean cosines: {said}" if said else ""
    return [
        f"{where[:1].upper()}{where[1:]}, the way to the next member goes as that of the same numbers in another class "
        f"in {len(sure)} of {count(len(pairs), 'pair')} of classes{most}."
    ]


def _arrivals(steps: pd.DataFrame) -> list[str]:
    if steps.empty:
        return []
    arrive = steps[steps["p_holm"] < ALPHA].sort_values("value", ascending=False, kind="stable")
    said = "; ".join(
        f"{words(row['other'])} by that of {words(row['class'])} {_share(row['value'])} (unmoved "
        f"{_share(row['unmoved'])}, random orders up to {_share(row['null_high'])})"
        for _, row in arrive.head(NAMED).iterrows()
    )
    return [
        f"Moved by it, members come nearest to their own next one beyond random orders in {len(arrive)} of "
        f"{len(steps)} directions{f': {said}' if said else ''}."
    ]


def _within(alone: pd.DataFrame) -> list[str]:
    if alone.empty:
        return []
    common = [words(name) for name in alone.loc[alone["p_holm"] < ALPHA, "class"]]
    spread = f"{number(alone['value'].min(), 2)} to {number(alone['value'].max(), 2)}"
    verdict = f"one direction for all steps, beyond random orders, in {listing(common)}"
    return [
        f"Within a class, steps that share no member have a mean cosine of {spread}: "
        f"{verdict if common else 'no direction is next for all steps'}."
    ]


def patch_findings(table: pd.DataFrame) -> list[str]:
    """What the answer does when members are moved within a shape alone."""
    if table.empty:
        return ["No task's prompts could be moved along a class, so that no shape was tested by patches."]
    said = [
        _patched(name, shape, own)
        for (name, shape), own in table[table["chosen"]].groupby(["class", "shape"], sort=False)
    ]
    more = sum(beyond for beyond, _ in said)
    first = f"The answer follows {more} of {count(len(said), 'shape')} more than the same shapes of random orders."
    return [first, *(sentence for _, sentence in said)]


def _patched(name: str, shape: str, own: pd.DataFrame) -> tuple[bool, str]:
    """Whether a shape obtains more than every random order, and what it obtains."""
    of = own.set_index("patched")
    fitted, permuted = of.loc["fitted"], of.loc["permuted"]
    beyond = bool(fitted["value"] > permuted["draws_high"] and fitted["ci_low"] > permuted["value"])
    low, high = (number(100 * fitted[key]) for key in ("ci_low", "ci_high"))
    least, most = (number(100 * permuted[key]) for key in ("draws_low", "draws_high"))
    return beyond, (
        f"{words(name).capitalize()}, {shape} ({count(fitted['dimensions'], 'dimension')}, "
        f"{_share(fitted['variance'])} of the members' variance, {at(fitted['point'])}): moving all members within it "
        f"obtains {_share(fitted['value'])} [{low}, {high}] of what their tokens do "
        f"({count(fitted['prompts'], 'prompt')}), {'more' if beyond else 'not surely more'} than the same shape of "
        f"{count(permuted['draws'], 'random order')} ({_share(permuted['value'])}, {least} to {most}); "
        f"the whole difference {_share(of.loc['whole', 'value'])}, first components {_share(of.loc['pca', 'value'])}, "
        f"random subspaces {_share(of.loc['random', 'value'])}."
    )


def section(study: Study) -> Section:
    """How order is laid out; empty in a study without the analysis."""
    names = ("shapes", "displacements", "shape_patches")
    if any(name not in study.tables for name in names):
        return Section(title="How order is laid out")
    shapes, displacements, patches = (study.tables[name] for name in names)
    sentences = shape_findings(shapes) + displacement_findings(displacements) + patch_findings(patches)
    return Section(
        title="How order is laid out",
        **led(sentences),
        note="Members at their own token in short contexts, each read by a fit on all other members and on other "
        "contexts; p against random orders of the members treated alike, corrected (Holm) over the points of one "
        "class and shape. Points named are chosen in the contexts to fit. Patches: intervals over prompts that did not "
        "choose the point; beyond random orders is more than each of them, and an interval above their mean.",
    )
