"""One circuit on the same prompts has one logit difference: whichever metrics are asked for, in every dtype.

Equal means equal bits. Where rows run in other batches the sums before the end run in another order, so that a residual
may round to the next value of its dtype: BOUND, in units of that dtype's spacing relative to the largest logit. Against
Hugging Face, with the same weights widened to float32, the residual stream of a half is rounded at every layer: NEAR.
"""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.circuit.ablation import Ablator
from atlas.core.metrics import METRICS, PAD
from atlas.edges.engine import EdgeAblator, graph_of, with_embeddings
from atlas.model import logits, models
from random_models import COMPONENTS, ROWS, TOLERANCE, circuits_strategy, random_prompts, save, substitute

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BOUND, NEAR = 8, 24  # spacings of the dtype, relative to the largest logit (L = 3 layers, each rounded a few times)
EVERYTHING = frozenset(COMPONENTS)


@pytest.fixture(scope="module", params=TOLERANCE)
def folder(request, tmp_path_factory):
    made = tmp_path_factory.mktemp("one") / "model"
    save(request.param, made)
    return made


@pytest.fixture(scope="module")
def prompts():
    return random_prompts()


@pytest.fixture(scope="module", params=DTYPES)
def model(request, folder):
    return models.load(folder, device="cpu", dtype=request.param, batch_size=5)


def spacing(model, logits: torch.Tensor) -> float:
    return torch.finfo(model.dtype).eps * max(1.0, float(logits.abs().max()))


def subsets() -> list[tuple[str, ...]]:
    """Every pair, alone, and all, in an order and its reverse, each with the logit difference."""
    others = [name for name in METRICS if name != "logit_diff"]
    found = [("logit_diff",), ("logit_diff", *others), (*others, "logit_diff")]
    return found + [("logit_diff", a) for a in others] + [(a, "logit_diff", b) for a, b in combinations(others, 2)]


@given(circuit=circuits_strategy)
@settings(max_examples=4)
def test_metrics_beside_it_change_no_bit(model, prompts, circuit):
    found = {
        names: Ablator(model, prompts, substitute(ROWS["groups"]), names).logit_diff(circuit).tobytes()
        for names in subsets()
    }
    assert len(set(found.values())) == 1


def test_metrics_beside_it_change_no_bit_where_memory_is_short(model, prompts):
    """Batches have one size whatever is measured: all logits are made a few rows at a time."""
    short = replace(model, memory_mb=0.01)
    a, b = (Ablator(short, prompts, substitute(ROWS["one mean"]), names) for names in (("logit_diff",), METRICS))
    assert a.batch_size == b.batch_size < len(prompts)
    assert a.logit_diff(EVERYTHING).tobytes() == b.logit_diff(EVERYTHING).tobytes()


def test_edge_circuits_have_one_number_too(model, prompts):
    graph, found = graph_of(model.weights), set()
    some = frozenset(sorted(graph.all_edges)[::2])
    values = with_embeddings(substitute(ROWS["resample"]), "resample", model, prompts)
    for names in (("logit_diff",), METRICS):
        ablator = EdgeAblator(model, graph, prompts, values, names)
        found.add((ablator.logit_diff(graph.all_edges).tobytes(), ablator.logit_diff(some).tobytes()))
    assert len(found) == 1


def test_answers_of_several_tokens_have_one_number_too(model, prompts):
    pairs = replace(
        prompts,
        tokens=prompts.tokens[:, :-1],
        corrupted_tokens=prompts.corrupted_tokens[:, :-1],
        answer=torch.stack((prompts.answer, prompts.answer + 3), 1),
        incorrect=torch.stack((prompts.incorrect, torch.full_like(prompts.incorrect, PAD)), 1),
    )
    values = substitute(torch.zeros(2 * len(pairs), dtype=torch.long))
    found = {
        Ablator(model, pairs, values, names).logit_diff(frozenset(COMPONENTS[:7])).tobytes()
        for names in (("logit_diff",), METRICS)
    }
    assert len(found) == 1


@given(base=circuits_strategy, layer=st.integers(0, 2))
@settings(max_examples=4)
def test_batches_and_candidates_tried_at_once_stay_within_the_bound(model, prompts, base, layer):
    here = [c for c in COMPONENTS if c.layer == layer]
    circuits = [base - frozenset(here[:i]) for i in range(len(here))]
    rows = substitute(ROWS["groups"])
    alone = [Ablator(model, prompts, rows).logit_diff(c) for c in circuits]
    bound = BOUND * spacing(model, Ablator(model, prompts, rows).logits(EVERYTHING))
    for size in (2, 5):
        other = Ablator(replace(model, batch_size=size), prompts, rows, ("logit_diff", "kl"))
        for a, b in zip(alone, other.scores_of(circuits), strict=True):
            assert np.abs(a - b["logit_diff"]).max() <= bound


def test_the_whole_model_is_hugging_faces_in_float32(model, folder, prompts):
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=model.dtype).float().eval()
    with torch.no_grad():
        logits = reference(prompts.tokens).logits[:, -1]
    rows = torch.arange(len(logits))
    expected = (logits[rows, prompts.answer] - logits[rows, prompts.incorrect]).double().numpy()
    tolerance = NEAR * spacing(model, logits)
    for use_engine in (True, False):
        found = Ablator(model, prompts, substitute(ROWS["groups"]), METRICS, use_engine=use_engine)
        assert np.abs(found.logit_diff(EVERYTHING) - expected).max() <= tolerance
        assert (found.logits(EVERYTHING) - logits).abs().max() <= tolerance
        assert found.logits(EVERYTHING).dtype is torch.float32


def test_logits_of_halves_are_summed_in_float32(model, monkeypatch):
    """Against a sum in float64 over the same normed residual, whose products of halves are exact in float32; the
    vocabulary is widened in parts, which change nothing."""
    x = torch.randn(6, model.d_model, generator=torch.Generator().manual_seed(0)).to(model.dtype)
    w = model.weights
    exact = w.norm_final(x).double() @ w.w_u.double().T
    exact = exact if w.b_u is None else exact + w.b_u.double()
    found = model.weights.unembed(x)
    tolerance = 1e-6 * float(w.w_u.abs().float().sum(1).max() * w.norm_final(x).abs().max())  # of float32's sums
    assert found.dtype is torch.float32 and (found - exact).abs().max() <= tolerance
    monkeypatch.setattr(logits, "WIDENED", model.d_model * 7)
    assert (model.weights.unembed(x) - found).abs().max() <= tolerance
    answer, incorrect = torch.arange(6), torch.arange(6) + 3
    rows = torch.arange(6)
    difference = model.weights.logit_diff(x, answer, incorrect)
    assert (difference - (exact[rows, answer] - exact[rows, incorrect])).abs().max() <= tolerance


def test_the_bridge_unembeds_in_float32_as_the_engine_does(model, prompts):
    """Its logits are no halves: most are no value that a half can hold."""
    logits = model.run(prompts.tokens, on_bridge=True)
    assert (logits.to(torch.bfloat16).float() != logits).float().mean() > 0.5
    assert (logits - model.run(prompts.tokens)).abs().max() <= NEAR * spacing(model, logits)
