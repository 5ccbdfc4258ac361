"""Sentences of the summary follow the numbers, and its tables hold them."""

import math

import numpy as np
import pandas as pd
import pytest

from atlas.core import multiple
from atlas.core.multiple import interval_p
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
        "p_holm": 0.006,
        "tests": 3,
    }
    return pd.DataFrame([row | changes])


def members(**circuits):
    return pd.DataFrame(
        [(c, name) for c, names in circuits.items() for name in names], columns=["circuit", "component"]
    )


@pytest.mark.parametrize(
    ("p", "said"),
    [
        ({}, "That is more than chance gives (p = 0.002; 0.006 corrected for 3 tests, with"),
        ({"p_layer_matched": 0.03, "p_holm": 0.09}, "if layers are ignored (p = 0.001, not corrected) but not"),
        ({"p_layer_matched": 0.4, "p_holm": 1.0, "p_hypergeometric": 0.3}, "Chance explains that (p = 0.4; 1 corr"),
        ({"p_layer_matched": math.nan, "p_hypergeometric": math.nan}, "No p-value was computed"),
    ],
)
def test_overlap_sentence_follows_the_p_values(p, said):
    sentences = overlap.findings(members(a=["0.1", "m0"], b=["0.1"]), pair(**p), ["a", "b"])
    assert sentences[0].startswith(
        "The reported circuits of both main tasks all hold 1 of the 1 head that any of them holds (0.1) and 0 of the "
        "1 MLP that any of them holds. "
    )
    assert said in sentences[1]
    assert sentences[2:] == [
        "In the a circuit alone: m0.",
        "Every component of the b circuit is in another circuit too.",
    ]


def test_a_search_in_a_half_says_how_often_it_was_checked():
    counts = {"dtype": "bfloat16", "again": 21, "sampled": 30, "flipped": 2}
    key = {"order": "layers", "threshold": 20, "evaluations": 239}
    searched = {"a": {"circuits": [key | {"in_half": counts}, key | {"order": "bisect"}]}, "b": {"circuits": [key]}}
    tried = [("a", "search", "layers"), ("b", "search", "layers")]
    choice = pd.DataFrame(tried, columns=["task", "split", "order"]).assign(threshold=20, metric="x", reported=True)
    (said,) = circuits.half_findings(searched, choice, ["a", "b"], 20)
    assert said.startswith("The searches ran in bfloat16: 21 of 239 decisions were too close for it and 2 came out")
    assert "(a)" in said and "(b)" not in said
    assert circuits.half_findings(searched, choice.assign(order="bisect"), ["a", "b"], 20) == [], "it ran in float32"


def test_overlap_sentences_without_shared_components_and_with_one_task():
    sentences = overlap.findings(members(a=["0.1"], b=["0.2"]), pair(p_layer_matched=1.0, p_holm=1.0), ["a", "b"])
    assert sentences[0].startswith(
        "The reported circuits of both main tasks all hold 0 of the 2 heads that any of them holds. 0 of 1 pair"
    )
    nothing = pd.DataFrame(columns=["model", "circuit_a", "circuit_b", "level"])
    assert overlap.findings(members(a=["0.1"]), nothing, ["a"]) == [
        "Only one task was searched (a), so there is no overlap to report."
    ]


@pytest.mark.parametrize(
    ("value", "said"), [(90, "above the floor"), (80, "includes the floor"), (70, "below the floor")]
)
def test_circuit_sentence_compares_held_out_prompts_with_the_floor(value, said):
    key = {"task": "a", "order": "layers", "threshold": 20, "heads": 4, "mlps": 1, "reported": True}
    rows = [
        {**key, "split": split, "metric": metric, **interval(v, 2)}
        for split, metric, v in (
            ("search", "percent_of_full", 82),
            ("held_out", "percent_of_full", value),
            ("held_out", "faithfulness", 0.8),
        )
    ]
    where = "9 held-out prompts of wordings that the search never saw"
    first, second = circuits.findings(pd.DataFrame(rows), ["a"], 20, 48, 6, where)
    assert "4 of 48 heads (8 %) and 1 of 6 MLPs for a" in first and f"; on {where} they give {value}.0 %" in first
    assert said in second and "4 heads and 1 of 6 MLPs give 82.0 %" in second
    only_search = circuits.findings(pd.DataFrame(rows[:1]), ["a"], 20, 48, 6, "")
    assert only_search[1].endswith("no prompts were held out.")


def candidate(order, heads, **changes):
    row = {"task": "a", "order": order, "threshold": 20, "searched": 20, "heads": heads, "mlps": 6, "split": "held_out"}
    row |= {"metric": "percent_of_full", "value": 81.0, "dropped": "", "passes": True, "reported": False}
    return row | {"optimism": math.nan, "chosen_again": math.nan} | changes


def test_a_circuit_of_a_search_at_another_threshold_names_it():
    mine = candidate("random_0", 7, searched=10, reported=True, optimism=0.0, chosen_again=1.0)
    (said,) = circuits.choice_findings(pd.DataFrame([candidate("layers", 5, searched=10), mine]), ["a"], 20, 6)
    assert said.startswith("A: reported is what the order random 0 found at T = 10 %. Of 2 candidates it is the ")
    assert "the others have 11 (layers at T = 10 %) components" in said


def test_the_choice_is_told_with_its_candidates_and_what_it_does_to_the_score():
    mine = candidate("random_0", 7, dropped="1.2 3.4", reported=True, optimism=0.31, chosen_again=0.742)
    (said,) = circuits.choice_findings(pd.DataFrame([candidate("layers", 11), mine]), ["a"], 20, 6)
    assert said == (
        "A: reported is what the order random 0 found, without 1.2 and 3.4, which together cost nothing sure on the "
        "prompts searched on; 7 heads and 6 of 6 MLPs are left. Of 2 candidates it is the smallest that keeps more "
        "than 80 % on held-out prompts; the others have 17 (layers) components. The choice was made on these "
        "prompts: by bootstrap it raises the score by 0.3 points, and 74 % of the resamples choose the same circuit."
    )
    none = pd.DataFrame([candidate("layers", 11, passes=False), mine | {"passes": False, "dropped": ""}])
    (said,) = circuits.choice_findings(none, ["a"], 20, 6)
    assert "None of 2 candidates keeps more than 80 % on held-out prompts; it is the smallest of those that" in said
    (said,) = circuits.choice_findings(pd.DataFrame([mine | {"dropped": ""}]), ["a"], 20, 6)
    assert said == "A: reported is what the order random 0 found; there was no other candidate."


def test_circuits_name_the_orders_that_found_them():
    tables = [candidate("layers", 4, reported=True), candidate("random_0", 4, reported=True, task="b")]
    assert circuits.found_by(pd.DataFrame(tables), ["a"], 20) == "T = 20 %, found by the order layers"
    said = circuits.found_by(pd.DataFrame(tables), ["a", "b"], 20)
    assert said == "T = 20 %, found by the orders layers (a) and random 0 (b)"


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
        "p": 1 / 101,
        "p_holm": 3 / 101,
        "tests": 3,
        "state": "beyond random",
        "reason": "",
    }
    return row | changes


LIKE = {"p": 0.6, "p_holm": 1.0, "state": "like random"}
NECESSITY = {"question": "necessity", "state": "untestable", "reason": "layer 2 has too few other heads"}
NONE = {"controls": 0} | dict.fromkeys(("p", "p_holm", "control_median", "control_low", "control_high"), math.nan)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {},
            "more than random heads in the same layers for a (82.0 % [80.0, 83.6], random sets 20.0 % [5.0, 40.0])",
        ),
        (
            {},
            ": p = 0.0099, the smallest that 100 random sets can give; 0.03 corrected for 3 tests (% of full, prompts",
        ),
        (LIKE, "keep no more than random heads in the same layers, and so are not special, for a (82"),
        (LIKE, "): p = 0.6; 1 corrected for 3 tests (% of full"),
        (
            NECESSITY | NONE,
            "Whether a circuit's heads are necessary, MLPs left in place, cannot be tested for a (82.0 % ",
        ),
        (NECESSITY | NONE, "[80.0, 83.6]): layer 2 has too few other heads (% of full, prompts held out)."),
        ({"question": "necessity"}, "Without a circuit's heads, MLPs left in place, less is left than without other"),
        ({"question": "necessity", "circuit": "shared"}, "Without the shared heads, MLPs left in place, less is left"),
        ({"question": "necessity", "circuit": "shared"} | LIKE, "no less is left than without other heads in the same"),
    ],
)
def test_control_sentence_follows_the_state(changes, said):
    assert said in controls.findings(pd.DataFrame([control(**changes)]), "prompts held out")[0]


def test_each_task_is_said_to_be_necessary_or_not_to_be_testable():
    """In the first sentence, which stands at the top of the page; tasks of one reason stand together."""
    rows = [control(circuit=t, task=t, **NECESSITY, **NONE) for t in ("a", "b")]
    rows += [control(circuit="c", task="c", question="necessity"), control(circuit="c", task="c")]
    (first,) = controls.findings(pd.DataFrame(rows), "prompts held out")
    assert "cannot be tested for a (82.0 % [80.0, 83.6]) and b (82.0 % [80.0, 83.6]): layer 2 has too few" in first
    assert first.count("for c (82.0 %") == 2 and first.count("for 3 tests") == 2
    states = [row[-1] for row in controls.table(pd.DataFrame(rows))["rows"]]
    assert states == ["untestable: layer 2 has too few other heads"] * 2 + ["beyond random"] * 2


def test_without_controls_nothing_is_said_to_be_special():
    said = controls.findings(pd.DataFrame(columns=[*control()]), "prompts held out")
    assert said == ["No random control was asked for, so nothing says that these circuits are special."]


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
    assert positions.findings(study.positions.head(0), study.main, "") == []


def test_edge_overlap_sentences_name_the_type():
    study = study_of(LARGE)
    said = edges.overlap_findings(study.overlap, study.typology, study.main)
    assert said[0].startswith("3 of 3 pairs of edge circuits share more edges than chance gives with other heads")
    row = study.overlap[study.overlap.level == "edges"].iloc[0]
    assert f"{row.ratio:.1f} times the {row.expected:.1f} expected of random edges" in said[1]
    assert f"{row.expected_exchanged:.1f} are expected (p = 0.001, the smallest" in said[1] and "e-" not in " ".join(
        said
    )
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
    table = pd.DataFrame({"task": "a", "circuit": "nodes", "name": names, "value": [low + 0.5 for low in lows]})
    p = interval_p(table["value"], np.array(lows), table["value"] + 0.5)
    return multiple.corrected(table.assign(p=p), "members")


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
        "The answer is the first choice on this share of the prompts searched on: 90.0 % [80.0, 98.0] with the node "
        "circuits and 100.0 % [90.0, 108.0] with the full model."
    )
    for text in said:
        assert any(text in sentence for sentence in sentences)


def test_edges_without_cost_are_counted_and_not_listed():
    table = minimal(-1, -1, names=("embed->0.1.q", "0.1->logits"))
    said = evaluation.findings(pd.DataFrame(METRIC_ROWS), complete(0.0), table, ["a"])
    assert any("2 of 2 edges can go alone at no sure cost." in sentence for sentence in said)


def runs(**changes):
    row = {"task": "a", "level": "head", "family": "seeds", "runs": 3, "size_min": 4, "size_max": 6}
    row |= {"intersection": 3, "union": 8, "jaccard": 0.6, "jaccard_low": 0.5, "jaccard_high": 0.7, "expected": 0.2}
    return pd.DataFrame([row | changes])


def test_stability_sentences_set_agreement_beside_chance():
    said = stability.findings(runs(), ["a"])
    assert "heads have a mean Jaccard index of 0.60; random heads, as many in every layer, have 0.20" in said[0]
    assert said[1:] == [
        "A, heads kept by all: 3 of the 8 that any of 3 seeds of the prompts keeps (4 to 6 in each, Jaccard index "
        "0.60)."
    ]
    weak = stability.findings(runs(jaccard_high=0.2), ["a"])
    assert weak[1] == "No pair of runs agrees on heads more than chance: a (seeds of the prompts)."
    assert stability.findings(runs(runs=1), ["a"]) == [
        "No search was repeated, so how much the circuits depend on order and prompts is unknown."
    ]


def test_position_sentences_name_the_largest_loss_and_where_components_are_kept():
    rows = [("0.1", "last", 9.0, True), ("0.1", "members", 1.0, False), ("m0", "members", 3.0, True)]
    table = pd.DataFrame(rows, columns=["component", "role", "value", "kept"])
    table = table.assign(task="a", ci_low=table["value"] - 1, ci_high=table["value"] + 1)
    first, second = positions.findings(table, ["a"], "prompts held out")
    assert "1 of 1 at last and 1 of 2 at members" in first
    assert first.endswith("0.1 at last costs most, 9.0 [8.0, 10.0] points of % of full (a, prompts held out).")
    assert "0.1 at last (9.0 [8.0, 10.0])" in second
    assert second.endswith("Kept at last only: 0.1. Kept at members only: m0.")


def test_every_circuit_has_a_row_with_every_metric(study):
    table = evaluation.table(study.evaluation, study.main)
    assert len(table["rows"]) == 4 * len(study.main)
    assert {len(row) for row in table["rows"]} == {len(table["header"])}
    areas = edges.table(study.edge_areas, study.main)
    assert len(areas["rows"]) == 7 and len(areas["header"]) == 2 + 2 * len(study.main)
    assert len(stability.table(study.stability_summary, study.main)["rows"]) == 19 * len(study.main)


def test_configured_circuits_are_spoken_of():
    study = study_of(LARGE)
    nodes = study.evaluation[study.evaluation["circuit"] == "nodes"]
    table = pd.concat([study.evaluation, nodes.assign(circuit="from_paper")])
    said = evaluation.findings(table, study.completeness, study.minimality, study.main)
    assert any("circuit from paper" in sentence for sentence in said)
