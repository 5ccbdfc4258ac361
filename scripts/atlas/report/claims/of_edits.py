"""Claims about what changes a model's next member: features, steering, and sums of months."""

from __future__ import annotations

import re

from atlas.report.claims.item import Finding, Item, by, cannot, corrected, joined, share, sure
from atlas.report.findings.reading import Results, rows
from atlas.report.wording import count, interval, listing, number, p_value, words

FEATURES, HEADS, TESTS = "geometry/features", "geometry/feature_heads", "geometry/feature_tests"
STEERING, WRITTEN = "geometry/steering", "generation/prompts"
GOULD = "Gould et al., arXiv 2312.09230"
SUM = re.compile(r"\b(?:[2-9]|1[01]|two|three|four|five|six|seven|eight|nine|ten|eleven) months\b", re.IGNORECASE)
HALF = 0.5


# ---- features ------------------------------------------------------------------------------------------------
def quality(results: Results) -> str:
    """How well the autoencoder that is reported stands in for what it reads."""
    table = results.read(FEATURES)
    own = table[table["autoencoder"].isin(["reported", "loaded"])]
    if own.empty:
        return ""
    row = own.iloc[0]
    return f"autoencoder of {row['hook']}: {share(row['kl_recovered'])} of KL recovered, L0 {number(row['l0'], 0)}"


def feature_of_index(results: Results) -> Finding:
    """Features that hold an index modulo 10 in several classes."""
    own = rows(results.read(TESTS), test="index modulo 10")
    if own.empty or own["value"].isna().all():
        return cannot("no class has members enough for an index modulo 10", "", quality(results))
    row = own.iloc[0]
    said = f"{count(row['features'], 'feature')}; strongest lead {number(row['value'], 2)} ({corrected(row)})"
    null = f"indices shuffled: {number(row['null_mean'], 2)}, up to {number(row['null_high'], 2)}"
    return by(bool(sure(own).any()) and row["features"] > 0, said, joined([null, quality(results)]))


def feature_ablated(results: Results) -> Finding:
    """Whether ablating a member's own feature takes the next member's advantage in what a head writes."""
    own = rows(results.read(HEADS), edit="ablate")
    if own.empty:
        return cannot("no head was tested: none is a successor head, or no member has a feature of its own")
    held = own[sure(own) & (own["value"] > own["random"])]
    top = (held if len(held) else own).sort_values("value", ascending=False, kind="stable").iloc[0]
    said = f"{len(held)} of {len(own)} heads and classes; largest {top['layer']}.{top['head']}, {words(top['class'])}: "
    said += f"{interval(top, 2)} of an advantage of {number(top['untouched'], 2)} logits ({corrected(top)})"
    control = f"random features of equal activity {number(top['random'], 2)}; reconstruction alone leaves "
    control += f"{number(top['reconstruction'], 2)}"
    return by(len(held) > 0, said, joined([control, quality(results)]))


# ---- steering ------------------------------------------------------------------------------------------------
def steered(results: Results) -> Finding:
    """Whether adding a difference of means puts the other class's next member on top."""
    table = results.read(STEERING)
    own = rows(table, method="difference of means", chosen=True, split="held_out", metric="top1")
    own = own[own["draws"] > 0]
    if own.empty:
        return cannot("no two classes share prompts that could be steered")
    passed = sure(own) & (own["value"] > own[["random_hi", "shuffled_hi"]].max(axis=1))
    parts, control = [], []
    for row in own.to_dict("records"):
        name = f"{words(row['source'])} to {words(row['target'])}"
        parts.append(f"{name} {interval(row, 0, 100)} % ({p_value(row['p_holm'])} after Holm)")
        before = rows(table, method="unsteered", metric="top1", source=row["source"], target=row["target"])
        without = f", unsteered {share(before['value'].iloc[0])}" if len(before) else ""
        mixed = f", labels shuffled up to {share(row['shuffled_hi'])}"
        control.append(f"{name}: random directions up to {share(row['random_hi'])}{mixed}{without}")
    said = f"{int(passed.sum())} of {len(own)} pairs: {listing(parts)}"
    return by(bool(2 * passed.sum() >= len(own)), said, joined(control))


# ---- sums of months ------------------------------------------------------------------------------------------
def sums_of_months(results: Results) -> Finding:
    """Whether the model adds months at all; how it does is beyond these tables."""
    table = results.read(WRITTEN)
    asked = table[table["text"].map(lambda text: bool(SUM.search(text))) & (table["status"] != "rejected")]
    if asked.empty:
        return cannot("no text of the study asks for a sum of months")
    right = int((asked["status"] == "used").sum())
    said = f"right on {right} of {count(len(asked), 'text')} that ask for a month some months on"
    if right < HALF * len(asked):
        return cannot("the model does not add months, so there is no way in which it does", said)
    return cannot("the study has no patch of the sum before it is taken around the year", said)


ITEMS = (
    Item(
        title="Features of an autoencoder hold the index modulo 10",
        claim="A sparse autoencoder finds features of the index modulo 10 in what successor heads read.",
        source=GOULD,
        measure="features that lead by an index modulo 10 in several classes at once, against indices shuffled within "
        "classes; how much of the model's predictions the reconstruction keeps stands beside it.",
        rule="some feature is beyond shuffled indices, p < 0.05 after Holm over the periods tried.",
        tables=(TESTS, FEATURES),
        difference="Our autoencoders are small and see the study's own texts; what a dictionary finds depends on its "
        "size, seed and text. With ten numerals in one token each, an index modulo 10 is the numeral itself.",
        find=feature_of_index,
    ),
    Item(
        title="Features feed successor heads",
        claim="Taking away a feature of a member takes away what the head writes of the next one.",
        source=GOULD,
        measure="the advantage of the next member's logit in what a head writes, less the same with the member's own "
        "feature ablated; random features of equal activity and reconstruction alone beside it.",
        rule="at least one head and class loses more than with random features, p < 0.05 after Holm.",
        tables=(HEADS, FEATURES),
        difference="Where reconstruction alone takes much of the advantage, what a feature takes of the rest says "
        "little.",
        find=feature_ablated,
    ),
    Item(
        title="One class can be steered into another",
        claim="Adding a direction to the residual stream makes a model go on in another class, or with another index.",
        source="activation addition: arXiv 2308.10248; within successor heads: arXiv 2312.09230",
        measure="share of held-out prompts whose first choice becomes the other class's next member, when the "
        "difference of the classes' means is added at a layer and with a coefficient chosen on other prompts.",
        rule="in at least half of the pairs of classes the share is above that of every direction of equal norm, "
        "random or of shuffled labels, p < 0.05 after Holm over the pairs.",
        tables=(STEERING,),
        difference="Published examples steer topic and tone, where many words will do; here one token must come "
        "first, so the class may change while the place is lost.",
        find=steered,
    ),
    Item(
        title="Months are added as numbers are, in base 10",
        claim="A model that says which month comes six months after August adds numbers in base 10, not around a "
        "circle of twelve.",
        source="Feucht et al., arXiv 2605.01148",
        measure="whether the model gets such sums right in the study's texts at all; without that nothing can be "
        "asked about how.",
        rule="none: the claim is of a model of 8 billion parameters, and is tested there by patches that no study "
        "here makes.",
        tables=(WRITTEN,),
        difference="Models of 135 to 270 million parameters seldom do arithmetic in words.",
        find=sums_of_months,
    ),
)
