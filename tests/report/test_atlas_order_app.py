"""The Order view in a real browser: its numbers are those of the page's data, everything is a link and has a key."""

import csv
import io

import pytest

import atlas_page
from browser import PHONE, Tab, chromium

HEADS = 8


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def data():
    return atlas_page.study()


@pytest.fixture(scope="module")
def tab(browser, data, tmp_path_factory):
    file = tmp_path_factory.mktemp("order") / "atlas.html"
    file.write_text(atlas_page.html(data))
    opened = Tab(browser, file)
    yield opened
    assert not opened.said
    assert set(opened.asked) == {opened.address}


def order_of(data) -> dict:
    return data["models"][0]["order"]


def scores(data, name: str, target: str) -> dict:
    return next(r for r in order_of(data)["successors"]["rows"] if (r["class"], r["target"]) == (name, target))


def layout(data, name: str, at: str = "member") -> dict:
    return next(one for one in order_of(data)["layouts"] if (one["class"], one["at"]) == (name, at))


def name_of(i: int) -> str:
    return "{}.{}".format(*divmod(i, HEADS + 1))


def test_the_map_shows_the_scores_and_marks_sure_heads_and_those_of_the_circuit(tab, data):
    row = scores(data, "months", "previous")
    tab.show("view=order&class=months&target=previous")
    values = [value for value in row["value"] if value is not None]
    assert tab.texts("#figure text.in-cell") == [f"{value:.2f}" for value in values]
    assert tab.count("#figure rect.cell") == 48 and tab.count("#figure rect.cell.missing") == HEADS
    assert tab.count("#figure circle.sure") == len(row["sure"]) > 0
    members = next(c for c in data["models"][0]["tasks"][0]["circuits"] if c["reported"])["members"]
    assert tab.count("#figure rect.cell.member") == sum(i % (HEADS + 1) < HEADS for i in members)
    tab.page.locator("#figure rect.cell").nth(20).hover()  # layer 2, head 4
    said = tab.text("#tip")
    assert f"{row['value'][22]:.2f} of 8 members" in said and "97.5 % of them at most 0.25" in said


def test_a_click_opens_a_head_whose_drawer_has_a_line_for_each_class(tab, data):
    tab.show("view=order&class=months")
    tab.page.locator("#figure rect.cell").nth(20).click()
    assert "head=2.4" in tab.state()
    rows = tab.page.locator("#drawer section:has-text('Successor scores') tbody tr").all_inner_texts()
    for name, shown in zip(("months", "numerals", "number_words"), rows, strict=True):
        row = scores(data, name, "next")
        said = [name.replace("_", " "), f"{row['value'][22]:.2f}", "0.25", f"{row['p'][22]:.3f}"]
        assert shown.replace(" \u2022", "").split("\t") == said
    tab.show("view=graph&head=0.3")
    assert "next member, without MLP 0" in tab.text("#drawer section:has-text('Successor scores') h3")


def test_members_lie_where_the_data_say_at_every_layer(tab, data):
    one = layout(data, "months")
    for k in (0, 3):
        point = one["points"][k]
        tab.show(f"view=order&class=months&layer={point}&pcs=13")
        assert tab.texts("#layout .axis-title") == ["PC 1 (41.0 %)", "PC 3 (8.0 %)"]
        assert sorted(tab.texts("#layout .member-name")) == sorted(one["members"])
        found = tab.page.locator("#layout circle.member-dot").evaluate_all(
            "dots => dots.map((dot) => [Number(dot.getAttribute('cx')), Number(dot.getAttribute('cy'))])"
        )
        own = [(row[0], row[2]) for row in one["coordinates"][k]]
        for axis, sign in ((0, 1), (1, -1)):  # one scale for both axes, upwards positive
            shown = [sign * (dot[axis] - found[0][axis]) for dot in found]
            meant = [row[axis] - own[0][axis] for row in own]
            scale = (max(a for a, _ in found) - min(a for a, _ in found)) / (
                max(a for a, _ in own) - min(a for a, _ in own)
            )
            assert shown == pytest.approx([scale * value for value in meant], abs=0.01)
        assert tab.count("#layout line.chain") == 8 and tab.count("#layout line.apart") == 1


def test_the_layer_follows_slider_keys_and_clicks(tab, data):
    one = layout(data, "months")
    tab.show("view=order&class=months")
    slider = tab.page.locator("#layer")
    assert slider.input_value() == str(one["points"].index(one["best"])), "where the shape stands out most"
    slider.fill("2")
    tab.page.wait_for_function("location.hash.includes('layer=2')")
    assert "after block 1" in tab.text("#caption") and tab.text("output[for=layer]") == "after block 1"
    before = tab.page.locator("#layout circle.member-dot").first.get_attribute("cx")
    tab.page.locator("#figure").focus()
    tab.page.keyboard.press("n")
    assert "layer=3" in tab.state() and slider.input_value() == "3"
    assert tab.page.locator("#layout circle.member-dot").first.get_attribute("cx") != before
    tab.page.keyboard.press("p")
    assert "layer=2" in tab.state()
    tab.page.locator("#figure .shape-curve .at-point").nth(6).click()
    assert "layer=6" in tab.state() and tab.page.locator("#view-next").is_disabled()


def test_arrow_keys_go_through_heads_alone(tab):
    tab.show("view=order&class=months&head=5.7")
    tab.page.locator("#figure").focus()
    for key, now in (("ArrowRight", "5.7"), ("ArrowUp", "4.7"), ("Home", "4.0"), ("End", "4.7")):
        tab.page.keyboard.press(key)
        assert tab.state().endswith(f"head={now}")


def test_the_class_is_that_of_the_task_unless_another_is_asked_for(tab):
    for state, name in (("task=months", "months"), ("task=days", "months"), ("task=months&class=numerals", "numerals")):
        tab.show(f"view=order&{state}")
        assert tab.page.locator("#class").input_value() == name, state
    tab.page.locator("#shape").select_option("helix:random-orders")
    assert "shape=helix:random-orders" in tab.state() and "Helix" in tab.texts("#figure .shape-curve .axis-title")
    tab.page.locator("#class").select_option("number_words")
    assert not tab.count("#layer") and tab.count("#figure rect.cell") == 48, "no layout of that class"


def test_every_analysis_says_what_it_found(tab, data):
    tab.show("view=order")
    for part in order_of(data)["parts"]:
        shown = tab.page.locator(f"#figure .parts .panel:has(h3:text-is('{part['title']}'))")
        text = shown.text_content()
        assert all(sentence in text for sentence in part["sentences"])
        assert shown.locator("tbody tr").count() == sum(len(table["rows"]) for table in part["tables"])
        for table in part["tables"]:
            assert shown.locator("table").first.is_visible() == bool(table.get("open"))


def test_what_is_folded_out_stays_so(tab):
    tab.show("view=order&class=months")
    folds = tab.page.locator("#figure .parts details")
    tab.turn("#figure .parts details")
    tab.page.locator("#class").select_option("numerals")
    assert [folds.nth(i).evaluate("fold => fold.open") for i in range(folds.count())].count(True) == 1
    tab.turn("#figure .parts details")


@pytest.mark.slow
def test_its_tables_hold_the_numbers_of_the_data(tab, data):
    tab.show("view=order&class=months&layer=4")
    row, one = scores(data, "months", "next"), layout(data, "months")
    name, text = tab.saved("#save-csv")
    _, *rows = csv.reader(io.StringIO(text))
    assert name == "ladder-6x8-numerals-successors-months-next.csv"
    assert {cells[0]: float(cells[1]) for cells in rows} == {
        name_of(i): value for i, value in enumerate(row["value"]) if value is not None
    }
    tab.turn("#tables")
    table = tab.page.locator("#table-body section:has-text('Members of months') tbody tr")
    point = one["points"].index(4)
    for k, member in enumerate(one["members"]):
        cells = table.nth(k).locator("td").all_text_contents()
        assert cells[0] == member and [float(cell) for cell in cells[1:]] == one["coordinates"][point][k]
    tab.turn("#tables")


@pytest.mark.slow
def test_a_score_of_next_members_is_a_metric_of_the_matrix(tab, data):
    tab.show("view=matrix&metric=successor:months")
    values = scores(data, "months", "next")["value"]
    assert tab.texts("#figure text.in-cell") == [f"{value:.2f}" for value in values if value is not None]


@pytest.mark.slow
def test_without_any_analysis_there_is_no_view(browser, tmp_path):
    data = atlas_page.study(prompts=1)
    data["models"][0]["order"] = None
    file = tmp_path / "atlas.html"
    file.write_text(atlas_page.html(data))
    opened = Tab(browser, file)
    opened.show("view=order")
    assert not opened.count("#view-order") and opened.count("#figure g.node") == 54, "the graph instead"
    opened.page.keyboard.press("5")
    assert opened.state() == "#view=order" and not opened.said
    opened.page.close()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_hundred_members_of_a_large_model_fit_a_phone(browser, tmp_path, scheme):
    """Words that would lie over others are left out; nothing is wider than the window."""
    data = atlas_page.study(30, 9, prompts=1)
    one = layout(data, "numerals")
    n = 100
    one["members"] = list(map(str, range(n)))
    one["joined"] = [[k, k + 1, 1] for k in range(n - 1)]
    one["coordinates"] = [[[k / 9, (k % 10) / 3, 0.1 * (k % 2)] for k in range(n)] for _ in one["points"]]
    file = tmp_path / "large.html"
    file.write_text(atlas_page.html(data))
    opened = Tab(browser, file, scheme, PHONE)
    opened.show("view=order&class=numerals")
    assert opened.page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    assert opened.count("#layout circle.member-dot") == n
    boxes = opened.page.locator("#layout .member-name").evaluate_all(
        "names => names.map((name) => { const b = name.getBBox(); return [b.x, b.y, b.x + b.width, b.y + b.height]; })"
    )
    assert 11 <= len(boxes) <= n
    over = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a[0] < b[2] - 1 and b[0] < a[2] - 1]
    assert not [1 for a, b in over if a[1] < b[3] - 3 and b[1] < a[3] - 3], "words over words"
    assert not opened.said
    opened.page.close()
