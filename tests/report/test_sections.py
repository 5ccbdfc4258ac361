"""Sentences of the summary follow the numbers, and its tables hold them."""

import math

import pandas as pd
import pytest

from atlas.report import wording
from atlas.report.sections import circuits, controls, edges, evaluation, left_out, overlap, positions, stability
from edge_tables import interval
from figure_tables import GROUPED, LARGE, SMALL, study_of


@pytest.fixture(params=[LARGE, SMALL, GROUPED], scope="module")
def study(request):
    return study_of(request.param)


# ---- nodes ----------------------------------------------------------------------------------------------------
def pair(**changes):
    row = {
        "circuit_a": "a",
        "circuit_b": "b",
        "level": "heads",
        "size_a": 5,
        "size_b": 6,
        "shared": 3,
        "jaccard": 0.375,
        "expected": 1.0,
        "p_hypergeometric": 0.001,
        "p_layer_matched": 0.002,
    }
    return pd.DataFrame([row | changes])


def members(**circuits):
    return pd.DataFrame(
        [(c, name) for c, names in circuits.items() for name in names], columns=["circuit", "component"]
    )


@pytest.mark.parametrize(
    ("p", "said"),
    [
        ({"p_layer_matched": 0.002}, "That is more than chance gives (p = 0.002"),
        ({"p_layer_matched": 0.4}, "if layers are ignored (p = 0.001) but not"),
        ({"p_layer_matched": 0.4, "p_hypergeometric": 0.3}, "Chance explains that (p = 0.4"),
        ({"p_layer_matched": math.nan, "p_hypergeometric": math.nan}, "No p-value was computed"),
    ],
)
def test_overlap_sentence_follows_the_p_values(p, said):
    sentences = overlap.findings(members(a=["0.1", "m0"], b=["0.1"]), pair(**p), ["a", "b"])
    assert sentences[0].startswith("Of the 2 components in any circuit, 1 is in the circuits of both main tasks: 0.1.")
    assert said in sentences[1]
    assert sentences[2:] == [
        "In the a circuit alone: m0.",
        "Every component of the b circuit is in another circuit too.",
    ]


def test_a_search_in_a_half_says_how_often_it_was_checked():
    counts = {"dtype": "bfloat16", "again": 21, "sampled": 30, "flipped": 2}
    key = {"order": "layers", "threshold": 20, "evaluations": 239}
    searched = {"a": {"circuits": [key | {"in_half": counts}, key | {"order": "bisect"}]}, "b": {"circuits": [key]}}
    (said,) = circuits.half_findings(searched, ["a", "b"], 20, "layers")
    assert said.startswith("The searches ran in bfloat16: 21 of 239 decisions were too close for it and 2 came out")
    assert "(a)" in said and "(b)" not in said
    assert circuits.half_findings(searched, ["a", "b"], 20, "bisect") == [], "that one ran in float32"


def test_overlap_sentences_without_shared_components_and_with_one_task():
    sentences = overlap.findings(members(a=["0.1"], b=["0.2"]), pair(p_layer_matched=1.0), ["a", "b"])
    assert sentences[0].startswith("No component is in the circuits of both main tasks. 0 of 1 pair")
    nothing = pd.DataFrame(columns=["model", "circuit_a", "circuit_b", "level"])
    assert overlap.findings(members(a=["0.1"]), nothing, ["a"]) == [
        "Only one task was searched (a), so there is no overlap to report."
    ]


@pytest.mark.parametrize(
    ("value", "said"), [(90, "above the floor"), (80, "includes the floor"), (70, "below the floor")]
)
def test_circuit_sentence_compares_held_out_prompts_with_the_floor(value, said):
    key = {"task": "a", "order": "layers", "threshold": 20, "heads": 4, "mlps": 1}
    rows = [
        {**key, "split": split, "metric": metric, **interval(v, 2)}
        for split, metric, v in (
            ("search", "percent_of_full", 82),
            ("held_out", "percent_of_full", value),
            ("held_out", "faithfulness", 0.8),
        )
    ]
    where = "9 held-out prompts of wordings that the search never saw"
    first, second = circuits.findings(pd.DataFrame(rows), ["a"], 20, "layers", 48, where)
    assert "4 of 48 heads (8 %) for a" in first and f"; on {where} they give {value}.0 %" in first
    assert said in second and "4 heads and 1 MLP give 82.0 %" in second
    only_search = circuits.findings(pd.DataFrame(rows[:1]), ["a"], 20, "layers", 48, "")
    assert only_search[1].endswith("no prompts were held out.")


@pytest.mark.parametrize(
    ("held_out", "said"),
    [
        (
            [["1", "2"]],
            ["A: 1 of the 1 member sequences held out were also searched on, so these prompts test new texts"],
        ),
        ([["1", "2"], ["3", "4"]], ["A: 1 of the 2 member sequences held out were also searched on."]),
        (
            [["3", "4"]],
            ["A: 0 of the 1 member sequences held out were also searched on, so these prompts test new seq"],
        ),
        ([], []),
    ],
)
def test_summary_says_whether_held_out_sequences_are_new(held_out, said):
    rows = [("a", "search", ["1", "2"])] + [("a", "held_out", members) for members in held_out]
    sentences = circuits.split_findings(pd.DataFrame(rows, columns=["task", "split", "members"]), ["a"])
    assert len(sentences) == len(said)
    assert all(sentence.startswith(start) for sentence, start in zip(sentences, said, strict=True))


def control(**changes):
    row = {
        "question": "sufficiency",
        "circuit": "a",
        "task": "a",
        **interval(82, 2),
        "controls": 100,
        "control_median": 20.0,
        "control_low": 5.0,
        "control_high": 40.0,
        "p": 0.0099,
        "note": "",
    }
    return pd.DataFrame([row | changes])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "keeps more than random sets: a (82.0 % [80.0, 83.6], random sets 20.0 %, p = 0.0099)"),
        ({"p": 0.6}, "keeps no more than random sets, so these heads are not special there"),
        ({"p": 0.11, "controls": 8}, "p cannot fall below 0.11, which decides nothing"),
        ({"question": "necessity", "circuit": "shared"}, "Ablating the shared heads does more harm"),
        ({"question": "necessity", "circuit": "shared", "p": 0.5}, "does no more harm than ablating random sets, so"),
    ],
)
def test_control_sentence_follows_p(changes, said):
    assert said in controls.findings(control(**changes))[1]


def test_control_sentences_without_controls():
    none = {"controls": 0, "p": math.nan, "control_median": math.nan, "control_low": math.nan, "control_high": math.nan}
    sentences = controls.findings(control(**none, note="no control: layer 2 has too few other heads"))
    assert sentences == [
        "No random control was possible, so nothing says that these circuits are special.",
        "Not tested: sufficiency of the a circuit (no control: layer 2 has too few other heads).",
    ]


def test_components_are_listed_by_layer():
    assert sorted(["m1", "10.0", "m0", "0.10", "0.2"], key=wording.place) == ["0.2", "0.10", "m0", "m1", "10.0"]


def test_left_out_prompts_are_reported():
    study = study_of(LARGE)
    said = " ".join(left_out.prompt_findings(study.clean, study.info, study.tasks))
    assert "Number words: 3 prompts rejected (3 for another number of tokens)." in said
    assert "99.0 % of number words" in said and "Not used as object" in said
    tiny = study_of(SMALL)
    assert left_out.prompt_findings(tiny.clean, tiny.info, tiny.tasks)[0].startswith("No prompt was rejected")


# ---- edges, evaluation, stability, positions ------------------------------------------------------------------
def test_edge_sentences_name_sizes_lost_components_and_the_best_ranking(study):
    said = edges.findings(study.evaluation, study.edge_circuits, study.edge_areas, study.main)
    task, total = study.main[0], len(study.graph.edges)
    held = study.edge_circuits[task]["circuits"][0]["edges"]
    assert f"{len(held)} of {total} edges" in said[0] and "held out" in said[0]
    lost = study.edge_circuits[task]["circuits"][0]["without_path"]
    assert ("lie on no path" in said[1] or "lies on no path" in said[1]) == bool(lost)
    best = said[1 + len(study.main)]
    assert "EAP-IG (signed) has the largest CPR" in best and "EAP-IG (signed) has the smallest CMD" in best
    assert "meets that of" in best and "random edges 0.30" in best


def test_without_edges_nothing_is_said_of_them():
    study = study_of(LARGE)
    nodes = study.evaluation[study.evaluation["circuit"] != "edges"]
    assert edges.findings(nodes, {}, study.edge_areas.head(0), study.main) == []
    assert edges.overlap_findings(study.overlap.head(0), study.typology, study.main) == []
    assert positions.findings(study.positions.head(0), study.main) == []


def test_edge_overlap_sentences_name_the_type():
    study = study_of(LARGE)
    said = edges.overlap_findings(study.overlap, study.typology, study.main)
    assert said[0].startswith("3 of 3 pairs of edge circuits share more edges than with other heads of the same layers")
    row = study.overlap[study.overlap.level == "edges"].iloc[0]
    assert f"{row.ratio:.1f} times the {row.expected:.1f} expected of random edges" in said[1]
    assert f"{row.expected_exchanged:.1f} are expected (p = 0.001)." in said[1] and "e-" not in " ".join(said)
    assert said[-2].startswith("By heads, shared core with branches: numerals and number words (Jaccard below 0.8);")
    assert said[-1].startswith("By edges, undecided:")


def test_what_was_dropped_of_an_edge_circuit_is_said():
    entry = {"without_path": ["1.2", "0.3"], "dropped": 5, "percent_with_dropped": 84.26, "percent_of_full": 81.0}
    said = edges._lost(entry)
    assert said.startswith(
        "5 edges of 0.3 and 1.2, which lie on no path from the embeddings to the logits, were dropped"
    )
    assert said.endswith("with them the circuit gives 84.3 % on the prompts searched on, without 81.0 %.")
    assert edges._lost(entry | {"dropped": 0}).startswith("0.3 and 1.2 lie on no path")
    assert edges._lost({"without_path": []} | {"dropped": 0}).startswith("Every component of it lies on a path")


def complete(low):
    return pd.DataFrame([{"task": "a", "circuit": "nodes", "value": low + 0.05, "ci_low": low, "ci_high": low + 0.1}])


def minimal(*lows, names=("0.1", "m0")):
    rows = [{"task": "a", "circuit": "nodes", "name": n, "ci_low": low} for n, low in zip(names, lows, strict=True)]
    return pd.DataFrame(rows)


METRIC_ROWS = [
    {"task": "a", "circuit": circuit, "split": "search", "metric": metric, **interval(value, 0.1)}
    for circuit, metric, value in (("nodes", "top1", 0.9), ("nodes", "kl", 0.5), ("full", "top1", 1.0))
]


@pytest.mark.parametrize(
    ("low", "lows", "said"),
    [
        (0.2, (1, 1), ["surely by more than 0.1, so parts outside", "any one of its 2 components alone surely costs"]),
        (0.0, (1, -1), ["in none surely by more than 0.1", "1 of 2 components can go alone at no sure cost: m0."]),
    ],
)
def test_completeness_and_minimality_follow_the_intervals(low, lows, said):
    sentences = evaluation.findings(pd.DataFrame(METRIC_ROWS), complete(low), minimal(*lows), ["a"])
    assert sentences[0] == (
        "The answer is the first choice on 90.0 % of the prompts for the node circuits and 100.0 % of the prompts "
        "for the full model."
    )
    for text in said:
        assert any(text in sentence for sentence in sentences)


def test_edges_without_cost_are_counted_and_not_listed():
    table = minimal(-1, -1, names=("embed->0.1.q", "0.1->logits"))
    said = evaluation.findings(pd.DataFrame(METRIC_ROWS), complete(0.0), table, ["a"])
    assert any("2 of 2 edges can go alone at no sure cost." in sentence for sentence in said)


def runs(**changes):
    row = {"task": "a", "level": "component", "family": "seeds", "runs": 3, "size_min": 4, "size_max": 6}
    row |= {"intersection": 3, "union": 8, "jaccard": 0.6, "jaccard_low": 0.5, "jaccard_high": 0.7, "expected": 0.2}
    return pd.DataFrame([row | changes])


def test_stability_sentences_set_agreement_beside_chance():
    said = stability.findings(runs(), ["a"])
    assert "mean Jaccard index of 0.60; random circuits of the same sizes in every layer have 0.20" in said[0]
    assert said[1:] == [
        "A, components kept by all: 3 of the 8 that any of 3 seeds of the prompts keeps (circuits of 4 to 6, Jaccard "
        "index 0.60)."
    ]
    weak = stability.findings(runs(jaccard_high=0.2), ["a"])
    assert weak[1] == "No pair of runs agrees more than chance: a (seeds of the prompts)."
    assert stability.findings(runs(runs=1), ["a"]) == [
        "No search was repeated, so how much the circuits depend on order and prompts is unknown."
    ]


def test_position_sentences_name_the_largest_loss_and_where_components_are_kept():
    rows = [("0.1", "last", 9.0, True), ("0.1", "members", 1.0, False), ("m0", "members", 3.0, True)]
    table = pd.DataFrame(rows, columns=["component", "role", "value", "kept"])
    table = table.assign(task="a", ci_low=table["value"] - 1, ci_high=table["value"] + 1)
    first, second = positions.findings(table, ["a"])
    assert "1 of 1 at last and 1 of 2 at members" in first
    assert "0.1 at last (9.0 [8.0, 10.0])" in second
    assert second.endswith("Kept at last only: 0.1. Kept at members only: m0.")


def test_every_circuit_has_a_row_with_every_metric(study):
    table = evaluation.table(study.evaluation, study.main)
    assert len(table["rows"]) == 4 * len(study.main)
    assert {len(row) for row in table["rows"]} == {len(table["header"])}
    areas = edges.table(study.edge_areas, study.main)
    assert len(areas["rows"]) == 7 and len(areas["header"]) == 2 + 2 * len(study.main)
    assert len(stability.table(study.stability_summary, study.main)["rows"]) == 9 * len(study.main)


def test_configured_circuits_are_spoken_of():
    study = study_of(LARGE)
    nodes = study.evaluation[study.evaluation["circuit"] == "nodes"]
    table = pd.concat([study.evaluation, nodes.assign(circuit="from_paper")])
    said = evaluation.findings(table, study.completeness, study.minimality, study.main)
    assert any("circuit from paper" in sentence for sentence in said)
