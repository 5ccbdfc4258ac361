"""Whether one vector, or outputs of the circuits' heads, turn one sequence into another, and what else they do."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from atlas.core.multiple import ALPHA
from atlas.report.pages import Section
from atlas.report.sections.study import Study, cell, led
from atlas.report.wording import count, interval, listing, number, p_of_tests, percent, words

MEANS, HELD_OUT, HALF = "difference of means", "held_out", 0.5
RANDOM = {MEANS: "random direction", "circuit swap": "random head set"}


def findings(steering: pd.DataFrame, effects: pd.DataFrame) -> list[str]:
    """What steering does, over all pairs, then pair by pair, with random directions and heads beside it."""
    chosen = steering[steering["chosen"] & (steering["split"] == HELD_OUT)]
    pairs = list(dict.fromkeys(zip(chosen["source"], chosen["target"], strict=True)))
    if not pairs:
        return ["Nothing was steered: no two sequences of the study have matched members of one token."]
    done = {metric: chosen[chosen["metric"] == metric] for metric in ("class_top1", "top1")}
    parts = [f"the target's next member in {_above(done['top1'])}"]
    if len(done["class_top1"]):
        parts.insert(0, f"some member of the target's class in {_above(done['class_top1'])}")
    first = (
        "Adding one vector, a difference of means, at the last position of held-out prompts puts on top, more often "
        f"than random directions of equal norm do (p < {ALPHA}, corrected), {listing(parts)}"
    )
    swaps = steering[(steering["method"] == "circuit swap") & (steering["metric"] == "top1")]
    if len(swaps):
        first += "; outputs of the circuits' heads, taken from the target's prompts, put the next member on top more "
        first += f"often than those of random heads in {_above(swaps)}"
    sentences = [f"{first}."]
    for source, target in pairs:
        own, other = (t[(t["source"] == source) & (t["target"] == target)] for t in (steering, effects))
        sentences += [_pair(source, target, own), *_beside(other)]
    return sentences


def _above(rows: pd.DataFrame) -> str:
    """`3 of 4 pairs (0.0 to 100.0 % of the prompts)`: in how many more often than random ones, and how often."""
    sure = int((rows["p_holm"] < ALPHA).sum())
    low, high = (number(100 * rows["value"].agg(end), 1) for end in ("min", "max"))
    shares = f"{low} %" if low == high else f"{low} to {high} %"
    return f"{sure} of {count(len(rows), 'pair')} ({shares} of the prompts)"


def _beat(row: Mapping[str, Any]) -> str:
    """`100.0 % [..] of the prompts (random directions 0.0 % in the mean, 0.0 % at most; p = ..)`."""
    text = f"{percent(row, 100)} of the prompts"
    if not row["draws"]:
        return text
    noun = RANDOM[row["method"]]
    mean, most = (number(100 * row[key], 1) for key in ("random_mean", "random_hi"))
    tested = p_of_tests(row, row["draws"], noun=noun)
    return f"{text} ({noun}s {mean} % in the mean and {most} % at most; {tested})"


def _pair(source: str, target: str, own: pd.DataFrame) -> str:
    """One pair: its vector, its swaps, and the model on the target's prompts themselves."""
    held_out = own[own["split"] == HELD_OUT]
    vector = held_out[(held_out["method"] == MEANS) & held_out["chosen"]]
    top, whole = cell(vector, metric="top1"), cell(vector, metric="class_top1")
    assert top is not None
    where = f"at layer {top['layer']}, times {top['coefficient']:g} (chosen on the prompts searched on)"
    text = f"{words(source).capitalize()} to {words(target)}, {count(top['prompts'], 'held-out prompt')}: "
    text += f"{where}, the vector puts"
    text += f" the target's class on top on {_beat(whole)} and" if whole is not None else ""
    text += f" the right member on {_beat(top)}"
    shuffled = (whole if whole is not None else top)["shuffled_hi"]
    text += f"; vectors of equal norm with classes shuffled reach {number(100 * shuffled, 1)} % at most"
    swapped = cell(held_out, method="circuit swap", metric="top1")
    if swapped is not None:
        text += f". Outputs of {count(swapped['heads'], 'head')} of the circuits, taken from the target's prompts, "
        text += f"put the right member on top on {_beat(swapped)}"
    everything = cell(held_out, method="all heads swap", metric="top1")
    residual = cell(held_out, method="residual swap", metric="top1")
    more = [f"those of all heads on {percent(everything, 100)}"] if everything is not None else []
    more += [f"the whole residual there on {percent(residual, 100)}"] if residual is not None else []
    text += f"; {listing(more)}" if more else ""
    itself = cell(held_out, method="target prompts", metric="top1")
    if itself is not None:
        does = (
            "The model is right" if itself["value"] >= HALF else "The model itself hardly does the target: it is right"
        )
        text += f". {does} on {percent(itself, 100)} of the target's own prompts"
    return f"{text}."


def _beside(effects: pd.DataFrame) -> list[str]:
    """What the chosen vector does to unrelated text."""
    parts = []
    for name, rows in effects[effects["chosen"]].groupby("text", sort=False):
        kl, loss = cell(rows, metric="kl"), cell(rows, metric="loss_change")
        if kl is not None and loss is not None:
            parts.append(
                f"{words(name)} moves by {interval(kl, 3)} nats (KL; random directions {number(kl['random_mean'], 3)} "
                f"in the mean, {number(kl['random_hi'], 3)} at most), its loss by {interval(loss, 3)}"
            )
    return [f"Under the same vector the next token of {'; of '.join(parts)}."] if parts else []


def table(samples: pd.DataFrame) -> dict[str, Any] | None:
    """What the model writes, unsteered and steered."""
    rows = []
    for r in samples.to_dict("records"):
        texts = [r[key].replace("\n", "\u23ce") for key in ("prompt", "expected", "unsteered", "steered")]
        rows.append([words(r["source"]), words(r["target"]), f"{r['layer']}, {r['coefficient']:g}", *texts])
    header = ["from", "to", "layer, coefficient", "prompt", "expected first", "unsteered", "steered"]
    return {"header": header, "rows": rows} if rows else None


def section(study: Study) -> Section:
    """Steering; empty where the study does not steer."""
    title = "Steering from one sequence to another"
    if "steering" not in study.tables:
        return Section(title=title)
    tables = study.tables
    return Section(
        title=title,
        anchor="steering",
        **led(findings(tables["steering"], tables["steering_side_effects"])),
        table=table(tables["steering_samples"]),
        note="On top: the highest logit of the whole vocabulary. Held out: other sequences of members than those the "
        "vector was fitted on. p: (1 + k) / (1 + n) of n random directions of the same norm, or of n sets of as many "
        "random heads in every layer; corrected (Holm) over the pairs of one method and measure. Samples: greedy, with "
        "the vector added at every step.",
    )
