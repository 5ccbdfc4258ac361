"""The table of figures and pages agrees with what draws them, with the captions, and with what a study makes."""

import dataclasses
import inspect
import io
import re
import subprocess
import sys
from types import SimpleNamespace

import docutils.core
import pandas as pd
import pytest

from atlas.report import captions, contents, drawing, of_order, shown, style
from atlas.report.shown import EDGES, GENERATION, PUBLICATION, Shown, Study, Table
from atlas.store import artifacts, sources
from conftest import ROOT

FIGURES = sorted((ROOT / "scripts" / "atlas" / "report" / "figures").glob("[!_]*.py"))
DRAWN = [row for row in contents.SHOWN if row.made_by.startswith("plot_")]
ANALYSES = ("patching", "attribution", "lens", "attention", "detectors", "ov", "backup")
FULL = Study(
    models=["m"],
    main_tasks=["a", "b"],
    tasks=["a", "b", "c"],
    explained=["a", "c"],
    analyses=list(ANALYSES),
    has=frozenset((EDGES, GENERATION, PUBLICATION)),
    settings={"figures": {"clean": "blue"}, "top": 1},
)


def named(row: Shown) -> str:
    return f"{row.name}.{'html' if row.page else 'svg'}"


# ---- the table -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("row", DRAWN, ids=named)
def test_a_figure_takes_the_tables_and_settings_of_its_row_and_no_others(row):
    """Colours come as one; a figure of a task or circuit may ask which it is."""
    module = drawing.module_of(row.name)
    parameters = inspect.signature(module.page if row.page else module.draw).parameters
    colours = {"colours"} if set(row.settings) & set(drawing.COLOURS) else set()
    given = {*row.tables, *row.settings, *colours} - set(drawing.COLOURS)
    asked = {name for name, about in parameters.items() if about.default is inspect.Parameter.empty}
    assert asked - {row.wildcard, "note"} == given
    assert set(row.also) <= set(parameters) - asked, "what not every study makes has a default"


def test_what_a_figure_also_shows_is_given_where_it_is_made():
    """An edge diagram stands without roles of heads, which a study without analyses of heads lacks."""
    (row,) = (row for row in contents.SHOWN if row.name == "edge_diagram")
    without = dataclasses.replace(FULL, analyses=[])
    assert row.is_shown(without) and row.is_shown(FULL)
    assert list(shown.made(row.also, FULL)) == ["roles"] and not shown.made(row.also, without)


def test_every_module_of_figures_is_in_the_table():
    assert {path.stem for path in FIGURES} == {row.name for row in DRAWN}


def test_every_row_has_a_file_a_line_in_the_menu_and_a_caption_of_its_own():
    for of in (lambda row: row.path, lambda row: row.caption_file, lambda row: (row.category, *row.labels.values())):
        values = list(map(of, contents.SHOWN))
        assert len(values) == len(set(values))
    without_rows = {"report/workflow.rst", "report/atlas.rst"}
    assert {row.caption_file for row in contents.SHOWN} | without_rows == {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "report").glob("*.rst")
    }


def test_what_one_rule_draws_is_drawn_for_the_same():
    """So that its log, its wildcard and the number of its jobs are those of its first row, which has its message."""
    for rows in contents.BY_RULE.values():
        assert len({row.of for row in rows}) == 1
        assert rows[0].made_by == "write_head_pages" or len({row.circuits for row in rows}) == 1
        assert bool(rows[0].message) == rows[0].made_by.startswith("plot_")


OF_CIRCUITS = {"circuits", "membership", "edge_membership", "edge_circuits", "edge_curves", "composition_edges"}
OF_CIRCUITS |= {"faithfulness", "evaluation", "completeness", "minimality", "positions", "stability", "methods"}
OF_CIRCUITS |= {"trace", "roles", "overlap", "typology", "cross", "controls", "generation/summary", "backup"}
OF_CIRCUITS |= {"published"}


@pytest.mark.parametrize("row", contents.SHOWN, ids=named)
def test_what_shows_circuits_says_which(row, config):
    """In a line below a figure, in the lead of a page; or each has its name beside it (NAMED)."""
    files = {table.file.rpartition(".")[0].removeprefix("comparison/") for table in row.tables.values()}
    assert bool(files & OF_CIRCUITS) <= bool(row.circuits), "it is drawn from tables of circuits"
    settings = config | {"comparison": config["comparison"] | {"order": "random_7", "threshold": 23}}
    settings |= {"edges": config["edges"] | {"threshold": 29}}
    note = row.note(dataclasses.replace(FULL, settings=settings))
    assert ("T = 23 %, order random 7" in note) == (shown.NODE_CIRCUITS in row.circuits)
    assert ("T = 29 %" in note) == (shown.EDGE_CIRCUITS in row.circuits)
    assert bool(note) == bool(set(row.circuits) - {shown.NAMED})
    by_rule = settings | {"comparison": {"order": "reported", "threshold": 23}}
    by_rule = row.note(dataclasses.replace(FULL, settings=by_rule))
    assert ("T = 23 %, order chosen by rule for each task" in by_rule) == (shown.NODE_CIRCUITS in row.circuits)
    alone = dataclasses.replace(FULL, settings=settings, has=frozenset())
    assert "edge" not in row.note(alone)


def test_captions_render(config):
    wildcards = {"model": "gpt2", "task": "months", "circuit": "shared"}
    for path in (ROOT / "report").glob("*.rst"):
        text = captions.rendered(path.read_text(), wildcards, config)
        said = re.sub(r"^   .*\n?", "", text, flags=re.MULTILINE)  # without HTML, which is indented
        assert said.strip() and "{" not in said and "{{" not in text and "{%" not in text
    for row in (row for row in contents.SHOWN if not row.page):
        said = captions.of(row, ROOT, wildcards, config)
        assert said["title"].startswith(row.title[:1].upper()) and "gpt2" in said["title"]
        assert len(said["caption"]) > 20 and not set("\n`") & set(said["caption"])


@pytest.mark.parametrize("path", sorted((ROOT / "report").glob("*.rst")), ids=lambda path: path.stem)
def test_the_report_reads_every_caption_without_an_error(path, config):
    """`|effect|`, say, is a name that reStructuredText replaces; whoever makes the report is shown an error then."""
    text = captions.rendered(path.read_text(), {"model": "gpt2", "task": "months", "circuit": "shared"}, config)
    said = io.StringIO()
    docutils.core.publish_string(text, writer="html5", settings_overrides={"warning_stream": said})
    assert not said.getvalue()


def test_a_caption_in_a_file_has_no_marks():
    text = "Of **months** in\n``a_table.parquet``, *In order*: p * q, *all* (*sensitive*) and F*."
    assert captions.plain(text) == "Of months in a_table.parquet, In order: p * q, all (sensitive) and F."


def test_the_table_is_read_by_rules_alone_and_quickly():
    """No script imports it, so that a new row reruns no job; it imports nothing that is slow to."""
    scripts = (path.relative_to(ROOT) for path in (ROOT / "scripts").glob("*.py"))
    assert "scripts/atlas/report/contents.py" not in sources.of(*scripts).files
    code = "import sys, atlas.report.contents; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts", capture_output=True, text=True, check=True)
    assert not {"torch", "pandas", "numpy", "matplotlib", "jinja2"} & set(run.stdout.split())


def test_a_figure_reruns_for_its_own_module_and_what_all_share():
    """The script finds modules by name, so that by itself it depends on none of them."""
    of_script = sources.of("scripts/plot.py").files
    assert "scripts/atlas/report/style.py" in of_script
    assert not {path.relative_to(ROOT).as_posix() for path in FIGURES} & set(of_script)


# ---- what a study has ----------------------------------------------------------------------------------------
def names(study: Study) -> set[str]:
    return {name.removeprefix("results/figures/m/m.") for row in contents.SHOWN for name in row.files(study)}


ALWAYS = {"data.html", "summary.html", "tables.html", "clean_accuracy.svg", "circuit_size.svg", "positions.svg"}
ALWAYS |= {f"{name}.svg" for name in ("evaluation", "stability", "methods", "overlap", "cross_matrix", "controls")}
ALWAYS |= {f"{task}.{name}.svg" for task in "abc" for name in ("dataset", "tokens")}
ALWAYS |= {f"{task}.{name}.svg" for task in "ab" for name in ("component_effects", "search_trajectory")}
ALWAYS |= {f"{circuit}.circuit_diagram.svg" for circuit in ("a", "b", "shared")}
WITH_EDGES = {"edge_curves.svg", "composition.svg"} | {
    f"{circuit}.edge_diagram.svg" for circuit in ("a", "b", "shared")
}
OF_HEADS = {f"{name}.svg" for name in ("attribution", "lens", "attention", "detectors", "ov", "backup")}
OF_HEADS |= {"a.patching.svg", "patching_scatter.svg", "heads.html", "patterns.html", "lens_tokens.html"}
WRITTEN = {"generation.svg", "generation.html"}


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({}, WITH_EDGES | OF_HEADS | WRITTEN | {"published.svg"}),
        ({"has": frozenset()}, OF_HEADS),
        ({"has": frozenset((EDGES,)), "analyses": []}, WITH_EDGES),
        ({"has": frozenset((GENERATION,)), "explained": ["c"]}, WRITTEN),
        ({"has": frozenset(), "analyses": ["lens"]}, {"lens.svg", "heads.html", "lens_tokens.html"}),
        (
            {"has": frozenset((PUBLICATION,)), "analyses": ["patching", "attention"]},
            {"a.patching.svg", "patching_scatter.svg", "attention.svg", "heads.html", "patterns.html", "published.svg"},
        ),
    ],
)
def test_a_study_has_the_figures_and_pages_that_its_parts_allow(changes, more):
    assert names(dataclasses.replace(FULL, **changes)) == ALWAYS | more


def test_several_models_have_each_their_own():
    one, two = (
        names(FULL),
        [name for row in contents.SHOWN for name in row.files(dataclasses.replace(FULL, models=["m", "n"]))],
    )
    assert len(two) == 2 * len(one) == len(set(two))


def test_tables_are_those_of_the_task_the_circuit_or_the_model():
    tables = {
        "own": Table("x.parquet", shown.OWN),
        "all": Table("y.json", shown.TASK),
        "explained": Table("z.parquet", shown.EXPLAINED_MAIN),
        "of_model": Table("comparison/w.parquet"),
    }
    others = {"all": [f"results/m/{task}/y.json" for task in "abc"], "explained": ["results/m/a/z.parquet"]}
    others |= {"of_model": "results/m/comparison/w.parquet"}
    assert shown.places(tables, FULL, "m", task="b") == others | {"own": "results/m/b/x.parquet"}
    assert shown.places(tables, FULL, "m", circuit="b") == others | {"own": ["results/m/b/x.parquet"]}
    both = ["results/m/a/x.parquet", "results/m/b/x.parquet"]
    assert shown.places(tables, FULL, "m", circuit="shared") == others | {"own": both}


def test_a_page_takes_the_tables_that_are_made():
    little = dataclasses.replace(FULL, has=frozenset((GENERATION,)), analyses=["lens"])
    (summary,) = (row for row in contents.SHOWN if row.name == "summary")
    left_out = {"edge_circuits", "edge_scores", "edge_areas", "published", "patching", "attribution", "backup"}
    left_out |= {"detectors", *of_order.SUMMARISED}
    assert set(summary.tables) - set(shown.made(summary.tables, little)) == left_out


def test_settings_are_found_by_dotted_keys():
    assert FULL.setting("figures.clean") == "blue" and FULL.setting("top") == 1


# ---- drawing by name -----------------------------------------------------------------------------------------
def test_what_is_drawn_gets_what_it_names():
    given = drawing.arguments({"t": 1}, {"clean": "c", "circuit": "r", "k": 2}, {"circuit": "shared"})
    assert given == {"t": 1, "k": 2, "circuit": "shared", "colours": {"clean": "c", "circuit": "r"}}
    assert drawing.call(lambda t, circuit, colours, most=9: (t, circuit, colours["circuit"], most), given) == (
        (1, "shared", "r", 9)
    )
    with pytest.raises(TypeError, match="missing"):
        drawing.call(lambda missing: missing, given)


def test_a_file_is_drawn_by_the_module_of_its_name(tmp_path, monkeypatch):
    """Names of models and tasks may hold dots."""
    assert drawing.name_of("results/figures/m-1.4b/m-1.4b.a.b.overlap.svg") == "overlap"
    modules = {
        "one": SimpleNamespace(draw=lambda x: style.figure(1, 1), page=lambda x: f"page of {x}"),
        "two": SimpleNamespace(draw=lambda: style.figure(2, 1)),
    }
    monkeypatch.setattr(drawing, "module_of", modules.get)
    files = [f"{name}.{kind}" for name in ("one", "two") for kind in ("svg", "png", "pdf")] + ["one.html"]
    files = [str(tmp_path / f"m.{name}") for name in files]
    said = {"one": {"title": "The first"}, "two": {"caption": "What the second shows"}}
    drawing.draw(files, {"x": "y", "note": "", "said": said}, 50, {"inputs": {"x": "0123abcd"}})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(file.split("/")[-1] for file in files)
    assert (tmp_path / "m.one.html").read_text() == "page of y"
    assert "0123abcd" in (tmp_path / "m.two.svg").read_text()
    assert "<title>The first</title>" in (tmp_path / "m.one.svg").read_text()
    assert "<desc>What the second shows</desc>" in (tmp_path / "m.two.svg").read_text()
    sizes = [re.search(r'width="([\d.]+)pt"', (tmp_path / f"m.{name}.svg").read_text())[1] for name in ("one", "two")]
    assert float(sizes[0]) < float(sizes[1])


def test_a_figure_has_its_note_below_it_and_no_wider_than_itself(tmp_path, monkeypatch):
    note = "Node circuits: T = 23 %, order random 7; edge circuits: T = 29 %, iterative"

    def drawn():
        fig = style.figure(2, 1)
        fig.add_axes((0, 0, 1, 1))
        return fig

    monkeypatch.setattr(drawing, "module_of", lambda name: SimpleNamespace(draw=drawn))
    sizes = {}
    for said in ("", note):
        drawing.draw([str(tmp_path / "m.one.svg")], {"note": said, "said": {"one": {}}}, 50, {})
        text = (tmp_path / "m.one.svg").read_text()
        sizes[said] = [float(re.search(rf'{side}="([\d.]+)pt"', text)[1]) for side in ("width", "height")]
        words = " ".join(re.findall(r">([^<>]+)</text>", text.split('id="note"')[-1])) if said else ""
        assert words == said
    assert sizes[note][0] == pytest.approx(sizes[""][0], rel=0.05) and sizes[note][1] > sizes[""][1] + 8


def test_files_are_read_by_what_they_are(tmp_path):
    frames = [pd.DataFrame({"x": [i]}) for i in range(2)]
    paths = [str(tmp_path / f"{i}.parquet") for i in range(2)]
    for frame, path in zip(frames, paths, strict=True):
        artifacts.write_table(frame, path, {})
    artifacts.write_json({"y": 1}, tmp_path / "y.json", {})
    assert drawing.read(paths[1])["x"].tolist() == [1] and drawing.read(paths)["x"].tolist() == [0, 1]
    assert drawing.read(paths[:1])["x"].tolist() == [0] and drawing.read(str(tmp_path / "y.json"))["y"] == 1
