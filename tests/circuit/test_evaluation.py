"""Completeness, minimality, metrics, noising and denoising: on planted models and against naive loops.

Planted models compute in float32 with logits of order 8: 1e-5 there, 1e-3 for percentage points.
"""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atlas.circuit.ablation import Ablator
from atlas.circuit.evaluation import METRICS, Patching, completeness, metrics_of, minimality, subsets, with_p_values
from atlas.circuit.replacement import replacement
from atlas.core.components import Component, all_components
from atlas.core.errors import StudyError
from atlas.core.metrics import per_prompt
from atlas.core.statistics import Bootstrap
from atlas.model import activations, models
from atlas.prompts.batch import Prompts
from atlas.proof import certify, exact, fixtures
from atlas.proof.fixtures import circuit

BOOTSTRAP = Bootstrap(50, seed=3)
FIXTURES = {name: getattr(exact, name)("gpt2") for name in ("two_heads", "backup", "inhibitory", "leak")}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Fixture name -> its ablators, by kind."""
    root = tmp_path_factory.mktemp("planted")
    return {name: certify.make_ablators(f.build(root / name), f.prompts()) for name, f in FIXTURES.items()}


# ---- completeness --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", fixtures.KINDS)
def test_completeness_shows_the_twin_that_a_circuit_left_out(planted, kind):
    """`backup` searched: one twin is kept. Without it the circuit is nothing, but the model has the other."""

    def worst(name, nodes):
        rows = list(completeness(planted[name][kind], circuit(nodes), 100, 0, BOOTSTRAP))
        assert len(rows) == 2 ** len(circuit(nodes)) - 1, "so few subsets are all taken"
        return max(rows, key=lambda row: row["value"])

    found = worst("backup", "0.1 m2")
    assert found["removed"] == "0.1"
    assert [found[k] for k in ("value", "f_circuit", "f_full")] == pytest.approx([1, 0, 1], abs=1e-5)
    for complete in (("backup", "0.1 1.2 m2"), ("two_heads", "0.1 2.2")):
        assert worst(*complete)["value"] == pytest.approx(0, abs=1e-5)
    assert worst("leak", "0.1 2.2")["value"] == pytest.approx(1 / 8, abs=1e-5), "1.3 is left out, an eighth of D"


def test_minimality_is_what_each_member_is_worth(planted):
    for name, nodes, expected in (
        ("two_heads", "0.1 2.2 1.3", {"0.1": 100, "1.3": 0, "2.2": 100}),
        ("backup", "0.1 1.2 m2", {"0.1": 0, "1.2": 0, "m2": 100}),
        ("inhibitory", "0.1 2.0 2.3", {"0.1": 100, "2.0": -100, "2.3": 200}),
        ("leak", "0.1 1.3 2.2", {"0.1": 100, "1.3": 12.5, "2.2": 87.5}),
    ):
        rows = list(minimality(planted[name]["mean"], circuit(nodes), BOOTSTRAP))
        assert {row["name"]: row["value"] for row in rows} == pytest.approx(expected, abs=1e-3)


def test_members_are_tested_together():
    """Of losses of 2.5, 2 and 0 standard errors the first two leave 0 out, and beside the others only the first."""
    ses = {"0.0": 2.5, "0.1": 2.0, "m0": 0.0}
    rows = [{"name": n, "value": z, "ci_low": z - 1.96, "ci_high": z + 1.96} for n, z in ses.items()]
    found = with_p_values(iter(rows), "nodes")
    assert [row["p"] for row in found] == pytest.approx([0.0124, 0.0455, 1], abs=1e-4)
    assert [row["p_holm"] for row in found] == pytest.approx([0.0373, 0.0910, 1], abs=1e-4)
    assert {row["tests"] for row in found} == {3} and with_p_values(iter([]), "nodes") == []


@given(size=st.integers(0, 9), samples=st.integers(1, 40), seed=st.integers(0, 5))
def test_subsets_lie_within_and_are_all_there_where_they_are_few(size, samples, seed):
    members = frozenset(all_components(2, 4)[:size])
    found = subsets(members, samples, seed)
    assert all(s and s <= members for s in found) and found == subsets(members, samples, seed)
    if 2**size - 1 <= samples:
        every = {frozenset(c) for k in range(1, size + 1) for c in combinations(sorted(members), k)}
        assert set(found) == every and len(found) == len(every)
    else:
        assert len(found) == samples


def test_sizes_of_subsets_are_uniform_and_so_are_their_members():
    """4000 draws of 14 sizes: 286 each, standard deviation 16; a member is in 7.5 of 14, standard deviation 0.008."""
    members = frozenset(all_components(2, 6))
    found = subsets(members, 4000, 0)
    sizes = np.bincount([len(s) for s in found], minlength=15)[1:]
    assert abs(sizes - 4000 / 14).max() < 5 * 16
    shares = [np.mean([m in s for s in found]) for m in members]
    assert shares == pytest.approx([7.5 / 14] * 14, abs=5 * 0.008)


# ---- against naive loops -------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def example(shipped_model, config):
    """Twelve prompts of the shipped model, their activations, and a circuit of it."""
    from test_ablation import frame

    prompts = Prompts.from_frame(frame(config), ["all"]).take(range(0, 48, 4))
    runs = {"corrupted": prompts.corrupted_tokens, "clean": prompts.tokens}
    collected = {run: activations.collect(shipped_model, tokens) for run, tokens in runs.items()}
    cache = {run: found for run, (found, _) in collected.items()} | {"prompt": torch.tensor(prompts.prompt)}
    substitute = replacement("mean", shipped_model, prompts, {"corrupted": collected["corrupted"][1]})
    kept = frozenset(all_components(6, 8)) - {Component(1, 3), Component(4, 0), Component(3, 2), Component(5, 5)}
    return prompts, cache, substitute, kept


def resampled(n: int) -> list[list[int]]:
    """The rows of each of the bootstrap's resamples."""
    return [np.repeat(range(n), np.rint(w * n).astype(int)).tolist() for w in BOOTSTRAP.weights(n)]


def naive_interval(statistic, n: int) -> list[float]:
    """Estimate and percentile interval of a statistic of rows, one resample at a time."""
    values = [statistic(rows) for rows in resampled(n)]
    return [statistic(range(n)), *np.percentile(values, [2.5, 97.5])]


def columns_of(row: dict) -> list[float]:
    return [row[k] for k in ("value", "ci_low", "ci_high")]


def test_every_row_equals_a_naive_loop(shipped_model, example):
    """Scores by hooks, one circuit at a time; means, ratios and intervals by loops over rows."""
    prompts, _, substitute, kept = example
    n, everything = len(prompts), frozenset(all_components(6, 8))
    hooks = Ablator(shipped_model, prompts, substitute, use_engine=False)

    def score(c):
        logits = hooks.logits(c)
        return [float(logits[i, prompts.answer[i]] - logits[i, prompts.incorrect[i]]) for i in range(n)]

    def mean(values, rows):
        return sum(values[i] for i in rows) / len(rows)

    full, empty, own = score(everything), score(frozenset()), score(kept)
    ablator = Ablator(shipped_model, prompts, substitute)

    rows = list(minimality(ablator, kept, BOOTSTRAP))
    assert [row["name"] for row in rows] == [str(c) for c in sorted(kept)]
    for row in rows[::12]:
        left = score(kept - {Component.parse(row["name"])})
        expected = naive_interval(lambda r, x=left: 100 * (mean(own, r) - mean(x, r)) / mean(full, r), n)
        assert columns_of(row) == pytest.approx(expected, abs=1e-3)

    def f(values, r):
        return (mean(values, r) - mean(empty, r)) / (mean(full, r) - mean(empty, r))

    for row in completeness(ablator, kept, 3, 1, BOOTSTRAP):
        removed = frozenset(map(Component.parse, row["removed"].split()))
        assert removed <= kept and len(removed) == row["size"]
        a, b = score(kept - removed), score(everything - removed)
        assert [row["f_circuit"], row["f_full"]] == pytest.approx([f(a, range(n)), f(b, range(n))], abs=1e-5)
        assert columns_of(row) == pytest.approx(naive_interval(lambda r, a=a, b=b: abs(f(a, r) - f(b, r)), n), abs=1e-5)

    every_metric = Ablator(shipped_model, prompts, substitute, METRICS)
    found = {row["metric"]: columns_of(row) for row in metrics_of(every_metric, kept, BOOTSTRAP)}
    assert set(found) == {*METRICS, "percent_of_full", "faithfulness"}
    assert found["faithfulness"] == pytest.approx(naive_interval(lambda r: f(own, r), n), abs=1e-5)
    percent = naive_interval(lambda r: 100 * mean(own, r) / mean(full, r), n)
    assert found["percent_of_full"] == pytest.approx(percent, abs=1e-3)
    values = per_prompt(METRICS, hooks.logits(kept), prompts.answer, prompts.incorrect, hooks.logits(everything))
    for metric in METRICS:
        expected = naive_interval(lambda r, v=values[metric]: mean(v.tolist(), r), n)
        assert found[metric] == pytest.approx(expected, abs=1e-4), metric


def test_the_whole_model_and_the_empty_circuit_are_the_references(shipped_model, example):
    prompts, _, substitute, _ = example
    ablator = Ablator(shipped_model, prompts, substitute, METRICS)
    full = {r["metric"]: r["value"] for r in metrics_of(ablator, ablator.everything, BOOTSTRAP)}
    empty = {r["metric"]: r["value"] for r in metrics_of(ablator, frozenset(), BOOTSTRAP)}
    assert (full["percent_of_full"], full["faithfulness"], full["kl"]) == pytest.approx((100, 1, 0), abs=1e-6)
    assert (full["top1"], full["answer_rank"]) == (1, 0), "the shipped model does its task"
    assert empty["faithfulness"] == pytest.approx(0, abs=1e-6) and empty["kl"] > 1


# ---- noising and denoising -----------------------------------------------------------------------------------
@pytest.mark.parametrize("cached", [False, True])
def test_patching_equals_transformerlens_hooks(shipped_model, example, cached):
    """Noising and denoising written out: the circuit's heads and MLPs from a cache of the other run."""
    prompts, cache, _, _ = example
    patched = frozenset({Component(1, 3), Component(2), Component(2, 1), Component(4, 3)})
    bridge, n = shipped_model.bridge, len(prompts)

    def run(tokens, source=None):
        def hook_of(c):
            name = models.mlp_hook(c.layer) if c.is_mlp else models.z_hook(c.layer)

            def hook(x, hook):
                if c.is_mlp:
                    return source[name]
                x = x.clone()
                x[:, :, c.head] = source[name][:, :, c.head]
                return x

            return name, hook

        with torch.no_grad():
            logits = bridge.run_with_hooks(tokens, fwd_hooks=[hook_of(c) for c in patched] if source else [])[:, -1]
        rows = range(n)
        return (logits[rows, prompts.answer] - logits[rows, prompts.incorrect]).double().numpy()

    with torch.no_grad():
        _, of_clean = bridge.run_with_cache(prompts.tokens)
        _, of_corrupted = bridge.run_with_cache(prompts.corrupted_tokens)
    clean, corrupted = run(prompts.tokens), run(prompts.corrupted_tokens)
    found = Patching(shipped_model, prompts, cache if cached else None).rows(patched, BOOTSTRAP)
    expected_values = [run(prompts.tokens, of_corrupted), run(prompts.corrupted_tokens, of_clean)]
    patched = frozenset(c for c in patched if not c.is_mlp)
    expected_values += [run(prompts.tokens, of_corrupted), run(prompts.corrupted_tokens, of_clean)]
    for row, values in zip(found, expected_values, strict=True):
        expected = naive_interval(
            lambda r, v=values: (v[r].mean() - corrupted[r].mean()) / (clean[r].mean() - corrupted[r].mean()), n
        )
        assert columns_of(row) == pytest.approx(expected, abs=1e-5), row["metric"]
    assert [row["metric"] for row in found] == ["noising", "denoising", "noising_heads", "denoising_heads"]


def test_patching_of_planted_circuits(planted):
    """Either twin alone is sufficient and not necessary; together they are both."""
    for name, nodes, expected in (
        ("two_heads", "0.1 2.2", (0, 1)),
        ("two_heads", "2.2", (0, 1)),
        ("two_heads", "1.3", (1, 0)),
        ("backup", "0.1", (1, 1)),
        ("backup", "0.1 1.2", (0, 1)),
        ("leak", "1.3", (7 / 8, 1 / 8)),
    ):
        shared = planted[name]["resample"]
        found = Patching(shared.model, shared.prompts).rows(circuit(nodes), BOOTSTRAP)
        assert tuple(row["value"] for row in found if not row["metric"].endswith("_heads")) == pytest.approx(
            expected, abs=1e-5
        ), (name, nodes)


def test_patching_between_equal_runs_is_refused(planted):
    shared = planted["two_heads"]["resample"]
    same = Prompts(**vars(shared.prompts) | {"corrupted_tokens": shared.prompts.tokens})
    with pytest.raises(StudyError, match="nothing to carry over"):
        Patching(shared.model, same).rows(circuit("0.1"), BOOTSTRAP)


# ---- edges ---------------------------------------------------------------------------------------------------
def test_edge_circuits_are_evaluated_alike(planted):
    """The twin that an edge circuit left out shows in completeness; each edge of a chain is worth all of it."""
    from atlas.edges.engine import EdgeAblator, engine_of, graph_of, with_embeddings

    shared = planted["backup"]["mean"]
    substitute = with_embeddings(shared.substitute, "mean", shared.model, shared.prompts)
    graph = graph_of(engine_of(shared.model).weights)
    ablator = EdgeAblator(shared.model, graph, shared.prompts, substitute, METRICS)
    chain = frozenset(fixtures.edges("embed->0.1.v 0.1->m2 m2->logits"))
    rows = {row["removed"]: row for row in completeness(ablator, chain, 7, 0, BOOTSTRAP)}
    assert len(rows) == 7
    for removed in ("embed->0.1.v", "0.1->m2"):
        found = [rows[removed][k] for k in ("value", "f_circuit", "f_full")]
        assert found == pytest.approx([1, 0, 1], abs=1e-5)
    assert rows["m2->logits"]["value"] == pytest.approx(0, abs=1e-5)
    lost = {row["name"]: row["value"] for row in minimality(ablator, chain, BOOTSTRAP)}
    assert lost == pytest.approx(dict.fromkeys(map(str, chain), 100), abs=1e-3)
    found = {row["metric"]: row["value"] for row in metrics_of(ablator, chain, BOOTSTRAP)}
    assert (found["faithfulness"], found["percent_of_full"]) == pytest.approx((1, 100), abs=1e-3)
