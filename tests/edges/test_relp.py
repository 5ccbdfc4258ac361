"""Relevance patching and EAP-IG over activations, against functions that are written out.

Models and tolerances are those of test_edges.py: float64, with rounding to float32 in the norms of some.
"""

import random

import numpy as np
import pytest
import torch
from test_edges import KINDS, NORMED, Case, linearise
from transformers import AutoModelForCausalLM

from atlas.core.graph import Edge
from atlas.edges import attribution, by_sender, searches
from atlas.model.block import Weights
from atlas.model.engine import Engine
from atlas.model.frozen import frozen, straight
from edge_oracle import Oracle
from frozen_oracle import FrozenOracle
from random_models import TOLERANCE

FAST = ("gpt2", "llama", "gpt2" + NORMED)
SLOW = [f for f in (*TOLERANCE, "gemma2", "gemma3", "olmo2") if f not in FAST]
FAMILIES = [*FAST, *(pytest.param(family, marks=pytest.mark.slow) for family in SLOW)]


@pytest.fixture(scope="module", params=FAMILIES)
def case(request, tmp_path_factory):
    return Case(request.param, tmp_path_factory.mktemp("random") / "model")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return Case("gpt2", tmp_path_factory.mktemp("random") / "model")


def frozen_oracle(case):
    plain = case.oracle.behind if case.oracle.family == "gpt2" else None
    return FrozenOracle(case.oracle.model, case.prompts.tokens, plain)


def some_edges(graph, count, seed=0):
    """Edges of every kind of sender and receiver."""
    ends = [("embed", "m0"), ("m0", "logits"), ("0.1", "logits"), ("1.3", "2.0.q"), ("0.2", "m1"), ("embed", "logits")]
    chosen = [e for e in graph.edges if tuple(e) in ends or (e.receiver[-1] in "kv" and e.sender in ("m1", "0.3"))]
    return [*dict.fromkeys([*chosen, *random.Random(seed).sample(graph.edges, count)])]


# ---- relevance patching --------------------------------------------------------------------------------------
def test_the_frozen_function_is_the_model_where_it_was_frozen(case):
    """Its weights, its constants and its norms, so that what follows is about this model."""
    with torch.no_grad():
        logits, writes, _ = case.oracle.run(case.prompts.tokens)
    oracle = frozen_oracle(case)
    assert (oracle.clean_logits - logits).abs().max() < 10 * case.tolerance
    assert all((oracle.clean[name] - write).abs().max() < 10 * case.tolerance for name, write in writes.items())


@pytest.mark.parametrize("kind", KINDS)
def test_relp_is_the_exact_effect_of_an_edge_in_the_frozen_model(case, kind):
    """That model is linear in each edge, so no gradient is needed to say what it is. Frozen constants of the engine are
    float64, those of what is ablated are rounded as the model's norms are."""
    found, oracle, scores = attribution.scores(case.edges(kind), relevance=True), frozen_oracle(case), case.scores(kind)
    clean, largest = scores.difference(oracle.clean_logits), 0.0
    for edge in some_edges(case.graph, 25):
        exchanged = {}
        for naive in case.naive([edge]):
            exchanged.setdefault(naive.receiver, {})[naive.sender] = scores.ablated[naive.sender]
        with torch.no_grad():
            expected = scores.difference(oracle.run(case.prompts.tokens, exchanged)[0]) - clean
        assert (found[edge] - expected).abs().max() < 20 * case.tolerance, str(edge)
        largest = max(largest, float(expected.abs().max()))
    assert largest > 0.05


def test_relp_gives_nothing_to_queries_and_keys_and_something_to_all_else(case):
    ends = {}
    for edge, score in attribution.scores(case.edges("resample"), relevance=True).items():
        end = edge.receiver[-1] if edge.receiver[-1] in "qkv" else edge.receiver[0]
        ends[end] = max(ends.get(end, 0.0), float(score.abs().max()))
    assert ends["q"] == ends["k"] == 0 and min(ends["v"], ends["m"], ends["l"]) > 1e-3


def test_relp_eap_and_path_patching_agree_where_the_model_is_linear(tmp_path):
    linear = Case("gpt2", tmp_path / "model", linearise)
    for kind in KINDS:
        ablator = linear.edges(kind)
        effects = dict(searches.path_patching(ablator, linear.graph.edges))
        for edge, score in attribution.scores(ablator, relevance=True).items():
            assert np.abs(score.numpy() - effects[edge]).max() < 1e-6, (kind, str(edge))
    assert max(np.abs(e).max() for e in effects.values()) > 0.1


def test_a_frozen_model_computes_what_the_model_does(case):
    """In every place of a pass, with edges ablated too; and its gradient is another one."""
    weights = case.model.weights
    still = frozen(weights)
    assert isinstance(still, Weights) and still.w_u is weights.w_u
    run, other = (
        case.edges("resample").run_of(slice(0, 3), 0, attribution.Differences(), engine)
        for engine in (None, Engine(still))
    )
    circuit = case.graph.live(frozenset(some_edges(case.graph, 60, 1)))
    for edges in (case.graph.all_edges, circuit):
        assert (run.final_residual(edges) - other.final_residual(edges)).abs().max() < case.tolerance
    answer, incorrect = case.prompts.answer[:3], case.prompts.incorrect[:3]
    ways = [attribution.way_back(each, answer, incorrect, 1.0).by_read["m1"] for each in (run, other)]
    assert (ways[0] - ways[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["gelu", "silu", "relu", "tanh"])
def test_an_activation_is_its_value_with_the_slope_of_the_line_to_it(name):
    function = getattr(torch, name, None) or getattr(torch.nn.functional, name)
    x = torch.tensor([-30.0, -1.5, -1e-30, 0.0, 1e-30, 0.7, 30.0], dtype=torch.float64, requires_grad=True)
    y = straight(function, x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(y.detach() == 0, function(x.detach()) == 0)
    assert torch.allclose(y, function(x), rtol=1e-12, atol=0)
    far = x.detach().abs() > 0.1
    assert torch.allclose(slope[far], (function(x) / x)[far].detach(), rtol=1e-12, atol=0)
    at_zero = {"gelu": 0.5, "silu": 0.5, "relu": 0.5, "tanh": 1.0}[name]
    assert abs(float(slope[3]) - at_zero) < 1e-6


# ---- over activations ----------------------------------------------------------------------------------------
def moved_by_hand(case, scores, edge, points, share=1e-4):
    """[N] the mean over points of the derivative, by central differences of the oracle: all that read the sender read
    what lies between, and the edge's receiver a little more or less of it. Their own error is below 1e-6."""
    readers = [e.receiver for e in case.oracle.all_edges() if e.sender == edge.sender]
    own, ablated, clean = (
        {n.receiver for n in case.naive([edge])},
        *(runs[edge.sender] for runs in (scores.ablated, scores.clean)),
    )
    total = 0.0
    for i in range(1, points + 1):
        between = ablated + (i - 0.5) / points * (clean - ablated)
        sides = []
        for sign in (1, -1):
            step = sign * share * (ablated - clean)
            exchanged = {r: {edge.sender: between + step if r in own else between} for r in readers}
            with torch.no_grad():
                sides.append(scores.difference(case.oracle.run(case.prompts.tokens, exchanged)[0]))
        total = total + (sides[0] - sides[1]) / (2 * share * points)
    return total


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_over_activations_the_sender_alone_moves(case, kind):
    """Norms that round to float32 leave 1e-7 / share of a difference: 1e-3 of effects of order 1."""
    points, scores = 2, case.scores(kind)
    found = by_sender.scores(case.edges(kind), points)
    assert set(found) == case.graph.all_edges
    tolerance = 1e-5 if case.tolerance < 1e-6 else 5e-3
    for edge in some_edges(case.graph, 6):
        expected = moved_by_hand(case, scores, edge, points)
        assert (found[edge] - expected).abs().max() < tolerance, str(edge)


def test_over_activations_embeddings_move_as_in_eap_ig(case):
    ablator = case.edges("resample")
    moved, inputs = by_sender.scores(ablator, 3), attribution.scores(ablator, 3)
    for edge in (e for e in case.graph.edges if e.sender == "embed"):
        assert (moved[edge] - inputs[edge]).abs().max() < 10 * case.tolerance, str(edge)


def test_over_activations_the_sender_alone_moves_in_few_cases(gpt2):
    scores, found = gpt2.scores("mean"), by_sender.scores(gpt2.edges("mean"), 1)
    for edge in (Edge("m0", "1.2.k"), Edge("0.1", "m0"), Edge("0.1", "2.1.q"), Edge("1.3", "logits")):
        assert (found[edge] - moved_by_hand(gpt2, scores, edge, 1)).abs().max() < 1e-5, str(edge)


@pytest.mark.slow
def test_over_many_points_the_edges_of_a_sender_add_up_to_its_ablation(case):
    """The integral of a derivative; midpoints are off by the square of their distance."""
    ablator, points = case.edges("mean"), 400
    found, full = by_sender.scores(ablator, points), ablator.logit_diff(ablator.everything)
    for sender in case.graph.senders:
        out = {e for e in case.graph.edges if e.sender == sender}
        effect = ablator.logit_diff(ablator.everything - out) - full
        added = sum(found[edge] for edge in out).numpy()
        assert np.abs(added - effect).max() < 2e-3, sender


def test_points_that_run_together_change_nothing(gpt2):
    run = gpt2.edges("mean").run_of(slice(0, 4), 0, attribution.Differences())
    args = run, gpt2.prompts.answer[:4], gpt2.prompts.incorrect[:4], 5
    one, two, all_of_them = (by_sender.of_batch(*args, at_once) for at_once in (1, 2, 5))
    assert (one - two).abs().max() < 1e-12 and (one - all_of_them).abs().max() < 1e-12


# ---- batches -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("score", ["eap", "eap_ig", "relp", pytest.param("activations", marks=pytest.mark.slow)])
def test_scores_do_not_depend_on_how_prompts_fall_into_batches(gpt2, monkeypatch, score):
    scored = {
        "eap": lambda a: attribution.scores(a),
        "eap_ig": lambda a: attribution.scores(a, 2),
        "relp": lambda a: attribution.scores(a, relevance=True),
        "activations": lambda a: by_sender.scores(a, 2),
    }[score]
    together = scored(gpt2.edges("mean"))
    for prompts_at_once in (1, 2):
        for module in (attribution, by_sender):
            monkeypatch.setattr(module, "bytes_per_prompt", lambda a, n=prompts_at_once: a.budget // 8 // n)
        monkeypatch.setattr(attribution, "bytes_when_frozen", lambda a: 0)
        apart = scored(gpt2.edges("mean"))
        for edge, values in together.items():
            assert (apart[edge] - values).abs().max() < 1e-12, str(edge)


def test_the_oracle_of_hugging_face_modules_says_the_same_without_any_library_code(tmp_path):
    """The frozen function at one MLP's input, by hooks and weights of transformers."""
    case = Case("llama", tmp_path / "model")
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float64)
    block, tokens = network.model.layers[2], case.prompts.tokens
    held = {}
    block.mlp.register_forward_hook(lambda _, args, out: held.update(read=args[0], out=out))
    block.register_forward_pre_hook(lambda _, args, kwargs: held.update(before=args[0]), with_kwargs=True)
    block.post_attention_layernorm.register_forward_pre_hook(lambda _, args: held.update(middle=args[0]))
    network.model.norm.register_forward_pre_hook(lambda _, args: held.update(final=args[0]))
    with torch.no_grad():
        network(tokens)
        mlp, x, final = block.mlp, held["middle"], held["final"]
        delta = Oracle(network.double()).run(tokens)[1]["m1"] * 0.5  # any change of what the MLP reads
        scale = 1 / (x.pow(2).mean(-1, keepdim=True) + block.post_attention_layernorm.variance_epsilon).sqrt()
        moved = delta * scale * block.post_attention_layernorm.weight
        gate, up = mlp.gate_proj(held["read"]), mlp.up_proj(held["read"])
        ratio = mlp.act_fn(gate) / gate
        inner = (mlp.gate_proj(moved) * ratio * up + mlp.act_fn(gate) * mlp.up_proj(moved)) / 2
        change = mlp.down_proj(inner)[:, -1]
        last = 1 / (final[:, -1].pow(2).mean(-1, keepdim=True) + network.model.norm.variance_epsilon).sqrt()
        logits = (change * last * network.model.norm.weight) @ network.lm_head.weight.T
        rows = torch.arange(len(tokens))
        expected = logits[rows, case.prompts.answer] - logits[rows, case.prompts.incorrect]
    run = case.edges("mean").run_of(
        slice(0, len(tokens)), 0, attribution.Differences(), Engine(frozen(case.model.weights))
    )
    way = attribution.way_back(run, case.prompts.answer, case.prompts.incorrect, 1.0)
    found = (way.by_read["m2"] * delta).sum((1, 2))
    assert expected.abs().max() > 0.01 and (found - expected).abs().max() < 1e-5
    assert Edge("m1", "m2") in case.graph.all_edges
