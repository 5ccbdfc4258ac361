"""Ablation on the shipped model, against TransformerLens hooks written out and against naive loops.

Tolerance 1e-5 on logits of order 10: float32 rounding of one forward pass is about 1e-6.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.circuit.ablation import Ablator
from atlas.circuit.effects import single_ablations
from atlas.circuit.legacy import LegacyAblator
from atlas.circuit.replacement import replacement
from atlas.core.components import Component, all_components
from atlas.model import activations, models, source
from atlas.prompts.batch import Prompts
from atlas.prompts.tasks import Task, make_prompts
from atlas.prompts.tokens import encode_prompts
from atlas.study.settings import task_block
from conftest import SHIPPED, load_tokenizer

TOLERANCE = 1e-5  # in float64, where what is left is that cached activations and means are float32


@pytest.fixture(scope="module")
def shipped_model():
    return models.load(SHIPPED, device="cpu", dtype="float64", batch_size=64)


def frame(config, task="number_words", **changes):
    import pandas as pd

    block = task_block(config, task) | {"per_template": 16, "held_out_share": 0} | changes
    rows = encode_prompts(make_prompts(Task.from_config(task, block)), load_tokenizer("shipped"), False, task).rows
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def prompts(config):
    return Prompts.from_frame(frame(config), ["all"])


@pytest.fixture(scope="module")
def cache(shipped_model, prompts):
    runs = {"corrupted": prompts.corrupted_tokens, "clean": prompts.tokens}
    found = {run: activations.collect(shipped_model, tokens) for run, tokens in runs.items()}
    means = {run: m for run, (_, m) in found.items()} | {"groups": ["all"]}
    return {run: a for run, (a, _) in found.items()} | {"prompt": torch.tensor(prompts.prompt)}, means


@pytest.fixture(scope="module")
def ablators(shipped_model, prompts, cache):
    activations_, means = cache
    return {
        kind: Ablator(
            shipped_model, prompts, replacement(kind, shipped_model, prompts, means, activations_), use_engine=False
        )
        for kind in ("mean", "zero", "resample", "mean_clean")
    }


def by_hand(model, prompts, cache, kind, component):
    """One component ablated with a TransformerLens hook and nothing else of ours; logits at the last position."""
    name = f"blocks.{component.layer}." + ("hook_mlp_out" if component.is_mlp else "attn.hook_z")
    _, corrupted = model.bridge.run_with_cache(prompts.corrupted_tokens, names_filter=name)
    _, clean = model.bridge.run_with_cache(prompts.tokens, names_filter=name)

    def hook(x, hook):
        value = {
            "mean": corrupted[name].double().mean(0, keepdim=True).to(x).expand_as(x),
            "mean_clean": clean[name].double().mean(0, keepdim=True).to(x).expand_as(x),
            "zero": torch.zeros_like(x),
            "resample": corrupted[name],
        }[kind]
        x = x.clone()
        if component.is_mlp:
            x[:] = value
        else:
            x[:, :, component.head] = value[:, :, component.head]
        return x

    with torch.no_grad():
        return model.bridge.run_with_hooks(prompts.tokens, fwd_hooks=[(name, hook)])[:, -1]


LONG = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("zero", "resample", "mean_clean")]  # seconds each


@pytest.mark.parametrize("kind", ["mean", *LONG])
def test_each_ablation_equals_a_transformerlens_hook(shipped_model, prompts, cache, ablators, kind):
    for component in all_components(shipped_model.n_layers, shipped_model.n_heads)[:: 4 if kind == "mean" else 7]:
        ours = ablators[kind].logits(ablators[kind].everything - {component})
        oracle = by_hand(shipped_model, prompts, cache, kind, component)
        assert (ours - oracle).abs().max() < TOLERANCE, str(component)


@pytest.mark.parametrize("kind", ["mean", "zero", "resample"])
def test_ablating_nothing_is_the_clean_run(shipped_model, prompts, ablators, kind):
    with torch.no_grad():
        clean = shipped_model.bridge(prompts.tokens)[:, -1]
    assert (ablators[kind].logits(ablators[kind].everything) - clean).abs().max() < TOLERANCE


def test_mean_ablating_everything_leaves_only_the_last_token(config, shipped_model, prompts, ablators):
    """All templates of a prompt end in `in`: with every component at its mean nothing else can reach the logits."""
    assert len(set(prompts.tokens[:, -1].tolist())) == 1
    logits = ablators["mean"].logits(frozenset())
    assert (logits - logits[0]).abs().max() < TOLERANCE
    clean = ablators["mean"].logits(ablators["mean"].everything)
    assert (clean - clean[0]).abs().max() > 1, "the clean logits do differ"


def test_resampling_everything_is_the_corrupted_run(shipped_model, prompts, ablators):
    """Clean and corrupted prompts end in the same token at the same position, so the embeddings there agree."""
    with torch.no_grad():
        corrupted = shipped_model.bridge(prompts.corrupted_tokens)[:, -1]
    assert (ablators["resample"].logits(frozenset()) - corrupted).abs().max() < TOLERANCE


@given(st.data())
@settings(max_examples=6)
def test_batch_size_and_order_change_nothing(shipped_model, prompts, cache, ablators, data):
    everything = sorted(ablators["mean"].everything)
    circuit = frozenset(data.draw(st.sets(st.sampled_from(everything), min_size=5)))
    rows = data.draw(st.permutations(range(len(prompts))))
    kind = data.draw(st.sampled_from(["mean", "resample"]))
    shuffled = Prompts(
        prompts.tokens[rows],
        prompts.corrupted_tokens[rows],
        prompts.answer[rows],
        prompts.incorrect[rows],
        [prompts.prompt[i] for i in rows],
        prompts.group[rows],
    )
    small = replace(shipped_model, batch_size=data.draw(st.integers(3, 40)))
    other = Ablator(small, shuffled, replacement(kind, small, shuffled, cache[1], cache[0]))
    assert np.abs(other.logit_diff(circuit) - ablators[kind].logit_diff(circuit)[rows]).max() < TOLERANCE


def test_means_keep_the_axes_of_nodes_and_positions(shipped_model, prompts, cache):
    """Other tools' defect: a mean that averages over heads or over positions."""
    activations_, means = cache
    for name, x in activations_["corrupted"].items():
        assert means["corrupted"][name].shape == (x.shape[0], 1, *x.shape[2:])
        assert torch.allclose(means["corrupted"][name][:, 0], x.double().mean(1).float(), atol=1e-6)


def test_means_by_template_use_each_prompts_own_group(config, shipped_model):
    rows = frame(config)
    groups = sorted(rows.template.unique())
    prompts = Prompts.from_frame(rows, groups)
    runs, means = activations.collect(shipped_model, prompts.corrupted_tokens, prompts.group)
    for i, template in enumerate(groups):
        own = torch.tensor((rows.template == template).to_list())
        assert torch.allclose(means["z"][:, i], runs["z"][:, own].mean(1), atol=1e-6)
    ablator = Ablator(shipped_model, prompts, replacement("mean", shipped_model, prompts, {"corrupted": means}))
    circuit = ablator.everything - {Component(0)}
    logits = ablator.logits(circuit)
    alone = Prompts.from_frame(rows[rows.template == groups[1]], groups[1:2])
    own_means = {"corrupted": {name: x[:, 1:2] for name, x in means.items()}}
    expected = Ablator(shipped_model, alone, replacement("mean", shipped_model, alone, own_means)).logits(circuit)
    assert (logits[torch.tensor((rows.template == groups[1]).to_list())] - expected).abs().max() < TOLERANCE


def test_nothing_leaks_from_one_evaluation_to_the_next(shipped_model, prompts, ablators):
    before = shipped_model.run(prompts.tokens)
    ablators["zero"].logits(frozenset())
    assert torch.equal(shipped_model.run(prompts.tokens), before)


def test_remembered_scores_cost_no_forward_pass(shipped_model, prompts, cache):
    ablator = Ablator(shipped_model, prompts, replacement("mean", shipped_model, prompts, cache[1]))
    first = ablator.logit_diff(frozenset())
    passes = ablator.evaluations
    assert ablator.logit_diff(frozenset()) is first and ablator.evaluations == passes


def test_single_ablations_visit_every_component(shipped_model, prompts, cache):
    few = Prompts(
        prompts.tokens[:2],
        prompts.corrupted_tokens[:2],
        prompts.answer[:2],
        prompts.incorrect[:2],
        [0, 1],
        prompts.group[:2],
    )
    ablator = Ablator(shipped_model, few, replacement("zero", shipped_model, few, cache[1]), ("logit_diff", "kl"))
    found = dict(single_ablations(ablator))
    assert set(found) == set(all_components(shipped_model.n_layers, shipped_model.n_heads))
    assert all(scores["kl"].min() > -1e-6 for scores in found.values())


def test_single_ablations_of_a_layer_in_one_batch_are_those_of_each_alone(shipped_model, prompts, cache):
    """As on a GPU; memory for one, for some and for all of a layer's components (float64: 1e-9 of about 10)."""
    few = prompts.take(range(3))
    substitute = replacement("mean", shipped_model, few, cache[1])
    metrics = ("logit_diff", "kl")
    expected = dict(single_ablations(Ablator(shipped_model, few, substitute, metrics)))
    for memory in (1024, 4, 1):
        other = replace(shipped_model, device="cpu:0", memory_mb=memory)  # any name but `cpu` counts as a GPU
        ablator = Ablator(other, few, substitute, metrics)
        found = dict(single_ablations(ablator))
        assert list(found) == list(expected)
        for component, scores in found.items():
            for metric in metrics:
                assert np.abs(scores[metric] - expected[component][metric]).max() < 1e-9, (memory, component)
    assert ablator.circuits_that_fit() < shipped_model.n_heads


def test_legacy_mlp_means_equal_a_naive_computation(shipped_model, prompts, cache):
    """MLP means are those of corrupted runs in which the heads outside the circuit are mean-ablated."""
    _, means = cache
    substitute = replacement("mean", shipped_model, prompts, means)
    ablator = LegacyAblator(shipped_model, prompts, substitute, prompts)
    circuit = frozenset({Component(0), Component(2), Component(1, 3), Component(4, 0)})
    tokens, bridge = prompts.corrupted_tokens, shipped_model.bridge

    def replace_heads(layer):
        def hook(z, hook):
            z = z.clone()
            for head in range(shipped_model.n_heads):
                if Component(layer, head) not in circuit:
                    z[:, :, head] = means["corrupted"]["z"][layer, 0, :, head]
            return z

        return (f"blocks.{layer}.attn.hook_z", hook)

    heads = [replace_heads(layer) for layer in range(shipped_model.n_layers)]
    mlp_means = {}

    def save(layer):
        def hook(out, hook):
            mlp_means[layer] = out.mean(0)

        return (f"blocks.{layer}.hook_mlp_out", hook)

    def replace_mlp(layer):
        return (f"blocks.{layer}.hook_mlp_out", lambda out, hook: mlp_means[layer].expand_as(out))

    layers = range(shipped_model.n_layers)
    with torch.no_grad():
        bridge.run_with_hooks(tokens, fwd_hooks=[*heads, *(save(layer) for layer in layers)])
        absent = [replace_mlp(layer) for layer in layers if Component(layer) not in circuit]
        expected = bridge.run_with_hooks(prompts.tokens, fwd_hooks=[*heads, *absent])[:, -1]
    assert (ablator.logits(circuit) - expected).abs().max() < TOLERANCE
    ordinary = Ablator(shipped_model, prompts, substitute)
    assert (ordinary.logits(circuit) - expected).abs().max() > 1e-3, "the switch makes a difference"


def test_only_the_last_position_is_unembedded(shipped_model, prompts):
    shapes = []
    shipped_model.run(prompts.tokens, [("unembed.hook_out", lambda x, hook: shapes.append(tuple(x.shape)))])
    assert shapes == [(len(prompts), 1, shipped_model.bridge.cfg.d_vocab)]


def test_a_model_that_is_not_there_is_refused_with_the_remedy(tmp_path, monkeypatch):
    from atlas.core.errors import StudyError

    with pytest.raises(StudyError, match=r"models.x.path: .*nowhere holds no config.json; give the folder"):
        source.resolve("x", {"path": "nowhere"}, tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(StudyError, match=r"models.x.hub: 'no/such-model' cannot be reached .* set models.x.path"):
        source.resolve("x", {"hub": "no/such-model"}, tmp_path)


def test_the_description_holds_the_models_own_sizes(shipped_model):
    found = source.describe("x", SHIPPED)
    assert (found["n_layers"], found["n_heads"], found["d_model"]) == (
        shipped_model.n_layers,
        shipped_model.n_heads,
        shipped_model.d_model,
    )


def test_rows_may_be_taken_in_any_order_and_more_than_once(shipped_model, prompts, cache):
    """With their own positions and roles; swapped prompts are the corrupted ones with the same answers."""
    from dataclasses import replace

    n, s = prompts.tokens.shape
    generator = torch.Generator().manual_seed(0)
    position = torch.randint(s, (n,), generator=generator)
    roles = {"last": torch.arange(s) == position[:, None], "bos": (torch.arange(s) == 0)[None]}
    own, rows = replace(prompts, position=position, roles=roles), [7, 0, 7, 3]
    found = own.take(rows)
    for i, row in enumerate(rows):
        assert torch.equal(found.tokens[i], prompts.tokens[row]) and found.prompt[i] == prompts.prompt[row]
        assert torch.equal(found.corrupted_tokens[i], prompts.corrupted_tokens[row])
        assert (found.answer[i], found.incorrect[i]) == (prompts.answer[row], prompts.incorrect[row])
        assert found.roles["last"][i].nonzero().item() == found.position[i] == position[row]
    assert torch.equal(found.roles["bos"], roles["bos"]) and len(found) == 4
    swapped = own.swapped()
    assert torch.equal(swapped.tokens, prompts.corrupted_tokens)
    assert torch.equal(swapped.corrupted_tokens, prompts.tokens) and torch.equal(swapped.answer, prompts.answer)


def test_means_of_another_length_are_refused(shipped_model, prompts, cache):
    """Those that the kind of ablation uses are looked at, and no others are needed."""
    from atlas.core.errors import StudyError

    short = {name: x[:, :, :-1] for name, x in cache[1]["clean"].items()}
    with pytest.raises(StudyError, match=r"means are of 22 positions, prompts have 23"):
        replacement("mean_clean", shipped_model, prompts, cache[1] | {"clean": short})
    assert replacement("mean", shipped_model, prompts, cache[1] | {"clean": short})
    assert replacement("mean_clean", shipped_model, prompts, {"clean": cache[1]["clean"]})


# ---- activations larger than memory --------------------------------------------------------------------------
def anonymous_mb() -> float:
    """Memory of this process that no file backs."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Anonymous:"))


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="tells memory from files on Linux alone")
def test_activations_on_disk_take_no_memory_and_are_the_same(shipped_model, prompts, tmp_path):
    before = anonymous_mb()
    large = activations.on_disk((4, 32, 2**18), torch.bfloat16, tmp_path)
    large.fill_(1)
    assert large.numel() * 2 / 2**20 == 64 and anonymous_mb() - before < 16 and large[3, 31, -1] == 1
    assert not list(tmp_path.iterdir()), "no file is left behind"
    (in_memory, means), (on_disk, same) = (
        activations.collect(shipped_model, prompts.tokens, dtype=torch.float32, folder=folder)
        for folder in (None, tmp_path)
    )
    for name, x in in_memory.items():
        assert torch.equal(on_disk[name], x) and torch.equal(same[name], means[name])
