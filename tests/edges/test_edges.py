"""The edge engine and edge attribution, against a forward pass in which every edge is written out.

On random models in float64: GPT-2 and NeoX differ by rounding alone, below 1e-9. The norms of Llama and of those with
norms behind attention compute in float32 whatever the dtype, so there the tolerance is 1e-5, on logits of order 1.
"""

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.circuit.ablation import Ablator
from atlas.circuit.replacement import replacement
from atlas.core.components import Component, all_components
from atlas.core.graph import Edge, Graph
from atlas.edges import attribution, searches
from atlas.edges.engine import EdgeAblator, engine_of, graph_of, with_embeddings
from atlas.model import activations, models
from atlas.model.norm import Norm
from atlas.prompts.batch import Prompts
from atlas.store.memo import Memo
from conftest import load_tokenizer
from edge_oracle import EdgeScores, Oracle
from random_models import EVERY, TOLERANCE, D, H, L, N, S, build

KINDS = ("mean", "zero", "resample")
NORMED = " normed"  # of a family: with norms behind the attention and the MLP of each layer
SLOW = [pytest.param(family, marks=pytest.mark.slow) for family in ("gemma2", "gemma3")]
FAMILIES = [*TOLERANCE, "gpt2" + NORMED, "olmo2", *SLOW]


def behind():
    """Norms behind both parts of each layer, with weights that neither are 1 nor alike: as the oracle's modules."""
    rng, found = torch.Generator().manual_seed(4), []
    for _ in range(L):
        pair = []
        for _ in range(2):
            norm = torch.nn.LayerNorm(D)
            for parameter in norm.parameters():
                parameter.data = torch.rand(D, generator=rng) + 0.5
            pair.append(norm.double().requires_grad_(False))
        found.append(pair)
    return found


def norm_of(module):
    """A module of `behind` as the library's norm."""
    return Norm(module.weight, module.bias, module.eps)


def linearise(network) -> None:
    """Make a random GPT-2 linear in its embeddings, to rounding of float64."""
    scale = 2.0**20
    for name, parameter in network.named_parameters():
        if "ln_" in name:
            torch.nn.init.constant_(parameter, scale if name.endswith("weight") else 0.0)
        elif "c_attn" in name:
            parameter.data[..., : 2 * D] = 0  # queries and keys: attention is uniform
        elif name.endswith("c_fc.bias"):
            parameter.data += 100  # gelu(100 + x) = 100 + x
        elif "c_proj" in name or "c_fc" in name:
            parameter.data *= 0.2
    for module in network.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = scale**2
    network.config.layer_norm_epsilon = scale**2


class Case:
    """A random model with its ablators, and the oracle on the same weights."""

    def __init__(self, family, folder, change=None):
        torch.manual_seed(0)
        family, normed = family.removesuffix(NORMED), family.endswith(NORMED)
        network = build(family)
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.3)
        if change:
            change(network)
        network.save_pretrained(folder)
        load_tokenizer("shipped").save_pretrained(folder)  # the bridge wants one; it is not used
        self.model = models.load(folder, device="cpu", dtype="float64", batch_size=2)
        norms = behind() if normed else None
        for layer, pair in enumerate(norms or ()):
            attention, mlp = map(norm_of, pair)
            own = self.model.weights.blocks[layer]
            self.model.weights.blocks[layer] = replace(own, norm_attn_out=attention, norm_mlp_out=mlp)
        self.oracle, self.tolerance = Oracle(network.double(), norms), EVERY[family]
        rng = torch.Generator().manual_seed(1)
        tokens, corrupted = (torch.randint(30, (N, S), generator=rng) for _ in range(2))
        one_group = torch.zeros(N, dtype=torch.long)
        self.prompts = Prompts(tokens, corrupted, torch.arange(N), torch.arange(N) + 1, list(range(N)), one_group)
        runs = {
            "clean": activations.collect(self.model, tokens, dtype=torch.float64)[0],
            "corrupted": activations.collect(self.model, corrupted, dtype=torch.float64)[0],
        }
        self.means = {run: {k: x.mean(1, keepdim=True) for k, x in found.items()} for run, found in runs.items()}
        self.cache = {"prompt": self.prompts.prompt, "corrupted": runs["corrupted"]}
        self.graph = graph_of(engine_of(self.model).weights)

    def substitute(self, kind):
        return replacement(kind, self.model, self.prompts, self.means, self.cache)

    def nodes(self, kind="mean", **options):
        return Ablator(self.model, self.prompts, self.substitute(kind), **options)

    def edges(self, kind="mean", **options):
        substitute = with_embeddings(self.substitute(kind), kind, self.model, self.prompts)
        return EdgeAblator(self.model, self.graph, self.prompts, substitute, **options)

    def scores(self, kind="mean"):
        return EdgeScores(self.oracle, self.prompts, kind)

    def naive(self, edges) -> set[Edge]:
        """The same edges in the oracle, which knows query heads only."""
        out = set()
        for edge in edges:
            heads = self.graph.readers(edge.receiver)
            shared = ".kv" in edge.receiver
            out |= {Edge(edge.sender, f"{h}.{edge.receiver[-1]}") for h in heads} if shared else {edge}
        return out


@pytest.fixture(scope="module", params=FAMILIES)
def case(request, tmp_path_factory):
    return Case(request.param, tmp_path_factory.mktemp("random") / "model")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return Case("gpt2", tmp_path_factory.mktemp("random") / "model")


def sample(graph, seed, share=0.5):
    return frozenset(e for e in graph.edges if random.Random(f"{seed} {e}").random() < share)


# ---- the graph -----------------------------------------------------------------------------------------------
def test_the_graph_has_the_edges_of_the_oracle(case):
    assert case.naive(case.graph.edges) == set(case.oracle.all_edges())
    assert len(set(case.graph.edges)) == len(case.graph.edges)


def test_heads_write_into_the_mlp_of_their_layer_in_sequential_blocks_only():
    edge = Edge("1.2", "m1")
    assert edge in Graph(3, 4, 4).all_edges
    assert edge not in Graph(3, 4, 4, parallel=True).all_edges
    assert Edge("1.2", "2.0.q") in Graph(3, 4, 4, parallel=True).all_edges


def test_shared_keys_and_values_are_one_receiver():
    graph = Graph(2, 4, 2)
    assert graph.ports["1.3"] == ["1.3.q", "1.kv1.k", "1.kv1.v"]
    assert graph.readers("1.kv1.k") == ["1.2", "1.3"]
    assert "1.2.k" not in graph.receivers


@given(st.integers(1, 3), st.sampled_from([(4, 4), (4, 2), (2, 1)]), st.booleans(), st.integers(0, 10**6), st.data())
@settings(max_examples=40)
def test_edges_on_paths_are_those_that_a_walk_from_either_end_finds(layers, heads, parallel, seed, data):
    graph = Graph(layers, *heads, parallel)
    circuit = sample(graph, seed, data.draw(st.sampled_from([0.05, 0.2, 0.6])))

    def reaches(node) -> bool:
        """By walking forward from the node, edge by edge."""
        nexts = {reader for e in circuit if e.sender == node for reader in graph.readers(e.receiver)}
        return "logits" in nexts or any(reaches(n) for n in nexts)

    live = frozenset(e for e in circuit if any(r == "logits" or reaches(r) for r in graph.readers(e.receiver)))
    assert graph.live(circuit) == live
    inputs = {reader: set() for reader in [*graph.senders, "logits"]}
    for e in circuit:
        for reader in graph.readers(e.receiver):
            inputs[reader].add(e.sender)

    def starts(node) -> bool:
        """By walking back from the node, edge by edge."""
        return node == "embed" or any(starts(sender) for sender in inputs[node])

    assert graph.reached(circuit) == frozenset(e for e in circuit if starts(e.sender))
    between = frozenset(e for e in live if starts(e.sender))
    assert graph.on_paths(circuit) == between == graph.on_paths(between), "nothing more dangles once these are gone"
    assert graph.reached(live) == between
    writing = {e.sender for e in between}
    lost = {e.sender for e in circuit} - {"embed"}
    for e in circuit:  # of heads that share what the edge ends in none may be lost because another one uses it
        readers = set(graph.readers(e.receiver)) - {"logits"}
        lost |= readers if len(readers) == 1 or not readers & writing else set()
    assert graph.without_path(circuit) == {Component.parse(n) for n in lost - writing}


def test_a_head_is_not_lost_because_another_one_uses_the_key_that_they_share():
    graph = Graph(2, 4, 2)
    circuit = {Edge("embed", "1.kv1.v"), Edge("1.3", "logits")}
    assert graph.without_path(circuit) == frozenset(), "1.2 has no edge of its own"
    assert graph.without_path({Edge("embed", "1.kv1.v")}) == {Component(1, 2), Component(1, 3)}
    assert graph.without_path(circuit | {Edge("0.0", "1.2.q")}) == {Component(0, 0), Component(1, 2)}


# ---- the engine ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.03, 0.2, 0.5, 0.9, 0.99])
def test_any_edge_circuit_equals_the_oracle(case, kind, share):
    circuit = sample(case.graph, f"{kind} {share}", share)
    expected = case.scores(kind).without(case.naive(case.graph.all_edges - circuit)).numpy()
    assert np.abs(case.edges(kind).logit_diff(circuit) - expected).max() < case.tolerance


@pytest.mark.parametrize("kind", KINDS)
def test_single_edges_equal_the_oracle_and_leave_the_graph_as_it_was(case, kind):
    """Every kind of receiver; the whole model scores the same afterwards, to the last bit."""
    ablator, oracle = case.edges(kind), case.scores(kind)
    full = ablator.logit_diff(ablator.everything).copy()
    tried = random.Random(3).sample(case.graph.edges, 25)
    effects = dict(searches.path_patching(ablator, tried))
    for edge, effect in effects.items():
        expected = oracle.without(case.naive([edge])).numpy()
        assert np.abs(full + effect - expected).max() < case.tolerance, str(edge)
    ablator._memory.clear()
    assert (ablator.logit_diff(ablator.everything) == full).all()
    assert len(ablator.everything) == len(case.graph.edges)
    again = dict(searches.path_patching(case.edges(kind), reversed(tried)))
    assert all((again[edge] == effects[edge]).all() for edge in tried), "no order of trying changes an effect"


@pytest.mark.parametrize("kind", KINDS)
def test_the_edges_among_components_are_their_node_circuit(case, kind):
    """Same score as the node engine, embeddings kept; so is ablating all that a component writes."""
    nodes, edges = case.nodes(kind), case.edges(kind)
    components = all_components(L, H)
    for seed in range(5):
        circuit = frozenset(random.Random(seed).sample(components, 3 * seed + 2))
        assert np.abs(edges.logit_diff(case.graph.among(circuit)) - nodes.logit_diff(circuit)).max() < case.tolerance
    for component in components:
        without = frozenset(e for e in case.graph.edges if e.sender != str(component))
        expected = nodes.logit_diff(nodes.everything - {component})
        assert np.abs(edges.logit_diff(without) - expected).max() < case.tolerance


@pytest.mark.parametrize("case", TOLERANCE, indirect=True)  # the bridge has no norms behind
def test_all_metrics_equal_those_of_the_hooks(case):
    metrics = ("logit_diff", "prob_diff", "kl", "top1", "answer_rank", "log_prob")
    hooks, edges = case.nodes(metrics=metrics, use_engine=False), case.edges(metrics=metrics)
    circuit = frozenset(all_components(L, H)[2::3])
    expected, found = hooks.scores(circuit), edges.scores(case.graph.among(circuit))
    for name in metrics:
        assert np.abs(found[name] - expected[name]).max() < 10 * case.tolerance, name


def test_nothing_leaks_from_one_evaluation_to_the_next(case):
    """Any order, with memory for everything or for nothing, gives the same scores; the same order the same bits."""
    circuits = [sample(case.graph, i, share) for i, share in enumerate([0.3, 0.9, 0.95, 0.97, 0.5])]
    first = case.edges()
    expected = [first.logit_diff(c) for c in circuits]
    second, forgetful, again = case.edges(), case.edges(), case.edges()
    for run in forgetful.live:
        run.budget = 0
    for i in reversed(range(len(circuits))):
        assert np.abs(second.logit_diff(circuits[i]) - expected[i]).max() < case.tolerance
        assert np.abs(forgetful.logit_diff(circuits[i]) - expected[i]).max() < case.tolerance
    assert all((again.logit_diff(c) == e).all() for c, e in zip(circuits, expected, strict=True))


@pytest.mark.slow
def test_a_resumed_search_has_the_bits_of_one_that_was_not_killed(case, tmp_path):
    """Whatever was found in the memo, and whenever the search was killed; see `Ablator`."""
    from atlas.circuit.ablation import STRETCH

    circuits = [sample(case.graph, i, 0.5 + 0.45 * (i % 7) / 7) for i in range(STRETCH + 12)]
    whole = case.edges(memo=Memo(tmp_path / "whole", {}, ["logit_diff"]))
    expected = [whole.logit_diff(c) for c in circuits]
    for killed in (1, 9, STRETCH - 1, STRETCH, STRETCH + 5):
        folder = tmp_path / str(killed)
        before = case.edges(memo=Memo(folder, {}, ["logit_diff"]))
        for circuit in circuits[:killed]:
            before.logit_diff(circuit)
        after = case.edges(memo=Memo(folder, {}, ["logit_diff"]))
        assert all((after.logit_diff(c) == e).all() for c, e in zip(circuits, expected, strict=True)), killed
        assert after.evaluations <= len(circuits) - killed + STRETCH


def test_batches_change_nothing(case):
    circuit, several = sample(case.graph, 0, 0.8), case.edges()
    assert len(several.batches) == 3
    one = case.edges()
    one.split(N)
    assert np.abs(one.logit_diff(circuit) - several.logit_diff(circuit)).max() < case.tolerance


def test_right_padding_changes_nothing(case):
    """Rows that end at various positions score as they do alone, without their padding."""
    p, ends = case.prompts, torch.tensor([S - 1, 3, 5, 4, S - 1])
    padded = Prompts(p.tokens, p.corrupted_tokens, p.answer, p.incorrect, p.prompt, p.group, position=ends)
    substitute = with_embeddings(case.substitute("zero"), "zero", case.model, padded)
    together = EdgeAblator(case.model, case.graph, padded, substitute)
    circuit = sample(case.graph, 7, 0.7)
    for i, end in enumerate(ends.tolist()):
        row = slice(i, i + 1)
        alone = Prompts(
            p.tokens[row, : end + 1],
            p.corrupted_tokens[row, : end + 1],
            p.answer[row],
            p.incorrect[row],
            [0],
            p.group[row],
        )
        expected = EdgeScores(case.oracle, alone, "zero").without(case.naive(case.graph.all_edges - circuit)).numpy()
        assert abs(together.logit_diff(circuit)[i] - expected[0]) < case.tolerance


def test_means_keep_their_position_and_their_sender(gpt2):
    """A mean over positions, or over senders, would be another number (both are defects of published code)."""
    substitute = with_embeddings(gpt2.substitute("mean"), "mean", gpt2.model, gpt2.prompts)
    assert substitute.embed.shape == (1, S, D) and substitute.z.shape[2:4] == (S, H)
    assert substitute.embed[0].std(0).min() > 0.01 and substitute.z.std(3).min() > 0.001
    circuit = frozenset(e for e in gpt2.graph.edges if e.sender not in ("embed", "0.1", "m0"))
    expected = gpt2.edges().logit_diff(circuit)
    for name, dim in (("embed", 1), ("z", 2), ("z", 3), ("mlp_out", 2)):
        changed = with_embeddings(gpt2.substitute("mean"), "mean", gpt2.model, gpt2.prompts)
        values = getattr(changed, name)
        object.__setattr__(changed, name, values.mean(dim, keepdim=True).expand_as(values))
        found = EdgeAblator(gpt2.model, gpt2.graph, gpt2.prompts, changed).logit_diff(circuit)
        assert np.abs(found - expected).max() > 1e-3, (name, dim)


def test_means_over_groups_run_over_their_own_prompts(gpt2):
    p = gpt2.prompts
    grouped = Prompts(p.tokens, p.corrupted_tokens, p.answer, p.incorrect, p.prompt, torch.tensor([0, 1, 0, 1, 1]))
    found = with_embeddings(gpt2.substitute("mean"), "mean", gpt2.model, grouped).embed
    written = engine_of(gpt2.model).weights.embed(p.corrupted_tokens)
    for group in (0, 1):
        rows = grouped.group == group
        assert torch.allclose(found[rows].double(), written[rows].mean(0).expand(int(rows.sum()), S, D), atol=1e-6)


def test_an_edge_from_an_mlp_to_a_head_changes_that_head_alone(gpt2):
    """The published code ablated the MLP for every head of the layer: that is another, larger set of edges."""
    oracle, edge = gpt2.scores("zero"), Edge("m0", "1.2.q")
    exchanged = {edge.receiver: {edge.sender: oracle.ablated[edge.sender]}}
    with torch.no_grad():
        _, clean, _ = gpt2.oracle.run(gpt2.prompts.tokens)
        _, writes, _ = gpt2.oracle.run(gpt2.prompts.tokens, exchanged)
    changed = {s for s in ("1.0", "1.1", "1.2", "1.3") if not torch.equal(writes[s], clean[s])}
    assert changed == {"1.2"}
    ablator = gpt2.edges("zero")
    one = ablator.logit_diff(ablator.everything - {edge})
    every = ablator.logit_diff(ablator.everything - {Edge("m0", f"1.{h}.q") for h in range(H)})
    assert (
        np.abs(one - oracle.difference(gpt2.oracle.run(gpt2.prompts.tokens, exchanged)[0]).detach().numpy()).max()
        < 1e-9
    )
    assert np.abs(one - every).max() > 1e-3


def test_an_edge_that_the_model_lacks_is_refused_and_never_counts_as_found(gpt2):
    from atlas.proof.certify import rates

    backwards, real = Edge("2.0", "1.0.q"), Edge("embed", "m0")
    with pytest.raises(ValueError, match="not an edge of this model"):
        gpt2.edges().logit_diff(frozenset({backwards, real}))
    truth = frozenset({real, Edge("m0", "logits")})
    assert rates(frozenset({real, backwards}), truth) == {"precision": 0.5, "recall": 0.5}
    assert rates(frozenset(), truth)["recall"] == 0


def test_an_architecture_without_an_engine_is_refused_by_name(gpt2):
    from atlas.core.errors import StudyError

    class Bridge:
        original_model = torch.nn.Linear(1, 1)

    other = replace(gpt2.model, weights=None)
    other.bridge = Bridge()
    with pytest.raises(StudyError, match="Linear has no live engine"):
        EdgeAblator(other, gpt2.graph, gpt2.prompts, None)


# ---- attribution ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_attribution_equals_the_oracles_gradients(case, kind):
    found = attribution.scores(case.edges(kind))
    expected = case.scores(kind).attribution(case.oracle.all_edges())
    assert set(found) == case.graph.all_edges
    for edge, score in found.items():
        naive = sum(expected[e] for e in case.naive([edge]))
        assert abs(float(score.mean()) - naive) < 10 * case.tolerance, str(edge)


@pytest.mark.parametrize("kind", KINDS)
def test_attribution_behind_norms_is_the_derivative_of_what_ablates_the_edge(tmp_path, kind):
    """By central differences of the oracle, of a share of the difference; their own error, of second order in the
    share, is below 1e-5 on effects of order 1."""
    case, share = Case("gpt2" + NORMED, tmp_path / "model"), 1e-4
    found, oracle = attribution.scores(case.edges(kind)), case.scores(kind)
    tried = [e for e in case.graph.edges if "." in e.sender][::11]
    ends = {Edge("embed", "m0"), Edge("m1", "2.1.k"), Edge("0.1", "logits"), Edge("2.3", "m2")}
    for edge in [*tried, *ends]:
        step, sides = share * (oracle.ablated[edge.sender] - oracle.clean[edge.sender]), []
        for moved in (step, -step):
            other = {edge.receiver: {edge.sender: oracle.clean[edge.sender] + moved}}
            sides.append(oracle.difference(case.oracle.run(case.prompts.tokens, other)[0]))
        expected = (sides[0] - sides[1]).detach() / (2 * share)
        assert (found[edge] - expected).abs().max() < 1e-5, str(edge)
    assert max(found[edge].abs().max() for edge in tried) > 0.1


def test_integrated_attribution_is_the_mean_of_gradients_at_midpoints(case):
    """By the oracle, with its embeddings moved; the senders' writes stay those of the clean run."""
    points, kind = 3, "resample"
    found, oracle = attribution.scores(case.edges(kind), points), case.scores(kind)
    edges = random.Random(5).sample(case.graph.edges, 30)
    total = dict.fromkeys(edges, 0.0)
    for i in range(1, points + 1):
        share = (i - 0.5) / points
        start = oracle.ablated["embed"] + share * (oracle.clean["embed"] - oracle.ablated["embed"])
        gradients = oracle.gradients(start)
        for edge in edges:
            for naive in case.naive([edge]):
                total[edge] += float(oracle.along(naive, gradients).sum()) / N / points
    for edge in edges:
        assert abs(float(found[edge].mean()) - total[edge]) < 10 * case.tolerance, str(edge)


def test_attribution_equals_path_patching_where_the_model_is_linear(tmp_path):
    """Attention that ignores its queries and keys, a norm with a huge epsilon, MLPs deep in gelu's straight part."""
    linear = Case("gpt2", tmp_path / "model", linearise)
    for kind in KINDS:
        ablator = linear.edges(kind)
        effects = dict(searches.path_patching(ablator, linear.graph.edges))
        for points in (None, 4):
            for edge, score in attribution.scores(ablator, points).items():
                assert np.abs(score.numpy() - effects[edge]).max() < 1e-6, (kind, str(edge))
        assert max(np.abs(e).max() for e in effects.values()) > 0.1
        nonzero = {e.receiver[-1] for e, effect in effects.items() if np.abs(effect).max() > 1e-6}
        assert nonzero >= {"v", "s"} and not nonzero & {"q", "k"}, "values, MLPs and logits, no queries or keys"


# ---- searches ------------------------------------------------------------------------------------------------
GRAPH = Graph(2, 2, 2)


def additive(worth):
    """Percent of full as a sum over kept edges: what a search should do can be worked out by hand."""
    return lambda circuits: [sum(worth[e] for e in c) for c in circuits]


@given(st.integers(0, 10**6), st.floats(0.5, 30))
@settings(max_examples=30)
def test_acdc_keeps_what_costs_tau_where_effects_add_up(seed, tau):
    rng = random.Random(seed)
    worth = {e: rng.uniform(-5, 40) for e in GRAPH.edges}
    for change, size in (("signed", lambda x: x), ("absolute", abs)):
        *_, last = searches.acdc(GRAPH, GRAPH.all_edges, tau, additive(worth), change)
        close = {e for e in worth if abs(abs(worth[e]) - tau) < 1e-6}  # sums of floats decide these
        assert last.left - close == {e for e in worth if size(worth[e]) >= tau} - close


@given(st.integers(0, 10**6), st.floats(1, 90))
@settings(max_examples=30)
def test_iterative_search_stays_above_its_floor_and_ends_where_nothing_can_go(seed, threshold):
    rng = random.Random(seed)
    raw = {e: rng.expovariate(1) for e in GRAPH.edges}
    worth = {e: 100 * w / sum(raw.values()) for e, w in raw.items()}
    percents = additive(worth)
    steps = list(searches.iterative(GRAPH, GRAPH.all_edges, threshold, percents))
    left = steps[-1].left
    (percent,) = percents([left])
    assert percent > 100 - threshold
    assert all(percent - worth[e] <= 100 - threshold + 1e-9 for e in left)
    receivers = [GRAPH.receivers.index(s.components[0].receiver) for s in steps if s.sweep == 1]
    assert receivers == sorted(receivers, reverse=True), "receivers last to first"


def test_areas_by_hand():
    shares, f = [0.0, 0.5, 1.0], [0.0, 2.0, 1.0]
    assert searches.cpr(shares, f) == pytest.approx(0.5 * (0 + 2) / 2 + 0.5 * (2 + 1) / 2)
    assert searches.cmd(shares, f) == pytest.approx(0.5 * (1 + 1) / 2 + 0.5 * (1 + 0) / 2)
    assert searches.cmd(shares, [1.0, 1.0, 1.0]) == 0
    assert searches.grid_sizes(3628)[:3] == [4, 7, 18]
    assert searches.grid_sizes(100)[0] == 1, "never an empty circuit"


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=12))
@settings(max_examples=60)
def test_auroc_is_the_share_of_pairs_in_the_right_order(rows):
    scores, truth = zip(*rows, strict=True)
    true, false = ([s for s, t in rows if t == value] for value in (True, False))
    if not true or not false:
        with pytest.raises(ValueError, match="both"):
            searches.auroc(scores, truth)
        return
    pairs = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(true, false)]
    assert searches.auroc(scores, truth) == pytest.approx(sum(pairs) / len(pairs))
