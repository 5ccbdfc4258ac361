"""Consensus: classes by hand, planted circuits, and what tasks share against naive counts and enumeration."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.circuit import stability
from atlas.circuit.chosen import OWN_RUN
from atlas.circuit.stability import Run
from atlas.compare import consensus
from atlas.core.chance import hypergeometric, layer_matched, shared_by_all, shared_by_all_layers
from atlas.core.components import all_components, from_json
from atlas.proof import certify, exact
from atlas.proof.fixtures import circuit
from planted_tasks import stability_content

N_LAYERS, N_HEADS = 3, 4  # of planted models


# ---- one task ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kept", "runs", "found"),
    [
        (10, 10, "core"),
        (9, 10, "core"),
        (8, 10, "contingent"),
        (1, 10, "contingent"),
        (1, 11, "noise"),
        (18, 20, "core"),
        (17, 20, "contingent"),
        (27, 30, "core"),
        (2, 20, "contingent"),
        (1, 20, "noise"),
        (1, 1, "core"),
        (2, 3, "contingent"),
    ],
)
def test_the_class_of_a_component(kept, runs, found):
    assert consensus.class_of(kept, runs) == found


def test_each_search_counts_once_and_edges_do_not():
    """The task's own circuit opens every family of other data, and is one of the orders."""
    own, other = circuit("0.1 m1"), circuit("0.1")
    runs = [Run("orders", "layers", own), Run("orders", "random_0", other)]
    runs += [Run("seeds", OWN_RUN, own), Run("seeds", "seed 1", other), Run("bootstrap", OWN_RUN, own)]
    edges = [Run("seeds", "seed 1", frozenset({"0.1->logits"}))]
    content = stability.to_json(runs, "component")
    content = {key: content[key] + stability.to_json(edges, "edge")[key] for key in content}
    found = consensus.searches_of(content)
    assert found == {("orders", "layers"): own, ("orders", "random_0"): other, ("seeds", "seed 1"): other}
    rows = {row["component"]: row for row in consensus.agreement(found)}
    assert rows["0.1"]["class"] == "core" and (rows["m1"]["kept"], rows["m1"]["runs"]) == (1, 3)
    assert rows["m1"]["class"] == "contingent" and rows["m1"]["head"] == -1


def test_edges_count_once_on_own_prompts_and_once_on_each_other_data():
    own, less = {"embed->0.1.v", "0.1->logits"}, {"0.1->logits"}
    runs = [{"level": "component", "family": "orders", "run": "layers", "members": ["0.1"]}]
    for family, run, members in (
        ("seeds", OWN_RUN, own),
        ("seeds", "seed 1", less),
        ("templates", OWN_RUN, own),
        ("templates", "x", own | {"m1->logits"}),
    ):
        runs.append({"level": "edge", "family": family, "run": run, "members": sorted(members)})
    found = consensus.edge_searches_of({"runs": runs})
    assert set(found) == {("own", OWN_RUN), ("seeds", "seed 1"), ("templates", "x")}
    rows = {row["edge"]: row for row in consensus.edge_agreement(found)}
    assert {edge: (row["kept"], row["runs"], row["class"]) for edge, row in rows.items()} == {
        "0.1->logits": (3, 3, "core"),
        "embed->0.1.v": (2, 3, "contingent"),
        "m1->logits": (1, 3, "contingent"),
    }
    assert (rows["embed->0.1.v"]["sender"], rows["embed->0.1.v"]["receiver"]) == ("embed", "0.1.v")
    searches = {"a": {("orders", "layers"): circuit("0.1")}}
    content = consensus.to_content(searches, {"a": found})["tasks"]["a"]["edges"]
    assert content == {"runs": 3, "core": ["0.1->logits"], "contingent": ["embed->0.1.v", "m1->logits"]}
    assert "edges" not in consensus.to_content(searches)["tasks"]["a"]


@given(st.lists(st.sets(st.sampled_from(all_components(2, 2))).map(frozenset), min_size=1, max_size=24))
def test_parts_equal_naive_counts(circuits):
    searches = {("orders", str(i)): c for i, c in enumerate(circuits)}
    parts = consensus.parts_of(searches)
    for component in all_components(2, 2):
        share = np.mean([component in c for c in circuits]) + 1e-9
        expected = "core" if share >= 0.9 else "contingent" if share >= 0.1 else "noise" if share > 1e-6 else None
        assert next((name for name, part in parts.items() if component in part), None) == expected
    content = consensus.to_content({"a": searches, "b": searches})
    assert from_json(content["shared"]) == from_json(content["tasks"]["a"]["core"]) == parts["core"]


@pytest.mark.parametrize(
    ("name", "core", "contingent"),
    [("two_heads", "0.1 2.2", ""), ("cancelling", "0.1", "1.2 2.3"), ("backup", "m2", "0.1 1.2")],
)
def test_planted_circuits(name, core, contingent, tmp_path):
    """`two_heads`: every order, on every resample, ends in the planted circuit. In `cancelling` either of two heads can
    do the work, and orders differ in which they keep; so in `backup`, of which the later head stands in."""
    fixture = getattr(exact, name)("gpt2")
    ablator = certify.make_ablators(fixture.build(tmp_path), fixture.prompts())["mean"]
    searches = consensus.searches_of(stability_content(ablator, 20, resamples=4))
    assert len(searches) >= 8
    parts = consensus.parts_of(searches)
    assert (parts["core"], parts["contingent"]) == (circuit(core), circuit(contingent)), searches


# ---- several tasks -------------------------------------------------------------------------------------------
SETS = [(4, (2, 3, 1)), (5, (2, 2, 3)), (3, (3, 3, 3)), (4, (2, 0, 4)), (4, (1,))]  # of so many, sets of these sizes


@pytest.mark.parametrize(("population", "sizes"), SETS)
def test_chance_of_sharing_equals_enumeration(population, sizes):
    sets = [list(map(set, combinations(range(population), size))) for size in sizes]
    counts = [len(set.intersection(*pick)) for pick in product(*sets)]
    expected = np.bincount(counts, minlength=min(sizes) + 1) / len(counts)
    assert shared_by_all(population, sizes) == pytest.approx(expected)


def test_chance_of_two_is_that_of_pairs():
    assert shared_by_all(48, (12, 8)) == pytest.approx(hypergeometric(48, 12, 8))
    a, b = [0, 2, 3], [1, 2, 0]
    assert shared_by_all_layers(4, [a, b]) == pytest.approx(layer_matched(4, a, b))


def test_layers_are_held_fixed_by_enumeration():
    """Two layers of three heads, three circuits: all sets with these numbers of heads per layer."""
    profiles = [(1, 2), (2, 1), (2, 2)]
    layers = [[list(map(set, combinations(range(3), p[layer]))) for p in profiles] for layer in range(2)]
    counts = [
        sum(len(set.intersection(*pick)) for pick in both) for both in product(*(product(*sets) for sets in layers))
    ]
    expected = np.bincount(counts) / len(counts)
    found = shared_by_all_layers(3, profiles)
    assert found[: len(expected)] == pytest.approx(expected) and found[len(expected) :] == pytest.approx(0)


def test_mlps_that_every_circuit_has_are_no_overlap():
    every = " ".join(f"m{layer}" for layer in range(3))
    own = {"a": "0.1 1.2", "b": "0.1 2.2", "c": "0.1 1.2 2.2"}
    circuits = {task: circuit(f"{names} {every}") for task, names in own.items()}
    heads, mlps = consensus.sharing(circuits, 3, 4)
    assert (mlps["level"], mlps["shared"], mlps["sizes"]) == ("mlps", 3, "3 3 3")
    assert mlps["expected"] == pytest.approx(3) and mlps["p"] == pytest.approx(1) == pytest.approx(mlps["p_smallest"])
    assert (heads["shared"], heads["members"], heads["tasks"]) == (1, "0.1", "a b c")
    assert heads["expected"] == pytest.approx(1 / 16) and heads["p"] == pytest.approx(1 / 16)


def test_rows_of_all_and_of_pairs_by_core_and_by_search():
    orders = [("orders", "layers"), ("orders", "random_0"), ("seeds", "seed 1")]
    a, b, c = (circuit(names) for names in ("0.1 1.2", "0.1 1.3", "0.1 1.2 2.0"))
    searches = {"a": dict.fromkeys(orders, a), "b": dict.fromkeys(orders, b), "c": dict.fromkeys(orders[:2], c)}
    rows = consensus.shared_rows(searches, 3, 4)
    assert {r["tasks"] for r in rows} == {"a b c", "a b", "a c", "b c"}
    assert {(r["family"], r["run"]) for r in rows} == {("core", ""), *orders[:2]}, "searches that all tasks have"
    found = {(r["tasks"], r["family"], r["level"]): r["shared"] for r in rows}
    assert found["a b c", "core", "heads"] == 1 and found["a c", "orders", "heads"] == 2
    claims = {r["claim"]: r["tests"] for r in rows if r["level"] == "heads"}
    assert claims["heads of the cores"] == 4 and claims["heads, search by search, a b c"] == 2 and len(claims) == 5
    assert all(r["p"] <= r["p_holm"] <= 1 for r in rows)
    members = consensus.member_rows(searches | {"b": searches["b"] | {orders[0]: a}})
    shares = {(r["tasks"], r["component"]): (r["share"], r["core"]) for r in members}
    assert shares["a b c", "0.1"] == (1, True) and shares["a b c", "1.2"] == (0.5, False)
    assert shares["a c", "1.2"] == (1, True)


def test_one_task_shares_with_none():
    searches = {"a": {("orders", "layers"): circuit("0.1")}}
    assert consensus.shared_rows(searches, 3, 4) == [] == consensus.member_rows(searches)
    assert consensus.to_content(searches)["shared"] == {"heads": ["0.1"], "mlps": []}
