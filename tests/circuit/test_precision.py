"""Searches in a half: their decisions and circuits are those of the same search in float32."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.circuit import precision
from atlas.circuit.ablation import Ablator
from atlas.circuit.evaluation import position_rows
from atlas.circuit.node_circuits import search_all
from atlas.circuit.precision import BEYOND, EVERY, SAMPLE, Differences, nested, searched
from atlas.circuit.remade import Dataset
from atlas.circuit.replacement import Replacement
from atlas.circuit.search import Rule, SearchSettings, bisect_search, by_layers, node_search
from atlas.circuit.stability import NodeSearch
from atlas.circuit.task_data import TaskData
from atlas.core.components import Component, all_components
from atlas.core.errors import StudyError
from atlas.core.statistics import Bootstrap
from atlas.model import models
from atlas.proof import exact
from planted_tasks import RUN, PlantedTask
from random_models import COMPONENTS, build, random_prompts, substitute

HALVES = ("bfloat16", "float16")


class Scored:
    """As an ablator, with percents of full that are made up."""

    def __init__(self, everything, percent, dtype) -> None:
        self.everything, self.percent_of_full, self.asked = everything, percent, []
        self.model = SimpleNamespace(dtype=dtype)

    def percents_of_full(self, circuits):
        self.asked += circuits
        return [self.percent_of_full(circuit) for circuit in circuits]


def pair(everything, exact_percents, differences):
    """(half, float32) of functions circuit -> percent, and -> how much more the half gives; both give 100 of all."""

    def in_float32(circuit):
        return 100.0 if circuit == everything else exact_percents(circuit)

    def in_half(circuit):
        return 100.0 if circuit == everything else in_float32(circuit) + differences(circuit)

    return Scored(everything, in_half, torch.bfloat16), Scored(everything, in_float32, torch.float32)


def steps_of(search, rule, everything, batch=1):
    """The search, as `searched` wants it."""

    def run(by, settle):
        if search is bisect_search:
            return bisect_search(everything, rule, by_layers(rule), by.percents_of_full, settle)
        return node_search(everything, rule, by_layers(rule), by.percents_of_full, batch, settle)

    return run


def decided(steps):
    return [(step.components, step.removed, step.left) for step in steps]


def both_ways(search, rule, half, exact, everything, batch=1):
    """(steps in the half with its decisions, steps in float32)."""
    run = steps_of(search, rule, everything, batch)
    found = searched("a search", run, rule, exact, Differences(half, exact, everything))
    return found, searched("a search", run, rule, exact, None)[0]


# ---- on scores that are made up ------------------------------------------------------------------------------
SEARCHES = (node_search, bisect_search)


@pytest.mark.parametrize("search", SEARCHES)
@given(st.integers(0, 2**32), st.floats(1e-3, 30), st.sampled_from([None, 3.0, 20.0]), st.integers(1, 4))
@settings(max_examples=60)
def test_decisions_are_those_of_float32_where_differences_stay_within_the_bound(search, seed, size, tolerance, batch):
    """Every difference is at least ``size``, and at most BEYOND times that: then the measured bound is one indeed."""
    rng, known, everything = np.random.default_rng(seed), {}, frozenset(all_components(3, 4))

    def percent(circuit):  # near the floor, where differences flip decisions; not monotone
        return known.setdefault(circuit, (80 + rng.normal(0, 5), rng.choice([-1, 1]) * size * rng.uniform(1, BEYOND)))

    half, exact = pair(everything, lambda c: percent(c)[0], lambda c: percent(c)[1])
    rule = Rule(threshold=20, relative_tolerance=tolerance)
    (steps, decisions), expected = both_ways(search, rule, half, exact, everything, batch)
    assert decided(steps) == decided(expected)
    assert len(decisions.dtypes) == len(steps) and decisions.hold()
    counted = decisions.to_json()
    assert decisions.dtypes.count("float32") == counted["again"] + counted["sampled"]
    for step, dtype in zip(steps, decisions.dtypes, strict=True):
        if dtype == "float32":
            assert step.percent == exact.percent_of_full(before_it(step) - frozenset(step.components))
        else:
            assert abs(step.percent - 80) > decisions.differences.bound or tolerance


def before_it(step):
    return step.left | frozenset(step.components) if step.removed else step.left


def test_a_decision_that_the_half_would_flip_is_taken_in_float32():
    """1.0 keeps 80.2 percent, and 79.9 in the half: without the check it stays, with it it goes."""
    everything, flipped = frozenset(all_components(2, 2)), Component(1, 0)

    def percent(circuit):
        return 80.2 if circuit == everything - {flipped} else 50.0

    half, exact = pair(everything, percent, lambda circuit: -0.3)
    rule = Rule(threshold=20)
    unchecked, _ = searched("", steps_of(node_search, rule, everything), rule, half, None)
    (steps, decisions), expected = both_ways(node_search, rule, half, exact, everything)
    assert unchecked[-1].left == everything, "the half alone decides otherwise"
    assert steps[-1].left == expected[-1].left == everything - {flipped}
    assert decisions.flipped == 1 and decisions.again == 1
    assert decisions.differences.bound == pytest.approx(BEYOND * 0.3)
    step = next(i for i, s in enumerate(steps) if s.components == (flipped,))
    assert (steps[step].percent, decisions.dtypes[step]) == (80.2, "float32")


def test_a_difference_seen_later_sends_the_search_back_to_what_it_had_decided():
    """Nested circuits differ by 0.01, those on the search's way by 1: the first decision was within the bound that a
    later one shows, and the search is run again. So are those before it, of a task that is searched several times."""
    everything = frozenset(all_components(4, 4))
    first, seen = Component(3), set(nested(everything))

    def percent(circuit):
        return 80.5 if circuit == everything - {first} else 90.0 if first not in circuit else 70.0

    half, exact = pair(everything, percent, lambda circuit: 0.01 if circuit in seen else -1.0)
    rule = Rule(threshold=20)
    (steps, decisions), expected = both_ways(node_search, rule, half, exact, everything)
    assert decided(steps) == decided(expected) and steps[0].removed and decisions.flipped
    assert decisions.dtypes[0] == "float32" and half.asked.count(everything - {first}) == 2, "once before, once after"
    assert decisions.differences.bound == pytest.approx(BEYOND)


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")])
def test_what_overflows_in_the_half_is_decided_in_float32(search, broken):
    everything = frozenset(all_components(3, 4))

    def percent(circuit):
        return 100.0 - 3 * len(everything - circuit)

    half, exact = pair(everything, percent, lambda c: broken if Component(1, 1) not in c else 0.0)
    (steps, decisions), expected = both_ways(search, Rule(threshold=20), half, exact, everything)
    assert decided(steps) == decided(expected) and decisions.again
    assert decisions.differences.largest == 0, "what is not finite measures nothing"


def test_the_first_loss_is_counted_from_100_in_either_precision():
    """A search among sites starts from a circuit with a percent of its own; the rule's first ``before`` is 100."""
    everything, start = frozenset(all_components(3, 4)), frozenset(all_components(3, 3))

    def percent(circuit):
        return 60.0 + len(circuit)

    half, exact = pair(everything, percent, lambda circuit: 0.5)
    rule = Rule(threshold=50, relative_tolerance=28.8)  # 29 points are lost from 100 without the first of 12
    (steps, decisions), expected = both_ways(node_search, rule, half, exact, start)
    assert (steps[0].percent, decisions.dtypes[0]) == (71.0, "float32"), "28.5 is close to 28.8"
    assert decided(steps) == decided(expected) and not steps[0].removed


def test_nested_circuits_go_from_nearly_all_down_to_nothing():
    everything = frozenset(all_components(12, 12))
    found = nested(everything)
    assert len(found) == SAMPLE and found[-1] == frozenset()
    assert all(b < a for a, b in zip([everything, *found], found, strict=False))
    assert nested(frozenset({Component(0)})) == [frozenset()]


# ---- on models -----------------------------------------------------------------------------------------------
def random_pair(seed, folder, half):
    """(ablator in the half, in float32) of one random model: answers are what it says, so that its score is large."""
    torch.manual_seed(seed)
    network = build("gpt2")
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    network.save_pretrained(folder)
    prompts = random_prompts()
    low, high = (models.load(folder, device="cpu", dtype=dtype, batch_size=8) for dtype in (half, "float32"))
    logits = high.run(prompts.tokens)
    prompts = replace(prompts, answer=logits.argmax(-1), incorrect=logits.argmin(-1))
    values = substitute(torch.zeros(len(prompts), dtype=torch.long))
    values = Replacement(0.3 * values.z.float(), 0.3 * values.mlp_out.float(), values.rows)
    return tuple(Ablator(model, prompts, values) for model in (low, high))


FEW = 6
SEEDS = [*range(FEW), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(FEW, 60))]


def floors(low, high):
    """Floors between what the two precisions give for the components that a search tries first, and plain ones."""
    last = [high.everything - {c} for c in COMPONENTS[-3:]]
    between = [(low.percent_of_full(circuit) + high.percent_of_full(circuit)) / 2 for circuit in last]
    return [floor for floor in between if floor < 100], [80.0, 50.0, 20.0]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dtype", HALVES)
def test_a_search_in_a_half_is_that_in_float32(tmp_path, seed, dtype):
    low, high = random_pair(seed, tmp_path, dtype)
    between, plain = floors(low, high)
    rules = [Rule(100 - floor) for floor in between + plain]
    for rule in (*rules, *(Rule(100 - floor, relative_tolerance=8) for floor in plain)):
        for search in SEARCHES:
            (steps, decisions), expected = both_ways(search, rule, low, high, high.everything)
            assert decided(steps) == decided(expected), (rule, search.__name__)
            for step, other, by in zip(steps, expected, decisions.dtypes, strict=True):
                assert by != "float32" or step.percent == pytest.approx(other.percent, abs=1e-3)


@pytest.mark.parametrize("dtype", HALVES)
def test_without_the_check_a_half_finds_other_circuits(tmp_path, dtype):
    """So the test above could fail: with a floor between the two precisions' percents the half alone goes wrong."""
    others, tried = 0, 0
    for seed in range(FEW):
        low, high = random_pair(seed, tmp_path / str(seed), dtype)
        for floor in floors(low, high)[0]:
            run = steps_of(node_search, Rule(100 - floor), high.everything)
            ends = [decided(searched("", run, Rule(100 - floor), ablator, None)[0]) for ablator in (low, high)]
            others, tried = others + (ends[0] != ends[1]), tried + 1
    assert others >= tried / 4 > 3


# ---- what a study says ---------------------------------------------------------------------------------------
BOOTSTRAP = Bootstrap(20, seed=3)
SETTINGS = SearchSettings(None, [], {"backward": ["mlp", "head"], "forward": ["head", "mlp"]}, 1)
ORDERS = {"layers": None, "ascending_effect": None, "random_0": 0, "bisect": None}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return PlantedTask(exact.leak("gpt2"), tmp_path_factory.mktemp("task"))


def data_of(task, dtype, **settings):
    return TaskData(task.paths(), {"model": "m", "task": "t"}, task.checkpoint, RUN | {"dtype": dtype}, **settings)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_task_in_a_half_is_reported_in_float32(task, dtype, legacy):
    """Circuits, their scores and their faithfulness are those of the model in float32, and each decision says by what
    it was taken; of what the half decided, only percents differ."""
    data, full = (data_of(task, each, legacy_mlp_means=legacy) for each in (dtype, "float32"))
    assert full.float32_model is None, "it is in float32 already"
    splits = ("search", "held_out")
    ablators = {split: data.ablator(split, model=data.float32_model) for split in splits}
    half = data.ablator("search")
    trace, circuits, faithfulness = search_all("t", ablators, ORDERS, [20.0, 10.0], SETTINGS, BOOTSTRAP, half=half)
    own = {split: full.ablator(split) for split in splits}
    expected, of_full, in_full = search_all("t", own, ORDERS, [20.0, 10.0], SETTINGS, BOOTSTRAP)
    pd.testing.assert_frame_equal(faithfulness, in_full, rtol=1e-6)
    same = ["order", "threshold", "step", "sweep", "direction", "component", "removed", "heads", "mlps"]
    pd.testing.assert_frame_equal(trace[same], expected[same])
    assert set(expected.dtype) == {"float32"} and set(trace["dtype"]) <= {"float32", dtype}
    taken = trace["dtype"] == "float32"
    assert np.abs(trace.percent - expected.percent)[taken].max() < 1e-4
    for entry, other in zip(circuits, of_full, strict=True):
        counts = entry.pop("in_half")
        assert entry == other | {"percent_of_full": pytest.approx(other["percent_of_full"], rel=1e-6)}
        rows = trace[(trace.order == entry["order"]) & (trace.threshold == entry["threshold"])]
        assert counts["dtype"] == dtype and counts["again"] + counts["sampled"] == (rows["dtype"] == "float32").sum()
        assert counts["sampled"] >= len(rows) // EVERY - counts["again"] and counts["flipped"] <= counts["again"]
        assert counts["bound"] == max(precision.CLOSE, BEYOND * counts["largest_difference"])
        assert counts["compared"] >= SAMPLE


def test_no_decision_of_any_search_of_a_task_stands_within_the_bound_at_its_end(task, monkeypatch):
    """Those before the one that showed the largest difference run again."""
    data, scale, kept = data_of(task, "bfloat16"), iter(np.linspace(0, 3, 10_000)), {}
    half, on_search = data.ablator("search"), data.ablator("search", model=data.float32_model)
    own = half.percents_of_full

    def percents(circuits):  # the later a circuit is asked for, the further it is off
        shifts = [kept.setdefault(circuit, next(scale) if len(circuit) > 10 else 0.0) for circuit in circuits]
        return [percent + shift for percent, shift in zip(own(circuits), shifts, strict=True)]

    monkeypatch.setattr(half, "percents_of_full", percents)
    trace, circuits, _ = search_all("t", {"search": on_search}, ORDERS, [20.0, 10.0], SETTINGS, BOOTSTRAP, half=half)
    bound = max(entry["in_half"]["bound"] for entry in circuits)
    by_half = trace[trace["dtype"] == "bfloat16"]
    assert len(by_half) and ((by_half.percent - (100 - by_half.threshold)).abs() > bound).all()


def test_a_checked_search_that_was_cut_off_and_goes_on_gives_the_same_bits(task, tmp_path):
    """Scores of both precisions are kept; half of them are lost, as with a kill."""

    def made():
        data = data_of(task, "bfloat16", memo_folder=tmp_path)
        splits = ("search", "held_out")
        ablators = {split: data.ablator(split, model=data.float32_model) for split in splits}
        half = data.ablator("search")
        return search_all("t", ablators, ORDERS, [20.0], SETTINGS, BOOTSTRAP, half=half)

    trace, circuits, faithfulness = made()
    first = sorted(tmp_path.glob("*/*.scores"))
    whole = {file: file.read_bytes() for file in first}
    assert len(whole) == 3, "of the half, and of two splits in float32"
    for file, content in whole.items():
        file.write_bytes(content[: len(content) // 2])
    again, circuits_again, faithfulness_again = made()
    for file, content in whole.items():
        (rest,) = set(file.parent.glob("*.scores")) - {file}
        assert 0 < rest.stat().st_size < len(content), "what was kept was found"
    pd.testing.assert_frame_equal(trace, again, check_exact=True)
    pd.testing.assert_frame_equal(faithfulness, faithfulness_again, check_exact=True)
    assert circuits == circuits_again


def test_searches_on_other_data_and_among_sites_are_checked_too(task):
    """They are those of the model in float32, on the same replacement of components."""
    half, full = data_of(task, "bfloat16"), data_of(task, "float32")
    dataset = Dataset("bootstrap", "resample 0", full.prompts("search"), full.substitute("search"))
    search = NodeSearch("t", "layers", None, SETTINGS.rule(20.0), float32=half.float32_model)
    found = search.circuit(half.model, dataset)
    assert found == replace(search, float32=None).circuit(full.model, dataset)
    roles = [{"members": [0, 1], "last": [half.prompts("search").tokens.shape[1] - 1]}]
    by_half, on_search = (half.ablator("search", roles=roles, model=m) for m in (half.model, half.float32_model))
    checked = position_rows(on_search, on_search, found, 40.0, SETTINGS, BOOTSTRAP, by_half)
    assert checked == position_rows(on_search, on_search, found, 40.0, SETTINGS, BOOTSTRAP)
    assert {row["kept"] for row in checked} == {True, False}


def test_a_device_without_room_for_both_is_named(task, monkeypatch):
    data = data_of(task, "bfloat16")
    _ = data.model

    def full(*args, **settings):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(models, "load", full)
    with pytest.raises(StudyError, match=r"models.m.dtype: bfloat16 needs .* search.check_in_float32: false"):
        _ = data.float32_model
