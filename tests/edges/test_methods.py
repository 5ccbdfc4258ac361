"""Records of edge methods: each has its function, and everything that names methods reads them."""

import inspect
import subprocess
import sys

import pytest

from atlas.edges import by_method, methods
from atlas.edges.methods import METHODS, REPORTED, SCORING, SEARCHING, preferred_scores, title
from conftest import ROOT


def test_every_method_has_the_function_of_its_name_and_every_function_its_record():
    functions = {
        name
        for name, found in inspect.getmembers(by_method, inspect.isfunction)
        if found.__module__ == by_method.__name__ and name != "function_of"
    }
    assert functions == set(METHODS)
    assert by_method.function_of("eap") is by_method.eap


def test_a_method_scores_edges_or_searches_circuits():
    assert {*SCORING, *SEARCHING} == set(METHODS) and not {*SCORING} & {*SEARCHING}
    for name, method in METHODS.items():
        assert method.name == name and method.title and method.about
        assert bool(method.setting) != method.scores, "searches say what their setting is"
        assert not method.few_passes or method.scores
    assert not REPORTED.scores, "the reported circuit is one that a search found"


@pytest.mark.parametrize(
    ("ran", "expected"),
    [
        (["path_patching", "acdc", "eap", "eap_ig", "iterative_edges"], "eap_ig"),
        (["iterative_edges", "eap", "path_patching"], "eap"),
        (["path_patching"], "path_patching"),
        (["acdc", "iterative_edges"], None),
        ([], None),
    ],
)
def test_the_preferred_scores_stand_beside_edges(ran, expected):
    assert preferred_scores(ran) == expected


def test_titles_are_of_methods_and_of_what_stands_in_their_place():
    assert [title(name) for name in ("eap_ig", methods.NODE_CIRCUIT, methods.RANDOM, "some_thing")] == (
        ["EAP-IG", "edges of the node circuit", "random edges", "some thing"]
    )


def test_the_figure_of_curves_shows_every_method():
    from atlas.report.figures import edge_curves

    assert {*edge_curves.RANKED} == {*SCORING} and {*edge_curves.SEARCHED} == (
        {*SEARCHING, methods.NODE_CIRCUIT, methods.CHOSEN}
    )
    colours = edge_curves.colours_of({"clean": "#000000", "circuit": "#ffffff"})
    assert {*METHODS, methods.NODE_CIRCUIT, methods.CHOSEN} == {*colours} and len(set(colours.values())) == len(colours)
    assert {*edge_curves.MARKERS} == {*edge_curves.SEARCHED} and len(set(edge_curves.MARKERS.values())) == (
        len(edge_curves.MARKERS)
    )


def test_records_are_light():
    """What Snakemake parses in every job, and figures, read them."""
    records = "atlas.edges.methods, atlas.edges.chosen, atlas.circuit.kinds, atlas.core.metrics, atlas.study.names"
    code = f"import sys, {records}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "scripts", capture_output=True, text=True, check=True
    )
    assert not {"torch", "pandas", "numpy", "transformers"} & set(done.stdout.split())
