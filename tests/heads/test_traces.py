"""Traces of single prompts: attention against Hugging Face's own, sums of attribution, what components write, packing.

Attention is kept in eight bits, half a step of which is 0.5 / 255; the rest as in `random_models`, but that the rotary
angles of Hugging Face's models are float32 even where their weights are float64: logits show it in the 7th digit.
"""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from atlas.circuit import effects
from atlas.core.components import Component, all_components
from atlas.core.statistics import Bootstrap
from atlas.heads import attribution, traces
from atlas.heads.traces import Settings
from atlas.prompts import layouts
from atlas.prompts.batch import Prompts
from atlas.proof import exact
from planted_tasks import PlantedTask
from random_models import COMPONENTS, EVERY, FAMILIES, H, L, N, S, load_random, random_prompts

HALF_A_STEP = 0.5 / 255 + 1e-6
OF_TWIN = {family: tolerance if family == "gpt2" else max(tolerance, 1e-6) for family, tolerance in EVERY.items()}
HEADS = [Component(0, 1), Component(2, 3), Component(1, 0)]


class Numbers:
    """A tokenizer whose tokens are called by their ids."""

    def decode(self, ids):
        return " ".join(map(str, ids))


@pytest.fixture(scope="module", params=FAMILIES)
def traced(request, tmp_path_factory):
    """(family, model, its Hugging Face twin, prompts, entries) with everything that can be traced."""
    folder = tmp_path_factory.mktemp(request.param.replace(" ", "_"))
    model, prompts = load_random(request.param, folder), random_prompts()
    twin = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")
    return request.param, model, twin, prompts, traces.of_model(model, prompts, HEADS, traces.PARTS, Numbers())


def test_attention_is_that_of_the_hugging_face_model(traced):
    _, _, twin, prompts, entries = traced
    with torch.no_grad():
        attentions = twin(prompts.tokens, output_attentions=True).attentions  # of each layer [N, H, S, S]
    for i, entry in enumerate(entries):
        found = traces.unpacked(entry["attention"], S)
        expected = np.stack([attentions[head.layer][i, head.head].numpy() for head in HEADS])
        assert found.shape == expected.shape == (len(HEADS), S, S)
        assert np.abs(found - expected).max() < HALF_A_STEP


def test_attribution_and_the_rest_sum_to_the_logit_difference(traced):
    family, model, twin, prompts, entries = traced
    with torch.no_grad():
        logits = twin(prompts.tokens).logits[:, -1]
    cap = model.weights.logit_cap
    before_cap = logits if cap is None else cap * torch.atanh(logits / cap)
    for i, entry in enumerate(entries):
        assert len(entry["attribution"]) == len(COMPONENTS)
        total = sum(entry["attribution"]) + sum(value for _, value in entry["rest"])
        expected = before_cap[i, prompts.answer[i]] - before_cap[i, prompts.incorrect[i]]
        assert total == pytest.approx(float(expected), abs=OF_TWIN[family])
        best = logits[i].topk(traces.TOP)
        assert [token for token, _ in entry["top"]] == [str(t) for t in best.indices.tolist()]
        assert [value for _, value in entry["top"]] == pytest.approx(best.values.tolist(), abs=OF_TWIN[family])


def test_the_lens_ends_in_the_models_own_answer(traced):
    family, _, twin, prompts, entries = traced
    with torch.no_grad():
        logits = twin(prompts.tokens).logits[:, -1]
    for i, entry in enumerate(entries):
        lens = entry["lens"]
        assert len(lens["points"]) == len(lens["value"]) == len(lens["top"]) == 2 * L + 1
        expected = float(logits[i, prompts.answer[i]] - logits[i, prompts.incorrect[i]])
        assert lens["value"][-1] == pytest.approx(expected, abs=10 * OF_TWIN[family])
        assert lens["top"][-1] == [token for token, _ in entry["top"]]


def test_what_a_component_writes_is_its_direct_logits(traced):
    """The difference of the direct logits of answer and incorrect answer is its direct attribution, prompt by prompt;
    and the tokens listed are those of the largest and smallest mean."""
    family, model, _, prompts, entries = traced
    readout = attribution.Readout.of(model)
    written = traces.written(model, readout, prompts.tokens)
    assert written.shape == (L, H + 1, N, model.d_model)
    logits = written.flatten(0, 1) @ readout.w_u.double()  # [C, N, V]
    for i, entry in enumerate(entries):
        difference = logits[:, i, prompts.answer[i]] - logits[:, i, prompts.incorrect[i]]
        assert difference.tolist() == pytest.approx(entry["attribution"], abs=10 * EVERY[family])
    frame = pd.DataFrame({"tokens": prompts.tokens.tolist(), "corrupted_tokens": prompts.corrupted_tokens.tolist()})
    frame = frame.assign(answer_token=0, incorrect_token=1, prompt=range(N), layout=[0, 0, 0, 1, 1])
    found = traces.written_tokens(model, frame, Numbers().decode)
    assert list(found) == list(map(str, COMPONENTS))
    mean = logits.mean(1)
    mean = mean - mean.mean(-1, keepdim=True)
    for row, entry in zip(mean, found.values(), strict=True):
        for side, order in (("top", row.argsort(descending=True)), ("bottom", row.argsort())):
            assert [token for token, _ in entry[side]] == [str(t) for t in order[: traces.WRITTEN].tolist()]
            assert [v for _, v in entry[side]] == pytest.approx(row[order[: traces.WRITTEN]].tolist(), abs=1e-5)


def test_only_what_a_study_finds_out_is_traced(traced):
    _, model, _, prompts, _ = traced
    (entry, *_) = traces.of_model(model, prompts, HEADS, ["lens"], Numbers())
    assert set(entry) == {"top", "lens"}
    (entry, *_) = traces.of_model(model, prompts, [], ["attention"], Numbers())
    assert set(entry) == {"top"}


@given(heads=st.integers(1, 4), tokens=st.integers(1, 9), seed=st.integers(0, 1000))
def test_packing_keeps_every_weight_to_half_a_step(heads, tokens, seed):
    weights = np.tril(np.random.default_rng(seed).random((heads, tokens, tokens)))
    found = traces.unpacked(traces.packed(weights), tokens)
    assert np.abs(found - weights).max() <= HALF_A_STEP


# ---- a whole task --------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def task(tmp_path_factory):
    made = PlantedTask(exact.leak("gpt2"), tmp_path_factory.mktemp("task"))
    span = [[i, i] for i in range(1, len(made.frame.tokens.iloc[0]))]
    layout = {"tokens": len(span) + 1, "members": span, "answer_position": len(span), "bos": True}
    return SimpleNamespace(made=made, info={"layout": layout, "layouts": [layout]})


SETTINGS = Settings(prompts=4, heads=1, analyses=["attention", "attribution", "lens", "ov"], kind="mean")


def test_a_tasks_traces_are_of_the_prompts_searched_on_with_their_single_ablations(task):
    data = task.made.data()
    ablators = ((kind, data.ablator("search", ["logit_diff"], kind)) for kind in ("mean", "zero"))
    scores, means = effects.component_effects(ablators, ["logit_diff"], Bootstrap(50, 0))
    model = data.model
    heads = traces.shown_heads({"t": frozenset({Component(0, 0), Component(1)})}, means, SETTINGS)
    size = means[(means.kind == "mean") & (means.metric == "percent_of_full") & (means["head"] >= 0)]
    size = size.assign(size=(size.value - 100).abs()).sort_values("size", ascending=False, kind="stable")
    beside = next(name for name in size.component if name != "0.0")
    assert list(map(str, heads)) == ["0.0", beside]

    found = traces.trace(data, Numbers(), task.info, heads, SETTINGS, scores)
    frame = layouts.spread(data.frame("search"), 4)
    assert [entry["prompt"] for entry in found["prompts"]] == frame.prompt.tolist()
    assert (found["split"], found["prompts_of"]) == ("search", len(data.frame("search")))
    clean = data.ablator("search").logit_diff(frozenset(all_components(model.n_layers, model.n_heads)))
    place = {prompt: i for i, prompt in enumerate(data.prompts("search").prompt)}
    for entry in found["prompts"]:
        i = place[entry["prompt"]]
        assert entry["clean"] == pytest.approx(clean[i], abs=1e-4)
        for kind in ("mean", "zero"):
            ablator = data.ablator("search", ["logit_diff"], kind)
            for n, component in enumerate(all_components(model.n_layers, model.n_heads)):
                if n % 3 == entry["prompt"] % 3:
                    without = ablator.logit_diff(ablator.everything - {component})[i]
                    assert entry["ablated"][kind][n] == pytest.approx(without, abs=1e-5)
        assert len(entry["roles"]) == len(entry["tokens"]) and entry["roles"][-1] == "last"
    assert json.dumps(found) == json.dumps(traces.trace(data, Numbers(), task.info, heads, SETTINGS, scores))


def test_a_task_that_was_not_searched_is_traced_on_the_prompts_that_are_reported_on(task):
    data = task.made.data()
    found = traces.trace(data, Numbers(), task.info, HEADS[:1], SETTINGS)
    assert found["split"] == "held_out" and all("ablated" not in entry for entry in found["prompts"])
    assert Prompts.from_frame(layouts.spread(data.frame("held_out"), 4)).prompt == [
        entry["prompt"] for entry in found["prompts"]
    ]
