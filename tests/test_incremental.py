"""After a change of a finished study exactly those jobs run that depend on it; docs/incremental.md says which."""

import os

import pytest

import incremental
from conftest import ROOT


@pytest.mark.parametrize("change", incremental.CHANGES, ids=lambda change: f"{change.kind}: {change.what}")
def test_a_change_reruns_what_depends_on_it_and_no_more(study, tmp_path, change):
    assert change.would_run(study, tmp_path) == change.jobs


def test_everything_is_what_a_forced_study_runs(study):
    assert study.would_run("--forceall") == incremental.ALL


def test_the_page_is_made_from_these_changes():
    assert (ROOT / "docs" / "incremental.md").read_text() == incremental.page(), "run `make docs`"


def test_models_are_compared_where_a_study_has_several(study):
    would = study.with_config(incremental.second_model)
    assert would["compare_models"] == 1 and would["search_edges"] == 2


@pytest.mark.parametrize(
    ("key", "value", "rules"),
    [
        (("edges", "methods"), [], {"search_edges", "plot_edge_curves", "plot_edge_diagram"}),
        (("generation", "prompts"), {}, {"generate", "plot_generation"}),
        (("heads", "analyses"), [], {"explain_task", "explain_heads", "detect_heads", "label_heads"}),
    ],
)
def test_what_a_study_leaves_out_has_no_jobs(study, key, value, rules):
    assert not rules & set(study.with_config(incremental.setting(*key, value=value)))


def test_new_weights_rerun_everything_of_the_model(study):
    """Content digests are not taken of large files: their times count."""
    weights = study.model / "model.safetensors"
    before = weights.stat()
    weights.touch()
    try:
        assert study.would_run()["check_model"] == 1
    finally:
        os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
