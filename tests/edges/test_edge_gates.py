"""Learned gates of edges: exact at 0 and 1, differentiable, seeded, and above the floor in the end."""

import numpy as np
import pytest
import torch

import families
from atlas.circuit.concrete import Pace
from atlas.circuit.replacement import Replacement
from atlas.core.graph import Edge, Graph
from atlas.core.statistics import Bootstrap
from atlas.edges import edge_circuits, gates, searches
from atlas.edges.by_method import function_of
from atlas.edges.engine import EdgeAblator, engine_of, graph_of, with_embeddings
from atlas.edges.gates import EdgeGates, GatedEdges, Learned, gates_search
from atlas.edges.methods import REPORTED, EdgeSettings
from atlas.model import models
from atlas.proof import certify, exact
from edge_oracle import Oracle
from random_models import FAMILIES, ROWS, load_random, random_prompts, substitute

FIRST, *REST = FAMILIES
SLOW = [pytest.param(getattr(family, "values", [family])[0], marks=pytest.mark.slow) for family in REST]
EXACT = 1e-5  # of logits of order 1 to 10: sums in another order, in float32 where norms compute in it


@pytest.fixture(scope="module", params=[FIRST, "llama", *(p for p in SLOW if p.values != ("llama",))])
def model(request, tmp_path_factory):
    return load_random(request.param, tmp_path_factory.mktemp("random") / "model")


def ablator_of(model, rows="groups"):
    prompts, graph = random_prompts(), graph_of(engine_of(model).weights)
    values = with_embeddings(substitute(ROWS[rows]), "mean", model, prompts)
    return EdgeAblator(model, graph, prompts, values, ("logit_diff", "kl"))


def of_circuit(graph, circuit):
    return torch.tensor([float(edge in circuit) for edge in graph.edges])


def sample(graph, seed, share):
    rng = np.random.default_rng(seed)
    return frozenset(edge for edge in graph.edges if rng.random() < share)


@pytest.mark.parametrize("rows", ["groups", "resample", pytest.param("one mean", marks=pytest.mark.slow)])
def test_gates_that_are_open_or_shut_are_the_circuit_of_the_exact_ablator(model, rows):
    """Logits and KL; also of each prompt its own gates."""
    ablator = ablator_of(model, rows)
    gated, graph, every = GatedEdges(ablator), ablator.graph, torch.arange(len(ablator.prompts))
    circuits = [frozenset(), ablator.everything, *(sample(graph, i, share) for i, share in enumerate((0.5, 0.9)))]
    for circuit in circuits:
        x = gated.final(of_circuit(graph, circuit), every)
        expected = ablator.residuals([graph.live(circuit)])[0, :, 0]
        found, there = (gated.engine.weights.unembed(y) for y in (x, expected))
        assert (found - there).abs().max() < EXACT, len(circuit)
        kl = ablator.scores(circuit)["kl"]
        assert gated.kl(of_circuit(graph, circuit), every).numpy() == pytest.approx(kl, abs=10 * EXACT, rel=1e-4)
    each = torch.stack([of_circuit(graph, circuits[i % len(circuits)]) for i in every.tolist()])
    together = gated.final(each, every)
    for i in every.tolist():
        assert (together[i] - gated.final(each[i], every[i : i + 1])[0]).abs().max() < EXACT


def test_gradients_by_gates_are_those_of_finite_differences(model):
    """Central differences: their error is of order step**2; norms in float32 add rounding of 1e-6 over the step."""
    ablator = ablator_of(model)
    gated, rows = GatedEdges(ablator), torch.arange(len(ablator.prompts))
    step, tolerance = (1e-5, 1e-6) if model.tolerance < 1e-8 else (1e-2, 3e-3)
    edges = ablator.graph.edges
    at = torch.full((len(edges),), 0.4, dtype=torch.float64, requires_grad=True)
    gated.kl(at, rows).mean().backward()
    ends = {edge.receiver[-1]: i for i, edge in enumerate(edges)}  # the last edge into each kind of receiver
    ends |= {f"{i} of embed": i for i, edge in enumerate(edges) if edge.sender == "embed" and i < 9}
    for i in ends.values():
        values = []
        for sign in (1, -1):
            moved = at.detach().clone()
            moved[i] += sign * step
            values.append(gated.kl(moved, rows).mean().item())
        slope = (values[0] - values[1]) / (2 * step)
        assert at.grad[i].item() == pytest.approx(slope, abs=tolerance, rel=1e-3), edges[i]


def test_how_many_prompts_fit_changes_nothing_and_follows_the_memory(model):
    ablator = ablator_of(model)
    gated, everything = GatedEdges(ablator), torch.arange(len(ablator.prompts))
    ablator.budget = gated.bytes_per_prompt() * 2
    few = GatedEdges(ablator)
    assert few.fit == 2 and (few.clean - gated.clean).abs().max() < EXACT
    at = torch.full((len(ablator.graph.edges),), 0.7)
    assert (few.kl(at, everything) - gated.kl(at, everything)).abs().max() < EXACT


# ---- from gates to a circuit ---------------------------------------------------------------------------------
def test_the_smallest_number_of_open_edges_above_the_floor_is_found_by_halving():
    graph = Graph(1, 1, 1)
    a, b, c, d, e = graph.edges[:5]
    worth = {a: 50, b: 20, c: 15, d: 10, e: 5}

    def percents(circuits):
        return [float(sum(worth[x] for x in circuit)) for circuit in circuits]

    def steps(*learned, threshold=25):
        start = frozenset(worth)
        return list(gates_search(start, threshold, percents, graph.circuit, iter(learned)))

    found = steps(Learned(0.1, [a, b, c, d, e], 4))
    assert [s.percent for s in found] == [95, 70, 85] and [s.removed for s in found] == [True, False, True]
    assert found[-1].left == {a, b, c} and found[-1].penalty == 0.1
    assert [s.components for s in found] == [(e,), (c, d), (d,)], "what is shut beyond the last circuit that passed"
    found = steps(Learned(0.1, [a, b, c, d, e], 1))
    assert [s.percent for s in found] == [50, 85, 70] and found[-1].left == {a, b, c}
    worse, better = Learned(0.1, [e, a, d, b, c], 5), Learned(0.2, [a, b, c, d, e], 2)
    found = steps(worse, better, Learned(0.3, [b, a, c, d, e], 2), Learned(0.4, [a, b, c, d, e], 3))
    assert found[-1].left == {a, b, c} and found[-1].penalty == 0.2
    assert found[-1].sweep == 3, "the fourth is not asked for: open gates fall to the floor and nothing is smaller"
    found = steps(Learned(0.1, [a, b, c, d, e], 4), Learned(0.2, [b, a, c, d, e], 4), Learned(0.3, [a, b, c, d, e], 4))
    assert found[-1].sweep == 2, "the gates that are open are those of the penalty before"
    nothing = steps(Learned(0.1, [a, b, c, d, e], 5), threshold=4)
    assert nothing[-1].left == set(worth) and nothing[-1].penalty is None and not nothing[-1].removed
    assert all(s.left == set(worth) or percents([s.left])[0] > 75 for s in found)


@pytest.fixture(scope="module")
def two_heads(tmp_path_factory):
    fixture = exact.two_heads("gpt2")
    nodes = certify.make_ablators(fixture.build(tmp_path_factory.mktemp("two")), fixture.prompts())
    return fixture, certify.edge_ablator(nodes["mean"], "mean")


def test_it_finds_what_is_planted_alike_for_one_seed(two_heads, monkeypatch):
    monkeypatch.setattr(gates, "PENALTIES", (1e-2,))
    fixture, ablator = two_heads
    truth = fixture.edges["mean"]
    found, setting = certify.search_edges("edge_gates", ablator)
    assert found == truth and setting == certify.THRESHOLD
    monkeypatch.setattr(gates, "PACE", Pace(rows=8, steps=4, rate=0.3))
    start = ablator.everything - {Edge("0.0", "1.0.v")}
    both = [EdgeGates(ablator, start, 2, 3) for _ in range(2)]
    paths = [list(made.path()) for made in both]
    assert paths[0] == paths[1] and torch.equal(both[0].learner.log_alpha, both[1].learner.log_alpha)
    assert set(paths[0][0].ranked) == set(start), "what is not in the start is never opened"
    other = EdgeGates(ablator, start, 2, 4)
    next(other.path())
    assert not torch.equal(other.learner.log_alpha, both[0].learner.log_alpha), "the seed counts"


def test_edges_outside_the_start_are_shut(two_heads, monkeypatch):
    """Without the one way through the start no gate can help: each opens and shuts by the penalty alone."""
    monkeypatch.setattr(gates, "PACE", Pace(rows=4, steps=2))
    _, ablator = two_heads
    made = EdgeGates(ablator, ablator.everything - {Edge("2.2", "logits")}, 2, 0)
    shut = made.learner.has_gate.logical_not()
    assert int(shut.sum()) == 1
    seen = []
    kl = made.learner.model.kl
    monkeypatch.setattr(made.learner.model, "kl", lambda g, rows: seen.append(g[:, shut].detach()) or kl(g, rows))
    made.learner.learn(1e-2)
    assert seen and all((x == 0).all() for x in seen)


@pytest.mark.slow
def test_a_task_reports_what_gates_found_beside_other_searches(two_heads):
    """In `edge_circuits.json`, the trace and the candidates of what is reported."""
    fixture, ablator = two_heads
    settings = EdgeSettings(methods=("edge_gates", REPORTED.name), points=3, seed=5)
    _, trace, choice, content, _ = edge_circuits.search("planted", ablator, {}, settings, Bootstrap(100, 0))
    (entry,) = [c for c in content["circuits"] if c["method"] == "edge_gates"]
    assert entry["edges"] == sorted(map(str, fixture.edges["mean"])) and entry["setting"] == 20
    assert entry["seed"] == 5 and entry["penalty"] in gates.PENALTIES
    rows = trace[trace["method"] == "edge_gates"]
    assert rows["edges"].iloc[-1] == len(entry["edges"]) and rows["edges"].is_monotonic_decreasing
    assert {"edge_gates", REPORTED.name} >= set(choice["method"])


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_gates_of_a_plant_are_the_logits_of_a_plain_pass_with_every_edge_written_out(family, tmp_path):
    from transformers import AutoModelForCausalLM

    fixture = exact.leak(family)
    folder = fixture.build(tmp_path / "leak")
    ablator = certify.edge_ablator(certify.make_ablators(folder, fixture.prompts())["resample"], "resample")
    gated, oracle, p = GatedEdges(ablator), Oracle(AutoModelForCausalLM.from_pretrained(folder)), ablator.prompts
    with torch.no_grad():
        _, ablated, _ = oracle.run(p.corrupted_tokens)
        for seed in range(3):
            kept, exchanged = sample(ablator.graph, seed, 0.7), {}
            for edge in set(ablator.graph.edges) - kept:
                for reader in ablator.graph.readers(edge.receiver):
                    port = reader + edge.receiver[-2:] if "." in reader else reader
                    exchanged.setdefault(port, {})[edge.sender] = ablated[edge.sender]
            expected, _, _ = oracle.run(p.tokens, exchanged)
            found = gated.engine.weights.unembed(gated.final(of_circuit(ablator.graph, kept), torch.arange(len(p))))
            assert (found - expected).abs().max() < EXACT, seed


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_gates_of_a_model_in_a_half_stay_finite_and_move(dtype, tmp_path, monkeypatch):
    monkeypatch.setattr(gates, "PACE", Pace(rows=4, steps=5, rate=0.3))
    families.build("llama", tmp_path / "model")
    model, prompts = models.load(tmp_path / "model", device="cpu", dtype=dtype, batch_size=2), random_prompts()
    block, graph = model.weights.blocks[0], graph_of(engine_of(model).weights)
    z = torch.zeros(model.n_layers, 1, prompts.tokens.shape[1], block.n_heads, model.d_head)
    mlp_out = torch.zeros(model.n_layers, 1, prompts.tokens.shape[1], model.d_model)
    values = Replacement(z, mlp_out, torch.zeros(len(prompts), dtype=torch.long))
    ablator = EdgeAblator(model, graph, prompts, with_embeddings(values, "zero", model, prompts))
    made = EdgeGates(ablator, ablator.everything, 2, 0)
    before = made.learner.log_alpha.clone()
    made.learner.learn(1e-3)
    assert made.learner.log_alpha.isfinite().all() and (made.learner.log_alpha != before).all()


def test_the_method_searches_down_to_the_floor_of_the_settings(two_heads, monkeypatch):
    monkeypatch.setattr(gates, "PACE", Pace(rows=8, steps=15, rate=0.3))
    _, ablator = two_heads
    ((setting, steps),) = function_of("edge_gates")(ablator, ablator.everything, EdgeSettings(threshold=40, points=2))
    last = list(steps)[-1]
    assert setting == 40 and searches.percents(ablator, True)([last.left])[0] > 60
