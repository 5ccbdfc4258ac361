"""The whole of the analyses of directions and neurons on the shipped model and a few prompts."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from atlas.circuit.replacement import Replacement
from atlas.circuit.unablated import collected
from atlas.core.components import Component
from atlas.core.errors import StudyError
from atlas.core.metrics import per_prompt
from atlas.core.statistics import Bootstrap
from atlas.geometry import directions, neurons, tails
from atlas.model.models import z_hook
from atlas.prompts.batch import Prompts
from conftest import load_tokenizer
from head_prompts import study_task

CIRCUIT = frozenset({Component(1, 4), Component(4, 3), Component(3), Component(5)})
COMMON = {"points": 4, "prompts": 8, "tokens": 6, "permutations": 99, "seed": 0}
OF_DIRECTIONS = directions.Settings(heads=1, mlps=1, top=2, random=20, **COMMON)
OF_NEURONS = neurons.Settings(mlps=1, top=2, share=0.8, random=20, **COMMON)


class Data(SimpleNamespace):
    """What a task computes from, its means taken here."""

    report_split = "held_out"

    def frame(self, split):
        return self.frames[split]

    def replacing(self, prompts):
        mean = {name: x.mean(1, keepdim=True) for name, x in self.run.items()}
        return Replacement(mean["z"], mean["mlp_out"], torch.zeros(len(prompts), dtype=torch.long))


def data_of(config, model, task):
    frame, _ = study_task(config, task, per_template=12)
    frame = frame.assign(layout=0, task=task)
    frames = {"search": frame[::2].reset_index(drop=True), "held_out": frame[1::2].reset_index(drop=True)}
    run, _ = collected(model, Prompts.from_frame(frames["search"]).rows(), "corrupted")
    return Data(task=task, model=model, frames=frames, run=run, means={"groups": None})


@pytest.fixture(scope="module")
def given(config, shipped_model):
    data = [data_of(config, shipped_model, task) for task in ("months", "numerals")]
    classes = {name: config["geometry"]["classes"][name] for name in ("months", "days")}
    known = directions.Known(classes, config["prompts"]["fillers"], {"months": config["tasks"]["months"]["members"]})
    return data, CIRCUIT, load_tokenizer("shipped"), known


@pytest.fixture(scope="module")
def of_directions(given):
    return directions.run(*given, OF_DIRECTIONS, Bootstrap(100, 0))


@pytest.fixture(scope="module")
def of_neurons(given):
    return neurons.run(*given, OF_NEURONS, Bootstrap(100, 0))


def test_whole_components_cost_what_hooks_say(given, of_directions, shipped_model):
    """The head's z replaced at the last position by its mean over the corrupted prompts searched on."""
    rows = of_directions["direction_ablations"]
    row = rows[(rows["rank"] == 0) & (rows["task"] == "months") & (rows["head"] >= 0)].iloc[0]
    split = tails.Split.of(given[0][0], "held_out", 8, "directions")
    prompts, scores = Prompts.from_frame(split.frame), []

    def replace(z, hook):
        z = z.clone()
        z[:, -1, row["head"]] = given[0][0].run["z"][row["layer"], :, -1, row["head"]].mean(0)
        return z

    for edits in ([], [(z_hook(row["layer"]), replace)]):
        logits = shipped_model.run(prompts.tokens, edits)
        scores.append(per_prompt(["logit_diff"], logits, prompts.answer, prompts.incorrect)["logit_diff"])
    assert row["value"] == pytest.approx(float((scores[0] - scores[1]).mean()), abs=1e-4)
    assert row["full"] == pytest.approx(float(scores[0].mean()), abs=1e-4) and row["prompts"] == 8


def test_tables_of_directions_hold_together(of_directions):
    rows = of_directions["direction_ablations"]
    assert rows["component"].nunique() == 2 and rows.groupby(["task", "component"]).size().eq(3).all()
    assert rows["p"].notna().equals(rows["rank"] == 1) and rows["p"].dropna().between(1 / 21, 1).all()
    assert (rows["p_holm"].dropna() >= rows["p"].dropna()).all() and (rows["tests"] == 2).all()
    following = of_directions["direction_next"]
    whole = following[following["direction"] == -1].set_index("class")["value"]
    parts = following[following["direction"] >= 0].groupby("class")["value"].sum()
    np.testing.assert_allclose(parts[whole.index], whole, atol=1e-9)
    read = of_directions["directions"]
    assert set(read["sign"]) == {"+", "-"} and (read.loc[read["head"] < 0, "reads"] == "").all()
    assert read["label_p_holm"].between(0, 1).all() and read.loc[read["head"] >= 0, "read_p_holm"].notna().all()
    ablated = set(map(tuple, rows.loc[rows["rank"] == 1, ["component", "direction"]].to_numpy()))
    assert ablated <= set(map(tuple, read[["component", "direction"]].to_numpy())), "what is tested can be read"
    members = of_directions["direction_members"]
    assert members.groupby(["task", "component", "direction"])["prompts"].sum().eq(8).all()


def test_tables_of_neurons_hold_together(of_neurons):
    sets = of_neurons["neuron_sets"]
    for task in ("months", "numerals"):
        own = {name: rows for name, rows in sets[sets["task"] == task].groupby("set")}
        curve, whole = own["curve"], own["whole"].iloc[0]
        assert curve["neurons"].iloc[-1] == whole["neurons"] == whole["of"]
        assert curve["value"].iloc[-1] == pytest.approx(whole["value"]) == pytest.approx(curve["random"].iloc[-1])
        smallest, rest = (own[name].iloc[0] for name in ("smallest", "rest"))
        assert smallest["neurons"] + rest["neurons"] == whole["of"] and 1 / 21 <= smallest["p"] <= 1
    single = of_neurons["neurons"]
    assert (
        single.groupby("task").size().eq(2).all()
        and (single["attribution"].groupby(single["task"]).diff().dropna() <= 0).all()
    )
    answers = of_neurons["neuron_members"]
    mean = answers.assign(sum=answers["value"] * answers["prompts"]).groupby(["task", "neuron"])["sum"].sum() / 8
    at = pd.MultiIndex.from_frame(single[["task", "neuron"]])
    np.testing.assert_allclose(mean[at], single["activation"], atol=1e-6)


@pytest.mark.slow
def test_runs_repeat_to_the_last_bit(given, of_directions, of_neurons):
    again = directions.run(*given, OF_DIRECTIONS, Bootstrap(100, 0)) | neurons.run(
        *given, OF_NEURONS, Bootstrap(100, 0)
    )
    for name, table in (of_directions | of_neurons).items():
        pd.testing.assert_frame_equal(again[name], table, check_exact=True)


def test_without_a_task_there_is_nothing_to_read():
    with pytest.raises(StudyError, match=r"geometry\.analyses: directions and neurons"):
        tails.data_of({"model": "model.json"}, [], {"name": "m", "how": {}})
