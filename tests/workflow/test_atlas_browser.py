"""The atlas page of a finished study in a real browser: what it shows is in the study's tables."""

import json
import random

import pandas as pd
import pytest

from browser import PHONE, Tab, chromium
from conftest import crossed

MODEL, HEADS, SAMPLE = "ladder-6x8", 8, 12
VIEWS = ("graph", "matrix", "prompt", "compare")


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def tab(browser, study):
    opened = Tab(browser, study.folder / "results" / MODEL / "atlas.html")
    yield opened
    assert not opened.said
    assert set(opened.asked) == {opened.address}


@pytest.fixture(scope="module")
def table(study):
    return lambda name: pd.read_parquet(study.folder / "results" / MODEL / f"{name}.parquet")


def near(shown: str, value: float, digits: int = 1) -> bool:
    """Text of a number is that of a table: rounded to its digits, after four significant ones."""
    number = float(shown.replace("−", "-").split(" ")[0])
    return abs(number - value) <= 0.5001 * 10**-digits + 5.1e-4 * abs(value)


def numbers(text: str) -> list[str]:
    """ "83.1 % [79.2, 87.0]" -> its three numbers."""
    return [part for part in text.replace("[", " ").replace("]", " ").replace(",", " ").split() if part not in "%"]


@pytest.mark.parametrize(("scheme", "size"), crossed(["light", "dark"], [None, PHONE]))
def test_every_view_of_every_task_opens(browser, study, scheme, size):
    opened = Tab(browser, study.folder / "results" / MODEL / "atlas.html", scheme, size)
    for view in VIEWS:
        for task in ("numerals", "number_words", "days"):
            opened.show(f"view={view}&task={task}&head={'m3' if task == 'days' else '2.1'}")
            assert opened.text("#drawer h2") == ("MLP m3" if task == "days" else "Head 2.1")
            assert opened.page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0, (view, task)
    assert not opened.said and set(opened.asked) == {opened.address}
    opened.page.close()


def test_single_ablations_are_those_of_the_table(tab, table):
    effects = table("numerals/component_effects")
    rows = effects[(effects["metric"] == "percent_of_full") & (effects["kind"] == "mean")].set_index(["layer", "head"])
    tab.show("view=matrix&task=numerals&metric=ablation:mean&sort=rank")
    names, values = (tab.texts(f"#figure g.ranked text:{place}") for place in ("first-of-type", "last-of-type"))
    assert len(names) == len(rows) == 54
    for i in random.Random(0).sample(range(54), SAMPLE):
        layer, head = (int(names[i][1:]), -1) if names[i][0] == "m" else map(int, names[i].split("."))
        row = rows.loc[(layer, head)]
        for shown, column in zip(numbers(values[i]), ("value", "ci_low", "ci_high"), strict=True):
            assert near(shown, row[column]), (names[i], column)


def test_the_first_sentence_is_of_the_reported_circuit(tab, study, table):
    folder = study.folder / "results" / MODEL / "numerals"
    chosen = json.loads((folder / "chosen.json").read_text())["circuits"]
    threshold = study.config["comparison"]["threshold"]
    circuit = next(c for c in chosen if c["threshold"] == threshold)
    choice = table("numerals/choice")
    row = choice[
        choice["reported"]
        & (choice["threshold"] == threshold)
        & (choice["metric"] == "percent_of_full")
        & (choice["split"] == "held_out")
    ].iloc[0]
    tab.show("task=numerals")
    said = tab.text("#finding")
    n = len(circuit["heads"]) + len(circuit["mlps"])
    assert f"{n} of 54 components" in said and f"{len(circuit['heads'])} head" in said
    shown = numbers(said.split("keep ")[1].split(" of the full")[0])
    assert all(near(*pair) for pair in zip(shown, row[["value", "ci_low", "ci_high"]], strict=True))
    assert tab.count("#figure g.node.member") == n
    names = sorted(circuit["heads"] + circuit["mlps"])
    assert sorted(tab.texts("#drawer .names .name")) == names


def test_the_cross_matrix_is_that_of_the_table(tab, table):
    cross = table("comparison/cross")
    cross = cross[cross["metric"] == "percent_of_full"]
    place = list(cross["circuit"].unique()).index  # rows of the figure, which goes row by row; the table goes by task
    cross = cross.sort_values("circuit", kind="stable", key=lambda names: names.map(place))
    tab.show("view=compare&task=numerals")
    cells = tab.texts("#figure .panel:has-text('evaluated on tasks') text.in-cell")
    assert len(cells) == len(cross)
    assert all(near(shown, value, 0) for shown, value in zip(cells, cross["value"], strict=True))


def test_a_prompt_shows_its_own_ablations(tab, table, study):
    scores = table("number_words/component_scores")
    tab.show("view=prompt&task=number_words&head=1.2")
    prompt = int(tab.page.locator("#prompt").input_value())
    own = scores[(scores["prompt"] == prompt) & (scores["component"] == "1.2") & (scores["kind"] == "mean")]
    (value,) = own.loc[own["metric"] == "logit_diff", "value"]
    left = tab.page.locator("#drawer table:has-text('is left') tbody tr").filter(has_text="mean").locator("td").nth(1)
    assert near(left.inner_text().replace("\xa0", " "), value, 2)
