"""Claims about where members of a class lie: circles, helices, displacements, and an index modulo 10."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from atlas.core.multiple import ALPHA
from atlas.report.claims.item import Finding, Item, by, cannot, corrected, joined, most_sure, share, span, sure
from atlas.report.findings.reading import Results, rows
from atlas.report.wording import interval, listing, number, p_value, words

SHAPES, PATCHES = "geometry/shapes", "geometry/shape_patches"
ENGELS, HELIX, GOULD = "Engels et al., arXiv 2405.14860", "Kantamneni and Tegmark, arXiv 2502.00873", "arXiv 2312.09230"
HALF = 0.5


def circle_of(kind: str) -> Callable[[Results], Finding]:
    """Of a cyclic class: is it a circle in its order, and closed?"""

    def find(results: Results) -> Finding:
        own = rows(results.read(SHAPES), **{"class": kind, "at": "member", "control": False})
        circle, closed = (rows(own, shape=shape) for shape in ("circle", "closed"))
        if circle.empty or closed.empty:
            return cannot(f"fewer than four {kind} are one token, or they are not configured as cyclic")
        both = circle[sure(circle)].merge(closed[sure(closed) & (closed["value"] > 0)], on="point", suffixes=("", " c"))
        best, shut = most_sure(circle), most_sure(closed)
        if len(both):
            at = both.loc[both["value c"].idxmax(), "point"]
            best, shut = (rows(table, point=at).iloc[0] for table in (circle, closed))
        said = f"after layer {best['point']}: circle {number(best['value'], 2)} ({corrected(best)})"
        said += f", closed {number(shut['value'], 2)} ({corrected(shut)}"
        said += ")" if shut["point"] == best["point"] else f", after layer {shut['point']})"
        null = f"orders drawn at random: circle {span(best, 'null_low', 'null_high')}"
        return by(len(both) > 0, said, f"{null}, closed {span(shut, 'null_low', 'null_high')}")

    return find


def patched(table: pd.DataFrame, which: str, **where: object) -> pd.Series | None:
    """The row of a kind of patch at the chosen point, or None."""
    found = rows(table, chosen=True, patched=which, **where)
    return None if found.empty else found.iloc[0]


def beside(table: pd.DataFrame, **where: object) -> str:
    """What the same patch restores in a subspace of permuted members, of random directions, and of PCA."""
    parts = []
    for which, said in (("permuted", "members permuted"), ("random", "random directions"), ("pca", "PCA")):
        row = patched(table, which, **where)
        if row is not None:
            parts.append(f"{said} {share(row['value'])}")
            if row["draws"] > 1:
                parts[-1] += f" ({span(row, 'draws_low', 'draws_high')} in {row['draws']:.0f})"
    return ", ".join(parts)


def beyond(table: pd.DataFrame, row: pd.Series, **where: object) -> bool:
    """Whether the fitted subspace restores something, and more than any of the permuted ones."""
    drawn = patched(table, "permuted", **where)
    return bool(drawn is not None and row["ci_low"] > 0 and row["value"] > drawn["draws_high"])


def plane_patch(results: Results) -> Finding:
    """What exchanging members within the fitted plane does to the answer, of each cyclic task."""
    table = rows(results.read(PATCHES), shape="circle")
    tasks = [task for task in table["task"].unique() if patched(table, "fitted", task=task) is not None]
    if not tasks:
        return cannot("no main task has a cyclic class whose members and answers are one token")
    parts, control, passed = [], [], []
    for task in tasks:
        row = patched(table, "fitted", task=task)
        assert row is not None
        passed.append(beyond(table, row, task=task))
        parts.append(f"{words(task)} {interval(row, 0, 100)} % after layer {row['point']} ({p_value(row['p'])})")
        control.append(f"{words(task)}: {beside(table, task=task)}")
    return by(all(passed), listing(parts), joined(control))


def helix(results: Results) -> Finding:
    """R2 of held-out numerals by the helix, against orders and periods at random."""
    table = results.read(SHAPES)
    own = rows(table, **{"class": "numerals", "at": "member", "shape": "helix"})
    if own.empty:
        return cannot(too_few(table))
    orders, periods = (rows(own, null=f"random {what}") for what in ("orders", "periods"))
    both = set(orders.loc[sure(orders), "point"]) & set(periods.loc[sure(periods), "point"])
    chosen = periods[periods["point"].isin(both)] if both else periods
    best = chosen.loc[chosen["value"].idxmax()]
    same = rows(orders, point=best["point"]).iloc[0]
    said = f"R2 {number(best['value'], 2)} after layer {best['point']}, of {best['members']} numerals "
    said += f"(random periods: {corrected(best)}; random orders: {corrected(same)})"
    control = (
        f"random periods {span(best, 'null_low', 'null_high')}, random orders {span(same, 'null_low', 'null_high')}"
    )
    return by(bool(both), said, f"{control}; as many principal components {number(best['bound'], 2)}")


def too_few(table: pd.DataFrame) -> str:
    """Why numerals have no helix."""
    held = rows(table, **{"class": "numerals"})
    if held.empty:
        return "numerals are not among the classes, or fewer than four are one token"
    return f"{held['members'].max()} numerals are one token in this tokenizer; a helix of 9 numbers needs 20"


def helix_patch(results: Results) -> Finding:
    """What the fitted helix alone restores of the answer."""
    table = rows(results.read(PATCHES), **{"class": "numerals", "shape": "helix"})
    row = patched(table, "fitted") if len(table) else None
    if row is None:
        return cannot(too_few(results.read(SHAPES)) if results.has(SHAPES) else "no helix was fitted to numerals")
    said = f"{interval(row, 0, 100)} % of what exchanging the tokens does, after layer {row['point']}"
    said += f" ({p_value(row['p'])})"
    return by(beyond(table, row) and row["value"] >= HALF, said, beside(table))


def displacement(results: Results) -> Finding:
    """Cosine of steps of numerals and number words, and whether one moves the other."""
    table = results.read("geometry/displacements")
    pair = ["numerals", "number_words"]
    own = table[table["class"].isin(pair) & table["other"].isin(pair) & (table["class"] != table["other"])]
    cosine, transfer = (rows(own, measure=name) for name in ("cosine", "transfer"))
    if cosine.empty:
        return cannot("numerals and number words are not both among the classes of this model")
    best = most_sure(cosine)
    said = (
        f"cosine {number(best['value'], 2)} after layer {best['point']} ({corrected(best)}, {best['steps']:.0f} steps)"
    )
    control = f"other pairs of steps {number(best['unmatched'], 2)}; permuted {span(best, 'null_low', 'null_high')}"
    if len(transfer):
        moved = most_sure(transfer)
        said += f"; moves {share(moved['value'])} of members to the next ({corrected(moved)})"
        control += f"; without a displacement {share(moved['unmoved'])}"
    return by(bool(sure(cosine).any()), said, control)


def mod_10(results: Results) -> Finding:
    """Accuracy of the index modulo 10, of a probe on classes never trained on."""
    table = rows(results.read("geometry/probes"), label="mod 10", trained_on="other classes", metric="accuracy")
    own, every = rows(table, tested_on="beyond ten"), rows(table, tested_on="all")
    said = control = ""
    if len(every):
        best = most_sure(every)
        said = f"all members {interval(best, 0, 100)} % after layer {best['point']} ({corrected(best)})"
        control = f"chance {share(best['chance'])}, labels shuffled up to {share(best['null_high'])}"
    if own.empty:
        return cannot(
            "no class left out has members beyond ten, where the index modulo 10 is not the index", said, control
        )
    best = most_sure(own)
    said = joined(
        [f"members beyond ten {interval(best, 0, 100)} % after layer {best['point']} ({corrected(best)})", said]
    )
    control = joined([f"beyond ten: labels shuffled up to {share(best['null_high'])}", control])
    return by(best["p_holm"] < ALPHA and best["value"] > best["chance"], said, control)


ORDERED = (
    "Residuals are means over a few short contexts of ours, and fits leave a member out; the published ones are of "
    "features that an autoencoder found in larger models."
)

ITEMS = (
    Item(
        title="The index modulo 10 is a feature that classes share",
        claim="Representations of members have features of the index modulo 10, common to numbers, number words and "
        "months.",
        source=f"Gould et al., {GOULD}",
        measure="a linear probe for the index modulo 10, trained on the residuals of all classes but one and tested "
        "on that one; chance and probes on shuffled labels beside it. Of members up to ten it cannot be told from "
        "the index, so those beyond ten decide.",
        rule="on members beyond ten the accuracy is above chance and shuffled labels, p < 0.05 after Holm over the "
        "layers.",
        tables=("geometry/probes",),
        difference="A tokenizer that splits numbers leaves few members beyond ten (number words alone), so the probe "
        "has little to learn and to be tested on. The published probes are of MLP 0's output.",
        find=mod_10,
    ),
    *(
        Item(
            title=f"{kind.capitalize()} lie on a circle",
            claim=f"{kind.capitalize()} are represented on a circle, in their order.",
            source=ENGELS,
            measure="held-out members read off a plane fitted to the others (mean cosine of the error in angle), and "
            "whether the ends meet: correlation of distances with steps around, less that with steps along.",
            rule="at some layer both are beyond members in random order (p < 0.05 after Holm over layers); an arc or "
            "a line alone is no circle.",
            tables=(SHAPES,),
            difference=f"{ORDERED} Of few members an open arc and a circle are hard to tell apart.",
            find=circle_of(kind),
        )
        for kind in ("days", "months")
    ),
    Item(
        title="Patching within the plane of the circle moves the answer",
        claim="Changing a representation within the plane of its circle changes the answer as it should.",
        source=ENGELS,
        measure="members exchanged within the fitted plane alone; the share of what exchanging the tokens does to the "
        "logit difference of the two answers.",
        rule="of every cyclic task the interval is above 0 and the share above that of every plane fitted to permuted "
        "members.",
        tables=(PATCHES,),
        difference="The published patch is on modular addition in models of 7 billion parameters and more; here it is "
        "on going on with a sequence. A plane of principal components holds much of what tells members apart, in any "
        "order.",
        find=plane_patch,
    ),
    Item(
        title="Numbers lie on a helix of periods 2, 5, 10 and 100",
        claim="Numbers are represented as a line with circles of periods 2, 5, 10 and 100.",
        source=HELIX,
        measure="R2 of held-out numerals' residuals by the index with cosines and sines of these periods, against as "
        "many random periods, members in random order, and as many principal components.",
        rule="at some layer beyond random periods and beyond random orders (p < 0.05 after Holm over layers).",
        tables=(SHAPES,),
        difference="The published fit is to 0 to 99 in models that add; a model that only counts needs no digits. "
        "Spectra with such peaks come from the frequencies of tokens alone (arXiv 2604.20817), so the test is "
        "against other periods.",
        find=helix,
    ),
    Item(
        title="The helix alone restores the answer",
        claim="Patching the fitted helix alone does nearly what patching the whole residual does.",
        source=HELIX,
        measure="numerals exchanged within the fitted subspace alone, as a share of what exchanging the tokens does; "
        "permuted members, random directions and principal components of as many dimensions beside it.",
        rule="at least half, with an interval above 0, and more than every subspace fitted to permuted members.",
        tables=(PATCHES,),
        difference="Nine dimensions hold much of what tells a hundred numerals apart whatever they are fitted to; "
        "beside permuted members and principal components the share says little by itself.",
        find=helix_patch,
    ),
    Item(
        title="A step is the same in two classes",
        claim="The step from 3 to 4 points where that from three to four does, as word vectors' analogies would have "
        "it.",
        source="arXiv 1301.3781; for successor heads arXiv 2312.09230",
        measure="cosine of displacements of numerals and of number words, matched by index, with other pairs of steps "
        "beside it; and whether a numeral's displacement moves a number word to its next one.",
        rule="at some layer the matched cosine is beyond permuted members, p < 0.05 after Holm over layers.",
        tables=("geometry/displacements",),
        difference="What two classes have in common may be an index that is read without a common direction of a "
        "step; displacements of single members are small beside what tells tokens apart.",
        find=displacement,
    ),
)
