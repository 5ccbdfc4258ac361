"""HTML pages from synthetic tables: whole, offline, the same again, and with what the tables hold."""

import functools
import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from markupsafe import escape

import head_tables
from atlas.report import head_cards, head_pages, lens_page, maps, pages, role_words, summary, wording
from atlas.report.sections.study import Study
from conftest import ROOT
from figure_tables import COLOURS, GROUPED, HEADLESS, LARGE, SMALL, UNKNOWN, study_of
from summaries import NOTE, summary_of, tables_of


@pytest.fixture(params=[LARGE, SMALL, GROUPED, UNKNOWN], scope="module")
def study(request):
    return study_of(request.param)


def test_no_module_of_the_report_imports_a_model():
    """Nor pyplot, which keeps what it draws."""
    folder = ROOT / "scripts"
    files = [path.relative_to(folder).with_suffix("") for path in (folder / "atlas" / "report").rglob("*.py")]
    names = [".".join(file.parts).removesuffix(".__init__") for file in files]
    code = f"import sys, {', '.join(names)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert len(names) > 50
    assert not {"torch", "transformers", "transformer_lens", "matplotlib.pyplot"} & set(done.stdout.split())


# ---- the summary and its tables -------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [LARGE, SMALL])
def test_summary_needs_nothing_from_outside(name):
    study = study_of(name)
    page = summary.page(summary_of(study))
    assert "A &amp; B" in page and "The edge circuits keep" in page
    assert '<h2 id="heads">What the heads do</h2>' in page and f'href="{study.model}.heads.html#h' in page
    for html in (page, summary.tables_page(summary_of(study))):
        assert "http" not in html and "src=" not in html and ">nan" not in html
        assert html.count("<table>") == html.count("</table>") and NOTE in html


def titles(html: str) -> list[str]:
    return re.findall(r"<h2[^>]*>(.*?)</h2>", html)


def test_a_smaller_study_has_the_sections_that_it_has_tables_for():
    whole = summary_of(study_of(LARGE))
    without = ("edge_areas", "edge_scores", "roles")
    nodes = {name: table for name, table in whole.tables.items() if name not in without}
    nodes |= {name: nodes[name][nodes[name]["circuit"] != "edges"] for name in ("evaluation", "minimality")}
    nodes |= {name: nodes[name].head(0) for name in ("typology", "positions")}
    nodes["overlap"] = nodes["overlap"][nodes["overlap"]["level"] != "edges"]
    less = Study(nodes, whole.info, {}, whole.model, {"lens": None}, whole.settings, {})
    html = summary.page(less)
    gone = {"Edges", "Edges that the circuits share", "What the heads do", "Positions", "Roles"}
    assert [title for title in titles(summary.page(whole)) if title not in gone] == titles(html)
    assert "The configuration leaves out the logit lens." in html and titles(summary.tables_page(less))[:2] == [
        "clean",
        "faithfulness",
    ]


def test_the_short_version_leads_with_every_section_and_names_no_other():
    assert set(summary.SHORT) <= set(summary.SECTIONS) and len(summary.SHORT) == len(set(summary.SHORT))
    study = summary_of(study_of(LARGE))
    leading = {name for name, section in summary.SECTIONS.items() if section(study).first}
    assert leading <= set(summary.SHORT)
    html = summary.page(study)
    short = re.search(r'<ul class="short">(.*?)</ul>', html, re.DOTALL)[1]
    assert short.count("<li>") == len(leading)


def test_numbers_at_the_top_have_an_interval_or_a_control_and_scores_name_their_prompts():
    """And p-values are corrected; thresholds and tolerances are what labels and published values are held against."""
    for name in (LARGE, SMALL):
        study = summary_of(study_of(name))
        for key in summary.SHORT:
            first = summary.SECTIONS[key](study).first
            if re.search(r"\d", first):
                assert re.search(r"\[.*\]|random|chance|threshold of a(ny)? label|tolerance", first), first
            if "%" in re.sub(r"T = \d+ %", "", first):
                assert "prompt" in first, first
            alone = len(study.main) == 1  # one test of its kind has nothing to be corrected for
            assert "p <" not in first.replace("\u00a0", " ") or "corrected" in first or alone, first


def test_a_warning_stands_above_the_pages_of_a_model_with_random_weights():
    study = summary_of(study_of(SMALL))
    study.model["random_weights"] = True
    for html in (summary.page(study), summary.tables_page(study)):
        assert '<p class="warning">This model has random weights.' in html
    assert 'class="warning"' not in summary.page(summary_of(study_of(SMALL)))


def test_long_tables_are_cut_and_say_so():
    table = pd.DataFrame({"n": range(pages.ROWS_UP_TO + 5)})
    page = pages.tables_page({"long": table, "short": table.head(3), "empty": table.head(0)}, "T", "", NOTE)
    assert f"The first {pages.ROWS_UP_TO} of {pages.ROWS_UP_TO + 5} rows." in page
    assert page.count("<tr>") == pages.ROWS_UP_TO + 3 + 2 and "<h2>empty" not in page


def test_strongest_edges_have_both_signs():
    values = [0.1, -5.0, 4.0, -0.2]
    scores = pd.DataFrame({"task": "a", "method": "eap", "value": values})
    assert list(pages.strongest_edges(scores, 2)["value"]) == [-5.0, 4.0]


# ---- cards of heads, attention patterns, lens -----------------------------------------------------------------
SETTINGS = {"title": "A & B", "k": head_tables.K, "labels": head_tables.THRESHOLDS, "sequential": "viridis"}
SETTINGS |= {"note": NOTE, "kind": "mean", "clean": COLOURS["clean"], "pattern_prompts": 1}


def written(study, patterns=True, **tables) -> dict[str, str]:
    settings = SETTINGS | {"main_tasks": study.main, "tasks": study.tasks}
    found = {task: study.patterns[task] for task in study.main} if patterns else {}
    return head_pages.written(tables or tables_of(study), found, settings, study.model)


@functools.cache
def head_pages_of(study) -> dict[str, str]:
    """Its pages, for all tests that look at one."""
    return written(study)


def head_page(name: str, study) -> str:
    return head_pages_of(study)[name]


def cards(study) -> str:
    return head_page("heads", study)


@pytest.mark.parametrize("name", ["heads", "patterns", "lens_tokens"])
def test_pages_are_whole_and_offline(name, study):
    html = head_page(name, study)
    assert "http" not in html and "src=" not in html and "@import" not in html and "A &amp; B" in html
    assert ">nan" not in html and html.count("<table") == html.count("</table>")
    assert html.count("<script") == html.count("</script>")


@pytest.mark.parametrize("name", [SMALL, GROUPED, UNKNOWN])
def test_pages_are_the_same_again(name):
    study = study_of(name)
    assert written(study) == {page: head_page(page, study) for page in ("heads", "patterns", "lens_tokens")}


def test_pages_are_those_of_the_analyses_that_a_study_makes():
    study = study_of(SMALL)
    least = {name: tables_of(study)[name] for name in ("roles", "role_tests", "membership", "effects", "prompts")}
    made = written(study, patterns=False, **least)
    assert set(made) == {"heads"} and "Ablated alone" in made["heads"] and "Direct attribution" not in made["heads"]
    lens = {name: tables_of(study)[name] for name in ("lens_tokens", "lens_lead")}
    made = written(study, patterns=False, **least, **lens)
    assert set(made) == {"heads", "lens_tokens"}
    texts = study.prompts["days"].set_index("prompt")["text"]
    assert re.findall("<q>(.*?)</q>", made["lens_tokens"]) == [texts[0]]  # the first, where no patterns are shown
    assert re.findall("<q>(.*?)</q>", head_page("lens_tokens", study)) == [texts[p] for p in head_tables.PROMPTS]


def test_circuits_without_heads_have_every_page():
    made = study_of(HEADLESS)
    assert 'id="h0.' not in cards(made) and "No circuit holds a head." in head_page("patterns", made)


def test_every_head_has_one_card_and_links_lead_to_one(study):
    html, heads = cards(study), maps.union_heads(study.membership, study.main)
    assert re.findall(r'<section class="card" id="h([\d.]+)">', html) == heads
    anchors = set(re.findall(r' id="([^"]+)"', html))
    assert set(re.findall(r'href="#([^"]+)"', html)) <= anchors
    assert not re.search(r'href="[^#]', html)


def test_cards_flag_the_heads_whose_label_differs():
    study = study_of(LARGE)
    inside = study.roles[study.roles["circuits"] != ""]
    differ = set(inside.loc[inside["differs"], "component"])
    assert differ and differ < set(inside["component"])
    for card in re.findall(r'<section class="card" id="h\d.*?</section>', cards(study), re.DOTALL):
        assert ("Its label differs between tasks." in card) == (re.search(r'id="h([\d.]+)"', card)[1] in differ)


def card_of(study, name: str) -> str:
    return re.search(rf'<section class="card" id="h{re.escape(name)}">.*?</section>', cards(study), re.DOTALL)[0]


def test_cards_give_each_role_with_its_score_and_what_it_is_held_against(study):
    inside = study.roles[study.roles["circuits"] != ""]
    for row in inside.to_dict("records"):
        card = card_of(study, row["component"])
        said = f"{role_words.evidence(row)}; <span"
        assert said in card and f">{escape(role_words.null(row))}</span>." in card
        assert row["label"] == "unlabelled" or f">{row['label']}</span>" in card
        assert wording.number(row["value"], 2) in said and wording.number(row["null_high"], 2) in role_words.null(row)


def test_the_page_names_every_head_in_no_circuit_that_has_a_role(study):
    outside = study.roles[(study.roles["circuits"] == "") & (study.roles["label"] != "unlabelled")]
    html = cards(study)
    table = html[html.index('id="others"') : html.index('id="labels"')] if len(outside) else ""
    assert ('id="others"' in html) == bool(len(outside))
    rows = dict(re.findall(r'">([^<]+)</span>\s*</td>(.*?)</tr>', table, re.DOTALL))
    assert set(rows) == set(outside["label"])
    for (label, task), own in outside.groupby(["label", "task"]):
        cells = re.findall(r"<td class=\"text\">(.*?)</td>", rows[label])
        assert cells[study.tasks.index(task)] == ", ".join(own["component"])


def test_each_mlp_has_a_card_with_what_it_writes(study):
    for name, own in study.mlp_answers.groupby("component"):
        card = card_of(study, name)
        inside = study.membership[study.membership["component"] == name]["circuit"]
        assert ("In no circuit." in card) == (not set(inside) & set(study.main))
        for task in study.tasks:
            row = own[(own["task"] == task) & own["answer"].isna()].iloc[0]
            share = {"value": row["share"], "ci_low": row["share_low"], "ci_high": row["share_high"]}
            assert f"<td>{wording.interval(row, 2)}</td>" in card
            assert f"<td>{wording.interval(share, 1, 100)}</td>" in card
        assert "\u00b7t1 8.0<br>\u00b7t2 7.0" in card and "\u00b7t1 \u22128.0" in card and "&lt;b&gt;" in card


def test_cards_give_each_tasks_value_with_its_interval():
    study = study_of(LARGE)
    name = maps.union_heads(study.membership, study.main)[0]
    layer, _, head = wording.place(name)
    rows = study.attribution[(study.attribution["layer"] == layer) & (study.attribution["head"] == head)]
    card = card_of(study, name)
    for task in study.tasks:
        row = rows[rows["task"] == task].iloc[0]
        assert f"<td>{wording.interval(row, 2)}</td>" in card
    effect = study.effects[study.main[0]].query("kind == 'mean' and metric == 'percent_of_full'")
    row = effect[effect["component"] == name].iloc[0]
    lost = {"value": 100 - row["value"], "ci_low": 100 - row["ci_high"], "ci_high": 100 - row["ci_low"]}
    assert f"<td>{wording.interval(lost, 1)}</td>" in card


def test_missing_evidence_has_no_line():
    assert "Written into the top" in cards(study_of(LARGE))
    html = cards(study_of(UNKNOWN))
    assert "Written into the top" not in html and "last to last member" not in html and "Patching" in html


def test_pattern_page_holds_every_weight_and_no_markup_of_tokens():
    study = study_of(LARGE)
    html = head_page("patterns", study)
    held = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1]
    data = json.loads(held)
    assert [task["title"] for task in data] == [wording.words(t) for t in study.main]
    for task, name in zip(data, study.main, strict=True):
        circuit = maps.circuit_heads(study.membership, name)
        assert [h for h, inside, _ in task["heads"] if inside] == circuit
        for prompt, example in zip(task["prompts"], study.patterns[name]["examples"], strict=True):
            assert prompt["tokens"] == example["tokens"]
            for head, rows in example["patterns"].items():
                for mine, whole in zip(prompt["patterns"][head], rows, strict=True):
                    np.testing.assert_allclose(np.array(mine) / 1000, whole, atol=1e-9)  # both have three digits


def test_lens_page_shows_the_tokens_escaped_and_marks_the_answer():
    table = pd.DataFrame(
        {
            "prompt": 3,
            "point": [0, 0, 1, 1],
            "name": ["resid_pre 0"] * 2 + ["resid_post"] * 2,
            "place": [1, 2, 1, 2],
            "token": [" <b>", "\n", " four", " <b>"],
            "logit": [9.0, -1.25, 8.0, 7.0],
            "answer_place": [7, 7, 1, 1],
        }
    )
    first, last = lens_page.prompt_rows(table)
    assert first["name"] == "before layer 0" and first["answer_place"] == 7
    assert [t for t, _, _ in first["tokens"]] == ["\u00b7<b>", "\u21b5"]
    assert first["tokens"][1][1] == "\u22121.2"
    assert [answer for _, _, answer in last["tokens"]] == [True, False]
    html = head_page("lens_tokens", study_of(LARGE))
    assert "&lt;b&gt;" in html and "<b>" not in html and 'class="answer"' in html


def test_tables_that_a_study_leaves_out_have_the_columns_of_those_it_makes():
    from atlas.heads import attention, attribution, detectors, mlp_writes, ov, patching

    assert {
        "attention": ["variant", *attention.ROLE_COLUMNS],
        "attention_members": ["variant", *attention.STATISTIC_COLUMNS],
        "patching": patching.COLUMNS,
        "attribution": attribution.COLUMNS,
        "ov": ov.COLUMNS,
        "mlp_answers": mlp_writes.ANSWERS,
        "mlp_tokens": mlp_writes.TOKENS,
    } == head_cards.OF_TASKS
    assert head_cards.DETECTORS == detectors.COLUMNS
