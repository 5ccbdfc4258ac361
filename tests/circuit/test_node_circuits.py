"""Searches of a whole task on a planted model: circuits, traces, faithfulness; single ablations; circuits of others."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from atlas.circuit import cross
from atlas.circuit.effects import component_effects
from atlas.circuit.node_circuits import search_all
from atlas.circuit.search import SearchSettings, jumps
from atlas.core.components import all_components, from_json, heads
from atlas.core.errors import StudyError
from atlas.core.statistics import Bootstrap
from atlas.proof import exact
from planted_tasks import PlantedTask

BOOTSTRAP = Bootstrap(50, seed=3)
SETTINGS = SearchSettings(None, [], {"backward": ["mlp", "head"], "forward": ["head", "mlp"]}, 1, True, 300)
ORDERS = {"layers": None, "ascending_effect": None, "random_0": 0, "bisect": None, "annealed_0": 0}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return PlantedTask(exact.leak("gpt2"), tmp_path_factory.mktemp("task"))


@pytest.fixture(scope="module")
def ablators(task):
    data = task.data()
    return {split: data.ablator(split, ("logit_diff", "top1")) for split in ("search", "held_out")}


@pytest.fixture(scope="module")
def searched(ablators):
    return search_all("t", ablators, ORDERS, [20.0, 10.0], SETTINGS, BOOTSTRAP)


def test_every_order_and_threshold_finds_what_is_planted(task, searched):
    """`leak`: a head worth an eighth goes under a floor of 80 percent, and stays under one of 90."""
    _, circuits, _ = searched
    assert [(c["order"], c["threshold"]) for c in circuits] == [(o, t) for o in ORDERS for t in (20.0, 10.0)]
    for entry in circuits:
        method = entry["order"].split("_0")[0]
        assert from_json(entry) in task.fixture.returns(method, "mean", entry["threshold"])
        assert entry["percent_of_full"] > 100 - entry["threshold"]
    whole = next(c for c in circuits if (c["order"], c["threshold"]) == ("layers", 10.0))
    assert from_json(whole) == task.fixture.nodes["mean"]


def test_a_trace_replays_its_search(searched):
    trace, circuits, _ = searched
    for entry in circuits:
        steps = trace[(trace.order == entry["order"]) & (trace.threshold == entry["threshold"])]
        assert steps.step.tolist() == list(range(1, entry["evaluations"] + 1))
        gone = {name for names in steps.component[steps.removed] for name in names.split()}
        left = {str(c) for c in all_components(3, 4)} - gone
        assert jumps(entry["order"]) or left == {*entry["heads"], *entry["mlps"]}
        assert jumps(entry["order"]) == any(steps.returned)
        assert (steps.heads.iloc[-1], steps.mlps.iloc[-1]) == (len(entry["heads"]), len(entry["mlps"]))


def test_faithfulness_is_that_of_each_split(ablators, searched):
    _, circuits, faithfulness = searched
    assert len(faithfulness) == len(circuits) * 2 * 2
    for entry in circuits:
        for split, ablator in ablators.items():
            rows = faithfulness[(faithfulness.order == entry["order"]) & (faithfulness.threshold == entry["threshold"])]
            value = rows[rows.split == split].set_index("metric").value
            circuits_of = (from_json(entry), ablator.everything, frozenset())
            found, full, empty = (ablator.logit_diff(c).mean() for c in circuits_of)
            assert value["percent_of_full"] == pytest.approx(100 * found / full)
            assert value["faithfulness"] == pytest.approx((found - empty) / (full - empty))


def test_a_component_to_keep_that_the_model_lacks_is_refused(ablators):
    for lacking in ("m3", "0.4", "7.0"):
        with pytest.raises(StudyError, match=rf"search.never_test: {lacking} is no component of a model with 3 layers"):
            search_all("t", ablators, ORDERS, [20.0], replace(SETTINGS, never_test=["0.0", lacking]), BOOTSTRAP)


def test_a_task_without_an_effect_is_refused(ablators):
    class Nothing:
        everything = ablators["search"].everything

        def logit_diff(self, circuit):
            return np.ones(4)

    with pytest.raises(StudyError, match=r"tasks.t: ablating everything changes the logit difference"):
        search_all("t", {"search": Nothing()}, ORDERS, [20.0], SETTINGS, BOOTSTRAP)


# ---- single ablations ----------------------------------------------------------------------------------------
def test_component_effects_are_what_each_one_alone_loses(ablators):
    ablator = ablators["held_out"]
    scores, effects = component_effects([("mean", ablator)], ["logit_diff", "top1"], BOOTSTRAP)
    full = ablator.logit_diff(ablator.everything)
    assert len(scores) == len(ablator.everything) * 2 * len(ablator.prompts)
    for component in sorted(ablator.everything):
        values = ablator.logit_diff(ablator.everything - {component})
        own = scores[(scores.component == str(component)) & (scores.metric == "logit_diff")]
        assert own.value.tolist() == values.tolist() and own.prompt.tolist() == ablator.prompts.prompt
        row = effects[effects.component == str(component)].set_index("metric")
        assert row.value["logit_diff"] == pytest.approx(values.mean()) and row.clean["top1"] == 1
        assert row.value["percent_of_full"] == pytest.approx(100 * values.mean() / full.mean())


# ---- circuits of all tasks on one ----------------------------------------------------------------------------
@pytest.fixture(scope="module")
def chosen(task):
    truth = task.fixture.nodes["mean"]
    part = frozenset(list(sorted(truth))[:1])
    return {"t": truth, "other": part, "shared": truth & part, "union": truth | part}


def test_cross_rows_are_percent_faithfulness_and_top1_of_each(ablators, chosen):
    ablator = ablators["held_out"]
    table = pd.DataFrame(cross.cross_rows("t", ablator, chosen, "held_out", BOOTSTRAP))
    assert table.circuit.unique().tolist() == [*chosen, "all but shared"] and set(table.prompts) == {
        len(ablator.prompts)
    }
    full, empty = (ablator.logit_diff(c).mean() for c in (ablator.everything, frozenset()))
    for name, circuit in (chosen | {"all but shared": ablator.everything - chosen["shared"]}).items():
        values = table[table.circuit == name].set_index("metric").value
        found = ablator.scores(circuit)
        assert values["faithfulness"] == pytest.approx((found["logit_diff"].mean() - empty) / (full - empty))
        assert values["top1"] == found["top1"].mean()


def test_controls_stand_beside_the_circuit_that_they_are_drawn_for(ablators, chosen):
    ablator, questions = ablators["held_out"], cross.questions_of("t", chosen)
    assert questions == [("necessity", "shared"), ("necessity", "t"), ("sufficiency", "t")]
    assert cross.questions_of("elsewhere", chosen) == questions[:1]
    rows, notes = cross.control_rows(ablator, chosen, questions, 5, 0, BOOTSTRAP)
    table, own = pd.DataFrame(rows), frozenset(heads(chosen["t"]))
    assert len(notes) == 3 and table.draw.min() == -1 and len(table[table.draw == -1]) == 3
    full = ablator.logit_diff(ablator.everything).mean()
    for question, intact in (("necessity", ablator.everything - own), ("sufficiency", chosen["t"])):
        row = table[(table.question == question) & (table.circuit == "t") & (table.set == "circuit")].iloc[0]
        assert row.components == " ".join(map(str, sorted(own)))
        assert row.value == pytest.approx(100 * ablator.logit_diff(intact).mean() / full)
    necessity = table[(table.question == "necessity") & (table.circuit == "t") & (table.set == "control")]
    assert not any(set(names.split()) & set(map(str, own)) for names in necessity.components)
