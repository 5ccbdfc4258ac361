"""Claims about heads that take members to the next one."""

from __future__ import annotations

import pandas as pd

from atlas.core.multiple import ALPHA, holm
from atlas.report.claims.item import Finding, Item, by, cannot, joined, share, sure
from atlas.report.findings import claims as findings
from atlas.report.findings.reading import Results, rows
from atlas.report.sections.successors import best_of, name_of, score_at
from atlas.report.wording import listing, p_value, place, words

TABLE = "geometry/successors"
GOULD = "Gould et al., arXiv 2312.09230"
NO_HEAD = "no head is sure to take members of any class to the next one"


def best_sure(table: pd.DataFrame) -> pd.DataFrame:
    """The best head of each class in which that head is sure (`sections.successors.best_of`)."""
    best = best_of(table)
    return best[sure(best)] if len(best) else best


def exist(results: Results) -> Finding:
    """Classes in which some head is sure, and the best of each."""
    table = results.read(TABLE)
    best = best_of(table)
    if best.empty:
        return cannot("no class has enough members of one token")
    held = best[sure(best)]
    shown = held if len(held) else best.nlargest(1, "value")
    parts = [f"{words(row['class'])} {name_of(row)} ({share(row['value'])})" for row in shown.to_dict("records")]
    said = f"{len(held)} of {len(best)} classes; {'best' if len(held) else 'highest'}: {listing(parts)}"
    random = [
        f"{words(row['class'])} {share(row['random_median'])}, up to {share(row['random_hi'])}"
        for row in shown.to_dict("records")
    ]
    p = f"largest p of these {p_value(shown['p_holm'].max(), '')} after Holm over {int(shown['tests'].iloc[0])} heads"
    return by(2 * len(held) >= len(best), said, joined([f"random heads: {listing(random)}", p]))


def need_mlp_0(results: Results) -> Finding:
    """The sure heads' scores without MLP 0."""
    table = results.read(TABLE)
    held = best_sure(table).to_dict("records")
    if not held:
        return cannot(NO_HEAD)
    parts, control, falls = [], [], 0
    for row in held:
        without = score_at(table, row["class"], "without_mlp0", row["layer"], row["head"])
        falls += without < row["value"]
        parts.append(f"{words(row['class'])} {name_of(row)} (from {share(row['value'])} to {share(without)})")
        control.append(f"{words(row['class'])} {share(score_at(table, row['class'], 'mlp0', -1, -1))}")
    said = f"falls in {falls} of {len(held)} classes: {listing(parts)}"
    return by(2 * falls > len(held), said, f"MLP 0 without a head: {listing(control)}")


def one_for_several(results: Results) -> Finding:
    """Heads that are sure in several classes."""
    table = results.read(TABLE)
    own = table[(table["input"] == "mlp0") & (table["target"] == "next") & (table["head"] >= 0)]
    held = own[sure(own)]
    if held.empty:
        return cannot(NO_HEAD)
    names = held["layer"].astype(str) + "." + held["head"].astype(str)
    classes = held.groupby(names)["class"].agg(list)
    several = [name for name in sorted(classes.index, key=place) if len(classes[name]) > 1]
    most = max(map(len, classes))
    parts = [f"{name} ({listing(map(words, classes[name]))})" for name in several] or ["none"]
    chance = own["class"].nunique() * ALPHA
    return by(
        most > 1,
        f"{len(several)} of {len(classes)} sure heads: {listing(parts)}",
        f"by chance some head is sure in {chance:.2g} of {own['class'].nunique()} classes, in the mean, at most",
    )


def greater(results: Results) -> Finding:
    """Whether the sure successor heads raise later members above earlier ones."""
    table = results.read(TABLE)
    held = best_sure(table)
    if held.empty:
        return cannot(NO_HEAD)
    found = []
    for row in held.to_dict("records"):
        of = rows(table, **{"class": row["class"], "target": "greater", "input": "mlp0"})
        found.append(rows(of, layer=row["layer"], head=row["head"]).assign(name=name_of(row)))
    own = pd.concat(found)
    if own.empty:
        return cannot("no class has members with enough others on both sides")
    tests = holm(own["p"])
    biased = int((tests < ALPHA).sum())
    parts = [
        f"{words(row['class'])} {row['name']} {share(row['value'])} ({p_value(p)} after Holm)"
        for row, p in zip(own.to_dict("records"), tests, strict=True)
    ]
    random = [f"{words(row['class'])} up to {share(row['random_hi'])}" for row in own.to_dict("records")]
    control = f"chance 50 %; random heads {listing(random)}"
    return by(2 * biased > len(own), f"{biased} of {len(own)} classes: {listing(parts)}", control)


def shared(results: Results) -> Finding:
    """`findings.claims.shared_circuit`, by its own rule."""
    found = findings.shared_circuit(results)
    if found.verdict == findings.UNTESTED:
        return cannot(found.effect if not found.control else "the random sets can decide nothing", "", found.control)
    return by(found.verdict == findings.HOLDS, found.effect, found.control)


MEASURED = (
    "the path embedding, MLP 0, a head's values and output, final norm, unembedding, of weights alone, among the "
    "members of a class that are one token each; the share of members whose next one comes out on top"
)

ITEMS = (
    Item(
        title="Successor heads exist, for several kinds of order",
        claim="Attention heads increment tokens with a natural order (numbers, months, days, letters), in models from "
        "31 million to 12 billion parameters.",
        source=GOULD,
        measure=f"{MEASURED}. Null: the model's heads turned at random.",
        rule="some head is beyond random heads (p < 0.05 after Holm over all heads) in at least half of the classes.",
        tables=(TABLE,),
        difference="Published scores are of the best head over all spellings of a token; ours of one spelling, each "
        "class by itself, corrected for all heads tried. A tokenizer that splits numbers leaves ten numerals, of "
        "which a head must take most before it can be told from random ones. A model may do the task in context by "
        "heads that read what other heads prepared, which weights alone do not show.",
        find=exist,
    ),
    Item(
        title="Successor heads need MLP 0",
        claim="The heads increment what the first MLP makes of the embedding, not the embedding itself.",
        source=GOULD,
        measure="the score of the best sure head of each class with MLP 0 and without it; beside it MLP 0 with no "
        "head.",
        rule="without MLP 0 the score falls in more than half of the classes that have a sure head.",
        tables=(TABLE,),
        difference="Here heads read the embedding with what MLP 0 adds, as they do in a model whose layers stand one "
        "after another; a model whose attention and MLP run side by side was the published case. Where embedding and "
        "unembedding are not tied, the embedding itself may already be what a head needs.",
        find=need_mlp_0,
    ),
    Item(
        title="One head serves several classes",
        claim="The same head increments numbers, months, days and letters.",
        source=GOULD,
        measure="heads that are sure (as in the first item) for more than one class.",
        rule="at least one head is sure for two classes or more.",
        tables=(TABLE,),
        difference="Small models may have a head for each class, or none that is sure; classes of few members cannot "
        "be sure unless nearly all of them succeed.",
        find=one_for_several,
    ),
    Item(
        title="Successor heads favour later members",
        claim="Successor heads have a greater-than bias: members after the one read get larger logits than those "
        "before.",
        source=GOULD,
        measure="share of members for which the mean logit of members two or more places later is above that of "
        "earlier ones, each member's logit less its mean over the members read, of the best sure head of each class.",
        rule="the share is beyond random heads (p < 0.05 after Holm over these classes) in more than half of the "
        "classes that have a sure head.",
        tables=(TABLE,),
        difference="The next member is left out here, and so is what a head writes whatever it reads: of both the "
        "published bias may be made in part. Few members give few shares that a test can tell apart.",
        find=greater,
    ),
    Item(
        title="Numerals, number words and months share a sub-circuit",
        claim="Circuits for going on with numerals, number words and months share heads that all three need.",
        source="arXiv 2311.04131",
        measure="heads in the cores of all three tasks (what 90 % of their searches keep), against as many heads "
        "drawn in the same layers; and what is left of each task without the shared heads, against random sets.",
        rule="more shared heads than by chance, and less left of every task than without random heads, after Holm.",
        tables=("comparison/circuits.json", "comparison/consensus.json"),
        difference="The published circuits are of one search in GPT-2 small; cores are what searches agree on. "
        "Nothing can be shared where cores are small, and in a model of few heads much is shared by chance.",
        find=shared,
    ),
)
