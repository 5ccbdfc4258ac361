"""The live engine against TransformerLens hooks, in float64: what remains of differences is rounding, below 1e-9."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from atlas import engine, models, search
from atlas.ablation import Ablator, LegacyAblator, Prompts, Replacement
from atlas.components import Component, all_components

TOLERANCE = 1e-9
N, S, VOCAB = 5, 7, 30


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random GPT-2 of 3 layers x 4 heads with large weights, so that attention is far from uniform."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("random") / "gpt2"
    config = GPT2Config(
        n_layer=3,
        n_head=4,
        n_embd=16,
        n_positions=S,
        vocab_size=VOCAB,
        initializer_range=0.6,
        bos_token_id=0,
        eos_token_id=0,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return models.load(folder, device="cpu", dtype="float64", batch_size=2)


@pytest.fixture(scope="module")
def prompts():
    rng = torch.Generator().manual_seed(1)
    tokens, corrupted = (torch.randint(VOCAB, (N, S), generator=rng) for _ in range(2))
    answer, incorrect = torch.arange(N), torch.arange(N) + 1
    return Prompts(tokens, corrupted, answer, incorrect, list(range(N)), torch.tensor([0, 1, 0, 1, 1]))


def substitute(rows) -> Replacement:
    rng = torch.Generator().manual_seed(2)
    n = int(rows.max()) + 1
    z = torch.randn(3, n, S, 4, 4, generator=rng, dtype=torch.float64)
    return Replacement(z, torch.randn(3, n, S, 16, generator=rng, dtype=torch.float64), rows)


ROWS = {
    "one mean": torch.zeros(N, dtype=torch.long),
    "groups": torch.tensor([0, 1, 0, 1, 1]),
    "resample": torch.arange(N),
}
COMPONENTS = all_components(3, 4)


@pytest.mark.parametrize("rows", ROWS)
@given(circuits=st.lists(st.sets(st.sampled_from(COMPONENTS)), min_size=1, max_size=6))
@settings(max_examples=15, deadline=None)
def test_the_engine_equals_hooks(model, prompts, rows, circuits):
    """Any circuits, one after another, so that residuals remembered from one serve the next."""
    live = Ablator(model, prompts, substitute(ROWS[rows]))
    hooks = Ablator(model, prompts, substitute(ROWS[rows]), use_engine=False)
    assert live.live and not hooks.live
    for circuit in map(frozenset, circuits):
        expected = hooks.logits(circuit)
        assert (live.logits(circuit) - expected).abs().max() < TOLERANCE
        picked = np.arange(N)
        difference = (expected[picked, prompts.answer] - expected[picked, prompts.incorrect]).numpy()
        assert np.abs(live.logit_diff(circuit) - difference).max() < TOLERANCE


def test_a_whole_search_is_the_same(model, prompts):
    traces = []
    for use_engine in (True, False):
        ablator = Ablator(model, prompts, substitute(ROWS["one mean"]), use_engine=use_engine)
        rule = search.Rule(threshold=60)
        steps = search.node_search(
            ablator.everything, rule, search.by_layers(rule), lambda _, kept, a=ablator: a.percent_of_full(kept)
        )
        traces.append([(s.component, s.removed, round(s.percent, 6)) for s in steps])
    assert traces[0] == traces[1]


@given(circuit=st.sets(st.sampled_from(COMPONENTS)))
@settings(max_examples=10, deadline=None)
def test_legacy_means_are_the_same(model, prompts, circuit):
    groups = substitute(ROWS["groups"])
    live, hooks = (LegacyAblator(model, prompts, groups, prompts, use_engine=use) for use in (True, False))
    for kept in (frozenset(circuit), frozenset(circuit) | {Component(2, 0)}):
        assert np.abs(live.logit_diff(kept) - hooks.logit_diff(kept)).max() < 1e-6  # means are stored in float32


def test_memory_stays_within_its_budget(model, prompts):
    found, read = engine.for_bridge(model.bridge), substitute(ROWS["one mean"]).reader(slice(None))
    small = engine.LiveRun(found, prompts.tokens, budget=3 * N * S * 16 * 8)
    unlimited = engine.LiveRun(found, prompts.tokens)
    for c in COMPONENTS:
        circuit = frozenset(COMPONENTS) - {c}
        a, b = small.final_residual(circuit, read), unlimited.final_residual(circuit, read)
        assert torch.equal(a, b)
        held = sum(x.numel() * x.element_size() for x in small.memory.values())
        assert held == small.bytes <= small.budget


def test_what_is_ablated_is_never_computed(model, prompts, monkeypatch):
    """With no head kept nothing needs a position but the last; ablated MLPs and heads cost nothing."""
    found, read = engine.for_bridge(model.bridge), substitute(ROWS["one mean"]).reader(slice(None))
    run, widths = engine.LiveRun(found, prompts.tokens), []
    monkeypatch.setattr(found, "attention", lambda *a: pytest.fail("no head is kept"))
    original = found.norm
    monkeypatch.setattr(found, "norm", lambda x, w: widths.append(x.shape[-2]) or original(x, w))
    run.final_residual(frozenset({Component(1)}), read)
    assert widths == [1], "one MLP at one position"


def test_another_architecture_uses_hooks():
    class Bridge:
        original_model = None

    assert engine.for_bridge(Bridge()) is None
