"""Which circuit is reported: hand-made tables with known winners, drops against brute force, a planted task whole."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.circuit import choice
from atlas.circuit.choice import Candidate, best, droppable, margins_of, selected
from atlas.circuit.node_circuits import search_all
from atlas.circuit.search import Rule, SearchSettings, by_layers, node_search
from atlas.core.components import all_components, from_json, parse
from atlas.core.statistics import Bootstrap
from atlas.proof import exact
from atlas.proof.fixtures import circuit
from planted_tasks import PlantedTask

BOOTSTRAP = Bootstrap(60, seed=2)
SETTINGS = SearchSettings(None, [], {"backward": ["mlp", "head"], "forward": ["head", "mlp"]}, 1)
ORDERS = {"layers": None, "ascending_effect": None, "random_0": 0, "bisect": None}


# ---- the rule ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("sizes", "percents", "winner"),
    [
        ([9, 7, 8], [90, 81, 95], 1),  # the smallest that passes
        ([9, 7, 8], [90, 80, 95], 2),  # 80 is not above the floor
        ([7, 7, 7], [81, 84, 83], 1),  # of equal ones the one that keeps most
        ([7, 7], [82, 82], 0),  # and of these the first, by name
        ([9, 3, 5], [79, 40, 79.5], 2),  # none passes: the one that keeps most
        ([9, 3], [79, 79], 1),
        ([4], [10], 0),
        ([9, 7], [90, float("nan")], 0),
        ([7, 7], [79, float("nan")], 0),
        ([7, 7, 7], [82, 82.00005, 81], 0),  # as good as equal
    ],
)
def test_the_winner_of_a_table(sizes, percents, winner):
    assert best(sizes, percents, 20) == winner


@pytest.mark.parametrize(
    ("sizes", "percents", "winner"),
    [
        ([25, 14], [68.25, 68.1], 1),  # cannot be told apart: the smaller one
        ([25, 14], [70.5, 68.1], 0),  # surely better
        ([25, 14, 14], [68.25, 68.1, 68.2], 2),
        ([25, 14, 20], [81, 68, 80.5], 2),  # where some pass the rest is not asked
    ],
)
def test_where_none_passes_the_smallest_that_cannot_be_told_from_the_best(sizes, percents, winner):
    assert best(sizes, percents, 20, np.full((len(sizes), len(sizes)), 2.0)) == winner


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(70, 90)), min_size=1, max_size=8))
def test_no_candidate_beats_the_winner(table):
    sizes, percents = map(list, zip(*table, strict=True))
    mine = best(sizes, percents, 20)
    for size, percent in table:  # of whole percents, far apart
        if percents[mine] > 80:
            assert percent <= 80 or (size, -percent) >= (sizes[mine], -percents[mine])
        else:
            assert percent <= percents[mine]


def test_the_effect_of_choosing_equals_a_naive_bootstrap():
    rng = np.random.default_rng(0)
    full = rng.uniform(4, 6, 30)
    values = np.stack([full * rng.normal(0.8, 0.1, 30) for _ in range(4)])
    circuits = [frozenset(all_components(1, n)) for n in (4, 3, 3, 5)]
    picks = np.random.default_rng(2).multinomial(30, np.full(30, 1 / 30), 60)
    gains, same = [], []
    whole = [100 * v.mean() / full.mean() for v in values]
    draws = [np.repeat(np.arange(30), counts) for counts in picks]
    again = [[100 * v[rows].mean() / full[rows].mean() for v in values] for rows in draws]
    margins = np.zeros((4, 4))
    for i, j in product(range(4), repeat=2):
        margins[i, j] = whole[i] - whole[j] - np.percentile([row[i] - row[j] for row in again], 2.5)
    assert margins_of(np.array(whole), np.array(again)) == pytest.approx(margins)
    mine = best([5, 4, 4, 6], whole, 20, margins)
    for row in again:
        pick = best([5, 4, 4, 6], row, 20, margins)
        gains.append(row[pick] - whole[pick])
        same.append(circuits[pick] == circuits[mine])
    number, optimism, share = selected(circuits, values, full, 20, BOOTSTRAP)
    assert number == mine
    assert optimism == pytest.approx(np.mean(gains)) and share == pytest.approx(np.mean(same))
    assert optimism > 0 and 0 < share < 1


def test_optimism_is_what_new_prompts_take_back():
    """Four equal circuits, the best of which is chosen: on average new prompts give what is left without optimism.

    400 draws of 40 prompts; the mean of either has a standard error of about 0.08 points, the bias is about 1.6.
    """
    rng, gaps, said = np.random.default_rng(5), [], []
    circuits = [frozenset({c}) for c in all_components(1, 3)]
    for _ in range(400):
        values, full = 0.8 + rng.normal(0, 0.1, (4, 40)), np.ones(40)
        gaps.append(100 * values.mean(1).max() - 80)
        said.append(selected(circuits, values, full, 50, Bootstrap(100, 0))[1])
    assert np.mean(gaps) == pytest.approx(1.6, abs=0.2)
    assert 0.6 * np.mean(gaps) < np.mean(said) < 1.2 * np.mean(gaps)


# ---- what costs nothing --------------------------------------------------------------------------------------
def invented(seed, prompts=12, noise=1.0):
    """An ablator whose scores are invented: worth of members and of pairs, each prompt with a noise of its own."""
    rng, everything = np.random.default_rng(seed), frozenset(all_components(3, 3))
    names = sorted(everything)
    worth = rng.gamma(0.6, 1.0, len(names))
    spread = rng.normal(0, noise, (len(names), prompts)) * worth[:, None] ** 0.5
    pairs = np.triu(rng.normal(0, 0.3, (len(names), len(names))), 1)

    def logit_diff(kept):
        here = np.array([name in kept for name in names], float)
        return here @ (worth[:, None] + spread) + here @ pairs @ here + 1.0

    return SimpleNamespace(everything=everything, logit_diff=logit_diff, prompts=range(prompts))


def searched(ablator, rule):
    full = ablator.logit_diff(ablator.everything).mean()

    def percents(circuits):
        return [float(100 * ablator.logit_diff(c).mean() / full) for c in circuits]

    return list(node_search(ablator.everything, rule, by_layers(rule), percents))[-1].left, percents


def naive_drop(ablator, found, threshold, never=()):
    """The same in loops, the bootstrap drawn row by row."""
    n = len(ablator.prompts)
    draws = np.random.default_rng(2).multinomial(n, np.full(n, 1 / n), 60)
    draws = [np.repeat(np.arange(n), counts) for counts in draws]
    full, own = ablator.logit_diff(ablator.everything), ablator.logit_diff(found)

    def sure(left):
        values = ablator.logit_diff(left)
        lost = [100 * (own[d].mean() - values[d].mean()) / full[d].mean() for d in draws]
        return np.percentile(lost, 2.5) > 1e-4

    def missed(left):
        values = ablator.logit_diff(left)
        return np.percentile([100 * values[d].mean() / full[d].mean() for d in draws], 97.5) <= 100 - threshold

    cost = {c: 100 * (own.mean() - ablator.logit_diff(found - {c}).mean()) / full.mean() for c in found}
    gone = set()
    for member in sorted(found, key=lambda c: (cost[c], c)):
        left = found - gone - {member}
        if member not in never and not sure(found - {member}) and not sure(left) and not missed(left):
            gone.add(member)
    return gone


@pytest.mark.parametrize("seed", range(25))
def test_drops_equal_brute_force(seed):
    ablator, rule = invented(seed), Rule(threshold=20)
    if ablator.logit_diff(ablator.everything).mean() <= 0:
        return
    found, _ = searched(ablator, rule)
    assert droppable(ablator, found, rule, BOOTSTRAP) == naive_drop(ablator, found, 20)


def test_some_of_these_drop_something_and_others_do_not():
    sizes = []
    for seed in range(25):
        ablator, rule = invented(seed), Rule(threshold=20)
        sizes.append(len(droppable(ablator, searched(ablator, rule)[0], rule, BOOTSTRAP)))
    assert 0 in sizes and max(sizes) > 1


@pytest.mark.parametrize("seed", range(10))
def test_a_search_leaves_nothing_that_a_strict_floor_would_drop(seed):
    """So the drop asks that the floor is not surely missed; asking for more would drop nothing, ever."""
    ablator, rule = invented(seed), Rule(threshold=20)
    found, percents = searched(ablator, rule)
    assert not any(rule.allows(percent, 100) for percent in percents([found - {c} for c in found]))


def test_costs_without_spread_are_sure_and_gains_go():
    """On prompts that are all alike any loss is sure: only what does nothing, or harm, is dropped."""
    worth = {"0.0": 5.0, "0.1": 3.0, "1.0": 0.0, "1.1": -0.5, "m0": 1e-3}
    everything = frozenset(map(parse, worth))

    def logit_diff(kept):
        return np.full(8, sum(worth[str(c)] for c in kept))

    ablator = SimpleNamespace(everything=everything, logit_diff=logit_diff)
    assert droppable(ablator, everything, Rule(threshold=20), BOOTSTRAP) == circuit("1.0 1.1")
    spared = Rule(threshold=20, never_test=circuit("1.0"))
    assert droppable(ablator, everything, spared, BOOTSTRAP) == circuit("1.1")


def test_each_of_two_twins_costs_nothing_but_both_together_do():
    """The second is tried against what was found, not against what is left of it."""

    def logit_diff(kept):
        names = {str(c) for c in kept}
        return np.full(8, 5.0 + 5.0 * bool(names & {"0.0", "0.1"}))

    everything = circuit("0.0 0.1 1.0")
    ablator = SimpleNamespace(everything=everything, logit_diff=logit_diff)
    assert droppable(ablator, everything, Rule(threshold=60), BOOTSTRAP) == circuit("0.0 1.0")


def test_many_costs_that_are_not_sure_alone_do_not_add_up_to_a_sure_one():
    rng = np.random.default_rng(1)
    names = all_components(3, 4)
    spread = {c: 0.1 + rng.normal(0, 0.5, 40) for c in names}

    def logit_diff(kept):
        return 100.0 + sum((spread[c] for c in kept), np.zeros(40))

    ablator = SimpleNamespace(everything=frozenset(names), logit_diff=logit_diff)
    gone = droppable(ablator, ablator.everything, Rule(threshold=50), BOOTSTRAP)
    own, full = logit_diff(ablator.everything), logit_diff(ablator.everything)
    lost = BOOTSTRAP.statistic(lambda a, b, f: (a - b) / f, own, logit_diff(ablator.everything - gone), full)
    assert 0 < len(gone) < len(names) and lost[1] <= 0


# ---- a task --------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Files, ablators and searches of `cancelling`, whose orders end in different circuits of two heads."""
    task = PlantedTask(exact.cancelling("gpt2"), tmp_path_factory.mktemp("task"))
    data = task.data()
    ablators = {split: data.ablator(split) for split in ("search", "held_out")}
    return ablators, search_all("t", ablators, ORDERS, [20.0, 10.0], SETTINGS, BOOTSTRAP)[1]


def test_one_circuit_is_reported_at_each_threshold_and_every_candidate_has_its_rows(planted):
    ablators, found = planted
    rows, entries = choice.choose("t", ablators, found, SETTINGS, None, BOOTSTRAP)
    assert [e["threshold"] for e in entries] == [20.0, 10.0]
    full = ablators["held_out"].logit_diff(ablators["held_out"].everything).mean()
    for entry in entries:
        here = rows[rows.threshold == entry["threshold"]]
        assert set(here.order) == set(ORDERS)
        mine = here[here.reported]
        assert set(mine.split) == {"search", "held_out"} and mine.order.unique().tolist() == [entry["order"]]
        percent = 100 * ablators["held_out"].logit_diff(from_json(entry)).mean() / full
        shown = mine[(mine.split == "held_out") & (mine.metric == "percent_of_full")].value.item()
        assert shown == pytest.approx(percent) == pytest.approx(entry["percent_of_full"])
        assert entry["passes"] and percent > 100 - entry["threshold"]
        assert len(from_json(entry)) == (here.heads + here.mlps).min() == 2
        assert entry["order"] == "ascending_effect", "all keep as much, so the first by name"


def test_a_named_order_is_reported_as_it_was_found(planted):
    ablators, found = planted
    for order in ORDERS:
        rows, entries = choice.choose("t", ablators, found, SETTINGS, order, BOOTSTRAP)
        assert set(rows.order) == {order} and rows.reported.all() and rows.optimism.isna().all()
        for entry in entries:
            same = next(c for c in found if (c["order"], c["threshold"]) == (order, entry["threshold"]))
            assert from_json(entry) == from_json(same) and not entry["dropped"]


def test_what_is_left_of_a_circuit_is_chosen_where_it_passes(planted, monkeypatch):
    """A head that does nothing, put into every found circuit, is dropped again."""
    ablators, found = planted
    idle = [entry | {"heads": [*entry["heads"], "0.3"]} for entry in found]
    rows, entries = choice.choose("t", ablators, idle, SETTINGS, None, BOOTSTRAP)
    for entry in entries:
        assert entry["dropped"] == ["0.3"] and "0.3" not in entry["heads"] and len(entry["heads"]) == 2
    assert set(rows.candidate) == {"found", "left"} and rows.loc[rows.candidate == "left", "dropped"].eq("0.3").all()
    assert rows.loc[rows.reported, "candidate"].eq("left").all()


def test_where_no_candidate_passes_the_best_is_reported_and_it_is_said(planted, caplog):
    ablators, _ = planted
    held_out = ablators["held_out"]
    tried = [Candidate("a", 20.0, frozenset()), Candidate("b", 20.0, circuit("0.1"))]
    percents = [100 * held_out.logit_diff(c.circuit).mean() for c in tried]
    _, entry = choice.chosen_at(20.0, tried, ablators, BOOTSTRAP)
    assert not entry["passes"] and entry["order"] == "ab"[int(np.argmax(percents))]
    bad = [{"order": "a", "threshold": 20.0, "heads": [], "mlps": []}]
    with caplog.at_level("WARNING", logger="atlas"):
        choice.choose("t", ablators, bad, SETTINGS, None, BOOTSTRAP)
    assert "no candidate passes the floor on held_out prompts" in caplog.text


def test_what_a_higher_floor_found_is_reported_where_the_floor_itself_is_missed(planted):
    """What stops at the floor on its own prompts misses it on others; the report names the search of the other."""
    ablators, found = planted
    good = next(entry for entry in found if entry["threshold"] == 10)
    bad = {"order": "a", "threshold": 20.0, "heads": [], "mlps": []}
    rows, entries = choice.choose("t", ablators, [bad, good], SETTINGS, None, BOOTSTRAP)
    assert [(e["threshold"], e["order"], e["searched"], e["passes"]) for e in entries] == [
        (20.0, good["order"], 10.0, True),
        (10.0, good["order"], 10.0, True),
    ]
    assert from_json(entries[0]) == from_json(entries[1]) == from_json(good)
    assert set(rows[rows.threshold == 10].searched) == {10.0}, "what a lower floor found is no candidate"
    _, named = choice.choose("t", ablators, [bad | {"order": "b"}, good | {"order": "b"}], SETTINGS, "b", BOOTSTRAP)
    assert named[0]["searched"] == 20 and not named[0]["passes"], "a named order is taken as it was found"


def test_without_held_out_prompts_the_prompts_searched_on_decide(planted):
    ablators, found = planted
    rows, entries = choice.choose("t", {"search": ablators["search"]}, found, SETTINGS, None, BOOTSTRAP)
    assert set(rows.split) == {"search"} and {e["split"] for e in entries} == {"search"}
    assert isinstance(rows, pd.DataFrame) and list(rows.columns) == list(choice.COLUMNS)
