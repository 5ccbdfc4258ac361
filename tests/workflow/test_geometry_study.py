"""Analyses of order in a whole study: tables, figures, sections, and what a change of one setting runs again."""

import re

import pandas as pd
import pytest

from atlas.report import of_order, shown
from browser import Tab, chromium
from study import Study

pytestmark = pytest.mark.slow
WRITTEN = {"write_summary", "write_atlas"}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    made = Study(tmp_path_factory.mktemp("geometry") / "study")
    made.config["geometry"]["analyses"] = list(shown.GEOMETRY)
    made.write_config(made.config)
    made.snakemake("geometry")
    return made


def test_every_table_is_there_and_says_which_model(study):
    folder = study.folder / "results" / "ladder-6x8" / "geometry"
    for analysis, names in shown.GEOMETRY.items():
        assert names, analysis
        for name in names:
            table = pd.read_parquet(folder / f"{name}.parquet")
            assert table.columns[0] == "model" and set(table["model"]) <= {"ladder-6x8"}, name
            assert len(table) or name == "feature_indices", f"{name}: empty, which only a list of what is found may be"


def test_every_figure_is_drawn(study):
    folder = study.folder / "results" / "figures" / "ladder-6x8"
    for row in of_order.ROWS:
        for kind in ("svg", "png", "pdf"):
            assert (folder / f"ladder-6x8.{row.name}.{kind}").stat().st_size > 1000


def test_the_summary_has_a_section_of_each_analysis(study):
    study.snakemake("results/figures/ladder-6x8/ladder-6x8.summary.html")
    page = (study.folder / "results" / "figures" / "ladder-6x8" / "ladder-6x8.summary.html").read_text()
    for title in ("Successor heads", "Steering"):
        assert re.search(rf"<(summary|h\d)[^>]*>[^<]*{title}", page), title


def test_the_page_shows_the_scores_of_the_table(study):
    study.snakemake("results/ladder-6x8/atlas.html")
    scores = pd.read_parquet(study.folder / "results" / "ladder-6x8" / "geometry" / "successors.parquet")
    scores = scores[(scores["class"] == "number_words") & (scores["input"] == "mlp0") & (scores["head"] >= 0)]
    own = scores[scores["target"] == "next"].sort_values(["layer", "head"])
    with chromium() as browser:
        tab = Tab(browser, study.folder / "results" / "ladder-6x8" / "atlas.html")
        tab.show("view=order&task=number_words")
        cells = tab.texts("#figure text.in-cell")
        assert len(cells) == len(own) == 40, "heads of layer 0 come before MLP 0"
        assert all(abs(float(text) - value) <= 0.00501 for text, value in zip(cells, own["value"], strict=True))
        assert tab.count("#figure circle.sure") == (own["p_holm"] < 0.05).sum()
        assert not tab.said and set(tab.asked) == {tab.address}


def test_nothing_is_left_to_do(study):
    assert study.would_run("geometry") == {}


@pytest.mark.parametrize(
    ("key", "value", "rules"),
    [
        (("successors", "draws"), 21, {"score_successors", "plot_successors"}),
        (("probes", "shuffles"), 20, {"probe_members", "plot_probes"}),
    ],
)
def test_one_setting_reruns_its_analysis_alone(study, key, value, rules):
    block = study.config["geometry"][key[0]]
    kept, block[key[1]] = block[key[1]], value
    study.write_config(study.config)
    try:
        assert set(study.would_run("geometry")) - {"geometry"} == rules
    finally:
        block[key[1]] = kept
        study.write_config(study.config)


def test_a_study_without_them_makes_none(tmp_path):
    made = Study(tmp_path / "study")
    assert made.config["geometry"]["analyses"] == []
    assert made.would_run("geometry") in ({}, {"geometry": 1})
