"""The live engine against TransformerLens hooks, on random models of three families.

Tolerances are those of `random_models`.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.circuit import search
from atlas.circuit.ablation import Ablator
from atlas.circuit.legacy import LegacyAblator
from atlas.circuit.replacement import Replacement
from atlas.core.components import Component, Site, sites
from atlas.core.errors import StudyError
from atlas.model import engine, families, models
from atlas.model.live import LiveRun
from atlas.prompts.batch import Prompts
from conftest import every_other, load_tokenizer, slow_but
from random_models import (
    COMPONENTS,
    EVERY,
    ROWS,
    VOCAB,
    D,
    H,
    L,
    N,
    S,
    circuits_strategy,
    load_random,
    random_prompts,
    substitute,
)


@pytest.fixture(scope="module", params=slow_but(EVERY, "gpt2", "gemma3"))
def model(request, tmp_path_factory):
    return load_random(request.param, tmp_path_factory.mktemp("random") / "model")


@pytest.fixture(scope="module")
def prompts():
    return random_prompts()


@pytest.mark.parametrize("rows", every_other(ROWS, 1))
@given(circuits=st.lists(circuits_strategy, min_size=1, max_size=6))
@settings(max_examples=12)
def test_the_engine_equals_hooks(model, prompts, rows, circuits):
    """Any circuits, one after another, so that residuals remembered from one serve the next."""
    live = Ablator(model, prompts, substitute(ROWS[rows]))
    hooks = Ablator(model, prompts, substitute(ROWS[rows]), use_engine=False)
    assert live.live and not hooks.live
    for circuit in circuits:
        expected = hooks.logits(circuit)
        assert (live.logits(circuit) - expected).abs().max() < model.tolerance
        picked = np.arange(N)
        difference = (expected[picked, prompts.answer] - expected[picked, prompts.incorrect]).numpy()
        assert np.abs(live.logit_diff(circuit) - difference).max() < model.tolerance


@given(base=circuits_strategy, layer=st.integers(0, L - 1), data=st.data())
@settings(max_examples=25)
def test_a_batch_of_candidates_equals_one_at_a_time(model, prompts, base, layer, data):
    own = [c for c in COMPONENTS if c.layer == layer]
    others = frozenset(c for c in base if c.layer != layer)
    variants = data.draw(st.lists(st.sets(st.sampled_from(own)), min_size=1, max_size=4))
    circuits = [others | frozenset(v) for v in variants]
    rows = ROWS[data.draw(st.sampled_from(list(ROWS)))]
    together, alone = (Ablator(model, prompts, substitute(rows)) for _ in range(2))
    found = together.scores_of(circuits)
    for circuit, scores in zip(circuits, found, strict=True):
        assert np.abs(scores["logit_diff"] - alone.logit_diff(circuit)).max() < 1e-9


@given(
    circuit=circuits_strategy,
    positions=st.lists(st.lists(st.integers(0, S - 1), min_size=2, max_size=2), min_size=N, max_size=N),
    shared=st.booleans(),
)
@settings(max_examples=25)
def test_any_positions_equal_a_full_pass(model, prompts, circuit, positions, shared):
    """Several positions for a score (multi-token answers), the same for all rows or each row its own."""
    from atlas.circuit.hooks import edits

    index = torch.tensor(positions[0] if shared else positions)
    groups = substitute(ROWS["groups"])
    run = LiveRun(engine.Engine(model.weights), prompts.tokens, index)
    found = model.weights.unembed(run.final_residual(circuit, groups.reader(slice(None))))
    with torch.no_grad():
        full = model.bridge.run_with_hooks(prompts.tokens, fwd_hooks=list(edits(model, circuit, groups)))
    rows = torch.arange(N)[:, None]
    expected = full[rows, index.expand(N, 2)]
    assert (found - expected).abs().max() < model.tolerance


def padded():
    """Prompts of lengths 4 to 7 in one batch, padded on the right, and the mask [N, S] of what is no padding."""
    rng, lengths = torch.Generator().manual_seed(3), torch.tensor([4, 7, 5, 6, 7])
    tokens, mask = torch.randint(VOCAB, (N, S), generator=rng), torch.arange(S) < lengths[:, None]
    return tokens, mask


@given(circuit=circuits_strategy)
@settings(max_examples=10)
def test_right_padded_prompts_equal_each_prompt_alone(model, prompts, circuit):
    tokens, mask = padded()
    rows = substitute(ROWS["resample"])
    batch = Prompts(tokens, tokens, prompts.answer, prompts.incorrect, prompts.prompt, prompts.group, mask.sum(1) - 1)
    for use_engine in (True, False):
        found = Ablator(model, batch, rows, use_engine=use_engine).logit_diff(circuit)
        for i, length in enumerate(mask.sum(1)):
            own = slice(i, i + 1), slice(length)
            one, first = own[:1], ROWS["one mean"][:1]
            alone = Prompts(tokens[own], tokens[own], prompts.answer[one], prompts.incorrect[one], [i], first)
            short = Replacement(rows.z[:, one[0], :length], rows.mlp_out[:, one[0], :length], first)
            assert abs(found[i] - Ablator(model, alone, short).logit_diff(circuit)[0]) < model.tolerance


# ---- sites: components kept at some positions only -----------------------------------------------------------
ROLES = {"bos": [0], "members": [2, 5], "separators": [1, 3, 4], "last": [6]}
SITES = sorted(sites(COMPONENTS, ROLES))
mixtures = st.sets(st.sampled_from(COMPONENTS + SITES), max_size=30).map(frozenset)


def by_loops(model, prompts, circuit, replaced, masks):
    """Logits with every activation that ``circuit`` does not keep overwritten one position and one row at a time."""

    def kept(c, row, position):
        named = [name for name, mask in masks.items() if mask.expand(N, S)[row, position]]
        return c in circuit or any(Site(c.layer, c.head, name) in circuit for name in named)

    def hook_of(layer, heads):
        def hook(x, hook):
            x = x.clone()
            for row in range(N):
                for position in range(S):
                    for h in heads:
                        if not kept(Component(layer, h), row, position):
                            at = (row, position) if h == -1 else (row, position, h)
                            values = replaced.mlp_out if h == -1 else replaced.z
                            x[at] = values[(layer, replaced.rows[row], *at[1:])]
            return x

        return hook

    hooks = [(models.z_hook(layer), hook_of(layer, range(H))) for layer in range(L)]
    hooks += [(models.mlp_hook(layer), hook_of(layer, [-1])) for layer in range(L)]
    with torch.no_grad():
        return model.bridge.run_with_hooks(prompts.tokens, fwd_hooks=hooks)[:, -1]


@given(circuits=st.lists(mixtures, min_size=1, max_size=4), rows=st.sampled_from(list(ROWS)))
@settings(max_examples=8)
def test_sites_equal_hooks_and_loops_over_positions(model, prompts, circuits, rows):
    own = prompts.with_roles(ROLES)
    live, hooks = (Ablator(model, own, substitute(ROWS[rows]), use_engine=use) for use in (True, False))
    for circuit in circuits:
        expected = by_loops(model, prompts, circuit, substitute(ROWS[rows]), own.roles)
        assert (hooks.logits(circuit) - expected).abs().max() < model.tolerance
        assert (live.logits(circuit) - expected).abs().max() < model.tolerance


@given(circuit=circuits_strategy, chosen=st.sets(st.sampled_from(COMPONENTS)))
@settings(max_examples=10)
def test_all_sites_of_a_component_are_the_component_and_none_is_its_ablation(model, prompts, circuit, chosen):
    for use_engine in (True, False):
        ablator = Ablator(model, prompts.with_roles(ROLES), substitute(ROWS["groups"]), use_engine=use_engine)
        divided = (circuit - chosen) | sites(circuit & chosen, ROLES)
        assert torch.equal(ablator.logits(divided), ablator.logits(circuit))
        assert ablator.without(sites(chosen, ROLES)) == ablator.everything - chosen


def test_without_a_site_keeps_the_other_roles(model, prompts):
    ablator = Ablator(model, prompts.with_roles(ROLES), substitute(ROWS["groups"]))
    cut = {Site(1, 2, "last"), Site(1, 2, "bos"), Site(0, -1, "members"), Component(0), Component(2, 1)}
    left = ablator.without(cut)
    assert left & frozenset(COMPONENTS) == ablator.everything - {Component(1, 2), Component(0), Component(2, 1)}
    assert left - frozenset(COMPONENTS) == {Site(1, 2, "members"), Site(1, 2, "separators")}


@given(base=mixtures, layer=st.integers(0, L - 1), data=st.data())
@settings(max_examples=20)
def test_a_batch_of_sites_equals_one_at_a_time(model, prompts, base, layer, data):
    """Masks of the roles as they are in all rows, and of their own in each row."""
    own = prompts.with_roles(ROLES)
    if data.draw(st.booleans()):
        shifted = {
            name: torch.stack([mask[0].roll(i) for i in range(N)]) for name, mask in own.roles.items()
        }  # row i's roles lie i positions later
        own = replace(own, roles=shifted)
    here = [c for c in COMPONENTS + SITES if c.layer == layer]
    others = frozenset(c for c in base if c.layer != layer)
    variants = data.draw(st.lists(st.sets(st.sampled_from(here)), min_size=1, max_size=4))
    circuits = [others | frozenset(v) for v in variants]
    rows = ROWS[data.draw(st.sampled_from(list(ROWS)))]
    found = Ablator(model, own, substitute(rows)).scores_of(circuits)
    for circuit, scores in zip(circuits, found, strict=True):
        alone = Ablator(model, own, substitute(rows), use_engine=False).logit_diff(circuit)
        assert np.abs(scores["logit_diff"] - alone).max() < model.tolerance


@given(circuit=mixtures)
@settings(max_examples=10)
def test_sites_of_right_padded_prompts_equal_hooks(model, prompts, circuit):
    """Each row has its own last position; the score reads it, and roles are masks of each row."""
    tokens, mask = padded()
    last = mask.sum(1) - 1
    masks = {"last": torch.arange(S) == last[:, None], "bos": (torch.arange(S) == 0)[None]}
    masks["members"] = mask & ~masks["last"] & ~masks["bos"]
    masks["separators"] = ~mask
    own = Prompts(
        tokens, tokens, prompts.answer, prompts.incorrect, prompts.prompt, prompts.group, position=last, roles=masks
    )
    found = [Ablator(model, own, substitute(ROWS["resample"]), use_engine=use).logits(circuit) for use in (True, False)]
    assert (found[0] - found[1]).abs().max() < model.tolerance


def test_a_role_that_the_prompts_do_not_have_is_refused(model, prompts):
    circuit = frozenset({Site(1, 2, "middle")})
    for use_engine in (True, False):
        for own, known in ((prompts, "none"), (prompts.with_roles(ROLES), "bos, members, separators, last")):
            ablator = Ablator(model, own, substitute(ROWS["groups"]), use_engine=use_engine)
            with pytest.raises(StudyError, match=f"the role 'middle'; known roles: {known}"):
                ablator.logits(circuit)
            with pytest.raises(StudyError, match="the role 'middle'"):
                ablator.without(circuit)


def test_gradients_pass_a_site(model, prompts):
    """Replacing outside of a site's positions is differentiable: a substitute there has the gradient of its effect."""
    found, values = engine.Engine(model.weights), substitute(ROWS["one mean"])
    masks = prompts.with_roles(ROLES).roles
    z, circuit = values.z.clone().requires_grad_(), frozenset({*COMPONENTS, Site(0, 1, "members")}) - {Component(0, 1)}
    x = found.weights.embed(prompts.tokens)
    for layer in range(L):
        read = Replacement(z, values.mlp_out, values.rows).reader(slice(None))
        x = found.layer(layer, x, circuit, read, None, None, masks)
    (gradient,) = torch.autograd.grad(found.weights.logit_diff(x[:, -1], prompts.answer, prompts.incorrect).sum(), z)
    where = gradient[0, 0, :, 1].abs().sum(-1) > 0
    assert where.tolist() == [p not in ROLES["members"] for p in range(S)]


@pytest.mark.parametrize("order", ["layers", "random"])
def test_a_whole_search_is_the_same(model, prompts, order):
    """One at a time, speculative and with hooks: equal decisions at equal percents."""
    traces = []
    for use_engine, batch in ((True, 1), (True, 3), (False, 1)):
        ablator = Ablator(model, prompts, substitute(ROWS["one mean"]), use_engine=use_engine)
        rule = search.Rule(threshold=60)
        visit = search.by_layers(rule) if order == "layers" else search.by_chance(rule, 1)
        steps = search.node_search(ablator.everything, rule, visit, ablator.percents_of_full, batch=batch)
        traces.append(list(steps))
    for trace in traces[1:]:
        assert [(s.components, s.removed) for s in trace] == [(s.components, s.removed) for s in traces[0]]
        assert [s.percent for s in trace] == pytest.approx([s.percent for s in traces[0]], abs=1e-3, rel=1e-5)


@pytest.mark.slow
def test_the_shipped_models_search_is_the_same_by_every_way(shipped_model, config):
    """Hooks, engine, speculation: the same circuit of the shipped model, at percents within 1e-3."""
    import pandas as pd

    from atlas.circuit.replacement import replacement
    from atlas.model import activations
    from atlas.prompts.tasks import Task, make_prompts
    from atlas.prompts.tokens import encode_prompts
    from atlas.study.settings import task_block

    block = task_block(config, "number_words") | {"per_template": 16, "held_out_share": 0}
    made = make_prompts(Task.from_config("number_words", block))
    frame = pd.DataFrame(encode_prompts(made, load_tokenizer("shipped"), False, "number_words").rows)
    prompts = Prompts.from_frame(frame, ["all"])
    _, means = activations.collect(shipped_model, prompts.corrupted_tokens)
    rule, found = search.Rule(threshold=20), []
    for use_engine, batch in ((False, 1), (True, 1), (True, 8)):
        ablator = Ablator(
            shipped_model,
            prompts,
            replacement("mean", shipped_model, prompts, {"corrupted": means}),
            use_engine=use_engine,
        )
        steps = list(
            search.node_search(ablator.everything, rule, search.by_layers(rule), ablator.percents_of_full, batch)
        )
        found.append(steps)
    for steps in found[1:]:
        assert [(s.components, s.removed) for s in steps] == [(s.components, s.removed) for s in found[0]]
        assert [s.percent for s in steps] == pytest.approx([s.percent for s in found[0]], abs=1e-3)
    assert 0 < len(found[0][-1].left) < 30


@given(circuit=circuits_strategy, rows=st.sampled_from(list(ROWS)))
@settings(max_examples=15)
def test_float32_agrees_to_1e_5(single, prompts, circuit, rows):
    """Of the largest logit, about 10 with these weights; the two ways add in different orders."""
    live, hooks = (
        Ablator(single, prompts, substitute(ROWS[rows]), use_engine=use).logits(circuit) for use in (True, False)
    )
    assert (live - hooks).abs().max() < 1e-5 * max(1, hooks.abs().max())


@pytest.fixture(scope="module")
def single(model):
    return models.load(model.folder, device="cpu", dtype="float32", batch_size=5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_lower_precision_runs_and_stays_near(model, prompts, dtype):
    """8 bits of mantissa over three layers of large random weights: logit differences of order 1 agree to about 0.1."""
    folder = model.folder
    low = models.load(folder, device="cpu", dtype=dtype, batch_size=5)
    rows = substitute(ROWS["one mean"])
    circuit = frozenset(COMPONENTS) - {Component(1, 1), Component(2)}
    live, hooks = (Ablator(low, prompts, rows, use_engine=use).logit_diff(circuit) for use in (True, False))
    assert np.isfinite(live).all() and np.abs(live - hooks).max() < 0.1 * max(1, np.abs(hooks).max())


@pytest.mark.parametrize("rows", [pytest.param("one mean", marks=pytest.mark.slow), "groups"])
@given(circuits=st.lists(circuits_strategy, min_size=1, max_size=5))
@settings(max_examples=6)
def test_legacy_means_are_the_same(model, prompts, rows, circuits):
    """Circuits one after another, so that a run of the corrupted prompts goes on from what the last one left."""
    groups, own = substitute(ROWS[rows]), replace(prompts, group=ROWS[rows])
    live, hooks = (LegacyAblator(model, own, groups, own, use_engine=use) for use in (True, False))
    for circuit in circuits:
        for kept in (circuit, circuit | {Component(2, 0)}, circuit - {Component(1), Component(1, 3)}):
            assert np.abs(live.logit_diff(kept) - hooks.logit_diff(kept)).max() < 1e-4  # means are stored in float32


def test_legacy_means_with_no_memory_and_in_any_batches_are_the_same(model, prompts):
    rows = substitute(ROWS["groups"])
    first, second = (LegacyAblator(model, prompts, rows, prompts) for _ in range(2))
    second.split(N)
    for run in (*second.live, *(run for _, run in second.corrupted), second):
        (run.made if run is second else run.memory).budget = 0
    for kept in (frozenset(COMPONENTS[::2]), frozenset(COMPONENTS[1::3]), frozenset()):
        assert np.abs(first.logit_diff(kept) - second.logit_diff(kept)).max() < 1e-5  # means are stored in float32


def test_legacy_means_are_made_where_they_are_read_and_no_further(model, prompts, monkeypatch):
    """None where no MLP is ablated; else up to the highest ablated one, from where the kept heads change."""
    rows, everything = substitute(ROWS["one mean"]), frozenset(COMPONENTS)
    own = replace(prompts, group=ROWS["one mean"])
    ablator = LegacyAblator(replace(model, batch_size=N), own, rows, own)
    ((_, run),), layers = ablator.corrupted, []
    attended, written = run.engine.attended, LiveRun.written

    def noted(*args):
        monkeypatch.setattr(run.engine, "attended", lambda i, *a: layers.append(i) or attended(i, *a))
        found = written(*args)
        monkeypatch.setattr(run.engine, "attended", attended)
        return found

    monkeypatch.setattr(LiveRun, "written", noted)
    ablator.logit_diff(everything - {Component(1, 2)})
    assert layers == [], "no MLP is ablated"
    ablator.logit_diff(everything - {Component(1)})
    assert layers == [0, 1]
    ablator.logit_diff(everything - {Component(1), Component(2, 3)})
    assert layers == [0, 1], "heads above the MLP change no mean of it"
    ablator.logit_diff(everything - {Component(1), Component(1, 0)})
    assert layers == [0, 1, 1], "layer 0 is as it was"
    ablator.logit_diff(everything - {Component(1), Component(2), Component(1, 0)})
    assert layers == [0, 1, 1, 2]


def test_a_legacy_search_is_the_same(model, prompts):
    traces = []
    for use_engine in (True, False):
        ablator = LegacyAblator(model, prompts, substitute(ROWS["groups"]), prompts, use_engine=use_engine)
        rule = search.Rule(threshold=60)
        traces.append(
            list(search.node_search(ablator.everything, rule, search.by_layers(rule), ablator.percents_of_full))
        )
    assert [(s.components, s.removed) for s in traces[1]] == [(s.components, s.removed) for s in traces[0]]
    # 1e-5 logits, as above: some families take norms and softmax in float32. Percents are of a full model near 0 here
    full = abs(float(ablator.logit_diff(ablator.everything).mean()))
    assert [s.percent for s in traces[1]] == pytest.approx([s.percent for s in traces[0]], abs=100 * 1e-5 / full)


def test_gradients_reach_the_substitutes(model, prompts):
    """The engine's layers are differentiable: the gradient equals a finite difference."""
    found = engine.Engine(model.weights)
    values = substitute(ROWS["one mean"])
    z = values.z.clone().requires_grad_()
    circuit = frozenset(COMPONENTS) - {Component(0, 1)}

    def score(z):
        read = Replacement(z, values.mlp_out, values.rows).reader(slice(None))
        x = found.weights.embed(prompts.tokens)
        for layer in range(L):
            x = found.layer(layer, x, circuit, read, None, None)
        return found.weights.logit_diff(x[:, -1], prompts.answer, prompts.incorrect).sum()

    (gradient,) = torch.autograd.grad(score(z), z)
    step = torch.zeros_like(z)
    step[0, 0, 2, 1, 0] = 1e-3
    difference = (score(z + step) - score(z - step)) / 2e-3
    assert gradient[0, 0, 2, 1, 0].item() == pytest.approx(difference.item(), rel=2e-2, abs=1e-3)
    assert gradient[1].abs().max() == 0, "a kept layer's substitutes are not read"


def test_memory_stays_within_its_budget(model, prompts):
    found, read = (
        engine.Engine(model.weights),
        substitute(ROWS["one mean"]).reader(slice(None)),
    )
    small = LiveRun(found, prompts.tokens, budget=3 * N * S * D * 8)
    unlimited = LiveRun(found, prompts.tokens)
    for c in COMPONENTS:
        circuit = frozenset(COMPONENTS) - {c}
        a, b = small.final_residual(circuit, read), unlimited.final_residual(circuit, read)
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)  # to the bit on some CPUs: more rows, another order
        held = sum(x.numel() * x.element_size() for x in small.memory.values.values())
        assert held == small.memory.bytes <= small.memory.budget


def test_what_is_ablated_is_never_computed(model, prompts, monkeypatch):
    """With no head kept nothing needs a position but the last; ablated heads cost nothing."""
    found, read = (
        engine.Engine(model.weights),
        substitute(ROWS["one mean"]).reader(slice(None)),
    )
    run, widths = LiveRun(found, prompts.tokens), []
    monkeypatch.setattr(found, "mix", lambda *a: pytest.fail("no head is kept"))
    finish = found.finish
    monkeypatch.setattr(found, "finish", lambda i, x, *a: widths.append(x.shape[1]) or finish(i, x, *a))
    run.final_residual(frozenset({Component(1)}), read)
    assert widths == [1] * L, "one position in every layer"


def test_layers_below_the_change_are_not_run_again(model, prompts, monkeypatch):
    found, read = (
        engine.Engine(model.weights),
        substitute(ROWS["one mean"]).reader(slice(None)),
    )
    run, layers = LiveRun(found, prompts.tokens), []
    everything = frozenset(COMPONENTS)
    run.final_residual(everything, read)
    finish = found.finish
    monkeypatch.setattr(found, "finish", lambda i, *a: layers.append(i) or finish(i, *a))
    for c in (Component(2, 1), Component(1, 0), Component(1)):
        layers.clear()
        run.final_residual(everything - {c}, read)
        assert layers == list(range(c.layer, L))


def test_candidates_of_a_layer_share_its_attention(model, prompts, monkeypatch):
    """One at a time: each head's z is computed once, however many candidates of its layer are tried."""
    found, read = engine.Engine(model.weights), substitute(ROWS["one mean"]).reader(slice(None))
    run, mixed, everything = LiveRun(found, prompts.tokens), [], frozenset(COMPONENTS)
    run.final_residual(everything, read)
    mix = found.mix
    monkeypatch.setattr(found, "mix", lambda i, x, heads, out: mixed.append((i, heads)) or mix(i, x, heads, out))
    for c in (Component(1, 0), Component(1, 1), Component(1, 2), Component(1)):
        expected = LiveRun(engine.Engine(model.weights), prompts.tokens).final_residual(everything - {c}, read)
        assert (run.final_residual(everything - {c}, read) - expected).abs().max() < 1e-9
    assert [heads for i, heads in mixed if i == 1] == [[1, 2, 3], [0]], (
        "and of the one that was left out, when it is back"
    )


@pytest.mark.parametrize("rows", ROWS)
def test_what_ablated_heads_write_is_computed_once(model, prompts, rows, monkeypatch):
    found, read = engine.Engine(model.weights), substitute(ROWS[rows]).reader(slice(None))
    run, made, few = LiveRun(found, prompts.tokens), [], frozenset(COMPONENTS) - {Component(2, 1), Component(2, 3)}
    constant = found.constant
    monkeypatch.setattr(found, "constant", lambda i, heads, z: made.append((i, *heads)) or constant(i, heads, z))
    for circuit in (few, few - {Component(1)}, few - {Component(1), Component(0)}):
        run.final_residual(circuit, read)
    assert made.count((2, 1, 3)) == 1


def test_weights_of_some_heads_stay_within_their_budget(model, prompts):
    circuits = [frozenset(COMPONENTS) - {c} for c in COMPONENTS]
    read, whole = substitute(ROWS["one mean"]).reader(slice(None)), 4 * D * D * 8
    runs = [LiveRun(engine.Engine(model.weights, budget), prompts.tokens) for budget in (0, whole, 100 * whole)]
    for circuit in circuits:
        first, *others = (run.final_residual(circuit, read) for run in runs)
        assert all((x - first).abs().max() < 1e-9 for x in others)
        for run in runs:
            held = run.engine.picked
            assert sum(4 * engine.bytes_of(b.w_o) for b in held.values.values()) == held.bytes <= held.budget


def test_out_of_memory_halves_the_batch_and_goes_on(model, prompts, monkeypatch):
    expected = Ablator(model, prompts, substitute(ROWS["groups"])).logit_diff(frozenset(COMPONENTS))
    ablator = Ablator(model, prompts, substitute(ROWS["groups"]))
    ablator.split(4)
    original, sizes = LiveRun.final_residual, []

    def limited(self, circuit, read):
        sizes.append(len(self.tokens))
        if len(self.tokens) > 1:
            raise torch.OutOfMemoryError("too large")
        return original(self, circuit, read)

    monkeypatch.setattr(LiveRun, "final_residual", limited)
    assert np.abs(ablator.logit_diff(frozenset(COMPONENTS)) - expected).max() < 1e-9
    assert sizes[:3] == [4, 2, 1]
    monkeypatch.setattr(LiveRun, "final_residual", lambda *a: (_ for _ in ()).throw(torch.OutOfMemoryError("no")))
    with pytest.raises(torch.OutOfMemoryError):
        ablator.logit_diff(frozenset())


def test_batches_are_split_to_fit_the_budget(model, prompts):
    rows = substitute(ROWS["groups"])
    per_row = engine.Engine(model.weights).bytes_per_row(S, logits=0)
    wide = replace(model, batch_size=100)
    tight = replace(wide, memory_mb=4 * per_row / 2**20)
    first, second = (Ablator(m, prompts, rows) for m in (wide, tight))
    assert len(first.batches) == 1 and len(second.batches) == 3, "half of the budget is for 2 of 5 prompts"
    circuits = [frozenset(COMPONENTS) - {Component(1, h)} for h in range(H)]
    for a, b in zip(first.scores_of(circuits), second.scores_of(circuits), strict=True):
        assert np.abs(a["logit_diff"] - b["logit_diff"]).max() < 1e-9


def test_another_architecture_uses_hooks(tmp_path):
    from transformers import OPTConfig

    OPTConfig(architectures=["OPTForCausalLM"]).save_pretrained(tmp_path)
    assert families.weights_of(tmp_path) is None
