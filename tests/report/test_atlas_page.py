"""The data of the atlas page are those of the tables: every number, rounded, at the place of its component.

Numbers are rounded to four significant digits: 0.0005 of their size.
"""

import copy
import json
import math

import numpy as np
import pandas as pd
import pytest

import atlas_tables
from atlas.core.errors import StudyError
from atlas.core.graph import EMBED
from atlas.heads import traces
from atlas.report.atlas import explained, fitting, page, searched
from atlas.report.atlas.packing import Numbering, rounded, text
from atlas_tables import component_of, inputs_of, settings_of, sizes_of
from figure_tables import GROUPED, HEADLESS, LARGE, MAKERS, SMALL, fake_study, study_of

ROUNDED = {"rel": 5.1e-4, "abs": 1e-12}


@pytest.fixture(scope="module", params=[name for name in MAKERS if name != LARGE])  # which takes seconds to make
def made(request, tmp_path_factory):
    """(study, its page's data)."""
    study = study_of(request.param)
    inputs = inputs_of([study], tmp_path_factory.mktemp("results"))
    return study, page.data_of(inputs, settings_of(study))


def same(found, expected) -> bool:
    """A number of the page is that of a table."""
    if found is None:
        return expected is None or not math.isfinite(expected)
    return found == pytest.approx(expected, **ROUNDED)


def check_column(found, table, column, layers, heads):
    """A list over components holds a column of a table, and nothing where it has no row."""
    cells = dict(zip(zip(table["layer"], table["head"], strict=True), table[column], strict=True))
    assert len(found) == layers * (heads + 1)
    for number, value in enumerate(found):
        component = component_of(layers, heads, number)
        expected = cells.get((component.layer, component.head))
        assert value == expected if isinstance(expected, str) else same(value, expected), (component, column)


def test_effects_shares_and_explanations_are_those_of_the_tables(made):
    study, data = made
    layers, heads = sizes_of(study)
    (model,) = data["models"]
    for task in model["tasks"]:
        name = task["name"]
        assert task["main"] == (name in study.main)
        if task["main"]:
            effects = study.effects[name]
            for kind, found in task["effects"].items():
                rows = effects[(effects["kind"] == kind) & (effects["metric"] == "percent_of_full")]
                for key, column in (("value", "value"), ("low", "ci_low"), ("high", "ci_high")):
                    check_column(found[key], rows, column, layers, heads)
            agreed = study.consensus[study.consensus["task"] == name]
            check_column(task["share"], agreed, "share", layers, heads)
            check_column(task["class"], agreed, "class", layers, heads)
            positions = study.positions[study.positions["task"] == name]
            for role, found in zip(task["positions"]["roles"], task["positions"]["value"], strict=True):
                check_column(found, positions[positions["role"] == role], "value", layers, heads)
        if hasattr(study, "attribution"):
            rows = study.attribution[(study.attribution["task"] == name) & (study.attribution["part"] == "head")]
            names = {str(component_of(layers, heads, i)) for i in range(layers * (heads + 1))}
            check_column(task["attribution"]["value"], rows[rows["name"].isin(names)], "value", layers, heads)
            z = study.patching[(study.patching["task"] == name) & (study.patching["site"] == "z")]
            for direction, found in task["patching"].items():
                check_column(found, z[z["direction"] == direction], "value", layers, heads)
            roles = study.roles[study.roles["task"] == name]
            assert [str(component_of(layers, heads, r["id"])) for r in task["roles"]] == roles["component"].tolist()
            assert [r["label"] for r in task["roles"]] == roles["label"].tolist()
            for found, row in zip(task["roles"], roles.to_dict("records"), strict=True):
                said = "{score} {value:.2f} [{ci_low:.2f}, {ci_high:.2f}]".format(**row).replace("-", "\u2212")
                assert found["evidence"] == ("" if row["value"] != row["value"] else said)
            for label, found in task["scores"].items():
                check_column(found["value"], roles, f"score: {label}", layers, heads)


def test_circuits_and_the_steps_of_their_searches_are_those_of_the_tables(made):
    study, data = made
    layers, heads = sizes_of(study)
    (model,) = data["models"]
    for task in model["tasks"]:
        if not task["main"]:
            assert task["circuits"] is task["traces"] is task["edges"] is None
            continue
        found = {(c["label"], c["threshold"]): c for c in task["circuits"]}
        assert [c["threshold"] for c in task["circuits"] if c["reported"]] == [study.threshold]
        for circuit in study.circuits[task["name"]]["circuits"]:
            own = found[circuit["order"], circuit["threshold"]]
            names = {*circuit["heads"], *circuit["mlps"]}
            assert {str(component_of(layers, heads, i)) for i in own["members"]} == names
            rows = study.faithfulness[(study.faithfulness["task"] == task["name"])]
            rows = rows[(rows["order"] == circuit["order"]) & (rows["threshold"] == circuit["threshold"])]
            row = rows[(rows["split"] == "held_out") & (rows["metric"] == "percent_of_full")].iloc[0]
            assert all(map(same, own["percent"], (row["value"], row["ci_low"], row["ci_high"])))
            steps = next(
                t["steps"]
                for t in task["traces"]
                if (t["order"], t["threshold"]) == (circuit["order"], circuit["threshold"])
            )
            gone = {i for tried, _, removed in steps if removed for i in tried}
            everything = set(range(layers * (heads + 1)))
            assert sorted(everything - gone) == own["members"], "the last step leaves the circuit"


def test_edges_are_the_reported_circuit_and_the_strongest_others(made):
    study, data = made
    layers, heads = sizes_of(study)
    graph = study.graph
    (model,) = data["models"]
    for task in (task for task in model["tasks"] if task["main"]):
        edges, scores = task["edges"], study.edge_scores
        scores = scores[(scores["task"] == task["name"]) & (scores["method"] == "eap_ig")]
        values = {f"{s}->{r}": v for s, r, v in zip(scores["sender"], scores["receiver"], scores["value"], strict=True)}
        inside = set(study.edge_circuits[task["name"]]["circuits"][0]["edges"])
        assert len(edges["value"]) <= searched.EDGES and edges["method"] == "EAP-IG"
        sizes = [abs(v) for v in edges["value"]]
        assert sizes == sorted(sizes, reverse=True)
        drawn = set()
        columns = (edges[key] for key in ("sender", "receiver", "port", "value", "circuit"))
        for sender, receiver, port, value, kept in zip(*columns, strict=True):
            source = EMBED if sender == -1 else str(component_of(layers, heads, sender))
            target = "logits" if receiver == -2 else str(component_of(layers, heads, receiver))
            if port:
                target = graph.port(*map(int, target.split(".")), port)
            name = f"{source}->{target}"
            drawn.add(name)
            assert same(value, values[name]) and kept == (name in inside), name
        assert inside <= drawn
        lines = sum(len(graph.readers(edge.receiver)) for edge in graph.edges)
        assert (len(edges["value"]) == lines) == (not edges["left_out"])


def test_prompts_are_those_of_the_traces(made):
    study, data = made
    (model,) = data["models"]
    for task in model["tasks"]:
        traced = atlas_tables.trace(study, task["name"])
        for found, expected in zip(task["prompts"], traced["prompts"], strict=True):
            for key in ("tokens", "roles", "answer", "incorrect", "corrupted", "prompt"):
                assert found[key] == expected[key]
            assert same(found["clean"], expected["clean"])
            assert all(map(same, found["attribution"], expected["attribution"]))
            assert (
                set(found["ablated"])
                == set(expected.get("ablated", {}))
                == ({"mean", "zero"} if task["main"] else set())
            )
            for kind, values in expected.get("ablated", {}).items():
                assert all(map(same, found["ablated"][kind], values))
            assert found["attention"]["bits"] == expected["attention"]
            layers, heads = sizes_of(study)
            assert [str(component_of(layers, heads, i)) for i in found["attention"]["heads"]] == traced["heads"]


def test_comparisons_are_those_of_the_tables(made):
    study, data = made
    (model,) = data["models"]
    compared = model["compare"]
    for found, row in zip(compared["overlap"], study.overlap.to_dict("records"), strict=True):
        p = row["p_exchanged" if row["level"] == "edges" else "p_layer_matched"]
        assert (found["a"], found["b"], found["shared"]) == (row["circuit_a"], row["circuit_b"], row["shared"])
        assert same(found["p"], p) and same(found["jaccard"], row["jaccard"]) and same(found["p_holm"], row["p_holm"])
    rows = study.cross[study.cross["metric"] == "percent_of_full"].to_dict("records")
    assert all(same(c["value"], row["value"]) for c, row in zip(compared["cross"], rows, strict=True))
    summary = study.controls_summary.to_dict("records")
    for found, row in zip(compared["controls"], summary, strict=True):
        assert (found["question"], found["task"], found["state"]) == (row["question"], row["task"], row["state"])
        assert same(found["median"], row["control_median"]) and same(found["p_holm"], row["p_holm"])
    core = study.consensus[study.consensus["class"] == "core"]
    shared = set.intersection(*(set(core.loc[core["task"] == t, "component"]) for t in study.main))
    layers, heads = sizes_of(study)
    names = {str(component_of(layers, heads, i)) for i in compared["shared"]["heads"] + compared["shared"]["mlps"]}
    assert names == shared
    if len(study.main) > 1:
        assert f"share {len([c for c in shared if '.' in c])} head" in compared["shared"]["sentence"]


def test_a_tested_role_says_what_it_is_held_against():
    row = {"component": "0.1", "label": "copy", "labels": "copy; self", "differs": False, "score": "ov copy"}
    row |= {
        "value": 0.61,
        "ci_low": 0.5,
        "ci_high": 0.7,
        "null_low": 0.02,
        "null_high": 0.11,
        "p_holm": 0.0004,
        "tests": 48.0,
    }
    row |= {"shuffled_low": float("nan"), "shuffled_high": float("nan")}
    (found,) = explained.roles(pd.DataFrame([row]), Numbering(1, 2), {"copy": 0.25})
    assert found["evidence"] == "ov copy 0.61 [0.50, 0.70]" and found["labels"] == ["copy", "self"]
    assert found["null"] == "random heads 0.02 to 0.11; p < 0.001 corrected for 48 tests; its floor is 0.25"
    unlabelled = row | {"label": "unlabelled", "labels": "", "null_high": float("nan"), "p_holm": float("nan")}
    (found,) = explained.roles(pd.DataFrame([unlabelled]), Numbering(1, 2), {"copy": 0.25})
    assert (found["labels"], found["null"]) == ([], "")


# ---- studies that lack something -----------------------------------------------------------------------------
def said(data) -> str:
    return "\n".join(data["note"])


def test_what_a_study_does_not_make_is_said(tmp_path):
    """No edges, no analyses of heads, answers of several tokens on one task, parallel blocks."""
    study = fake_study(2, 3, ("days", "months"), ("numerals",), ("layers",), (20,), model="bare")
    study.positions = study_of(SMALL).positions[:0]
    left_out = {"edges": None, "backup": "its heads write through a gate"}
    inputs = inputs_of([study], tmp_path, several=("months",), left_out=left_out, parallel=True)
    data = page.data_of(inputs, settings_of(study))
    (model,) = data["models"]
    assert model["parallel"] and model["detectors"] == {}
    for task in model["tasks"]:
        assert task["edges"] is None and task["attribution"] is None and task["roles"] == []
        assert task["several_tokens"] == (task["name"] == "months")
        assert ("attention" in task["prompts"][0]) == (task["name"] != "months")
        assert len(task["prompts"][0]["ablated"]) == (2 if task["main"] else 0)
    for words in (
        "Edges are left out.",
        "Backup is left out: its heads write through a gate.",
        "Answers of months have several tokens",
        "Circuits were not searched on numerals",
        "5 of 40 (days)",
    ):
        assert words in said(data), words


def test_edges_without_scores_are_those_of_the_circuit(tmp_path):
    study = study_of(GROUPED)
    graph = study.graph
    found, words = searched.edges(
        study.edge_circuits["days"], study.edge_scores[:0], graph, Numbering(graph.n_layers, graph.n_heads)
    )
    inside = study.edge_circuits["days"]["circuits"][0]["edges"]
    assert found["inside"] == len(inside) and set(found["value"]) == {None} and not words and not found["method"]


def test_at_most_3000_lines_and_all_of_the_circuit(monkeypatch):
    study = study_of(GROUPED)
    monkeypatch.setattr(searched, "EDGES", 150)
    numbering = Numbering(study.graph.n_layers, study.graph.n_heads)
    content, scores = (study.edge_circuits["months"], study.edge_scores[study.edge_scores["task"] == "months"])
    found, words = searched.edges(content, scores, study.graph, numbering)
    inside = set(content["circuits"][0]["edges"])
    assert 148 <= len(found["value"]) <= 150, "an edge into keys of two heads is two lines"
    n = int(words.removeprefix("the ").split(" ")[0])
    assert words == f"the {n} strongest of {len(study.graph.edges)} edges that were scored" and len(inside) < n < 150
    ig = scores[(scores["method"] == "eap_ig")]
    outside = ig[~(ig["sender"] + "->" + ig["receiver"]).isin(inside)]["value"].abs().sort_values(ascending=False)
    drawn = {abs(v) for v, kept in zip(found["value"], found["circuit"], strict=True) if not kept}
    assert drawn == {rounded(v) for v in outside[: n - len(inside)]}


def test_several_models_are_on_one_page(tmp_path):
    names = ("first", "second")
    studies = [fake_study(2, 3, ("days",), (), ("layers",), (20,), model=name, seed=i) for i, name in enumerate(names)]
    for study in studies:
        study.positions = study_of(SMALL).positions
    data = page.data_of(inputs_of(studies, tmp_path), settings_of(studies[0]))
    assert [model["name"] for model in data["models"]] == list(names)
    effects = [model["tasks"][0]["effects"]["mean"]["value"] for model in data["models"]]
    for study, found in zip(studies, effects, strict=True):
        rows = study.effects["days"]
        rows = rows[(rows["kind"] == "mean") & (rows["metric"] == "percent_of_full")]
        check_column(found, rows, "value", 2, 3)
    assert effects[0] != effects[1] and "first: Prompts are a sample" in said(data)


# ---- the file ------------------------------------------------------------------------------------------------
TEMPLATE = "<title>{title}</title><style>{style}</style><script>{data}</script><script>{script}</script>"


def test_the_file_is_the_template_with_each_part_once():
    parts = {"style": "a{b}", "script": "x = '{title}{data}'"}
    found = page.filled(TEMPLATE, 'A <"study">', '{"a":"{style}"}', parts)
    assert found == (
        "<title>A &lt;&quot;study&quot;&gt;</title><style>a{b}</style>"
        '<script>{"a":"{style}"}</script><script>x = \'{title}{data}\'</script>'
    )
    with pytest.raises(ValueError, match=r"holds \{data\} 0 times"):
        page.filled(TEMPLATE.replace("{data}", ""), "t", "{}", parts)


def test_data_within_a_page_end_no_script_and_come_back(made):
    _, data = made
    written = text(data)
    assert "</" not in written and "<!--" not in written and "\u2028" not in written
    assert json.loads(written) == data
    assert text(copy.deepcopy(data)) == written


def test_the_same_tables_give_the_same_bytes(tmp_path):
    study = study_of(HEADLESS)
    inputs = inputs_of([study], tmp_path)
    first, second = (text(page.data_of(inputs, settings_of(study))) for _ in range(2))
    assert first == second


def test_numbers_keep_four_digits():
    assert [rounded(x) for x in (0.000123456, -12345.6, 1.0, float("nan"), float("inf"))] == [
        1.235e-4,
        -12350,
        1,
        None,
        None,
    ]
    assert json.dumps(rounded(np.float64(2.0))) == "2"


def left_of(data) -> tuple[int, int, int]:
    """Heads with attention, prompts of a task, thresholds of searches that have steps: the most of each."""
    tasks = data["models"][0]["tasks"]
    heads = {len(prompt["attention"]["heads"]) for task in tasks for prompt in task["prompts"]}
    thresholds = {trace["threshold"] for task in tasks for trace in task["traces"] or []}
    return max(heads), max(len(task["prompts"]) for task in tasks), len(thresholds)


def test_a_page_that_is_too_large_loses_attention_then_prompts_then_steps_and_says_so(tmp_path):
    study = fake_study(3, 8, ("days", "months"), (), ("layers",), (10, 20, 40))
    study.positions = study_of(SMALL).positions[:0]
    data = page.data_of(inputs_of([study], tmp_path), settings_of(study))
    less, states, sizes = copy.deepcopy(data), [left_of(data)], [len(text(data).encode())]
    while fitting.smaller(less):
        states.append(left_of(less))
        sizes.append(len(text(less | {"note": [*data["note"], fitting.sentence(less)]}).encode()))
    assert states == [(12, 5, 3), (8, 5, 3), (8, 3, 3), (8, 2, 3), (8, 1, 3), (8, 1, 1)]
    for state, size in zip(states, sizes, strict=True):
        own = copy.deepcopy(data)
        written = fitting.fitted(own, size)
        assert len(written.encode()) == size and json.loads(written) == own and left_of(own) == state
        added = own["note"][len(data["note"]) :]
        assert len(added) == (state != states[0]) and own["note"][: len(data["note"])] == data["note"]
        if added:
            assert f"at most {state[1]} prompt{'s' if state[1] > 1 else ''} of a task" in added[0]
            assert f"the attention of at most {state[0]} heads" in added[0]
            assert ("at the reported threshold alone" in added[0]) == (state[2] == 1)
        first = own["models"][0]["tasks"][0]["prompts"][0]["attention"]
        whole = traces.unpacked(data["models"][0]["tasks"][0]["prompts"][0]["attention"]["bits"], 6)
        assert (traces.unpacked(first["bits"], 6) == whole[: state[0]]).all()
    with pytest.raises(
        StudyError, match=r"atlas.megabytes: the data of A <study>: fake-6x8 takes .* MB with one prompt"
    ):
        fitting.fitted(data, sizes[-1] - 1)
