"""The page of findings: its claims on tables made by hand, the page on whole synthetic studies, and what it refuses."""

import runpy
import shutil

import pandas as pd
import pytest

import edge_tables
import figure_tables
import head_tables
from atlas.core.errors import StudyError
from atlas.report import wording
from atlas.report.findings import claims, page
from atlas.report.findings.reading import Results, rows
from atlas.store import artifacts
from edge_tables import interval
from study import ROOT

TASKS = ("numerals", "number_words", "months")


def written(made, results) -> Results:
    """The tables of a synthetic study (figure_tables.py) as a finished study leaves them, as far as the page reads."""
    folder = results / made.model
    description = {"model": made.model, "architecture": "FakeForCausalLM", "n_layers": 6, "n_heads": 8}
    artifacts.write_json(description, folder / "model.json", {})
    artifacts.write_json({"circuits": {task: {} for task in made.main}}, folder / "comparison" / "circuits.json", {})
    for name in ("membership", "overlap", "cross", "controls_summary", "roles", "shared"):
        artifacts.write_table(getattr(made, name), folder / "comparison" / f"{name}.parquet", {})
    agreed = {"threshold": 20, "tasks": cores(made.consensus)}
    artifacts.write_json(agreed, folder / "comparison" / "consensus.json", {})
    tests = made.consensus_tests.assign(control_low=20.0, control_high=40.0)
    for task in made.tasks:
        tables = {"clean_summary": made.clean, "ov": made.ov, "attention_members": made.members}
        tables |= {"consensus_tests": tests, "consensus_scores": made.consensus_scores}
        if task in made.main:
            tables["evaluation"] = made.evaluation
            runs = [{"level": "component", "family": "orders", "run": name} for name in ("layers", "random_0")]
            circuit = made.membership.loc[made.membership["circuit"] == task, "component"]
            content = {"runs": [run | {"members": list(circuit)} for run in runs]}
            artifacts.write_json(content, folder / task / "stability.json", {})
            chosen = [{"threshold": T, "passes": T == 20} for T in (10, 20)]
            artifacts.write_json({"circuits": chosen}, folder / task / "chosen.json", {})
        for name, table in tables.items():
            own = table[table["task"] == task].drop(columns="model", errors="ignore")
            artifacts.write_table(own, folder / task / f"{name}.parquet", {})
    return Results(results, made.model)


def cores(agreed):
    """`tasks` of `consensus.json`, from `consensus.parquet`."""
    found = {}
    for task, rows_ in agreed.groupby("task", sort=False):
        found[task] = {"runs": int(rows_["runs"].iloc[0])}
        for kind in ("core", "contingent", "noise"):
            names = list(rows_.loc[rows_["class"] == kind, "component"])
            found[task][kind] = {"heads": [n for n in names if "." in n], "mlps": [n for n in names if "." not in n]}
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Results:
    made = head_tables.add(edge_tables.add(figure_tables.fake_study()))
    return written(made, tmp_path_factory.mktemp("whole") / "results")


def test_the_page_says_where_each_of_its_numbers_stands(whole, tmp_path):
    page.write([whole], tmp_path / "findings.md", tmp_path / "images" / "findings", "make findings")
    text = (tmp_path / "findings.md").read_text()
    where = {"question": "necessity", "circuit": "shared"}
    row = rows(whole.read("consensus_tests", "numerals"), **where).iloc[0]
    assert f"| numerals | {row['value']:.1f} [" in text
    for claim in claims.CLAIMS:
        assert claim(whole).claim[1:] in text
    for name in ("circuits", "necessity"):
        assert f"(images/findings/{name}.svg)" in text
        assert (tmp_path / "images" / "findings" / f"{name}.svg").stat().st_size < 200_000
    assert "nan" not in text.replace("\u2013", "")


def test_what_a_test_could_not_decide_is_said_in_the_place_of_its_p():
    tests = pd.DataFrame(
        {"state": ["beyond random", "untestable"], "reason": ["", "only 3 sets"], "p_holm": [0.04, 0.5]}
    )
    assert page.corrected(tests) == ["0.04", "untestable: only 3 sets"]


@pytest.mark.parametrize(("p", "said"), [(0.0495, "0.0495"), (0.0504, "0.0504"), (0.04, "0.04"), (0.0312, "0.031")])
def test_a_p_value_beside_the_limit_shows_its_side(p, said):
    assert wording.p_value(p, name="") == said and wording.p_value(p) == f"p = {said}"


def test_what_cores_share_is_corrected_for_the_tests_made_together(whole):
    found = rows(whole.read("comparison/shared"), family="core", level="heads", tasks=" ".join(whole.main)).iloc[0]
    said = f"({wording.p_value(found['p'])}; "
    corrected = wording.p_value(found["p_holm"], name="")
    text = page.shared([whole], "images")
    assert found["tests"] > 1 and f"corrected for {found['tests']:.0f} tests" in text
    assert f"{said}{corrected} corrected" in text or f"{said}the same corrected" in text


def test_a_circuit_below_its_floor_on_held_out_prompts_is_named(whole, monkeypatch):
    monkeypatch.setattr(Results, "passes", lambda results, task: task != "months")
    line = {row.split(" | ")[1]: row for row in page.needed([whole], "images").splitlines() if row.startswith("| ")}
    assert " | no | " in line["months"] and " | yes | " in line["numerals"]
    assert "more than 80 % of full" in page.needed([whole], "images")


def test_writing_again_changes_no_byte(whole, tmp_path):
    files = []
    for name in ("a", "b"):
        page.write([whole], tmp_path / name / "findings.md", tmp_path / name / "images", "make findings")
        files.append({f.name: f.read_bytes() for f in sorted((tmp_path / name).rglob("*.*"))})
    assert files[0] == files[1]


@pytest.mark.parametrize("name", ["comparison/shared.parquet", "months/stability.json", "months/ov.parquet"])
def test_a_missing_table_is_refused_in_one_line_and_nothing_is_written(whole, tmp_path, name):
    results = Results(tmp_path / "results", whole.model)
    shutil.copytree(whole.folder, results.folder)
    (results.folder / results.model / name).unlink()
    with pytest.raises(StudyError) as refused:
        page.write([results], tmp_path / "findings.md", tmp_path / "images", "make findings")
    assert name in str(refused.value) and results.model in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "findings.md").exists() and not (tmp_path / "images").exists()


def test_the_command_names_the_first_model_whose_study_is_missing(tmp_path, monkeypatch):
    arguments = ["build_findings.py", "--results", str(tmp_path / "results"), "--docs", str(tmp_path)]
    monkeypatch.setattr("sys.argv", arguments)
    monkeypatch.syspath_prepend(ROOT / "docs")
    with pytest.raises(SystemExit, match=r"smollm2/model\.json: missing; run the study of smollm2 to its end first"):
        runpy.run_path(str(ROOT / "docs" / "build_findings.py"), run_name="__main__")
    assert not list(tmp_path.iterdir())


# ---- chance --------------------------------------------------------------------------------------------------
# ---- claims --------------------------------------------------------------------------------------------------
def by_hand(tmp_path, circuits, tables, runs=None) -> Results:
    """A study of 4 layers of 4 heads: task -> heads of its circuit, tables by their place, task -> heads by run."""
    folder = tmp_path / "results" / "made"
    artifacts.write_json({"n_layers": 4, "n_heads": 4}, folder / "model.json", {})
    artifacts.write_json({"circuits": {task: {} for task in circuits}}, folder / "comparison" / "circuits.json", {})
    rows = [{"circuit": task, "component": name} for task, names in circuits.items() for name in names]
    artifacts.write_table(pd.DataFrame(rows), folder / "comparison" / "membership.parquet", {})
    core = {
        task: {"runs": 2, "core": {"heads": [n for n in names if "." in n], "mlps": ["m0"]}}
        for task, names in circuits.items()
    }
    artifacts.write_json({"tasks": core}, folder / "comparison" / "consensus.json", {})
    for task in circuits:
        found = [{"level": "component", "family": "orders", "run": "layers", "members": circuits[task]}]
        for name, by_task in (runs or {}).items():
            found.append({"level": "component", "family": "seeds", "run": name, "members": by_task[task]})
        found.append({"level": "component", "family": "seeds", "run": "reported", "members": ["3.3"]})
        artifacts.write_json({"runs": found}, folder / task / "stability.json", {})
    for name, table in tables.items():
        artifacts.write_table(pd.DataFrame(table), folder / f"{name}.parquet", {})
    return Results(tmp_path / "results", "made")


def necessity(p, tasks=TASKS):
    spread = {"controls": 100, "control_median": 90.0, "control_low": 80.0, "control_high": 99.0, "note": ""}
    row = {"question": "necessity", "circuit": "shared", **spread}
    return {f"{task}/consensus_tests": [{**row, **interval(20, 2), "p": p}] for task in tasks}


SAME = {task: ["0.1", "1.2", "2.3", "m0"] for task in TASKS}
APART = {"numerals": ["0.0", "1.0"], "number_words": ["0.0", "1.1"], "months": ["0.2", "1.2"]}


@pytest.mark.parametrize(
    ("circuits", "p", "verdict"),
    [
        (SAME, 0.01, claims.HOLDS),  # 1 of 64 for each further circuit by chance, and needed by all three
        (SAME, 0.02, claims.FAILS),  # 0.06 after Holm
        (APART, 0.01, claims.FAILS),  # nothing is shared
    ],
)
def test_a_shared_circuit_needs_more_than_chance_and_a_cost(tmp_path, circuits, p, verdict):
    found = claims.shared_circuit(by_hand(tmp_path, circuits, necessity(p)))
    assert found.verdict == verdict
    if circuits is SAME:
        assert "3 heads in all three cores (0.1, 1.2 and 2.3)" in found.effect and "p < 0.001" in found.control


def test_a_task_without_random_sets_decides_nothing(tmp_path):
    tables = necessity(0.01)
    tables["months/consensus_tests"] = [tables["months/consensus_tests"][0] | {"controls": 0, "p": float("nan")}]
    assert claims.shared_circuit(by_hand(tmp_path / "a", SAME, tables)).verdict == claims.UNTESTED
    tables["numerals/consensus_tests"] = [tables["numerals/consensus_tests"][0] | {"p": 0.5}]
    assert claims.shared_circuit(by_hand(tmp_path / "b", SAME, tables)).verdict == claims.FAILS


def test_random_sets_too_few_to_decide_are_said_to_be(tmp_path):
    tables = {name: [row | {"controls": 3, "p": 0.25} for row in found] for name, found in necessity(0.01).items()}
    found = claims.shared_circuit(by_hand(tmp_path, SAME, tables))
    assert found.verdict == claims.UNTESTED
    assert found.effect.count("untestable: 3 random sets, so that p cannot fall below 0.25") == 3


def test_what_a_study_lacks_is_not_tested(tmp_path):
    two = {task: SAME[task] for task in TASKS[:2]}
    results = by_hand(tmp_path, two, necessity(0.01, TASKS[:2]))
    assert {claim(results).verdict for claim in claims.CLAIMS} == {claims.UNTESTED}
    assert "months not searched" in claims.shared_circuit(results).effect


def test_numbers_are_nearer_to_each_other_only_where_every_search_says_so(tmp_path):
    near = {"numerals": ["0.0", "1.0"], "number_words": ["0.0", "1.0"], "months": ["0.1", "1.1"]}
    alike = {task: ["0.0", "1.0"] for task in TASKS}
    found = claims.numbers_apart(by_hand(tmp_path / "a", near, {}, {"seed 1": near}))
    assert found.verdict == claims.HOLDS
    # one head of four in each of two layers: Jaccard 0, 1/3, 1 with chances 9/16, 6/16, 1/16
    expected = 6 / 16 / 3 + 1 / 16
    assert f"{1 - expected:.2f} for the two" in found.effect and "over 2 searches" in found.effect
    assert claims.numbers_apart(by_hand(tmp_path / "b", near, {}, {"seed 1": alike})).verdict == claims.FAILS
    assert claims.numbers_apart(by_hand(tmp_path / "c", alike, {})).verdict == claims.FAILS


def ov(value, lead, low=None):
    """OV scores of two heads: 2.1 with these values, 0.0 with none."""
    rows = []
    for (layer, head), v, over in (((2, 1), value, lead), ((0, 0), 0.0, 0.0)):
        own = {"norm": "own", "layer": layer, "head": head, "k": 5, "baseline": 0.3, "instances": 9}
        span = {"value": v, "ci_low": v - 0.05 if low is None else low, "ci_high": v + 0.05}
        rows += [{**own, "score": "next", **span}, {**own, "score": "previous", **interval(0.1, 0.01)}]
        rows.append({**own, "score": "next over copy", "k": 0, **interval(over, 0.01)})
    return {f"{task}/ov": rows for task in TASKS}


@pytest.mark.parametrize(
    ("table", "verdict"),
    [
        (ov(0.9, 0.8), claims.HOLDS),
        (ov(0.4, 0.8), claims.FAILS),  # seldom
        (ov(0.9, 0.3), claims.FAILS),  # it writes the member itself more
        (ov(0.9, 0.8, low=0.2), claims.FAILS),  # a random member is as good, for all that the interval says
    ],
)
def test_a_head_writes_the_next_member_by_the_rule(tmp_path, table, verdict):
    found = claims.next_member_head(by_hand(tmp_path, SAME, table))
    assert found.verdict == verdict and "best is 2.1" in found.effect


def attention(layer, members, words, width=0.02):
    rows = []
    for variant, value in (("in order", members), ("shuffled", members), ("words", words)):
        for at, v in ((layer, value), (3 - layer, 0.0)):
            rows.append({"variant": variant, "layer": at, "head": 1, "statistic": "member to members"})
            rows[-1] |= {"value": v, "ci_low": v - width, "ci_high": v + width}
    return {f"{task}/attention_members": rows for task in TASKS}


@pytest.mark.parametrize(
    ("table", "verdict"),
    [
        (attention(1, 0.6, 0.1), claims.HOLDS),
        (attention(2, 0.6, 0.1), claims.FAILS),  # late
        (attention(1, 0.6, 0.5), claims.FAILS),  # by position: words there draw it too
        (attention(1, 0.6, 0.38), claims.FAILS),  # 0.22, but 0.18 by the ends of the intervals
    ],
)
def test_early_heads_find_members_by_the_rule(tmp_path, table, verdict):
    assert claims.early_detectors(by_hand(tmp_path, SAME, table)).verdict == verdict
