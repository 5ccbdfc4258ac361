"""Stability: means without a forward pass, prompts made anew, and what runs share; against naive computations.

Means of float32 activations in float64 differ by rounding to float32 alone: 1e-6 of values of order 1.
"""

from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atlas.circuit import remade, stability
from atlas.circuit.ablation import Ablator
from atlas.circuit.optimal import fitted
from atlas.circuit.remade import Dataset, Maker
from atlas.circuit.replacement import replacement
from atlas.circuit.search import Rule
from atlas.circuit.stability import NodeSearch, Run
from atlas.core.components import Component, all_components
from atlas.core.errors import StudyError
from atlas.core.graph import Edge
from atlas.model import activations
from atlas.prompts.batch import Prompts
from atlas.prompts.making import prompts_of
from atlas.proof import certify, exact, fixtures
from atlas.study.settings import task_block
from conftest import crossed, load_tokenizer

TASK = "number_words"
RULE = Rule(threshold=20)


# ---- other data ----------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def block(config):
    return task_block(config, TASK) | {"per_template": 32}


@pytest.fixture(scope="module", params=[False, True], ids=["one group", "by template"])
def searched(request, shipped_model, block):
    """The search split of a task, its means and its cached activations, as the earlier stages leave them."""
    encoded, _ = prompts_of(TASK, block, load_tokenizer("shipped"), False, None, None)
    frame = pd.DataFrame(encoded.rows)
    frame = frame[frame.split == "search"].reset_index(drop=True)
    groups = sorted(frame.template.unique()) if request.param else ["all"]
    prompts = Prompts.from_frame(frame, groups)
    means, cache = {"groups": groups}, {"prompt": torch.tensor(prompts.prompt)}
    for run, tokens in (("clean", prompts.tokens), ("corrupted", prompts.corrupted_tokens)):
        found, means[run] = activations.collect(shipped_model, tokens, prompts.group)
        cache[run] = {name: x.flip(1) for name, x in found.items()}
    cache["prompt"] = cache["prompt"].flip(0)  # rows are found by prompt, not by their place
    return prompts, means, cache


@pytest.mark.parametrize("kind", ["mean", "mean_clean", "zero", "resample"])
def test_a_bootstrap_equals_ablation_on_the_drawn_prompts(shipped_model, searched, kind):
    """Everything about the drawn prompts computed anew by forward passes, cached activations not used."""
    prompts, means, cache = searched
    found = list(remade.bootstraps(shipped_model, prompts, means, cache, kind, 2, seed=5))
    assert [(d.family, d.name) for d in found] == [("bootstrap", "resample 0"), ("bootstrap", "resample 1")]
    assert found[0].prompts.prompt != found[1].prompts.prompt
    drawn = found[0].prompts
    assert len(drawn) == len(prompts) and 0.5 < len(set(drawn.prompt)) / len(prompts) < 0.75, "with replacement"
    by_id = {p: i for i, p in enumerate(prompts.prompt)}
    rows = torch.tensor([by_id[p] for p in drawn.prompt])
    for name in ("tokens", "corrupted_tokens", "answer", "incorrect", "group"):
        assert torch.equal(getattr(drawn, name), getattr(prompts, name)[rows]), name
    anew = {
        run: activations.collect(shipped_model, tokens, drawn.group)[1]
        for run, tokens in (("clean", drawn.tokens), ("corrupted", drawn.corrupted_tokens))
    }
    expected = replacement(kind, shipped_model, drawn, anew)
    for name in ("z", "mlp_out"):
        ours, theirs = (getattr(s, name)[:, s.rows] for s in (found[0].substitute, expected))
        assert (ours - theirs).abs().max() < 1e-5
    circuit = frozenset(all_components(6, 8)) - {Component(3, 1), Component(2)}
    scores = [Ablator(shipped_model, drawn, s).logit_diff(circuit) for s in (found[0].substitute, expected)]
    assert np.abs(scores[0] - scores[1]).max() < 1e-4


def test_bootstraps_are_seeded(shipped_model, searched):
    def drawn(seed):
        prompts, means, cache = searched
        return [d.prompts.prompt for d in remade.bootstraps(shipped_model, prompts, means, cache, "zero", 2, seed)]

    assert drawn(1) == drawn(1) != drawn(2)


def test_a_resample_without_a_template_is_refused(shipped_model, searched):
    prompts, means, cache = searched
    few = prompts.take([0, 1])
    groups = {"groups": ["first", "second"]}
    lonely = replace(few, group=torch.tensor([0, 1]))
    with pytest.raises(StudyError, match=r"stability.bootstrap: resample \d+ holds no prompt of some template"):
        list(remade.bootstraps(shipped_model, lonely, means | groups, cache, "mean", 20, 0))


def maker(model, block, **options) -> Maker:
    settings = {"prepend_bos": False, "max_tokens": 40, "kind": "mean", "by_template": False}
    return Maker(model, TASK, block, load_tokenizer("shipped"), **settings | options)


CHANGED = (
    {"seed": 3, "filler_seed": 3},
    {"templates": ["{object} is {m}.", "{name} picked {m}."]},
    {"corruption": "repeat_random"},
)


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        *crossed(["mean", "mean_clean", "zero", "resample"], CHANGED),
        *(pytest.param("optimal", changed, marks=pytest.mark.slow) for changed in CHANGED),
    ],
)
def test_data_made_anew_is_what_the_earlier_stages_make(shipped_model, block, changed, kind):
    found = maker(shipped_model, block, kind=kind).dataset("any", "name", changed)
    encoded, _ = prompts_of(TASK, block | changed, load_tokenizer("shipped"), False, None, None)
    frame = pd.DataFrame([row for row in encoded.rows if row["split"] == "search"])
    expected = Prompts.from_frame(frame, ["all"])
    assert torch.equal(found.prompts.tokens, expected.tokens) and found.prompts.prompt == expected.prompt
    assert torch.equal(found.prompts.corrupted_tokens, expected.corrupted_tokens)
    means = {
        run: activations.collect(shipped_model, tokens)[1]
        for run, tokens in (("clean", expected.tokens), ("corrupted", expected.corrupted_tokens))
    }
    if kind == "optimal":
        means[kind] = fitted(shipped_model, expected, means)
    substitute = replacement(kind, shipped_model, expected, means)
    assert (found.substitute.z - substitute.z).abs().max() < 1e-6
    own = prompts_of(TASK, block, load_tokenizer("shipped"), False, None, None)[0]
    corrupted = [row["corrupted_text"] for row in own.rows if row["split"] == "search"]
    assert frame.corrupted_text.tolist() != corrupted, "the data did change"


def test_held_out_prompts_in_new_wordings_have_the_means_of_those_searched_on(shipped_model, block):
    """And show the sequences that the task itself holds out, none of which is searched on in either wording."""
    changed = {"templates": ["{object} is {m}.", "{name} picked {m}."], "hold_out": "sequences"}
    found = maker(shipped_model, block).dataset("templates", "name", changed, "held_out")

    def frame(more):
        whole = block | {"hold_out": "sequences"} | more
        return pd.DataFrame(prompts_of(TASK, whole, load_tokenizer("shipped"), False, None, None)[0].rows)

    def sequences(rows):
        return set(map(tuple, rows.members))

    new, own = frame(changed), frame({})
    searched, held = (new[new.split == split] for split in ("search", "held_out"))
    assert torch.equal(found.prompts.tokens, Prompts.from_frame(held, ["all"]).tokens)
    means = activations.collect(shipped_model, Prompts.from_frame(searched, ["all"]).corrupted_tokens)[1]
    expected = replacement("mean", shipped_model, found.prompts, {"corrupted": means})
    assert (found.substitute.z - expected.z).abs().max() < 1e-6
    assert sequences(held) == sequences(own[own.split == "held_out"])
    assert not sequences(held) & (sequences(searched) | sequences(own[own.split == "search"]))


def test_means_by_template_of_data_made_anew(shipped_model, block):
    templates = ["{object} is {m}.", "{name} picked {m}."]
    found = maker(shipped_model, block, by_template=True).dataset("templates", "two", {"templates": templates})
    assert found.substitute.z.shape[1] == 2
    assert torch.equal(found.substitute.rows, found.prompts.group) and set(found.prompts.group.tolist()) == {0, 1}


def test_the_filter_keeps_what_the_model_answers(shipped_model, block):
    everything = maker(shipped_model, block)._dataset("seeds", "seed 1", {"seed": 1}).prompts
    logits = activations.last_logits(shipped_model, everything.tokens)
    p, rows = logits.softmax(-1), range(len(everything))
    odds = p[rows, everything.answer] / p[rows, everything.incorrect]
    ratio = float(odds.median())
    found = maker(shipped_model, block, filter={"probability_ratio": ratio}).dataset("seeds", "seed 1", {"seed": 1})
    best = logits.argmax(-1) == everything.answer
    expected = [everything.prompt[i] for i in rows if best[i] and odds[i] > ratio]
    assert found.prompts.prompt == expected and 0 < len(expected) < len(everything)
    with pytest.raises(StudyError, match=r"stability.seeds, seed 1: .* the filter keeps none of the prompts"):
        maker(shipped_model, block, filter={"probability_ratio": 1e30}).dataset("seeds", "seed 1", {"seed": 1})


def test_data_that_cannot_be_made_is_refused_by_name(shipped_model, block, monkeypatch):
    made = maker(shipped_model, block)
    templates = ["{object} is {m}.", "{object} goes with {m}."]
    with pytest.raises(StudyError, match=r"stability.templates, two: .*all templates of a task must align"):
        made.dataset("templates", "two", {"templates": templates})
    with pytest.raises(StudyError, match=r"stability.templates, x: template .*needs exactly one \{m\}"):
        made.dataset("templates", "x", {"templates": ["{object} only."]})
    with pytest.raises(StudyError, match=r"stability.seeds, seed 1: .*prompts have 23 tokens, the model takes 20"):
        maker(shipped_model, block, max_tokens=20).dataset("seeds", "seed 1", {"seed": 1})

    def some_rejected(*arguments, **options):
        encoded, dropped = prompts_of(*arguments, **options)
        return replace(encoded, rejected_rows=[({}, "an answer is not one token")] * 2), dropped

    with monkeypatch.context() as patch:
        patch.setattr(remade, "prompts_of", some_rejected)
        with pytest.raises(StudyError, match=r"stability.seeds, seed 1: .*fewer prompts .*not one token: 2"):
            made.dataset("seeds", "seed 1", {"seed": 1})
    last_logits = activations.last_logits
    monkeypatch.setattr(activations, "last_logits", lambda *a: -last_logits(*a))
    with pytest.raises(StudyError, match=r"stability.seeds, seed 1: .*clean logit difference is -.* not positive"):
        made.dataset("seeds", "seed 1", {"seed": 1})
    allowed = maker(shipped_model, block, allow_negative_clean=True)
    assert len(allowed.dataset("seeds", "seed 1", {"seed": 1}).prompts)


def test_what_a_task_already_has_is_not_run_twice(block):
    templates = [block["templates"], ["{object} is {m}."]]
    corruptions = ["random_members", "permute", {"position": 2}]
    found = list(remade.changes(block, [0, 7], templates, corruptions))
    assert found == [
        ("seeds", "seed 7", {"seed": 7, "filler_seed": 7}),
        ("templates", "{object} is {m}.", {"templates": ["{object} is {m}."]}),
        ("corruption", "permute", {"corruption": "permute"}),
        ("corruption", "position 2", {"corruption": {"position": 2}}),
    ]
    half = block | {"seed": 7}
    assert [name for _, name, _ in remade.changes(half, [0, 7], [], [])] == ["seed 0", "seed 7"], "fillers differ"
    assert not list(remade.changes({"file": {"clean": "a.csv"}}, [1], templates, corruptions))


# ---- runs ----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("planted"), {}
    for build in (exact.two_heads, exact.backup):
        fixture = build("gpt2")
        made[fixture.name] = certify.make_ablators(fixture.build(root / fixture.name), fixture.prompts())
    return made


def own_data(ablator) -> Dataset:
    return Dataset("", "reported", ablator.prompts, ablator.substitute)


def node_search(order="layers", seed=None, **options) -> NodeSearch:
    return NodeSearch("planted", order, seed, RULE, **options)


@pytest.mark.parametrize("name", ["two_heads", "backup"])
def test_the_search_is_that_of_the_study(planted, name):
    for method, search in (
        ("layers", node_search()),
        ("speculative", node_search(batch=8)),
        ("ascending_effect", node_search("ascending_effect")),
        ("random", node_search(f"random_{certify.SEED}", certify.SEED)),
        ("bisect", node_search("bisect")),
        ("layers", node_search(legacy_mlp_means=True)),
    ):
        ablator = planted[name]["mean"]
        expected, _ = certify.search(method, Ablator(ablator.model, ablator.prompts, ablator.substitute), 20)
        assert search.circuit(ablator.model, own_data(ablator)) == expected, method


def test_planted_circuits_survive_resampled_prompts(planted):
    """Of 16 prompts; means that are no longer balanced move the score by less than a fifth."""
    shared = planted["two_heads"]["mean"]
    cache, means = activations.collect(shared.model, shared.prompts.corrupted_tokens)
    cache = {"prompt": shared.prompts.prompt, "corrupted": cache}
    means = {"groups": ["all"], "corrupted": means}
    others = remade.bootstraps(shared.model, shared.prompts, means, cache, "mean", 6, 0)
    orders = {"layers": fixtures.circuit("0.1 2.2")}
    runs, edges = stability.all_runs(shared.model, own_data(shared), others, orders, node_search())
    assert len(runs) == 1 + 7 and not edges
    assert all(fixtures.circuit("0.1 2.2") == run.circuit for run in runs)


def test_the_reported_circuit_is_the_first_run_of_every_family(planted):
    shared, asked = planted["backup"]["resample"], []

    def edge_search(model, prompts, substitute, circuit):
        asked.append((prompts, substitute, circuit))
        return frozenset(Edge(str(c), "logits") for c in circuit)

    own = own_data(shared)
    others = [replace(own, family=f, name=n) for f, n in (("bootstrap", "0"), ("bootstrap", "1"), ("seeds", "seed 1"))]
    early, late = fixtures.circuit("0.1 m2"), fixtures.circuit("1.2 m2")
    orders = {"random_0": early, "layers": late}  # `late` is no circuit that the search finds, so it can be told apart
    runs, edges = stability.all_runs(shared.model, own, others, orders, node_search(), edge_search)
    assert [(r.family, r.name, r.circuit) for r in runs] == [
        ("orders", "random_0", early),
        ("orders", "layers", late),
        ("bootstrap", "reported", late),
        ("bootstrap", "0", early),
        ("bootstrap", "1", early),
        ("seeds", "reported", late),
        ("seeds", "seed 1", early),
    ]
    assert [(r.family, r.name) for r in edges] == [(r.family, r.name) for r in runs[2:]]
    assert [len(r.circuit) for r in edges] == [2] * 5 and Edge("1.2", "logits") in edges[0].circuit
    assert [circuit for *_, circuit in asked] == [late, early, early, early], "reported edges are found once"


def test_data_without_an_effect_is_refused_by_name(planted):
    """Corrupted prompts that are the clean ones: resampling changes nothing."""
    shared = planted["two_heads"]["resample"]
    same = replace(shared.prompts, corrupted_tokens=shared.prompts.tokens)
    substitute = replacement("resample", shared.model, same, {"corrupted": {"z": shared.substitute.z}})
    data = Dataset("corruption", "none", same, substitute)
    with pytest.raises(StudyError, match=r"planted \(corruption, none\): ablating everything changes .* no effect"):
        node_search().circuit(shared.model, data)


# ---- what they share -----------------------------------------------------------------------------------------
MEMBERS = [*all_components(2, 3)]
EDGES = [Edge(str(c), "logits") for c in MEMBERS]
circuits_strategy = st.sampled_from([MEMBERS, EDGES]).flatmap(
    lambda pool: st.lists(st.sets(st.sampled_from(pool)).map(frozenset), min_size=1, max_size=5)
)


@given(circuits_strategy, circuits_strategy)
def test_rows_equal_naive_counts(a, b):
    runs = [Run("bootstrap", str(i), c) for i, c in enumerate(a)] + [Run("seeds", str(i), c) for i, c in enumerate(b)]
    rows = stability.survival_rows(runs, "component")
    expected = []
    for family, circuits in (("bootstrap", a), ("seeds", b)):
        for name in sorted({str(m) for c in circuits for m in c}) if len(circuits) > 1 else ():
            share = sum(name in map(str, c) for c in circuits) / len(circuits)
            expected.append(("component", name, family, share, len(circuits)))
    found = [tuple(row[k] for k in stability.SURVIVAL_COLUMNS) for row in rows]
    assert sorted(found) == sorted(expected)

    summary = {row["family"]: row for row in stability.summary_rows(runs, "edge", lambda x, y: len(x) + len(y))}
    assert set(summary) == {f for f, circuits in (("bootstrap", a), ("seeds", b)) if len(circuits) > 1}
    for family, row in summary.items():
        circuits = a if family == "bootstrap" else b
        assert set(row) == set(stability.SUMMARY_COLUMNS)
        assert (row["runs"], row["size_min"], row["size_max"]) == (
            len(circuits),
            min(map(len, circuits)),
            max(map(len, circuits)),
        )
        every = {m for c in circuits for m in c}
        assert row["union"] == len(every)
        assert row["intersection"] == sum(all(m in c for c in circuits) for m in every)
        found = [len(x & y) / len(x | y) if x | y else 1 for x, y in combinations(circuits, 2)]
        assert [row["jaccard"], row["jaccard_low"], row["jaccard_high"]] == pytest.approx(
            [sum(found) / len(found), min(found), max(found)]
        )
        sums = [len(x) + len(y) for x, y in combinations(circuits, 2)]
        assert row["expected"] == pytest.approx(sum(sums) / len(sums))


def test_edges_have_no_expected_index():
    runs = [Run("seeds", "0", frozenset(EDGES)), Run("seeds", "1", frozenset(EDGES[:2]))]
    (row,) = stability.summary_rows(runs, "edge")
    assert np.isnan(row["expected"]) and row["jaccard"] == 2 / len(EDGES)


heads_and_mlps = st.sets(st.sampled_from(MEMBERS)).map(frozenset)


@given(heads_and_mlps, heads_and_mlps)
def test_the_expected_index_is_that_of_all_pairs_of_random_circuits(a, b):
    """Every set of heads with the same numbers per layer, each as likely, beside the circuit's own MLPs."""

    def like(circuit):
        of_layer = [[c for c in MEMBERS if c.layer == layer and not c.is_mlp] for layer in range(2)]
        counts = [sum(c in circuit for c in pool) for pool in of_layer]
        picks = [list(combinations(pool, k)) for pool, k in zip(of_layer, counts, strict=True)]
        own = frozenset(c for c in circuit if c.is_mlp)
        return [own | {c for layer in pick for c in layer} for pick in product(*picks)]

    found = [len(x & y) / len(x | y) if x | y else 1 for x, y in product(like(a), like(b))]
    assert stability.expected_jaccard(a, b, 2, 3) == pytest.approx(sum(found) / len(found), abs=1e-12)


def test_heads_and_mlps_are_counted_apart_too():
    """MLPs that every run keeps do not make its heads agree."""
    circuits = [fixtures.circuit(f"{names} m0 m1 m2") for names in ("0.1 1.2", "0.1 1.3", "2.0 1.3")]
    runs = [Run("seeds", str(i), c) for i, c in enumerate(circuits)]
    _, summary, _ = stability.tables({"component": runs, "edge": []}, 3, 4)
    found = summary.set_index("level")
    assert found.loc["head", ["size_min", "size_max", "intersection", "union"]].tolist() == [2, 2, 0, 4]
    assert found.loc["mlp", ["size_min", "intersection", "union", "jaccard"]].tolist() == [3, 3, 3, 1]
    assert found.loc["head", "jaccard"] == pytest.approx((1 / 3 + 0 + 1 / 3) / 3)
    assert found.loc["component", "jaccard"] == pytest.approx((4 / 6 + 3 / 7 + 4 / 6) / 3)
    assert 0 < found.loc["head", "expected"] < found.loc["component", "expected"] and np.isnan(
        found.loc["mlp", "expected"]
    )


def test_json_names_every_run_and_what_its_family_shares():
    first, second = fixtures.circuit("0.1 1.2 m0"), fixtures.circuit("0.1 m0 m1")
    runs = [Run("orders", "layers", first), Run("seeds", "reported", first), Run("seeds", "seed 1", second)]
    assert stability.to_json(runs, "component") == {
        "families": [
            {"level": "component", "family": "seeds", "runs": 2}
            | {"intersection": ["m0", "0.1"], "union": ["m0", "0.1", "m1", "1.2"]}
        ],
        "runs": [
            {"level": "component", "family": "orders", "run": "layers", "members": ["m0", "0.1", "1.2"]},
            {"level": "component", "family": "seeds", "run": "reported", "members": ["m0", "0.1", "1.2"]},
            {"level": "component", "family": "seeds", "run": "seed 1", "members": ["m0", "0.1", "m1"]},
        ],
    }
