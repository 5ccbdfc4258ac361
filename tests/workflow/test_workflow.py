"""The workflow as a user runs it: a finished small study, and what a change makes run again."""

import copy
import json
import re
import shutil
import subprocess
import sys
from html import unescape

import pandas as pd
import pytest
from snakemake.utils import update_config

import hugging_face_score
from atlas.report.findings import page as findings
from atlas.report.findings.reading import Results
from browser import PHONE, WIDE, chromium, opened, overflow
from conftest import ROOT
from study import Study


@pytest.mark.slow
def test_a_circuit_of_ones_own_is_assessed_beside_the_others(study):
    """From a file in the published study's form; a file that names a head the model lacks is refused by name."""
    own, wrong = study.folder / "own.json", study.folder / "wrong.json"
    own.write_text('{"heads": [[1, 4], [2, 3]], "mlps": [0, 5]}')
    wrong.write_text('{"heads": [[1, 8]], "mlps": []}')
    changed = copy.deepcopy(study.config)
    table = "results/ladder-6x8/numerals/evaluation.parquet"
    before = (study.folder / table).read_bytes()
    try:
        changed["circuits"] = {"mine": {"file": "own.json", "tasks": ["numerals"]}}
        study.write_config(changed)
        study.snakemake(table)
        rows = pd.read_parquet(study.folder / table)
        assert set(rows.circuit) == {"full", "empty", "nodes", "edges", "mine"}
        assert (rows.components[rows.circuit == "mine"] == 4).all()
        changed["circuits"]["mine"]["file"] = "wrong.json"
        study.write_config(changed)
        failed = study.snakemake(table, check=False)
        assert failed.returncode and "wrong.json" in failed.stderr and "[1, 8] is not in this model" in failed.stderr
        assert "Traceback" not in failed.stderr
    finally:
        study.write_config(study.config)
        study.snakemake(table)
        study.snakemake("--touch")  # what follows from it is what it was
    assert (study.folder / table).read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"search": {"never_test": ["m0", "m6"]}},
            "search.never_test: m6 is no component of a model with 6 layers of 8",
        ),
        (
            {"generation": {"own": {"mine": ["1.2", "m0"]}}},
            "generation.own.mine: m0 is no head of a model with 6 layers",
        ),
        ({"circuits": {"mine": {"file": "wrong.json"}}}, "wrong.json: heads: [1, 8] is not in this model"),
        ({"circuits": {"mine": {"file": "gone.json"}}}, "gone.json: cannot be read as JSON"),
    ],
)
def test_what_the_configuration_names_and_the_model_lacks_is_refused_before_a_search(tmp_path, change, said):
    made = Study(tmp_path / "own")
    (made.folder / "wrong.json").write_text('{"heads": [[1, 8]], "mlps": []}')
    update_config(made.config, change)
    made.write_config(made.config)
    done = made.snakemake(check=False)
    text = done.stdout + done.stderr
    assert done.returncode and said in text and "Traceback" not in text and "Search circuits" not in text


@pytest.mark.slow
def test_a_circuit_that_the_study_will_find_is_no_reason_to_refuse_it(tmp_path):
    made = Study(tmp_path / "own")
    own = {"file": "results/ladder-6x8/numerals/circuits.json", "select": {"order": "layers", "threshold": 20}}
    made.config["circuits"] = {"mine": own | {"tasks": ["numerals"]}}
    made.write_config(made.config)
    made.snakemake("results/ladder-6x8/analyses.json")


TABLES = ("trace", "faithfulness", "cross", "controls", "edge_scores", "edge_trace", "edge_curves", "evaluation")
TABLES += ("completeness", "minimality", "positions", "stability", "choice", "consensus_scores", "consensus_controls")


@pytest.mark.slow
def test_the_same_seed_gives_byte_identical_tables(study):
    tables = ["results/ladder-6x8/numerals/prompts.parquet", "results/ladder-6x8/numerals/clean.parquet"]
    tables += [f"results/ladder-6x8/numerals/{n}.parquet" for n in TABLES]
    tables += [
        "results/ladder-6x8/numerals/means.pt",
        "results/ladder-6x8/numerals/circuits.json",
        "results/ladder-6x8/numerals/chosen.json",
        "results/ladder-6x8/comparison/consensus.json",
        "results/ladder-6x8/comparison/overlap.parquet",
    ]
    before = {name: (study.folder / name).read_bytes() for name in tables}
    shutil.rmtree(study.folder / "results" / "memo")  # scores are computed again, not looked up
    study.snakemake("--force", *tables)
    assert {name: (study.folder / name).read_bytes() for name in tables} == before
    study.snakemake("--touch")


@pytest.mark.slow
def test_prompts_from_a_file_are_the_prompts_themselves(study):
    """The generated prompts, written to a CSV file and read back as another task, have the same tokens and layout."""
    made = study.folder / "results" / "ladder-6x8" / "numerals"
    frame = pd.read_parquet(made / "prompts.parquet")
    for slot in range(4):
        frame[f"slot {slot}"] = [members[slot] for members in frame.members]
    frame.drop(columns=["tokens", "corrupted_tokens"]).to_csv(study.folder / "prompts.csv", index=False)
    columns = {"members": [f"slot {slot}" for slot in range(4)], "template": "template"}
    changed = copy.deepcopy(study.config)
    changed["tasks"]["from_file"] = {"file": {"clean": "prompts.csv", "select": "row >= 0", "columns": columns}}
    changed["study"]["transfer_tasks"] = ["from_file"]
    study.write_config(changed)
    try:
        study.snakemake("results/ladder-6x8/from_file/prompts.parquet")
    finally:
        study.write_config(study.config)
    read = pd.read_parquet(study.folder / "results" / "ladder-6x8" / "from_file" / "prompts.parquet")
    for name in ("tokens", "corrupted_tokens"):
        assert [list(row) for row in read[name]] == [list(row) for row in frame[name]]
    for name in ("answer_token", "incorrect_token", "answer_in_corrupted", "template"):
        assert read[name].tolist() == frame[name].tolist()
    layouts = [
        json.loads((study.folder / "results" / "ladder-6x8" / task / "prompts.json").read_text())["layout"]
        for task in ("numerals", "from_file")
    ]
    assert layouts[0] == layouts[1]


def test_the_results_are_what_a_search_promises(study):
    """Circuits stay above their floor on the prompts they were searched on, and the trace ends in the circuit."""
    for task in ("numerals", "number_words"):
        folder = study.folder / "results" / "ladder-6x8" / task
        faithfulness = pd.read_parquet(folder / "faithfulness.parquet")
        found = faithfulness[(faithfulness.split == "search") & (faithfulness.metric == "percent_of_full")]
        assert (100 - found.value < found.threshold).all()
        assert ((found.ci_low <= found.value) & (found.value <= found.ci_high)).all()
        for circuit in json.loads((folder / "circuits.json").read_text())["circuits"]:
            trace = pd.read_parquet(folder / "trace.parquet")
            steps = trace[(trace.order == circuit["order"]) & (trace.threshold == circuit["threshold"])]
            assert (steps.heads.iloc[-1], steps.mlps.iloc[-1]) == (len(circuit["heads"]), len(circuit["mlps"]))
            removed = set(steps.component[steps.removed])
            assert not removed & {*circuit["heads"], *circuit["mlps"]}
            assert not steps.removed[steps.sweep == steps.sweep.max()].any(), "the last sweep changed nothing"


@pytest.mark.slow
def test_a_circuits_score_is_that_of_hooks_on_the_hugging_face_model(study):
    """By a script that imports nothing of the library; both run in float32, on logit differences of about 10."""
    task = study.folder / "results" / "ladder-6x8" / "numerals"
    thresholds = {circuit["threshold"] for circuit in json.loads((task / "circuits.json").read_text())["circuits"]}
    model = ROOT / "resources" / "models" / "ladder-6x8"
    ours, reported = hugging_face_score.score(task, model, "layers", max(thresholds), batch=64)
    assert 0 < ours < 100 and abs(ours - reported) < 1e-3


def test_one_reported_circuit_is_in_every_table(study):
    """Chosen once: what is compared, scored, explained, ablated in generation, and the start of edges, is that."""
    results = study.folder / "results" / "ladder-6x8"
    compared = json.loads((results / "comparison" / "circuits.json").read_text())["circuits"]
    membership = pd.read_parquet(results / "comparison" / "membership.parquet").groupby("circuit").component.agg(set)
    written = pd.read_parquet(results / "generation" / "heads.parquet").set_index(["heads", "draw"]).components
    for task in ("numerals", "number_words"):
        (chosen,) = json.loads((results / task / "chosen.json").read_text())["circuits"]
        names = {*chosen["heads"], *chosen["mlps"]}
        assert membership[task] == names == {*compared[task]["heads"], *compared[task]["mlps"]}
        assert set(written[task, -1].split()) == set(chosen["heads"])
        found = json.loads((results / task / "circuits.json").read_text())["circuits"]
        order = next(c for c in found if c["order"] == chosen["order"])
        assert names | set(chosen["dropped"]) == {*order["heads"], *order["mlps"]}
        choice = pd.read_parquet(results / task / "choice.parquet")
        row = choice[choice.reported & (choice.split == "held_out") & (choice.metric == "percent_of_full")].iloc[0]
        assert (row.heads, row.mlps) == (len(chosen["heads"]), len(chosen["mlps"]))
        evaluated = pd.read_parquet(results / task / "evaluation.parquet").set_index(["circuit", "metric"]).value
        cross = pd.read_parquet(results / task / "cross.parquet").set_index(["circuit", "metric"]).value
        for value in (evaluated["nodes", "percent_of_full"], cross[task, "percent_of_full"], chosen["percent_of_full"]):
            assert value == pytest.approx(row.value, abs=1e-3)
        edges = json.loads((results / task / "edge_circuits.json").read_text())["circuits"]
        start = next(c for c in edges if c["method"] == "node_circuit")
        assert {e.split("->")[0] for e in start["edges"]} - {"embed"} <= names


def test_the_consensus_is_of_all_searches(study):
    """Of two searches, the order and one resample: core is what both keep, contingent what one does."""
    results = study.folder / "results" / "ladder-6x8"
    content = json.loads((results / "comparison" / "consensus.json").read_text())
    cores = []
    for task in ("numerals", "number_words"):
        runs = json.loads((results / task / "stability.json").read_text())["runs"]
        edges = [set(r["members"]) for r in runs if r["level"] == "edge"]
        runs = [set(r["members"]) for r in runs if r["level"] == "component" and r["run"] != "reported"]
        own = content["tasks"][task]
        found = {name: {*own[name]["heads"], *own[name]["mlps"]} for name in ("core", "contingent", "noise")}
        assert own["runs"] == len(runs) == len(edges) == 2
        agreed = {"runs": 2, "core": edges[0] & edges[1], "contingent": edges[0] ^ edges[1]}
        assert own["edges"].keys() == agreed.keys() and agreed["core"]
        assert all(set(own["edges"][name]) == agreed[name] for name in ("core", "contingent"))
        assert found == {"core": runs[0] & runs[1], "contingent": runs[0] ^ runs[1], "noise": set()}
        cores.append(found["core"])
        scores = pd.read_parquet(results / task / "consensus_scores.parquet")
        of_edges = {"core edges", "core and contingent edges"}
        assert set(scores.circuit) == {"core", "core and contingent", "shared", "all but shared"} | of_edges
    assert {*content["shared"]["heads"], *content["shared"]["mlps"]} == cores[0] & cores[1]


def test_exported_circuits_are_the_reported_ones(study):
    from atlas.circuit.chosen import circuit_at
    from atlas.compare.interchange import read_circuit_and_level
    from atlas.core.graph import Graph
    from atlas.edges.chosen import reported_edges
    from atlas.store import artifacts

    folder = study.folder / "results" / "ladder-6x8" / "numerals"
    graph = Graph.of(artifacts.read_json(folder.parent / "model.json"))
    edges = reported_edges(artifacts.read_json(folder / "edge_circuits.json"))
    assert read_circuit_and_level(folder / "circuit.graph.json", graph) == (edges, "edge")
    nodes = circuit_at(folder / "chosen.json", 20)
    assert read_circuit_and_level(folder / "circuit.study.json", graph) == (nodes, "node")


def test_an_edge_circuit_stays_above_its_floor_and_its_trace_ends_in_it(study):
    for task in ("numerals", "number_words"):
        folder = study.folder / "results" / "ladder-6x8" / task
        circuits = json.loads((folder / "edge_circuits.json").read_text())["circuits"]
        found = next(c for c in circuits if c["method"] == "iterative_edges")
        start = next(c for c in circuits if c["method"] == "node_circuit")
        trace = pd.read_parquet(folder / "edge_trace.parquet")
        gone = set(trace.sender[trace.removed] + "->" + trace.receiver[trace.removed])
        assert set(start["edges"]) - gone == set(found["edges"])
        assert found["percent_of_full"] > 60 and trace.edges.iloc[-1] == len(found["edges"])
        assert trace.percent[trace.removed].iloc[-1] == pytest.approx(found["percent_of_full"], abs=1e-3)


def test_the_report_is_one_offline_file(study):
    study.snakemake("--report", "report.html")
    text = (study.folder / "report.html").read_text()
    for words in ("1 Data", "2 Summary", "cross_matrix", "circuit_diagram"):
        assert words in text


def test_the_report_opens_on_its_findings_and_its_links_lead_on(study):
    """Links between pages, which a browser cannot follow out of a frame; captions beside figures; a phone's width."""
    report = study.folder / "report.html"
    if not report.exists():
        study.snakemake("--report", "report.html")
    with chromium() as browser:
        with opened(browser, report) as page:
            frame = page.frame_locator("iframe")
            frame.locator(".card").first.wait_for()
            assert page.title() == study.config["study"]["title"]
            frame.locator("h2#heads").click()
            link = frame.locator("details[open] p a[href]").first
            link.wait_for()
            name = link.inner_text()
            link.click()
            card = frame.locator(f"[id='h{name}']")
            card.wait_for()
            assert card.evaluate("card => card.getBoundingClientRect().top") < WIDE["height"]
            page.get_by_text("4 Circuits").click()
            page.locator("nav tbody tr", has_text="shared").locator("a").first.click()
            caption = page.locator("figure figcaption")
            caption.wait_for()
            assert "share" in caption.inner_text() and len(page.locator("figure img").get_attribute("alt")) > 10
            assert page.locator("figure img").evaluate("image => image.naturalWidth") > 100
        with opened(browser, report, PHONE) as page:
            card = page.frame_locator("iframe").locator(".card").first
            card.wait_for()
            assert 300 < card.bounding_box()["width"] <= PHONE["width"] and overflow(page) == 0


def test_every_link_of_a_page_leads_to_a_file_or_a_place_on_a_page(study):
    pages = {path.resolve(): path.read_text() for path in (study.folder / "results").rglob("*.html")}
    links = [(page, unescape(link)) for page, html in pages.items() for link in re.findall(r'<a href="([^"]*)"', html)]
    assert len(links) > 20
    for page, link in links:
        address, _, place = link.partition("#")
        to = (page.parent / address).resolve() if address else page
        assert to.is_file(), f"{page.name}: {link}"
        assert to.name == "atlas.html" or not place or f'id="{place}"' in pages[to], f"{page.name}: {link}"


def test_the_page_of_findings_is_written_from_a_finished_study(study, tmp_path):
    """Its claims are of three tasks, of which the small study has two; the numbers are those of its tables."""
    results = Results(study.folder / "results", "ladder-6x8")
    findings.write([results], tmp_path / "findings.md", tmp_path / "images", "make findings")
    text, folder = (tmp_path / "findings.md").read_text(), results.folder / "ladder-6x8"
    assert text.count("**not tested**. Months not searched") == 4 and "nan" not in text
    shared = pd.read_parquet(folder / "comparison" / "shared.parquet")
    core = shared[(shared.family == "core") & (shared.level == "heads")].iloc[0]
    assert f"the cores of all 2 tasks share {core.shared} heads" in text and f"{core.expected:.2f} by chance" in text
    scores = pd.read_parquet(folder / "numerals" / "consensus_scores.parquet")
    kept = scores[(scores.circuit == "core") & (scores.metric == "percent_of_full")].iloc[0]
    assert f"| {kept.value:.1f} [{kept.ci_low:.1f}, {kept.ci_high:.1f}] |" in text.replace("\u2212", "-")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"search": {"threshold": 5}}, "config: search: unknown key 'threshold'; allowed are thresholds"),
        ({"study": {"tasks": ["weeks"]}}, "config: study.tasks: 'weeks' is unknown"),
        ({"prompts": {"corruption": "shuffle"}}, "config: prompts.corruption: 'shuffle' is not allowed"),
    ],
)
def test_a_bad_configuration_is_refused_before_anything_runs(study, change, said):
    bad = copy.deepcopy(study.config)
    update_config(bad, change)
    study.write_config(bad)
    try:
        done = study.snakemake("--dry-run", check=False)
    finally:
        study.write_config(study.config)
    assert done.returncode != 0 and said in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_model_that_is_not_there_stops_the_study_first(study):
    """One line with the remedy, no other job, and what was computed stays."""
    missing = '{"nowhere": {"path": "/no/such/folder"}}'
    done = study.snakemake("--config", f"models={missing}", 'study={"models": ["nowhere"]}', check=False)
    text = done.stdout + done.stderr
    assert done.returncode != 0 and "models.nowhere.path: /no/such/folder holds no config.json; give the folder" in text
    assert "Traceback" not in text.split("error: ")[1].split("\n")[0]
    assert "rule make_prompts" not in text
    assert study.would_run() == {}


def test_the_workflow_has_no_lint(study):
    done = study.snakemake("--lint", check=False)
    assert "Congratulations" in done.stdout + done.stderr, done.stdout + done.stderr


def test_figure_jobs_import_no_torch():
    """From the imports of the scripts, and of the figures, followed through the library."""
    code = (
        "import sys, runpy, types, pathlib, ast\n"
        "sys.path.insert(0, 'scripts')\n"
        "scripts = pathlib.Path('scripts')\n"
        "figures = (scripts / 'atlas' / 'report' / 'figures').glob('*.py')\n"
        "for path in [scripts / 'plot.py', *figures, *scripts.glob('write_*.py')]:\n"
        "    for node in ast.parse(path.read_text()).body:\n"
        "        if isinstance(node, ast.Import | ast.ImportFrom):\n"
        "            exec(ast.unparse(node))\n"
        "assert 'torch' not in sys.modules and 'transformer_lens' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
