"""The Order view's data are those of the tables of how a model represents order."""

import pandas as pd
import pytest

import atlas_tables
from atlas.report import shown
from atlas.report.atlas import layouts, order, page, steered, tables
from atlas.report.atlas.packing import Numbering, text
from atlas.report.pages import Section
from atlas.report.sections.study import Study
from atlas_tables import MONTHS, NUMERALS, inputs_of, settings_of
from figure_tables import fake_study

LAYERS, HEADS, POINTS, BEST = 3, 2, 14, 5
ROUNDED = {"rel": 5.1e-4, "abs": 1e-12}
NUMBERING = Numbering(LAYERS, HEADS)
PLACED = {"successors": ("successors",), "shapes": ("pca", "shapes")}


@pytest.fixture(scope="module")
def written() -> dict[str, pd.DataFrame]:
    own = {"successors": atlas_tables.successors(LAYERS, HEADS), "pca": atlas_tables.pca(POINTS)}
    return own | {"shapes": atlas_tables.shapes(POINTS, BEST)}


@pytest.fixture
def analyses(monkeypatch):
    """A project in which these analyses make these tables, and no other analysis any."""
    for name in shown.GEOMETRY:
        monkeypatch.setitem(shown.GEOMETRY, name, PLACED.get(name, ()))
    for names in PLACED.values():
        for name in names:
            monkeypatch.setitem(tables.TABLES, name, shown.Table(f"geometry/{name}.parquet"))
    monkeypatch.setattr(order, "PARTS", {})
    return monkeypatch


def component(number: int) -> tuple[int, int]:
    """Layer and head of a number, by hand; of an MLP, head HEADS."""
    return divmod(number, HEADS + 1)


def test_scores_stand_at_their_heads(written):
    table = written["successors"]
    found = order.successors(table, NUMBERING)
    assert [(row["class"], row["target"]) for row in found] == [
        (name, f"{target}{end}")
        for end in ("", "-without-mlp0")
        for name in ("months", "numerals")
        for target in ("next", "previous")
    ]
    for row in found:
        end = row["target"].endswith("-without-mlp0")
        own = table[(table["class"] == row["class"]) & (table["target"] == row["target"].split("-")[0])]
        own = own[own["input"] == ("without_mlp0" if end else "mlp0")].set_index(["layer", "head"])
        assert row["group"] == ("without MLP 0" if end else "after MLP 0") and row["members"] == 6
        for number in range(LAYERS * (HEADS + 1)):
            at = component(number)
            value, p = row["value"][number], row["p"][number]
            if at[1] == HEADS or (at[0] == 0 and not end):
                assert value is p is None
            else:
                assert value == pytest.approx(own.loc[at, "value"], **ROUNDED)
                assert p == pytest.approx(own.loc[at, "p_holm"], **ROUNDED)
                assert (number in row["sure"]) == (own.loc[at, "p_holm"] < 0.05)
        assert row["random"] == {"median": 0.1, "high": 0.21}, "not that of the row without a head"
        assert row["alone"]["value"] == pytest.approx(own.loc[(-1, -1), "value"], **ROUNDED)
    assert any(row["sure"] for row in found) and len({len(row["sure"]) for row in found}) > 1


def test_members_lie_where_the_table_says(written):
    table = written["pca"]
    found = layouts.layouts(table, written["shapes"])
    assert [(one["class"], one["at"], one["where"]) for one in found] == [
        ("months", "member", "at the member"),
        ("months", "answer:months", "as the answer of months"),
        ("numerals", "member", "at the member"),
    ]
    for one in found:
        at, _, task = one["at"].partition(":")
        own = table[(table["class"] == one["class"]) & (table["at"] == at) & (table["task"] == task)]
        assert one["members"] == list(MONTHS if one["class"] == "months" else NUMERALS)
        assert one["best"] == BEST
        for point, members, shares in zip(one["points"], one["coordinates"], one["explained"], strict=True):
            rows = own[own["point"] == point]
            assert shares == pytest.approx(list(rows[["share1", "share2", "share3"]].iloc[0]), **ROUNDED)
            for word, coordinates in zip(one["members"], members, strict=True):
                expected = rows.loc[rows["word"] == word, ["pc1", "pc2", "pc3"]].iloc[0]
                assert coordinates == pytest.approx(list(expected), rel=5.1e-3, abs=1e-12)
                assert all(len(f"{abs(x):g}".replace(".", "").strip("0")) <= 3 for x in coordinates)


def test_members_are_joined_in_order_and_around_a_circle(written):
    months, _, numerals = layouts.layouts(written["pca"], written["shapes"])
    assert months["joined"] == [[0, 1, 1], [1, 2, 0], [2, 3, 1], [3, 4, 1], [4, 5, 0], [5, 0, 0]]
    assert numerals["joined"] == [[i, i + 1, 1] for i in range(6)], "no circle of them: theirs is a control"


@pytest.mark.parametrize(
    ("points", "always", "expected"),
    [
        (range(9), [4], list(range(9))),
        (range(31), [], [0, 4, 8, 11, 15, 19, 22, 26, 30]),
        (range(31), [7], [0, 4, 7, 9, 13, 17, 21, 26, 30]),
        (range(31), [30], [0, 4, 8, 11, 15, 19, 22, 26, 30]),
    ],
)
def test_of_many_points_some_are_kept(points, always, expected):
    assert layouts.some(list(points), always) == expected


def test_shapes_stand_beside_their_null_and_controls_come_last(written):
    found = layouts.shapes(written["shapes"])
    assert len(found) == 9
    of = [(one["shape"], one["words"]) for one in found if (one["class"], one["at"]) == ("numerals", "member")]
    assert of == [
        ("line:random-orders", "line"),
        ("helix:random-periods", "helix, random periods"),
        ("circle:random-orders", "circle, a control"),
    ]
    for one in found:
        table = written["shapes"]
        at, _, task = one["at"].partition(":")
        own = table[(table["class"] == one["class"]) & (table["at"] == at) & (table["task"] == task)]
        own = own[own["shape"] == one["shape"].split(":")[0]]
        assert one["points"] == list(range(POINTS))
        for key, column in (("value", "value"), ("null_low", "null_low"), ("p", "p_holm")):
            assert one[key] == pytest.approx(list(own[column]), **ROUNDED)
        assert ("a control" in one["about"]) == ("control" in one["words"])


def test_probes_that_never_saw_a_class_are_curves_of_it():
    row = {"label": "mod 10", "trained_on": "other classes", "tested_on": "months", "value": 0.75, "p_holm": 0.01}
    row |= {"null_median": 0.1, "null_high": 0.3}
    others = [{"trained_on": "all classes"}, {"tested_on": "all"}, {"tested_on": "beyond ten"}, {"label": "index"}]
    rows = [
        row | {"point": point, "value": row["value"] - point / 8} | other for other in [{}, *others] for point in (2, 0)
    ]
    first, second = layouts.probes(pd.DataFrame(rows))
    assert (first["class"], first["at"], first["shape"]) == ("months", "member", "probe:mod-10")
    assert (first["points"], first["value"], first["p"]) == ([0, 2], [0.75, 0.5], [0.01, 0.01])
    assert (first["null_low"], first["null_high"]) == ([0.1, 0.1], [0.3, 0.3])
    assert second["shape"] == "probe:index" and "correlation" in second["title"]


def study_with(given: dict[str, pd.DataFrame], main=("days", "months")) -> Study:
    """As the page hands it to sections."""
    return Study(given, {}, {}, {"model": "m"}, {}, {"tasks": list(main), "main_tasks": list(main)}, {})


def test_an_analysis_has_its_sentences_and_its_small_tables(monkeypatch, written, analyses):
    long = pd.DataFrame({"model": "m", "neuron": range(60), "effect": [0.123456] * 60})
    monkeypatch.setitem(shown.GEOMETRY, "neurons", ("neurons", "sets"))

    def neurons(study: Study) -> Section:
        said = f"{len(study.tables['neurons'])} of {' '.join(study.main)}."
        return Section("Neurons", first=said, sentences=["More."], note="Ablated.")

    picked = Section("Shapes", table={"header": ["a"], "rows": [[1]]})
    best = "Best", lambda study: {"header": ["b"], "rows": [[len(study.tables["pca"])]]}
    of_shapes = order.Part(lambda study: picked, best=best)
    found = {"shapes": of_shapes, "neurons": order.Part(neurons, ("neurons", "sets"), ("None", lambda study: None))}
    monkeypatch.setattr(order, "PARTS", found)
    shape, part = order.parts(study_with(written | {"neurons": long, "sets": long[:0]}))
    assert shape["tables"] == [
        {"title": "Best", "header": ["b"], "rows": [[str(len(written["pca"]))]], "note": "", "open": True},
        {"title": "Shapes", "header": ["a"], "rows": [["1"]], "note": "", "open": False},
    ]
    assert shape["sentences"] == [] and part["note"] == "Ablated."
    assert part["sentences"] == ["60 of days months.", "More."]
    (table,) = part["tables"]
    assert table["header"] == ["neuron", "effect"] and table["rows"][3] == ["3", "0.1235"] and not table["open"]
    assert len(table["rows"]) == order.ROWS and table["note"] == "In every row: model m. The first 40 of 60 rows."
    assert order.parts(study_with({"neurons": long[:0], "sets": long[:0]})) == [], "nothing was found out"


def test_the_best_cell_of_a_pair_stands_beside_random_directions():
    row = {"source": "numerals", "target": "months", "method": "difference of means", "layer": 4, "coefficient": 1.0}
    row |= {"split": "held_out", "chosen": True, "metric": "top1", "value": 0.25, "ci_low": 0.125, "ci_high": 0.5}
    row |= {"draws": 100, "random_mean": 0.01, "random_hi": 0.0625, "p_holm": 0.03}
    others = [row | {"metric": "class_top1", "value": 1.0, "ci_low": 1.0, "ci_high": 1.0, "p_holm": 0.0004}]
    others += [row | {"split": "search", "value": 0.9}, row | {"chosen": False, "layer": 2, "value": 0.8}]
    others += [row | {"method": "residual swap", "value": 0.7}, row | {"source": "days", "target": "days", "draws": 0}]
    found = steered.cells(pd.DataFrame([row, *others]))
    random, every = "1.0 %, at most 6.2 %", "100.0 % [100.0, 100.0]"
    assert found["rows"] == [
        ["numerals", "months", "4", "1", "25.0 % [12.5, 50.0]", random, "0.03", every, random, "< 0.001"],
        ["days", "days", "4", "1", "25.0 % [12.5, 50.0]", "\u2013", "0.03", "\u2013", "\u2013", "\u2013"],
    ]
    assert len(found["header"]) == 10 and steered.cells(pd.DataFrame([row | {"chosen": False}])) is None


def test_what_a_study_does_not_make_is_absent(written, analyses):
    assert order.order(study_with({}), NUMBERING) is None
    empty = {name: table[:0] for name, table in written.items()}
    assert order.order(study_with(empty), NUMBERING) is None
    found = order.order(study_with({"successors": written["successors"]}), NUMBERING)
    assert found and found["layouts"] == found["shapes"] == found["parts"] == []
    assert [one["name"] for one in found["classes"]] == ["months", "numerals"]


def test_the_page_has_the_view_where_the_study_makes_the_tables(tmp_path, written, analyses):
    study = fake_study(LAYERS, HEADS, ("days",), (), ("layers",), (20,), model="m")
    study.positions = pd.DataFrame({name: [] for name in ("task", "role", "layer", "head", "value")})
    (model,) = page.data_of(inputs_of([study], tmp_path / "without"), settings_of(study))["models"]
    assert model["order"] is None
    study.geometry = written
    (model,) = page.data_of(inputs_of([study], tmp_path / "with"), settings_of(study))["models"]
    assert model["order"] == order.order(study_with(written), NUMBERING)
    assert [one["words"] for one in model["order"]["classes"]] == ["months", "numerals"]


@pytest.mark.slow
def test_of_a_model_of_thirty_layers_it_takes_little(analyses):
    classes = tuple(f"class_{i}" for i in range(8))
    scores = atlas_tables.successors(30, 9, classes)
    rows = pd.concat([atlas_tables.pca(31).assign(**{"class": name}) for name in classes])
    curves = pd.concat([atlas_tables.shapes(31, 7).assign(**{"class": name}) for name in classes])
    made = order.order(study_with({"successors": scores, "pca": rows, "shapes": curves}), Numbering(30, 9))
    assert len(text(made)) < 500_000
    assert max(len(one["points"]) for one in made["layouts"]) == layouts.POINTS


def test_every_analysis_has_a_part_and_tables_of_its_own_names():
    """A new analysis is a line in `order.PARTS`."""
    filled = {name for name, made in shown.GEOMETRY.items() if made}
    assert set(order.PARTS) == filled
    for name, part in order.PARTS.items():
        assert set(part.tables) <= set(shown.GEOMETRY[name]), name
    names = [each for made in shown.GEOMETRY.values() for each in made]
    others = {name for name, table in tables.TABLES.items() if not table.file.startswith("geometry/")}
    assert len(set(names)) == len(names) and not others & set(names)
    assert all(tables.TABLES[name].made_by in filled for name in names)
