"""The rest of a model at the answer position against TransformerLens hooks on whole runs, its gradients against finite
differences, and parts of components that were planted."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from atlas.core.components import Component
from atlas.core.errors import StudyError
from atlas.core.metrics import per_prompt
from atlas.core.statistics import Bootstrap
from atlas.geometry import neurons, of_members, svd, tails
from atlas.geometry.classes import Members
from atlas.geometry.neurons import Neurons, first
from atlas.geometry.tails import Split, Tail
from atlas.heads.attribution import Readout
from atlas.model.models import mlp_hook, z_hook
from random_models import FAMILIES, D, H, L, N, load_random, random_prompts

BOTH = ["gpt2", "llama"]  # an MLP without and with a gate; one key/value head for each query head, and shared ones


FEW = [*BOTH, "gemma3", *(pytest.param(name, marks=pytest.mark.slow) for name in ("neox", "neox sequential"))]
SLOW = [family for family in FAMILIES if not isinstance(family, str)]


@pytest.fixture(scope="module", params=[*FEW, *SLOW])
def model(request, tmp_path_factory):
    return load_random(request.param, tmp_path_factory.mktemp("random") / "model")


@pytest.fixture(scope="module", params=BOTH)
def simple(request, tmp_path_factory):
    return load_random(request.param, tmp_path_factory.mktemp("random") / "model")


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def hooked(model, prompts, name, put):
    """[N] logit differences by hooks on TransformerLens's own run; ``put(x)`` changes an activation in place."""

    def hook(x, hook):
        x = x.clone()
        put(x)
        return x

    logits = model.run(prompts.tokens, [(name, hook)], on_bridge=True)
    return per_prompt(["logit_diff"], logits, prompts.answer, prompts.incorrect)["logit_diff"]


def split_of(model, frame=None):
    """The random prompts, with the mean over the corrupted ones in place of what is ablated."""
    prompts = random_prompts()
    tail, corrupted = (Tail.of(model, p, "directions") for p in (prompts, prompts.swapped()))
    z = torch.stack([x[:, 0].mean(0, keepdim=True) for x in corrupted.z])
    mlp = torch.stack([corrupted.mlp_out(i).mean(0, keepdim=True) for i in range(L)])
    return Split(tail, z, mlp, frame)


# ---- the rest of a model --------------------------------------------------------------------------------------
def test_changes_at_the_last_position_are_those_of_hooks(model):
    prompts = random_prompts()
    tail = Tail.of(model, prompts, "directions")
    clean = hooked(model, prompts, z_hook(0), lambda x: None)
    assert (tail.clean() - clean).abs().max() < 10 * model.tolerance
    for layer in range(L):
        z, out = draw(N, 3, H, D // H, seed=layer), draw(N, 3, D, seed=9 + layer)
        of_z, of_mlp = tail.with_z(layer, z), tail.with_mlp(layer, out)
        for c in range(3):
            expected = hooked(model, prompts, z_hook(layer), lambda x, c=c, z=z: x[:, -1].copy_(z[:, c]))
            assert (of_z[c] - expected).abs().max() < 10 * model.tolerance
            expected = hooked(model, prompts, mlp_hook(layer), lambda x, c=c, out=out: x[:, -1].copy_(out[:, c]))
            assert (of_mlp[c] - expected).abs().max() < 10 * model.tolerance


def test_what_stands_between_the_maps_gives_what_the_mlp_adds(model):
    prompts = random_prompts()
    tail, found = Tail.of(model, prompts, "neurons"), {}
    for layer in range(L):
        model.run(prompts.tokens, [(mlp_hook(layer), lambda x, hook: found.update(out=x))], on_bridge=True)
        assert (tail.mlp_out(layer) - found["out"][:, -1]).abs().max() < 10 * model.tolerance


def test_gradients_are_those_of_small_steps_averaged_over_the_points(simple):
    tail = Tail.of(simple, random_prompts(), "neurons")
    clean, ablated = tail.hidden(1), tail.hidden(1) * 0.3
    run = lambda x: tail.with_hidden(1, x)  # noqa: E731
    found, step = tail.gradient(run, clean, ablated, 2), draw(*clean.shape, seed=4)
    slopes = []
    for share in (0.25, 0.75):
        at = ablated + share * (clean - ablated)
        ends = [run((at + sign * 1e-3 * step)[:, None])[0] for sign in (1, -1)]
        slopes.append((ends[0] - ends[1]) / 2e-3)
    expected = torch.stack(slopes).mean(0)
    assert ((found * step).sum(-1) - expected).abs().max() < 1e-3 * (1 + expected.abs().max())


def test_parts_run_in_batches_of_any_size(simple, monkeypatch):
    tail = Tail.of(simple, random_prompts(), "directions")
    z = draw(N, 7, H, D // H)
    whole = tail.with_z(0, z)
    monkeypatch.setattr(tails, "ROWS", 2 * N)
    torch.testing.assert_close(tail.in_parts(7, lambda part: tail.with_z(0, z[:, part])), whole)


def test_a_model_without_an_engine_is_refused(simple):
    with pytest.raises(StudyError, match=r"geometry\.analyses: neurons reads the weights"):
        Tail.of(replace(simple, weights=None), random_prompts(), "neurons")


# ---- directions -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("component", [Component(1, 2), Component(0)], ids=str)
def test_directions_are_the_singular_vectors_and_hold_all_that_is_written(model, component):
    found, split = svd.of_component(model, component), split_of(model)
    block = model.weights.blocks[component.layer]
    if component.is_mlp:
        product = found.out
    else:
        eye = torch.eye(D, dtype=torch.float64)
        read = block.norm1.linear(eye) @ block.w_v[:, component.head * block.w_v.shape[1] // H]
        product = read @ found.out
        z = split.tail.z[component.layer][:, 0, component.head]
        torch.testing.assert_close(found.coefficients(split) @ found.write, z @ found.out)
    torch.testing.assert_close((found.read * found.values) @ found.write, product)
    torch.testing.assert_close(found.write @ found.write.T, torch.eye(len(found), dtype=torch.float64))
    assert (found.values.diff() <= 0).all()


@pytest.mark.parametrize("component", [Component(1, 2), Component(1)], ids=str)
def test_ablating_a_direction_is_that_of_hooks_and_of_all_the_component_itself(model, component):
    """By hooks: the head's z moved so that z W_O moves along the direction alone."""
    found, split, prompts = svd.of_component(model, component), split_of(model), random_prompts()
    d, clean = found.write[1], split.tail.clean()
    if component.is_mlp:
        put = lambda x: x[:, -1].add_(((split.mlp[1] - x[:, -1]) @ d)[:, None] * d)  # noqa: E731
        name = mlp_hook(1)
    else:
        back = torch.linalg.lstsq(found.out.T, d).solution

        def put(x):
            z = x[:, -1, 2]
            z += ((split.z[1][:, 2] - z) @ found.out @ d)[:, None] * back

        name = z_hook(1)
    expected = clean - hooked(model, prompts, name, put)
    assert (found.losses(split, d[None])[0] - expected).abs().max() < 20 * model.tolerance


def test_attribution_sums_to_what_the_whole_costs(simple):
    split = split_of(simple)
    for component in (Component(1, 1), Component(1)):
        found = svd.of_component(simple, component)
        total = found.attribution(split, 64).sum(1)
        torch.testing.assert_close(total, split.losses([component])[0], atol=2e-3, rtol=2e-3)


def test_random_directions_are_unit_vectors_that_the_head_can_write(simple):
    found = svd.of_component(simple, Component(1, 2))
    x = found.random(50, 1)
    torch.testing.assert_close(x.norm(dim=1), torch.ones(50, dtype=torch.float64))
    torch.testing.assert_close(x @ found.write.T @ found.write, x)
    assert torch.equal(x, found.random(50, 1)) and not torch.equal(x, found.random(50, 2))


# ---- planted --------------------------------------------------------------------------------------------------
MEMBERS = Members("planted", tuple("abcdefgh"), tuple(range(2, 10)), tuple(range(8)), 8, cyclic=True)
HEAD = Component(1, 2)


def plant_direction(model):
    """Head 1.2 reads along one direction alone, of which members have a cosine of their place, and writes along one by
    which the unembedding has that of the place before."""
    w, head = model.weights, HEAD.head
    block, angle = w.blocks[1], 2 * np.pi * torch.arange(8, dtype=torch.float64) / 8
    group = block.owners[head]
    u, v = (torch.nn.functional.normalize(x - x.mean(), dim=0) for x in (draw(D, seed=1), draw(D, seed=2)))
    block.w_v[:, group] = 0
    block.w_v[:, group, 0] = 5 * u
    block.w_o[head] = torch.linalg.qr(torch.cat([v[:, None], draw(D, D // H - 1, seed=3)], 1))[0].T
    block.norm1.weight.fill_(1)
    w.norm_final.weight.fill_(1)
    write = block.w_o[head, 0]
    x = w.w_e[list(MEMBERS.ids)]
    w.w_e[list(MEMBERS.ids)] = x + (3 * angle.cos() - x @ u)[:, None] * u
    w.w_u[list(MEMBERS.ids)] = 2 * (angle - angle[1]).cos()[:, None] * write


@pytest.fixture(params=BOTH)
def planted(request, tmp_path):
    loaded = load_random(request.param, tmp_path / "model")
    for block in loaded.weights.blocks:  # what MLP 0 makes of an embedding would turn it
        for part in block.mlp.down:
            part.zero_()
    plant_direction(loaded)
    return loaded


def test_the_planted_direction_alone_carries_next_and_is_worth_the_head(planted):
    found, split = svd.of_component(planted, HEAD), split_of(planted)
    assert found.values[0] > 1 and (found.values[1:] < 1e-9).all()
    x = of_members.embedded(planted.weights, np.array(MEMBERS.ids), 1)
    made = of_members.next_of(found, x, MEMBERS, Readout.of(planted), 199, 0)
    assert made.values[0] / made.values.sum() == pytest.approx(1) and made.values[0] > 0.1
    assert made.p() == made.p(0) < 0.05 and made.members == 8
    whole, each = split.losses([HEAD])[0], found.losses(split, found.write)
    assert whole.abs().max() > 0.1
    torch.testing.assert_close(each[0], whole)
    assert each[1:].abs().max() < 1e-9
    attribution = found.attribution(split, 8).mean(0)
    assert attribution.abs().argmax() == 0 and attribution[1:].abs().max() < 1e-9
    assert found.losses(split, found.random(20, 0)).abs().mean(1).max() < whole.abs().mean()


def test_next_is_summed_member_by_member(planted):
    found, w = svd.of_component(planted, HEAD), planted.weights
    x, readout = of_members.embedded(w, np.array(MEMBERS.ids), 1), Readout.of(planted)
    made = of_members.next_of(found, x, MEMBERS, readout, 1, 0)
    product = (found.read * found.values) @ found.write
    added = []
    for i, token in enumerate(MEMBERS.ids):
        block = w.blocks[1]
        normed = block.norm1(w.w_e[token][None])[0] - (block.norm1.bias if block.norm1.bias is not None else 0)
        logits = readout.centre((normed / block.norm1.weight) @ product) * readout.weight @ readout.w_u
        following, others = MEMBERS.ids[(i + 1) % 8], [m for m in MEMBERS.ids if m != MEMBERS.ids[(i + 1) % 8]]
        added.append(float(logits[following] - logits[others].mean()))
    assert made.values.sum() == pytest.approx(np.mean(added), rel=1e-4)


def test_random_heads_do_not_write_next(simple):
    """Of all heads of random models fewer are found than chance allows them all together."""
    p = []
    for head in range(H):
        x = of_members.embedded(simple.weights, np.array(MEMBERS.ids), 1)
        found = svd.of_component(simple, Component(1, head))
        p.append(of_members.next_of(found, x, MEMBERS, Readout.of(simple), 199, 0).p())
    assert min(p) > 0.05 / H


def test_a_head_that_writes_nothing_has_no_direction(planted):
    planted.weights.blocks[1].w_o[0] = 0
    assert len(svd.of_component(planted, Component(1, 0))) == 0


CARRIERS = [3, 7, 11]


@pytest.fixture(params=BOTH)
def carrying(request, tmp_path):
    """MLP 1 writes by three of its neurons alone, along one direction and too little to bend what follows."""
    loaded = load_random(request.param, tmp_path / "model")
    w = loaded.weights.blocks[1].mlp.down[0]
    w.zero_()
    w[CARRIERS] = 0.02 * torch.tensor([[1.0], [1.2], [1.4]], dtype=torch.float64) * draw(D, seed=6)
    return loaded


def of_mlp(model):
    """Ablated by less than any clean activation; of each prompt's two answers the one that the MLP favours is right."""
    tail = Tail.of(model, random_prompts(), "neurons")
    mean = tail.hidden(1).min(0).values - 1
    made = Neurons.of(tail, 1, mean)
    sign = torch.sign(torch.as_tensor(made.losses(np.ones((1, len(mean)), dtype=bool))[0]))
    flip = sign < 0
    answer, incorrect = torch.where(flip, tail.incorrect, tail.answer), torch.where(flip, tail.answer, tail.incorrect)
    return Neurons.of(replace(tail, answer=answer, incorrect=incorrect), 1, mean)


def test_the_planted_neurons_are_found_and_no_others(carrying, monkeypatch):
    made = of_mlp(carrying)
    m = len(made.mean)
    attribution = made.attribution(32)
    order = np.argsort(-np.abs(attribution).mean(0), kind="stable")
    assert set(order[:3]) == set(CARRIERS) and np.abs(attribution[:, order[3:]]).max() < 1e-9
    monkeypatch.setattr(neurons, "MATTERS", 0.0)
    assert neurons.smallest(made, order, 0.99, Bootstrap(200, 0)) == 3
    assert neurons.smallest(made, order, 0.2, Bootstrap(200, 0)) == 1
    whole, own, rest = made.losses(np.stack([np.ones(m, dtype=bool), first(order, 3, m), ~first(order, 3, m)]))
    np.testing.assert_allclose(own, whole, atol=1e-6)
    assert np.abs(rest).max() < 1e-6 < 1e-3 < np.abs(whole).max()


def test_an_mlp_that_does_nothing_has_no_set(carrying):
    carrying.weights.blocks[1].mlp.down[0].zero_()
    made = of_mlp(carrying)
    assert neurons.smallest(made, np.arange(len(made.mean)), 0.8, Bootstrap(200, 0)) is None
    assert not made.attribution(4).any()


def test_sets_of_neurons_are_those_of_the_maps_written_out(simple):
    prompts = random_prompts()
    tail = Tail.of(simple, prompts, "neurons")
    mean = draw(tail.hidden(1).shape[1], seed=5)
    made = Neurons.of(tail, 1, mean)
    hidden = tail.hidden(1).clone()
    hidden[:, [2, 5]] = mean[[2, 5]]
    w, b = simple.weights.blocks[1].mlp.down
    out = hidden @ w + b
    expected = tail.clean() - hooked(simple, prompts, mlp_hook(1), lambda x: x[:, -1].copy_(out))
    np.testing.assert_allclose(made.losses(first(np.array([5, 2]), 2, len(mean))[None])[0], expected, atol=1e-5)


def test_all_neurons_at_their_means_are_the_mlp_at_its_mean(simple):
    prompts = random_prompts()
    tail, corrupted = (Tail.of(simple, p, "neurons") for p in (prompts, prompts.swapped()))
    made = Neurons.of(tail, 1, corrupted.hidden(1).mean(0))
    split = split_of(simple)
    found = made.losses(np.ones((1, len(made.mean)), dtype=bool))[0]
    np.testing.assert_allclose(found, split.losses([Component(1)])[0], atol=1e-9)


# ---- small parts ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("least", [1, 2, 3, 5, 8, 9, 12])
def test_the_crossing_is_the_first_size_that_is_enough(least):
    asked = []

    def enough(n):
        asked.append(n)
        return n >= least

    assert neurons.crossing(enough, neurons.sizes(12)) == least and len(asked) <= 8
    assert neurons.sizes(12) == [1, 2, 4, 8, 12] and neurons.sizes(8) == [1, 2, 4, 8]


def test_variance_between_answers_by_hand():
    groups = np.array(["a", "a", "b", "b", "c", "c", "c", "a"])
    values = np.stack([[1.0, 1, 5, 5, 9, 9, 9, 1], [1, 2, 3, 4, 5, 6, 7, 8], np.full(8, 2.0)], 1)
    share, p = neurons.by_groups(values, groups, 499, 0)
    frame = pd.DataFrame({"g": groups, "x": values[:, 1]})
    means = frame.groupby("g")["x"].transform("mean")
    assert share[0] == pytest.approx(1) and np.isnan(share[2]) and np.isnan(p[2])
    assert share[1] == pytest.approx(((means - frame.x.mean()) ** 2).sum() / ((frame.x - frame.x.mean()) ** 2).sum())
    assert p[0] < 0.05 < p[1]


def test_strongest_components_come_first(simple):
    split = split_of(simple)
    every = [Component(i, h) for i in range(L) for h in range(H)]
    losses = split.losses(every).mean(1)
    chosen = tails.strongest({"a": split, "b": split}, every, 3)
    assert chosen == [every[i] for i in losses.argsort(descending=True)[:3]]
    assert tails.strongest({"a": split}, [], 3) == [] == tails.strongest({"a": split}, every, 0)


def test_tokens_are_sampled_where_there_are_many(monkeypatch):
    assert of_members.sampled(10, np.array([3]), 0).tolist() == list(range(10))
    monkeypatch.setattr(of_members, "SAMPLE", 6)
    found = of_members.sampled(50, np.array([3, 40]), 0)
    assert len(found) == 6 and {3, 40} <= set(found) and (np.diff(found) > 0).all()
