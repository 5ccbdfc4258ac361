"""Cards of the summary: every number is that of the tables, and pictures show what they say."""

import re
from html import unescape

import pandas as pd
import pytest

from atlas.report import pages, pictures, summary
from atlas.report.cards import cards
from browser import AXE, PHONE, WIDE, chromium, opened, overflow
from figure_tables import GROUPED, HEADLESS, LARGE, SMALL, UNKNOWN, study_of
from summaries import summary_of


@pytest.fixture(params=[LARGE, SMALL, GROUPED, UNKNOWN, HEADLESS], scope="module")
def study(request):
    return summary_of(study_of(request.param))


def by_title(study) -> dict:
    return {card.title: card for card in cards(study)}


def facts(card) -> list[str]:
    return [f"{value} {text}" for value, text in card.facts]


def squares(picture: str) -> dict[str, set[tuple[int, int]]]:
    """Class -> (column, row) of the squares of a map, counted in steps of the grid; the MLPs' column is the last."""
    found = {}
    for name, path in re.findall(r'<path class="(\w+)" d="([^"]*)"/>', picture):
        corners = [tuple(map(int, at)) for at in re.findall(r"M(\d+) (\d+)", path)]
        found[name] = {(x // (pictures.CELL + pictures.GAP), y // (pictures.CELL + pictures.GAP)) for x, y in corners}
    return found


def at(component: str, heads: int) -> tuple[int, int]:
    if component.startswith("m"):
        return heads, int(component[1:])
    layer, head = map(int, component.split("."))
    return head, layer


def test_there_is_a_card_for_each_task_for_what_is_shared_for_controls_and_for_roles(study):
    shared = ["Shared"] if len(study.main) > 1 else []
    assert [card.title for card in cards(study)] == [
        *(task.replace("_", " ").capitalize() for task in study.main),
        *shared,
        "Controls",
        "Roles",
    ]
    assert all("<title>" in card.picture and card.below for card in cards(study) if card.picture)


def test_a_tasks_card_has_the_reported_circuit_its_held_out_score_and_the_core(study):
    choice, agreed = study.tables["choice"], study.tables["consensus"]
    for task, card in zip(study.main, cards(study), strict=False):
        rows = choice[(choice.task == task) & choice.reported & (choice.threshold == study.settings["threshold"])]
        (row,) = rows[(rows.split == "held_out") & (rows.metric == "faithfulness")].itertuples()
        size, score, core = facts(card)
        assert size.startswith(f"{row.heads} of {study.all_heads} heads and {row.mlps} of {study.all_mlps} MLP")
        shown = [float(n) for n in re.findall(r"-?\d+\.\d+", score.replace("\u2212", "-"))]
        assert shown[:3] == [round(x, 2) for x in (row.value, row.ci_low, row.ci_high)]
        (row,) = rows[(rows.split == "held_out") & (rows.metric == "percent_of_full")].itertuples()
        assert shown[3:] == [round(x, 1) for x in (row.value, row.ci_low, row.ci_high)]
        floor = 100 - study.settings["threshold"]
        sure = row.ci_low > floor or row.ci_high < floor
        assert ("not told from" in score) != sure and (not sure or (" above " in score) == (row.value > floor))
        found = set(agreed[(agreed.task == task) & (agreed["class"] == "core")].component)
        mlps = sum(name.startswith("m") for name in found)
        assert re.match(rf"{len(found) - mlps} heads? and {mlps} of {study.all_mlps} MLPs? core", core)
        runs = agreed[agreed.task == task].runs.max()
        assert f"90 % of {runs} search" in core


def test_maps_mark_the_circuit_and_the_core(study):
    membership, agreed = study.tables["membership"], study.tables["consensus"]
    heads, layers = study.model["n_heads"], study.model["n_layers"]
    for task, card in zip(study.main, cards(study), strict=False):
        circuit = set(membership[membership.circuit == task].component)
        core = set(agreed[(agreed.task == task) & (agreed["class"] == "core")].component)
        drawn = squares(card.picture)
        for name, members in (("whole", circuit & core), ("most", circuit - core), ("some", core - circuit)):
            assert drawn.get(name, set()) == {at(c, heads) for c in members}, name
        assert set().union(*drawn.values()) == {(x, y) for x in range(heads + 1) for y in range(layers)}
        assert sum(map(len, drawn.values())) == (heads + 1) * layers, "no square twice"


def test_what_is_shared_is_core_for_all_tasks(study):
    if len(study.main) == 1:
        return
    card, agreed = by_title(study)["Shared"], study.tables["consensus"]
    cores = [set(agreed[(agreed.task == t) & (agreed["class"] == "core")].component) for t in study.main]
    all_of_them = set.intersection(*cores)
    heads = {c for c in all_of_them if not c.startswith("m")}
    named = re.findall(r"\d+\.\d+", card.facts[0][1])
    assert card.facts[0][0] == str(len(heads)) and set(named) <= heads and len(named) == min(len(heads), 8)
    assert f"and {len(heads) - 8} more" in card.facts[0][1] or len(heads) <= 8
    assert card.facts[2][0] == f"{len(all_of_them - heads)} of {study.all_mlps}"
    table = study.tables["shared"]
    row = table[(table.family == "core") & (table.tasks == " ".join(study.main)) & (table.level == "heads")].iloc[0]
    assert abs(float(card.facts[1][0]) - row.expected) <= (0.051 if row.expected >= 1 else 0.0051)
    assert squares(card.picture).get("whole", set()) == {at(c, study.model["n_heads"]) for c in all_of_them}


def test_controls_are_counted_by_their_verdicts(study):
    card, table = by_title(study)["Controls"], study.tables["controls_summary"]
    own = table[(table.circuit == table.task) & table.task.isin(study.main)]
    for (counted, text), question in zip(card.facts, ("sufficiency", "necessity"), strict=True):
        rows = own[own.question == question]
        assert counted == f"{(rows.state == 'beyond random').sum()} of {len(rows)}"
        untestable = (rows.state == "untestable").sum()
        assert (f"{untestable} cannot be tested" in text) == bool(untestable)
    assert card.picture.count("<circle") == len(own) == card.picture.count('class="interval"')
    assert card.picture.count("<rect") == (own.controls > 0).sum()


def test_a_study_without_controls_says_so():
    study = summary_of(study_of(LARGE))
    study.tables["controls_summary"] = study.tables["controls_summary"].head(0)
    card = by_title(study)["Controls"]
    assert "nothing says that these circuits are special" in card.facts[0][1] and card.picture is None


def test_roles_count_heads_of_the_circuits_that_have_a_label(study):
    card, roles, membership = by_title(study)["Roles"], study.tables["roles"], study.tables["membership"]
    inside = set(membership[membership.circuit.isin(study.main) & ~membership.component.str.startswith("m")].component)
    own = roles[roles.task.isin(study.main) & roles.component.isin(inside) & (roles.label != "unlabelled")]
    if not inside:
        assert "holds a head" in card.facts[0][1] and card.picture is None
        return
    assert card.facts[0][0] == f"{own.component.nunique()} of {len(inside)}"
    counts = own.drop_duplicates(["label", "component"]).label.value_counts()
    drawn = re.findall(r'text-anchor="end">([^<]*)</text>.*?text-anchor="start">(\d+)</text>', card.picture or "")
    assert {unescape(name): int(n) for name, n in drawn} == counts.to_dict()


def test_heads_outside_every_circuit_do_not_count_as_roles():
    """roles may hold every head of the model."""
    study = summary_of(study_of(LARGE))
    before, roles = by_title(study)["Roles"], study.tables["roles"]
    outside = roles.head(1).assign(component="99.9", label="induction")
    study.tables["roles"] = pd.concat([roles, outside])
    assert by_title(study)["Roles"] == before


def test_links_open_the_view_that_a_card_is_about(study):
    html = summary.page(study)
    links = re.findall(r'href="\.\./\.\./([^"]*)"', html)
    assert len(links) == sum(card.view is not None for card in cards(study)) and {
        link.split("#")[0] for link in links
    } == {f"{study.model['model']}/atlas.html"}
    assert {card.section for card in cards(study)} <= set(re.findall(r'<h2 id="(\w+)"', html))
    for task, link in zip(study.main, links, strict=False):
        assert unescape(link).endswith(f"#view=graph&task={task}")


# ---- pictures -------------------------------------------------------------------------------------------------
def test_a_map_of_1024_heads_is_small():
    marks = {f"{layer}.{layer}": "whole" for layer in range(32)}
    drawn = pictures.mapped(32, 32, marks, "a <b>")
    assert len(drawn) < 25_000 and "a &lt;b&gt;" in drawn and len(squares(drawn)["whole"]) == 32
    width, height = (int(re.search(rf'{side}="(\d+)"', drawn)[1]) for side in ("width", "height"))
    assert max(width, height) <= pictures.LARGEST


def test_lines_lie_on_one_scale():
    """0 and 100 lie at the axes; a value between them in proportion; values beyond widen the axis."""
    row = {"label": "a", "value": 50.0, "ci_low": 25.0, "ci_high": 75.0, "control_low": float("nan")}
    row["control_high"] = float("nan")
    drawn = pictures.ranges({"kept": [row]}, "t")
    left, right = (float(x) for x in re.findall(r'class="axis" x1="([\d.]+)"', drawn))
    assert float(re.search(r'cx="([\d.]+)"', drawn)[1]) == pytest.approx((left + right) / 2, abs=0.1)
    low, high = (
        float(x) for x in re.search(r'class="interval" x1="([\d.]+)" y1="[\d.]+" x2="([\d.]+)"', drawn).groups()
    )
    assert (low - left, right - high) == pytest.approx(((right - left) / 4,) * 2, abs=0.1)
    wide = pictures.ranges({"kept": [row | {"ci_high": 160.0}]}, "t")
    ends = [float(x) for x in re.findall(r'x[12]="([\d.]+)"', wide)]
    assert max(ends) <= pictures.LABEL + 8 + pictures.BAR + 0.1
    assert float(re.findall(r'class="axis" x1="([\d.]+)"', wide)[1]) < right


# ---- tables ---------------------------------------------------------------------------------------------------
def test_what_all_rows_have_in_common_stands_above_a_table():
    table = pd.DataFrame({"model": "m", "task": ["a", "b"], "note": "", "n": 1, "p": 0.5})
    left, same = pages.varying(table)
    assert same == {"model": "m"} and list(left) == ["task", "note", "n", "p"]
    assert pages.varying(table.head(1))[1] == {}
    html = pages.tables_page({"t": table}, "T", "", "note")
    assert "In every row: model m." in html and "<small>2 rows</small>" in html


# ---- in a browser ---------------------------------------------------------------------------------------------
def test_the_summary_in_a_browser(tmp_path):
    """Cards fit one screen; nothing is wider than a phone; what folds is open where it is linked to, and on paper."""
    file = tmp_path / "summary.html"
    file.write_text(summary.page(summary_of(study_of(LARGE))))
    tables = tmp_path / "tables.html"
    tables.write_text(summary.tables_page(summary_of(study_of(SMALL))))
    with chromium() as browser:
        with opened(browser, file) as page:
            ends = page.eval_on_selector_all(".card", "cards => cards.map(card => card.getBoundingClientRect().bottom)")
            assert len(ends) == 6 and max(ends) <= WIDE["height"] and overflow(page) == 0
            assert page.locator("details[open]").count() == 0
            light = page.evaluate("getComputedStyle(document.body).backgroundColor")
            page.get_by_text("in sentences").first.click()
            page.locator("details[open] #circuits").wait_for(state="attached")  # the page hears of its new place later
            assert page.locator("details[open] #circuits").count() == 1 == page.locator("details[open]").count()
            page.get_by_role("heading", name="All findings, shortly").click()
            assert page.locator(".short li").first.is_visible()
            page.evaluate("dispatchEvent(new Event('beforeprint'))")
            assert page.locator("details:not([open])").count() == 0
        with opened(browser, f"{file.as_uri()}#heads", PHONE, "dark") as page:
            page.locator("details[open] #heads").wait_for(state="attached")
            assert page.locator("details[open] #heads").count() == 1 and overflow(page) == 0
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
        with opened(browser, tables, PHONE) as page:
            page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
            assert overflow(page) == 0 and page.locator("table").count() > 10


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_the_summary(tmp_path, scheme):
    if not AXE.is_file():
        pytest.skip("axe-core is not here: `npm ci` in report/atlas installs it")
    file = tmp_path / "summary.html"
    file.write_text(summary.page(summary_of(study_of(SMALL))))
    with chromium() as browser, opened(browser, file, scheme=scheme) as page:
        page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
        page.evaluate(AXE.read_text())
        assert page.evaluate("axe.run(document)")["violations"] == []
