"""Edges held as bits, and single edges tried together, against the same one at a time.

The models are those of test_edges.py, in float64; the tolerance is theirs and is justified there.
"""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_edges import NORMED, Case, sample

from atlas.core.graph import EdgeMask, Graph, members
from atlas.edges import attribution, engine, searches
from atlas.edges.engine import EdgeAblator, with_embeddings
from atlas.edges.run import bytes_of
from atlas.edges.variants import Place, groups
from atlas.model.logits import at_least_float32
from atlas.model.low_rank import ChangedMlp
from atlas.prompts.batch import Prompts
from atlas.store.memo import Memo
from random_models import TOLERANCE, H, S

GRAPHS = [Graph(2, 2, 2), Graph(2, 4, 2), Graph(3, 2, 1, parallel=True)]


@pytest.fixture(scope="module", params=[*TOLERANCE, "gpt2" + NORMED, "olmo2"])
def case(request, tmp_path_factory):
    return Case(request.param, tmp_path_factory.mktemp("random") / "model")


# ---- sets of edges as bits -----------------------------------------------------------------------------------
@given(st.sampled_from(GRAPHS), st.integers(0, 10**6), st.integers(0, 10**6))
@settings(max_examples=40)
def test_a_mask_is_the_set_of_its_edges(graph, one, two):
    rng = random.Random(one)
    a, b = ({e for e in graph.edges if random.Random(f"{seed} {e}").random() < rng.random()} for seed in (one, two))
    x, y = graph.circuit(a), graph.circuit(b)
    assert set(x) == a and len(x) == len(a) and x == a and a == x and hash(x) == hash(frozenset(a))
    assert list(x) == [e for e in graph.edges if e in a], "in the order of the graph"
    assert (x - y, x - b, a - y) == (a - b,) * 3
    assert (x & y, x & b, a & y) == (a & b,) * 3 and (x | y, x | b, a | y) == (a | b,) * 3
    assert (x <= y, x <= b, a <= y) == (a <= b,) * 3 and (x == y) == (a == b)
    assert (x.digest == y.digest) == (a == b)
    assert isinstance(x - y, EdgeMask) and (x - y).digest == graph.circuit(a - b).digest
    assert [e in x for e in graph.edges] == [e in a for e in graph.edges]


def test_a_mask_knows_the_edges_of_its_graph_alone():
    small, large = GRAPHS[0], GRAPHS[2]
    foreign = max(set(large.edges) - set(small.edges))
    assert foreign not in small.all_edges and small.all_edges - {foreign} == small.all_edges
    with pytest.raises(ValueError, match=f"not an edge of this model: .*{foreign.receiver}"):
        small.circuit({foreign})
    assert small.all_edges != large.all_edges


@given(st.integers(0, 2**70))
def test_members_are_the_bits_that_are_set(number):
    assert sum(1 << i for i in members(number)) == number and members(number) == sorted(members(number))


@pytest.mark.parametrize("graph", GRAPHS)
def test_numbers_and_names_of_receivers_agree(graph):
    for layer in range(graph.n_layers):
        for part, owners in (("q", graph.n_heads), ("k", graph.n_kv_heads), ("v", graph.n_kv_heads)):
            for owner in range(owners):
                shared = part != "q" and graph.n_kv_heads < graph.n_heads
                name = f"{layer}.{'kv' if shared else ''}{owner}.{part}"
                assert graph.receivers[graph.row(layer, part, owner)] == name
        assert graph.receivers[graph.row(layer, "m")] == f"m{layer}"
        assert graph.senders[graph.first(layer) + graph.n_heads] == f"m{layer}"
    ports = [[graph.receivers[r] for r in rows] for rows in graph.rows_of]
    assert ports == [graph.ports[sender] for sender in graph.senders]


# ---- single edges together -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "kind, at_once",
    [
        ("mean", 3),
        pytest.param("zero", 3, marks=pytest.mark.slow),
        ("resample", 10**6),
        pytest.param("resample", 1, marks=pytest.mark.slow),
    ],
)
def test_edges_tried_together_score_as_they_do_alone(case, kind, at_once, monkeypatch):
    """Edges of every kind, whatever the number in a batch; nothing is left of them for what is run afterwards."""
    monkeypatch.setattr(EdgeAblator, "edges_at_once", lambda self, batch: at_once)
    together, alone = case.edges(kind), case.edges(kind)
    edges = case.graph.edges[::3]
    found = dict(together.without_each(edges))
    assert list(found) == edges
    for edge in edges:
        expected = alone.logit_diff(case.graph.all_edges - {edge})
        assert np.abs(found[edge]["logit_diff"] - expected).max() < case.tolerance, str(edge)
    other = sample(case.graph, 4, 0.6)
    assert np.abs(together.logit_diff(other) - alone.logit_diff(other)).max() < case.tolerance


def test_edges_tried_together_where_rows_end_at_various_positions(case):
    p, ends = case.prompts, torch.tensor([S - 1, 3, 5, 4, S - 1])
    padded = Prompts(p.tokens, p.corrupted_tokens, p.answer, p.incorrect, p.prompt, p.group, position=ends)
    substitute = with_embeddings(case.substitute("resample"), "resample", case.model, padded)
    ablator, alone = (EdgeAblator(case.model, case.graph, padded, substitute) for _ in range(2))
    for edge, scores in ablator.without_each(case.graph.edges[::3]):
        expected = alone.logit_diff(case.graph.all_edges - {edge})
        assert np.abs(scores["logit_diff"] - expected).max() < case.tolerance, str(edge)


def test_all_metrics_of_edges_tried_together(case):
    metrics = ("logit_diff", "prob_diff", "kl", "top1", "answer_rank")
    ablator, alone = case.edges(metrics=metrics), case.edges(metrics=metrics)
    for edge, scores in ablator.without_each(case.graph.edges[::25]):
        expected = alone.scores(case.graph.all_edges - {edge})
        assert all(np.abs(scores[name] - expected[name]).max() < 10 * case.tolerance for name in metrics)


def test_groups_end_in_one_place_each(case):
    graph = case.graph
    asked = random.Random(1).sample(graph.edges, len(graph.edges))
    found = groups(graph, asked)
    assert [e for _, edges in found for e in edges] == graph.edges
    kinds = 4 * graph.n_layers + 1
    assert len(found) == kinds and found[-1][0] == Place(graph.n_layers, "logits")


def test_what_lies_below_and_in_the_first_layer_runs_once(case, monkeypatch):
    """Edges into the last layer's MLP: one product a batch in that layer, none in the layers below."""
    graph, ablator = case.graph, case.edges()
    ablator.split(len(case.prompts))
    last, ran = graph.n_layers - 1, []
    edges = [e for e in graph.edges if e.receiver == f"m{last}"]
    list(ablator.without_each(edges[:1]))  # the whole model is run, and kept
    for layer, block in enumerate(ablator.engine.blocks):
        own = block.mlp
        counting = replace(
            own, activation=lambda x, own=own, layer=layer: ran.append((layer, len(x))) or own.activation(x)
        )
        monkeypatch.setitem(block.__dict__, "mlp", counting)
    monkeypatch.setattr(EdgeAblator, "edges_at_once", lambda self, batch: 10**6)
    list(ablator.without_each(edges[1:]))
    assert {layer for layer, _ in ran} == {last}
    assert sum(rows for _, rows in ran) == (len(edges) - 1) * len(case.prompts), "the last position of each alone"


def test_an_interrupted_attempt_at_edges_goes_on_with_the_same_bits(case, tmp_path):
    """Those of a batch that was begun are made again with it; see `EdgeAblator.without_each`."""
    edges = case.graph.edges[::7]
    whole = dict(searches.path_patching(case.edges(memo=Memo(tmp_path / "whole", {}, ["logit_diff"])), edges))
    for killed in (1, 5, len(edges) - 2):
        folder = tmp_path / str(killed)
        before = iter(searches.path_patching(case.edges(memo=Memo(folder, {}, ["logit_diff"])), edges))
        for _ in range(killed):
            next(before)
        after = dict(searches.path_patching(case.edges(memo=Memo(folder, {}, ["logit_diff"])), edges))
        assert all((after[edge] == whole[edge]).all() for edge in edges), killed


# ---- memory --------------------------------------------------------------------------------------------------
def test_of_a_circuit_nothing_is_kept_but_its_digest_and_scores(case):
    ablator = case.edges()
    kept = case.graph.all_edges
    for edge in case.graph.edges[::9]:
        kept = kept - {edge}
        ablator.logit_diff(kept)
    assert all(isinstance(key, bytes) and len(key) == 16 for key in ablator._memory)
    assert all(len(run.passes) <= 2 for run in ablator.live)


def test_remembered_passes_stay_within_the_budget(case):
    ablator = case.edges()
    whole = [bytes_of(run.passes) for run in ablator.live if ablator.logit_diff(ablator.everything) is not None]
    for run, size in zip(ablator.live, whole, strict=True):
        run.budget = size + size // 3  # more than one pass, less than two
    circuits = [sample(case.graph, seed, 0.5) for seed in range(4)]
    found = [ablator.logit_diff(c) for c in circuits]
    assert all(bytes_of(run.passes) <= run.budget for run in ablator.live)
    unbounded = case.edges()
    for circuit, scores in zip(circuits, found, strict=True):
        assert np.abs(unbounded.logit_diff(circuit) - scores).max() < case.tolerance


def test_gradients_of_a_few_prompts_at_a_time_are_those_of_all(case, monkeypatch):
    expected = attribution.scores(case.edges("resample"), 2)
    monkeypatch.setattr(attribution, "bytes_per_prompt", lambda ablator: 10**12)  # one prompt in a pass
    found = attribution.scores(case.edges("resample"), 2)
    assert all((found[edge] - expected[edge]).abs().max() < case.tolerance for edge in expected)


# ---- the MLP behind changed heads ----------------------------------------------------------------------------
def test_an_mlp_behind_changed_heads_is_that_of_the_changed_residual(case):
    rng = torch.Generator().manual_seed(0)
    for block in case.model.weights.blocks:
        n, p, d_head, d = 3, 4, block.w_o.shape[1], block.w_o.shape[2]
        read = torch.randn(n, p, d, generator=rng, dtype=torch.float64)
        change = torch.randn(2, n * p, 2 * d_head, generator=rng, dtype=torch.float64)
        heads = [[0, 1], [H - 1, 0]]
        written = torch.bmm(change, torch.stack([block.w_o[some].flatten(0, 1) for some in heads]))
        changed = (read + written.view(2, n, p, d)).flatten(0, 1)
        found = ChangedMlp(block, read)(change, heads, changed)
        assert (found - block.mlp_out(changed)).abs().max() < case.tolerance
    assert ChangedMlp.serves(block) == (not block.parallel and block.norm_attn_out is None)
    half = replace(block, w_o=block.w_o.bfloat16())
    assert not ChangedMlp.serves(half) and at_least_float32(half.w_o).dtype == torch.float32


def test_searches_take_masks_and_frozensets_alike(case):
    ablator, circuit = case.edges(), sample(case.graph, 3, 0.7)
    assert (ablator.logit_diff(circuit) == ablator.logit_diff(case.graph.circuit(circuit))).all()
    assert ablator.evaluations == 1
    assert engine.graph_of(ablator.engine.weights) == case.graph
