"""Features of a sparse autoencoder: how good it is, on which members they fire, what heads and answers lose by them."""

from typing import Any

import pandas as pd

from atlas.core.multiple import ALPHA
from atlas.report.pages import Section
from atlas.report.sections.study import Study, cell, led, span
from atlas.report.wording import count, interval, listing, number, p_value, percent, words

TITLE = "Features"
LABELS = ("member", "class", "mixed", "none")  # of `geometry.feature_members`, which needs what pages do not


def place_of(hook: str) -> str:
    """`the residual stream after layer 0`, from `blocks.0.hook_resid_post`."""
    layer, kind = hook.split(".")[1], hook.rpartition("hook_")[2]
    return f"the residual stream after layer {layer}" if kind == "resid_post" else f"what MLP {layer} writes"


def headline(quality: pd.DataFrame, heads: pd.DataFrame) -> str:
    """What the autoencoder keeps, and in how many heads and classes own features are needed."""
    row = quality.iloc[0]
    tests = heads[heads["edit"] == "ablate"]
    sure = tests[(tests["p_holm"] < ALPHA) & (tests["value"] > 0)]
    said = (
        f"A sparse autoencoder of {place_of(row['hook'])} ({row['features']:.0f} features, {row['l0']:.3g} active on "
        f"a token) explains {number(100 * row['explained'], 1)} % of the variance of held-out tokens and recovers "
        f"{percent(kl(row), 100)} of the loss"
    )
    if tests.empty:
        return f"{said}; no class has enough own features to look for heads that read them."
    where = f"{len(sure)} of {count(len(tests), 'pair')} of successor head and class"
    return (
        f"{said}; taking a member's own feature from what a successor head reads costs the next member more than "
        f"random features do in {where}."
    )


def kl(row: pd.Series) -> dict[str, Any]:
    """The share of loss recovered as a row of an interval."""
    return {"value": row["kl_recovered"], "ci_low": row["ci_low"], "ci_high": row["ci_high"]}


def of_quality(quality: pd.DataFrame) -> str:
    """What loss is, dead features, zeros in place of the mean, and the autoencoders beside it."""
    row, seed = quality.iloc[0], quality.iloc[0]["seed"]
    origin = f"trained here on {row['tokens']:.0f} tokens, seed {seed:.0f}" if seed == seed else "loaded"
    said = (
        f"It was {origin}; {row['dead']:.0f} of its features fire on none of {row['held_out']:.0f} held-out tokens. "
        f"Loss is the divergence of the next token on {count(row['texts'], 'held-out text')}, {number(row['kl'], 3)} "
        f"nats with reconstructions, {number(row['kl_mean'], 2)} with the mean activation (of which the share is) and "
        f"{number(row['kl_zero'], 2)} with zeros ({number(100 * row['kl_recovered_zero'], 1)} % recovered beside these)"
    )
    if len(quality) == 1:
        return f"{said}."
    other, start = (cell(quality, autoencoder=name) for name in ("another seed", "untrained"))
    assert other is not None and start is not None
    return (
        f"{said}. Another seed's explains {number(100 * other['explained'], 1)} %; its nearest direction has a cosine "
        f"of {number(row['agreement'], 2)} in the mean, above 0.9 for {number(100 * row['agreement_90'], 0)} % of "
        f"features (random directions of the same covariance {number(row['agreement_null'], 2)}). Both start from "
        f"activations of tokens, and that start alone agrees to {number(start['agreement'], 2)} and recovers "
        f"{percent(kl(start), 100)} of the loss."
    )


def of_members(members: pd.DataFrame, tests: pd.DataFrame) -> str:
    """How members and their own features correspond, class by class, beside shuffled members."""
    parts = []
    for name, own in members.groupby("class", sort=False):
        test = tests[(tests["test"] == "own feature") & (tests["class"] == name)].iloc[0]
        labels = own["label"].value_counts()
        held = listing(f"{labels[label]} {label}" for label in LABELS if label in labels)
        parts.append(
            f"{words(str(name))} F1 {number(test['value'], 2)} (shuffled members {number(test['null_mean'], 2)}, "
            f"{p_value(test['p_holm'])} corrected; {held})"
        )
    return (
        "Own features of members, chosen on the tokens trained on and measured on others, by what at least half of the "
        f"tokens are on which they fire: {'; '.join(parts)}."
    )


def of_indices(indices: pd.DataFrame, tests: pd.DataFrame) -> str:
    """Features of an index across classes, or that there are none."""
    parts = []
    for test in tests[tests["test"] != "own feature"].to_dict("records"):
        period = int(test["test"].rpartition(" ")[2])
        rows = indices[indices["period"] == period]
        said = f"{test['test']}: "
        if rows.empty:
            said += f"none (strongest {number(test['value'], 2)}, permuted members up to {number(test['null_high'], 2)}"
            parts.append(f"{said}, {p_value(test['p'])})")
            continue
        top = rows.iloc[0]
        parts.append(
            f"{said}{count(len(rows), 'feature')}, strongest {top['feature']} for {top['residue']} "
            f"({top['members']}; {number(top['value'], 2)}, permuted members up to {number(test['null_high'], 2)})"
        )
    return f"Features that fire on members of one index across classes, by permuted members: {'; '.join(parts)}."


def of_heads(heads: pd.DataFrame, edit: str) -> list[str]:
    """What one edit does in heads: those beyond random features, the largest, the error alone, and the others."""
    rows = heads[heads["edit"] == edit]
    if rows.empty:
        return []
    sure = rows[(rows["p_holm"] < ALPHA) & (rows["value"] > 0)]
    top = (sure if len(sure) else rows).sort_values("value", ascending=False, kind="stable").iloc[0]
    name = f"head {top['layer']}.{top['head']}{', in a circuit,' if top['in_circuit'] else ''} on {words(top['class'])}"
    random = f"random features of equal norm {number(top['random'], 2)}, up to {number(top['random_high'], 2)}"
    tested = f"{p_value(top['p_holm'])} corrected for {top['tests']:.0f} tests"
    if edit == "ablate":
        verb = "Ablating a member's own feature"
        said = f"loses {interval(top, 2)} of {number(top['reconstruction'], 2)} logits of advantage of the next member"
        error = (rows["untouched"] - rows["reconstruction"]).abs()
        rest = f" The reconstruction alone changes the advantage by {span(error.tolist())} logits."
    else:
        verb = "Putting another member's own feature in its place"
        said = f"moves {interval(top, 2)} logits from the next member to the other's next"
        moved = f"{number(100 * rows['moved'].min(), 0)} to {number(100 * rows['moved'].max(), 0)} %"
        rest = f" The other's next then leads its class for {moved} of members."
    return [
        f"{verb} is beyond random features in {len(sure)} of {count(len(rows), 'pair')} of head and class; most, "
        f"{name} {said} ({random}; {tested}).{rest}"
    ]


def of_answers(effects: pd.DataFrame) -> list[str]:
    """Task by task, what own features at the last member cost the answer in the whole model, and what a swap does."""
    sentences = []
    for task, own in effects.groupby("task", sort=False):
        rows = {row["edit"]: row for row in own.to_dict("records")}
        feature, random, beyond = (rows[name] for name in ("own feature", "random features", "beyond random"))
        swap, swapped = rows["swap"], rows["swap beyond random"]
        more = beyond["p_holm"] < ALPHA
        sentences.append(
            f"{words(str(task)).capitalize()}: without the own feature of the last member the logit difference of "
            f"{number(feature['full'], 2)} falls by {interval(feature, 2)} beside the reconstruction, without a random "
            f"one of equal norm by {interval(random, 2)}, so the own feature {'is' if more else 'is not'} surely "
            f"needed beyond random ones ({interval(beyond, 2)}, {p_value(beyond['p_holm'])} corrected for "
            f"{beyond['tests']:.0f} tests; {count(feature['prompts'], 'prompt')}); the reconstruction alone costs "
            f"{interval(rows['reconstruction'], 2)}. Another member's in its place moves "
            f"{interval(swap, 2)} logits to that one's next member, {interval(swapped, 2)} more than a random feature "
            f"({p_value(swapped['p_holm'])} corrected), which then leads on {number(100 * swap['moved'], 0)} % of "
            "prompts."
        )
    return sentences


def findings(tables: dict[str, Any]) -> list[str]:
    """All sentences; the first stands in the short version."""
    quality, heads, tests = tables["features"], tables["feature_heads"], tables["feature_tests"]
    said = [headline(quality, heads), of_quality(quality), of_members(tables["feature_members"], tests)]
    said += [of_indices(tables["feature_indices"], tests), *of_heads(heads, "ablate"), *of_heads(heads, "swap")]
    return said + of_answers(tables["feature_effects"])


def section(study: Study) -> Section:
    """Features, where the study makes them; empty where it does not."""
    quality = study.tables.get("features")
    if quality is None or quality.empty:
        return Section(title=TITLE)
    return Section(
        title=TITLE,
        anchor="features",
        **led(findings(study.tables)),
        note="Random features are drawn among those of nearest activity and have the norm of what they stand for. "
        "Intervals of heads are over members, those of answers over held-out prompts; of answers the test flips the "
        "signs of prompts. None of them says how far another autoencoder's features would differ. p-values are "
        "corrected by Holm's method.",
    )
