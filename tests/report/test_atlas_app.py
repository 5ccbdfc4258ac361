"""The atlas page in a real browser: every view, its links, keys and files, and the numbers it shows.

What is shown is held against the page's own data, whose numbers other tests hold against the tables.
"""

import base64
import csv
import io
import re
import xml.etree.ElementTree as ElementTree
from decimal import ROUND_HALF_UP, Decimal

import pytest

import atlas_page
from browser import AXE, PHONE, Tab, chromium
from conftest import crossed

VIEWS = ("graph", "matrix", "prompt", "compare", "order")
HEADS = 8  # of a layer of the made-up model
EACH = [*VIEWS[:-1], pytest.param(VIEWS[-1], marks=pytest.mark.slow)]  # Order has fast tests of its own


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def data():
    return atlas_page.study(models=("ladder-6x8", "other-6x8"))


@pytest.fixture(scope="module")
def file(data, tmp_path_factory):
    made = tmp_path_factory.mktemp("page") / "atlas.html"
    made.write_text(atlas_page.html(data))
    return made


@pytest.fixture(scope="module")
def tab(browser, file):
    """One page for all tests that ask for nothing else; each begins with a state of its own."""
    opened = Tab(browser, file)
    yield opened
    assert not opened.said
    assert set(opened.asked) == {opened.address}


@pytest.fixture
def saving(browser, file):
    """A page of its own: the browser lets one save no more than ten files."""
    opened = Tab(browser, file)
    yield opened
    assert not opened.said
    opened.page.close()


# ---- numbers as the page writes them -------------------------------------------------------------------------
def fixed(value, digits: int) -> str:
    exact = Decimal(value).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
    return f"{abs(exact) if exact == 0 else exact}".replace("-", "−")


def estimate(value, low, high, unit: str) -> str:
    digits = {"%": 1, "logits": 2}[unit]
    return f"{fixed(value, digits)} {unit} [{fixed(low, digits)}, {fixed(high, digits)}]"


def of(table: dict, i: int, unit: str) -> str:
    return estimate(table["value"][i], table["low"][i], table["high"][i], unit)


def name_of(i: int) -> str:
    layer, head = divmod(i, HEADS + 1)
    return f"m{layer}" if head == HEADS else f"{layer}.{head}"


def task_of(data, name: str) -> dict:
    return next(task for task in data["models"][0]["tasks"] if task["name"] == name)


def reported(task: dict) -> dict:
    return next(circuit for circuit in task["circuits"] if circuit["reported"])


# ---- the whole page ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("scheme", "size"), crossed(["light", "dark"], [None, PHONE]))
def test_every_view_opens_without_a_word_or_a_request(browser, file, scheme, size):
    opened = Tab(browser, file, scheme, size)
    for view in VIEWS:
        for rest in ("", "&task=days", "&head=2.3", "&task=days&head=m4"):
            opened.show(f"view={view}{rest}")
            assert opened.count("#figure svg.figure") >= (1 if "days" not in rest or view != "compare" else 0), view
            beyond = opened.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
            assert beyond <= 0, f"{view}{rest} is {beyond} px too wide"
            unnamed = opened.page.locator("svg.figure:not([aria-label])").count()
            assert not unnamed, "a drawing without a text alternative"
    shade = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert shade == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 26)")
    assert not opened.said
    assert set(opened.asked) == {opened.address}
    opened.page.close()


def test_the_page_opens_with_the_finding(tab, data):
    tab.show("")
    task = task_of(data, "numerals")
    circuit = reported(task)
    heads = [i for i in circuit["members"] if i % (HEADS + 1) < HEADS]
    said = tab.text("#finding")
    assert f"{len(heads)} heads and {len(circuit['members']) - len(heads)} MLP" in said
    assert f"{len(circuit['members'])} of 54 components" in said
    assert f"{estimate(*circuit['percent'], '%')} of the full model's logit difference on held-out prompts" in said
    assert tab.count("#figure g.node.member") == len(circuit["members"])


def test_one_click_leads_to_a_heads_attention_on_a_prompt(tab, data):
    prompt = task_of(data, "numerals")["prompts"][0]
    heads, size = prompt["attention"]["heads"], len(prompt["tokens"])
    head = next(i for i in heads if i in reported(task_of(data, "numerals"))["members"])
    tab.show("")
    tab.page.locator(f"#figure g.node:nth-child({head + 1}) .target").click()
    assert tab.text("#drawer h2") == f"Head {name_of(head)}"
    bits = base64.b64decode(prompt["attention"]["bits"])
    each = size * (size + 1) // 2
    last = bits[heads.index(head) * each + each - size : (heads.index(head) + 1) * each]
    assert tab.texts("#drawer text.weight") == [fixed(weight / 255, 2) for weight in last]


def test_a_page_of_nothing_but_sizes_says_so(browser, tmp_path):
    """Every part that may be missing is."""
    task = {"name": "months", "main": True}
    model = {"name": "bare", "n_layers": 2, "n_heads": 2, "tasks": [task]}
    file = tmp_path / "bare.html"
    file.write_text(atlas_page.html({"title": "Bare & <small>", "models": [model]}))
    opened = Tab(browser, file)
    for view in VIEWS:
        for head in ("", "1.0", "m1"):
            opened.show(f"view={view}&head={head}&order=layers&step=4&prompt=9")
    assert opened.text("h1") == "Bare & <small>"
    assert not opened.said
    opened.page.close()


def test_a_window_that_opens_as_a_sliver_is_no_mistake(browser, file):
    """As a busy machine's does, before it gets its size."""
    opened = Tab(browser, file, size={"width": 20, "height": 20})
    for view in VIEWS:
        opened.show(f"view={view}&head=2.3")
    assert not opened.said
    opened.page.close()


# ---- numbers -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("i", [0, 5, 8, 21, 44, 53], ids=name_of)
def test_the_drawer_shows_the_numbers_of_the_data(tab, data, i):
    task = task_of(data, "months")
    tab.show(f"task=months&head={name_of(i)}&prompt=14")
    shown = tab.text("#drawer")
    mean = task["effects"]["mean"]
    rows = dict(zip(tab.texts("#drawer g.ranked text:first-child + line ~ text.value"), range(99), strict=False))
    assert of(mean, i, "%") in rows
    for other in ("numerals", "number_words"):
        assert of(task_of(data, other)["effects"]["mean"], i, "%") in rows
    assert of(task["effects"]["zero"], i, "%") in shown
    assert of(task["attribution"], i, "logits") in shown
    prompt = next(p for p in task["prompts"] if p["prompt"] == 14)
    assert f"Logit difference {fixed(prompt['clean'], 2)} logits" in shown
    assert f"writes {fixed(prompt['attribution'][i], 2)} logits directly" in shown
    for kind in ("mean", "zero"):
        left = prompt["ablated"][kind][i]
        assert re.search(rf"{kind}\s+{re.escape(fixed(left, 2))} logits", shown), kind
    for token, value in task["tokens"].get(str(i), {"top": []})["top"]:
        assert re.search(rf"·{token.strip()}\s+{fixed(value, 2)}", shown)


def test_neighbours_are_the_strongest_edges(tab, data):
    task = task_of(data, "months")
    edges = task["edges"]
    i = max(reported(task)["members"], key=edges["receiver"].count)
    tab.show(f"task=months&head={name_of(i)}")
    own = [k for k, receiver in enumerate(edges["receiver"]) if receiver == i]
    strongest = sorted(own, key=lambda k: -abs(edges["value"][k]))[:6]
    shown = tab.texts("#drawer section:has(h4) ul.plain:first-of-type li")[: len(strongest)]
    for k, line in zip(strongest, shown, strict=True):
        assert of(edges, k, "logits") in line, line


@pytest.mark.parametrize(
    ("metric", "table", "unit"),
    [
        ("ablation:resample", lambda task: task["effects"]["resample"], "%"),
        ("attribution", lambda task: task["attribution"], "logits"),
        ("here:mean", lambda task: {"value": task["prompts"][0]["ablated"]["mean"]}, "logits"),
    ],
)
def test_pointing_at_a_cell_gives_its_value(tab, data, metric, table, unit):
    values = table(task_of(data, "number_words"))
    tab.show(f"view=matrix&task=number_words&metric={metric}")
    for i in (1, 17, 26, 40):
        tab.page.locator("#figure rect.cell").nth(i).hover()
        shown = tab.text("#tip")
        expected = of(values, i, unit) if "low" in values else f"{fixed(values['value'][i], 2)} {unit}"
        assert expected in shown and name_of(i) in shown


def test_the_ranking_is_in_order_and_has_intervals(tab, data):
    values = task_of(data, "numerals")["attribution"]
    tab.show("view=matrix&metric=attribution&sort=rank")
    order = sorted(range(54), key=lambda i: -abs(values["value"][i]))
    shown = tab.texts("#figure g.ranked text:last-child")
    assert shown == [of(values, i, "logits") for i in order][: len(shown)] and len(shown) == 54


def test_the_prompt_view_shows_its_prompt(tab, data):
    prompt = task_of(data, "months")["prompts"][1]
    tab.show(f"view=prompt&task=months&prompt={prompt['prompt']}")
    shown = tab.text("#figure")
    for token, logit in prompt["top"]:
        assert re.search(rf"·{token.strip()}\s+{fixed(logit, 2)}", shown)
    strongest = sorted(range(54), key=lambda i: -abs(prompt["attribution"][i]))[:12]
    values = tab.texts("#figure .panel:has-text('who writes the answer') text.value")
    assert values == [f"{fixed(prompt['attribution'][i], 2)} logits" for i in strongest]
    tab.turn("#figure details")
    lens = [cells.split("\t")[1] for cells in tab.text("#figure details table").splitlines()[1:]]
    assert lens == [fixed(value, 2) for value in prompt["lens"]["value"]]


def test_a_pattern_as_a_matrix_is_the_pattern(tab, data):
    prompt = task_of(data, "numerals")["prompts"][2]
    head = prompt["attention"]["heads"][3]
    tab.show(f"view=prompt&prompt={prompt['prompt']}&head={name_of(head)}")
    size = len(prompt["tokens"])
    cells = tab.page.locator("#figure .panel:has-text('as a matrix') svg.figure g rect")
    assert cells.count() == size * (size + 1) // 2
    bits = base64.b64decode(prompt["attention"]["bits"])
    cells.nth(100).hover()
    assert f"weight {fixed(bits[3 * size * (size + 1) // 2 + 100] / 255, 2)}" in tab.text("#tip")


def test_comparison_counts_members_and_shows_the_tests(tab, data):
    a, b = (reported(task_of(data, name))["members"] for name in ("numerals", "months"))
    both, either = len(set(a) & set(b)), len(set(a) | set(b))
    tab.show("view=compare&compare=task:months")
    said = tab.text("#figure .card")
    assert f"Jaccard index {fixed(both / either, 2)} ({both} in both, {either} in either)" in said
    assert f"would share {fixed(len(a) * len(b) / 54, 1)}" in said
    compared = data["models"][0]["compare"]
    cells = tab.texts("#figure .panel:has-text('evaluated on tasks') text.in-cell")
    assert cells == [fixed(cell["value"], 0) for cell in compared["cross"]]
    overlap = tab.text("#figure .panel:has-text('with chance') table")
    for row in compared["overlap"]:
        assert f"{row['shared']}\t{fixed(row['expected'], 1)}\t{fixed(row['jaccard'], 2)}" in overlap
    controls = tab.text("#figure .panel:has-text('Against random') table")
    for row in compared["controls"][:2]:
        assert estimate(row["value"], row["low"], row["high"], "%") in controls
    for other in ("order:random_0@10", "model:other-6x8"):
        tab.show(f"view=compare&compare={other}")
        assert tab.count("#figure .panels svg.figure") == 2


# ---- switches, links, keys -----------------------------------------------------------------------------------
def test_the_slider_replays_the_search(tab, data):
    trace = next(t for t in task_of(data, "months")["traces"] if (t["order"], t["threshold"]) == ("random_0", 10))
    tab.show("task=months&order=random_0&threshold=10")
    last = len(trace["steps"])  # the full model stands before the first
    for step in (0, 1, 20, last):
        tab.page.locator("#step").fill(str(step))
        tab.page.wait_for_function(f"location.hash.includes('step={step}')")
        gone = {i for tried, _, removed in trace["steps"][:step] if removed for i in tried}
        assert tab.count("#figure g.node.member") == 54 - len(gone), step
        if step:
            tried, percent, removed = trace["steps"][step - 1]
            said = f"{name_of(tried[0])}: {fixed(percent, 1)} % left without, {'removed' if removed else 'kept'}"
            assert said in tab.text("#caption") and said in tab.text("output[for=step]")
    tab.page.locator("#finished").click()
    assert "step" not in tab.state()


def test_as_many_edges_are_drawn_as_asked(tab, data):
    edges = task_of(data, "numerals")["edges"]
    tab.show("inside=0&edges=25")
    assert tab.count("#figure path.edge") == 25
    tab.page.locator("#inside").check()
    assert tab.page.locator("#edges").get_attribute("max") == str(sum(edges["circuit"]))
    assert "inside" not in tab.state()


def test_a_click_traces_paths(tab, data):
    """Edges into and out of a component, and through others, by a search of one's own."""
    edges = task_of(data, "numerals")["edges"]
    order = sorted(range(len(edges["value"])), key=lambda k: -abs(edges["value"][k]))[:40]
    pairs = [(edges["sender"][k], edges["receiver"][k]) for k in order]
    i = max(reported(task_of(data, "numerals"))["members"], key=lambda i: sum(i in pair for pair in pairs))

    def reach(start: int, here: int, there: int) -> int:
        known = {start}
        while more := {pair[there] for pair in pairs if pair[here] in known} - known:
            known |= more
        return sum(pair[here] in known for pair in pairs)

    tab.show(f"inside=0&edges=40&head={name_of(i)}")
    assert tab.count("#figure path.edge.up") == reach(i, 1, 0)
    assert tab.count("#figure path.edge.down") == reach(i, 0, 1)


@pytest.mark.parametrize("colour", ["sharing", "stability", "role"])
def test_every_colour_has_its_legend(tab, colour):
    tab.show(f"colour={colour}")
    legend = tab.page.locator("#figure .legend g > :first-child")
    paints = {legend.nth(k).evaluate("mark => getComputedStyle(mark).fill") for k in range(legend.count())}
    nodes = tab.page.locator("#figure g.node.member .shape")
    for k in range(nodes.count()):
        fill = nodes.nth(k).evaluate("mark => getComputedStyle(mark).fill")
        assert fill in paints or fill == "rgb(232, 232, 232)", "of no class: grey"


@pytest.mark.parametrize(
    "state",
    [
        "task=months&order=random_0&threshold=10&step=12&head=3.1&colour=role",
        "view=matrix&task=days&metric=attribution&sort=layer&select=1.1:3.4",
        "view=prompt&task=months&head=2.1&prompt=14&by=effect",
        "view=compare&model=other-6x8&compare=order:layers@10&theme=dark",
        "view=order&class=months&layer=5&head=2.1&target=previous&pcs=13&at=answer:days",
    ],
)
def test_a_view_is_a_link(browser, file, tab, state):
    """What a fresh page shows at an address is what the old page showed there."""
    tab.show(state)
    fresh = Tab(browser, file)
    fresh.show(state)
    for part in ("#caption", "#finding", "#drawer", "#controls"):
        assert fresh.page.locator(part).inner_text() == tab.page.locator(part).inner_text()
    html = [one.page.locator("#figure").inner_html() for one in (fresh, tab)]
    assert html[0] == html[1]
    said = dict(part.split("=") for part in fresh.state()[1:].split("&"))
    assert said == dict(part.split("=") for part in state.split("&"))
    fresh.page.close()


def test_switches_write_the_address_and_the_browser_goes_back(tab):
    tab.show("")
    tab.page.locator("#task").select_option("months")
    tab.page.locator("#view-matrix").click()
    tab.page.locator("#metric").select_option("detector:induction")
    assert tab.state() == "#view=matrix&task=months&metric=detector:induction"
    tab.page.go_back()
    tab.page.wait_for_function("document.documentElement.dataset.shown === '#view=matrix&task=months'")
    assert tab.page.locator("#metric").input_value() == "ablation:mean"


@pytest.mark.parametrize(
    ("typed", "becomes"),
    [
        ("3.1", "head=3.1"),
        ("m5", "head=m5"),
        ("a2.h4", "head=2.4"),
        ("months", "task=months"),
        ("prompt 14", "view=prompt&prompt=14"),
        ("compare", "view=compare"),
        ("order", "view=order"),
    ],
)
def test_the_search_box_finds(tab, typed, becomes):
    tab.show("")
    tab.page.locator("#search").fill(typed)
    tab.page.keyboard.press("Enter")
    assert set(tab.state()[1:].split("&")) == set(becomes.split("&"))


def test_the_search_box_says_when_nothing_is_found(tab):
    tab.show("")
    tab.page.locator("#search").fill("9.99")
    assert tab.texts("#found li") == ["nothing of that name"]
    tab.page.keyboard.press("Enter")
    assert tab.state() in ("", "#")
    tab.page.keyboard.press("Escape")


def test_everything_is_reached_by_the_keyboard(tab):
    tab.show("head=2.3")
    tab.page.locator("#figure").focus()
    for key, now in (("ArrowRight", "2.4"), ("ArrowDown", "3.4"), ("End", "m3"), ("ArrowUp", "m2"), ("Home", "2.0")):
        tab.page.keyboard.press(key)
        assert f"head={now}" in tab.state()
    assert "Head 2.0" in tab.page.locator("#live").text_content()
    ring = tab.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert ring == "solid", "the focus is seen"
    tab.page.keyboard.press("Enter")
    assert tab.page.evaluate("document.activeElement.id") == "drawer"
    tab.page.keyboard.press("Escape")
    assert "head" not in tab.state()
    for key, view in (("2", "matrix"), ("3", "prompt"), ("4", "compare"), ("5", "order"), ("1", "")):
        tab.page.keyboard.press(key)
        assert (f"view={view}" in tab.state()) == bool(view)
    tab.page.keyboard.press("/")
    assert tab.page.evaluate("document.activeElement.id") == "search"


def test_arrow_keys_turn_prompts_and_heads(tab, data):
    prompts = task_of(data, "numerals")["prompts"]
    heads = prompts[0]["attention"]["heads"]
    tab.show(f"view=prompt&head={name_of(heads[0])}")
    tab.page.locator("#figure").focus()
    tab.page.keyboard.press("ArrowRight")
    assert f"prompt={prompts[1]['prompt']}" in tab.state()
    tab.page.keyboard.press("ArrowDown")
    assert f"head={name_of(heads[1])}" in tab.state()
    tab.page.keyboard.press("n")
    assert f"prompt={prompts[2]['prompt']}" in tab.state()


def test_a_rectangle_of_the_matrix_is_selected_by_drag_and_by_keys(tab):
    tab.show("view=matrix")
    cells = tab.page.locator("#figure rect.cell")
    cells.nth(10).hover()
    tab.page.mouse.down()
    cells.nth(30).hover()
    tab.page.mouse.up()
    assert "select=1.1:3.3" in tab.state()
    assert tab.count("#figure rect.held") == 9
    assert "9 heads and 0 MLPs" in tab.text("#figure .card h3")
    tab.show("view=matrix&head=1.1")
    tab.page.locator("#figure").focus()
    tab.page.keyboard.press("Shift+ArrowDown")
    tab.page.keyboard.press("Shift+ArrowRight")
    assert "select=1.1:2.2" in tab.state() and tab.count("#figure rect.held") == 4


# ---- files, tables, paper ------------------------------------------------------------------------------------
@pytest.mark.parametrize("view", EACH)
def test_a_view_is_saved_as_svg_and_csv(saving, view):
    saving.show(f"view={view}&task=months&head=3.1")
    name, text = saving.saved("#save-svg")
    assert name == f"ladder-6x8-months-{view}.svg"
    root = ElementTree.fromstring(text)
    assert "var(--" not in text and not root.findall(".//*[@class]"), "needs no style sheet"
    drawn = saving.page.evaluate("document.querySelectorAll('#figure svg.figure').length")
    assert len(root.findall("{http://www.w3.org/2000/svg}svg")) == drawn
    name, text = saving.saved("#save-csv")
    header, *rows = csv.reader(io.StringIO(text))
    assert name.startswith("ladder-6x8-months-") and name.endswith(".csv")
    assert rows and all(len(row) == len(header) for row in rows)


def test_the_csv_holds_the_numbers_of_the_data(saving, data):
    saving.show("view=matrix&task=months&metric=ablation:zero")
    values = task_of(data, "months")["effects"]["zero"]
    _, *rows = csv.reader(io.StringIO(saving.saved("#save-csv")[1]))
    assert [row[0] for row in rows] == [name_of(i) for i in range(54)]
    found = [[float(cell) for cell in row[2:]] for row in rows]
    assert found == [[values[key][i] for key in ("value", "low", "high")] for i in range(54)]


@pytest.mark.parametrize("view", EACH)
def test_a_table_says_what_the_drawing_shows(tab, view):
    tab.show(f"view={view}&task=months")
    tab.turn("#tables")
    rows = tab.count("#table-body section:first-child tbody tr")
    members = {name: set(reported(task_of_tab(tab, name))["members"]) for name in ("numerals", "months")}
    wanted = {"graph": len(members["months"]), "compare": len(set.union(*members.values())), "order": 40}
    assert rows == wanted.get(view, 54)
    tab.turn("#tables")


def task_of_tab(tab, name: str) -> dict:
    return task_of(tab.page.evaluate("JSON.parse(document.getElementById('data').textContent)"), name)


def test_on_paper_there_are_no_switches(tab):
    tab.show("head=2.3&theme=dark")
    tab.page.emulate_media(media="print")
    tab.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    for part in ("#controls", "#views", "#search", ".zoom"):
        assert not tab.page.locator(part).first.is_visible()
    assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.page.locator("#figure svg.figure").first.is_visible() and tab.page.locator("#drawer h2").is_visible()
    tab.page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    tab.page.emulate_media(media="screen")
    assert tab.page.evaluate("document.documentElement.dataset.theme") == "dark"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser, file, scheme):
    if not AXE.is_file():
        pytest.skip("axe-core is not here: `npm ci` in report/atlas installs it")
    opened = Tab(browser, file, scheme)
    opened.page.evaluate(AXE.read_text())
    for state in ("", "head=2.3", "view=matrix&sort=rank", "view=prompt&head=2.3", "view=compare", "view=order"):
        opened.show(state)
        opened.page.evaluate("document.getElementById('tables').open = true")
        found = opened.page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        serious = [
            (one["id"], node["target"], node["failureSummary"])
            for one in found
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]
        assert not serious, (state, serious[:3])
    opened.page.close()


def test_a_thousand_heads_are_drawn_whole(browser, tmp_path):
    file = tmp_path / "large.html"
    file.write_text(atlas_page.html(atlas_page.study(32, 32, edges=3000, prompts=1)))
    opened = Tab(browser, file)
    assert opened.count("#figure g.node") == 32 * 33
    opened.show("inside=0&edges=3000")
    assert opened.count("#figure path.edge") == 3000
    opened.show("view=matrix")
    assert opened.count("#figure rect.cell") == 32 * 33
    assert not opened.said
    opened.page.close()
