"""Published claims about sequence continuation (arXiv 2311.04131), each held against one model's tables.

A claim is a test with a stated rule; its verdict follows from the rule and nothing else. What a rule needs and a study
does not have is `not tested`, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from atlas.circuit.verdicts import BEYOND, LIKE, UNTESTABLE
from atlas.core.chance import jaccard, layer_matched, shared_by_all_layers, tail
from atlas.core.multiple import ALPHA
from atlas.report import wording
from atlas.report.findings.reading import Results, decision, heads, of_shared, random_sets, rows
from atlas.report.wording import interval, listing, number, p_value, words

HOLDS, FAILS, UNTESTED = "holds", "does not hold", "not tested"
NUMBERS, MONTHS = ("numerals", "number_words"), "months"  # the published tasks
PUBLISHED = (*NUMBERS, MONTHS)
SUCCESSOR, SAME_TYPE = 0.5, 0.2  # thresholds of `heads.labels`
MOST = 0.9  # of the searches
HEAD = tuple[int, int]  # layer, and number within it


@dataclass(frozen=True)
class Claim:
    """A published claim in one model: what was found, beside what, and where it can be read.

    verdict: `holds`, `does not hold` or `not tested`. effect, control: sentences with their numbers and intervals.
    files: of the tables that the sentences are written from.
    """

    claim: str
    model: str
    verdict: str
    effect: str
    control: str
    files: tuple[str, ...]


def untested(claim: str, results: Results, reason: str) -> Claim:
    """The claim where a study cannot say anything of it."""
    return Claim(claim, results.model, UNTESTED, reason, "", ())


def not_searched(results: Results) -> str:
    """Which of the published tasks a study did not search, as a reason; empty where it has all."""
    lacking = [task for task in PUBLISHED if task not in results.main]
    return f"{listing(map(words, lacking))} not searched in this study" if lacking else ""


# ---- chance --------------------------------------------------------------------------------------------------
def profile(members: Iterable[str], n_layers: int) -> list[int]:
    """Heads in each layer [L], of their names."""
    layers = [wording.place(name)[0] for name in members]
    return [layers.count(layer) for layer in range(n_layers)]


def mean_and_span(distribution: np.ndarray) -> tuple[float, int, int]:
    """Mean of a distribution [k] over 0, 1, ..., and its 2.5 and 97.5 percentiles."""
    low, high = (int(np.searchsorted(np.cumsum(distribution), q)) for q in (0.025, 0.975))
    return float(distribution @ np.arange(len(distribution))), low, high


# ---- claims --------------------------------------------------------------------------------------------------
def shared_circuit(results: Results) -> Claim:
    """The cores of numerals, number words and months (what 90 % of the searches of each keep) share heads beyond chance
    with the heads per layer held, and all three tasks need the heads that the cores of all main tasks share: less is
    left without them than without random heads, p below 0.05 after Holm. Not tested where the random sets of some task
    can decide nothing."""
    claim = "numerals, number words and months share a sub-circuit that each of them needs"
    lacking = not_searched(results)
    if lacking:
        return untested(claim, results, lacking)
    shared = results.shared(PUBLISHED)
    profiles = [profile(heads(results.cores[task]), results.n_layers) for task in PUBLISHED]
    chance = shared_by_all_layers(results.n_heads, profiles)
    p, (mean, low, high) = tail(chance, len(shared)), mean_and_span(chance)
    sizes = [len(frozenset.intersection(*by_task.values())) for by_task in results.runs(PUBLISHED).values()]
    effect = f"{wording.count(len(shared), 'head')} in all three cores"
    effect += f" ({listing(sorted(shared, key=wording.place))})" if shared else ""
    effect += f"; {min(sizes)} to {max(sizes)} in all three circuits of one search ({len(sizes)} searches, by several "
    effect += "orders and on other prompts)"
    control = f"{number(mean, 1)} [{low}, {high}] by chance with the heads per layer held ({p_value(p)})"
    said, needed = _needed(results)
    files = [results.name_of(name) for name in ("comparison/consensus.json",)]
    files += [results.name_of(name, task) for task in PUBLISHED for name in ("stability.json", "consensus_tests")]
    verdict = FAILS if p >= ALPHA or needed is False else HOLDS if needed else UNTESTED
    return Claim(claim, results.model, verdict, f"{effect}; {said}", control, tuple(files))


def _needed(results: Results) -> tuple[str, bool | None]:
    """What is left of the published tasks without the heads that all cores share; do all three need them? None: no
    answer, as the random sets of some task could decide nothing and no other task can do without them."""
    tests = of_shared(results, results.main).set_index("task").reindex(PUBLISHED)
    tests = tests[tests["value"].notna()]
    if tests.empty:
        return "no random set to compare an ablation of the shared heads with", None
    parts = []
    for task, row in tests.iterrows():
        sets = f"random sets {random_sets(row)}" if row["controls"] else "no random sets"
        after = "" if row["state"] == UNTESTABLE else " after Holm"
        parts.append(f"{words(str(task))} {interval(row)} % of full ({sets}, {decision(row)}{after})")
    said = f"without the heads that the cores of all {len(results.main)} main tasks share there is left of "
    if LIKE in set(tests["state"]):
        return said + listing(parts), False
    return said + listing(parts), True if list(tests["state"]) == [BEYOND] * len(PUBLISHED) else None


def next_member_head(results: Results) -> Claim:
    """One head writes the next member on every published task: OV score `next` of 0.5 or more, above the baseline with
    its interval, and more often than the member itself; the same rule for `previous` says what many heads give."""
    claim = "a head writes the next member from the one that it reads"
    tasks, lacking = list(PUBLISHED), not_searched(results)
    if lacking:
        return untested(claim, results, lacking)
    if not any(results.has("ov", task) for task in tasks):
        return untested(claim, results, "OV scores were not made in this study")
    passing = {score: _writers(results, tasks, score) for score in ("next", "previous")}
    best = _best_writer(results, tasks)
    table = {task: _ov(results, task, "next").set_index(["layer", "head"]) for task in tasks}
    parts = [
        f"{words(task)} {interval(row, 0, 100)} % ({number(100 * row['baseline'], 0)} for a random member)"
        for task, row in ((task, table[task].loc[best]) for task in tasks)
    ]
    verdict = HOLDS if passing["next"] else FAILS
    named = listing(f"{layer}.{head}" for layer, head in sorted(passing["next"])) or "no head"
    effect = f"{named} of {results.all_heads} by the rule; best is {best[0]}.{best[1]}, the next member in its top "
    effect += f"{_largest_k(results, tasks[0])} on {listing(parts)}"
    control = f"the same rule for the previous member finds {wording.count(len(passing['previous']), 'head')}"
    return Claim(claim, results.model, verdict, effect, control, tuple(results.name_of("ov", task) for task in tasks))


def _largest_k(results: Results, task: str) -> int:
    table = results.read("ov", task)
    return int(table.loc[table["score"] == "next", "k"].max())


def _ov(results: Results, task: str, score: str) -> pd.DataFrame:
    """Rows of a score through the heads' own norms at the largest k."""
    found = rows(results.read("ov", task), norm="own", score=score)
    return found[found["k"] == found["k"].max()]


def _writers(results: Results, tasks: Sequence[str], score: str) -> set[HEAD]:
    """(layer, head) of the heads that pass the rule on every task."""
    found: set[HEAD] | None = None
    for task in tasks:
        table = _ov(results, task, score)
        table = table[(table["value"] >= SUCCESSOR) & (table["ci_low"] > table["baseline"])]
        passed = set(zip(table["layer"], table["head"], strict=True))
        if score == "next":
            leads = rows(results.read("ov", task), norm="own", score="next over copy")
            leads = leads[leads["value"] > SUCCESSOR]
            passed &= set(zip(leads["layer"], leads["head"], strict=True))
        found = passed if found is None else found & passed
    return found or set()


def _best_writer(results: Results, tasks: Sequence[str]) -> HEAD:
    """The head whose smallest `next` score over the tasks is the largest; of several, that with the largest mean."""
    scores = pd.concat([_ov(results, task, "next") for task in tasks]).groupby(["layer", "head"])["value"]
    layer, head = scores.agg(["min", "mean"]).sort_values(["min", "mean"], kind="stable").index[-1]
    return int(layer), int(head)


def early_detectors(results: Results) -> Claim:
    """A head of the first half of the layers attends from members to members as members: on every published task the
    weight in order and shuffled, less that on words in their places, is 0.2 or more, by the ends of the intervals."""
    claim = "early heads find tokens of the same kind"
    tasks, lacking = list(PUBLISHED), not_searched(results)
    if lacking:
        return untested(claim, results, lacking)
    if not any(results.has("attention_members", task) for task in tasks):
        return untested(claim, results, "attention was not read in this study")
    least, mean = (_same_type(results, tasks, ends) for ends in (True, False))
    if least is None or mean is None:
        return untested(claim, results, "no words could be put in the places of members on some task")
    half = results.n_layers / 2
    passing = sorted(key for key, value in least.items() if value >= SAME_TYPE and key[0] < half)
    late = sum(value >= SAME_TYPE and key[0] >= half for key, value in least.items())
    best = max((key for key in least if key[0] < half), key=lambda key: least[key])
    named = listing(f"{layer}.{head}" for layer, head in passing) or "no head"
    effect = f"{named} of the first {-(-results.n_layers // 2)} of {results.n_layers} layers; best is {best[0]}."
    effect += f"{best[1]}: members draw {number(mean[best], 2)} more of its weight than other words in their places, "
    effect += f"and {number(least[best], 2)} by the near ends of the intervals, on the task where that is least"
    control = f"words in the places of members, which share every position; {late} heads pass in the later layers"
    files = tuple(results.name_of("attention_members", task) for task in tasks)
    return Claim(claim, results.model, HOLDS if passing else FAILS, effect, control, files)


def _same_type(results: Results, tasks: Sequence[str], ends: bool) -> dict[HEAD, float] | None:
    """(layer, head) -> weight from members to members, the smaller in order and shuffled, less that on words, the least
    over tasks; ``ends``: by the ends of the intervals that make it small. None where a variant is missing."""
    found: dict[HEAD, float] = {}
    for task in tasks:
        table = rows(results.read("attention_members", task), statistic="member to members")
        by = {name: part.set_index(["layer", "head"]) for name, part in table.groupby("variant")}
        if not {"in order", "shuffled", "words"} <= set(by):
            return None
        low, high = ("ci_low", "ci_high") if ends else ("value", "value")
        least = np.minimum(by["in order"][low], by["shuffled"][low]) - by["words"][high]
        for key, value in least.items():
            found[key] = min(value, found.get(key, np.inf))
    return found


def numbers_apart(results: Results) -> Claim:
    """Circuits of numerals and number words are closer to each other than either is to that of months: the Jaccard
    index of heads less its expectation by chance, in the reported circuits and in 90 % of the searches by other orders
    and on other prompts."""
    claim = "numerals and number words are closer to each other than to months"
    lacking = not_searched(results)
    if lacking:
        return untested(claim, results, lacking)
    own = _closer(results, {task: heads(results.circuits[task]) for task in PUBLISHED})
    runs = [_closer(results, by_task) for by_task in results.runs(PUBLISHED).values()]
    gaps = [near - far for near, far in runs]
    near, far, share = *own, float(np.mean([gap > 0 for gap in gaps]))
    effect = f"Jaccard index above chance {number(near, 2)} for the two, {number(far, 2)} for the closer of them to "
    effect += (
        f"months; difference {number(near - far, 2)}; over {len(gaps)} searches {number(float(np.median(gaps)), 2)} "
    )
    effect += f"[{number(min(gaps), 2)}, {number(max(gaps), 2)}] (median, least and largest), more than 0 in "
    effect += f"{number(100 * share, 0)} % of them"
    control = "random circuits with the same heads per layer, whose expected index is subtracted"
    files = [results.name_of("comparison/membership"), *(results.name_of("stability.json", t) for t in PUBLISHED)]
    verdict = HOLDS if share >= MOST and near > far else FAILS
    return Claim(claim, results.model, verdict, effect, control, tuple(files))


def _closer(results: Results, by_task: dict[str, frozenset[str]]) -> tuple[float, float]:
    """Jaccard index above chance of the two kinds of numbers, and the larger of those of either with months."""

    def above(a: str, b: str) -> float:
        one, two = by_task[a], by_task[b]
        chance = layer_matched(results.n_heads, profile(one, results.n_layers), profile(two, results.n_layers))
        shared = np.arange(len(chance))
        either = len(one) + len(two) - shared
        expected = float(chance @ np.where(either > 0, shared / np.maximum(either, 1), 1.0))
        return jaccard(one, two) - expected

    return above(*NUMBERS), max(above(task, MONTHS) for task in NUMBERS)


CLAIMS: tuple[Callable[[Results], Claim], ...] = (shared_circuit, next_member_head, early_detectors, numbers_apart)
