"""After a change of a finished study exactly those jobs run that depend on it; docs/incremental.md says which."""

import copy
import json
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

import incremental
from atlas.store import artifacts
from conftest import ROOT
from study import artifacts_of

# One of each kind, for `make test`
QUICK = ("the study again", "a colour (`figures.corrupted`)", "another floor (`search.thresholds`)")
QUICK += ("overlap (`overlap.py`)",)


def named(change: incremental.Change):
    marks = () if change.what in QUICK else pytest.mark.slow
    return pytest.param(change, id=f"{change.kind}: {change.what}", marks=marks)


@pytest.mark.parametrize("change", map(named, incremental.CHANGES))
def test_a_change_reruns_what_depends_on_it_and_no_more(study, tmp_path, change):
    assert change.would_run(study, tmp_path) == change.jobs


def test_the_quick_ones_are_among_them():
    assert {change.what for change in incremental.CHANGES} >= set(QUICK)


@pytest.mark.slow
def test_prompt_files_count_by_their_content(study, tmp_path):
    """Given by an absolute path, moved with new times, then with one more row: that alone makes the prompts again."""
    made = study.folder / "results" / "ladder-6x8"
    frame = pd.read_parquet(made / "numerals" / "prompts.parquet")[["text", "answer", "incorrect", "corrupted_text"]]
    target = "results/ladder-6x8/of_a_file/prompts.parquet"

    def with_file(path, run):
        changed = copy.deepcopy(study.config)
        changed["tasks"]["of_a_file"] = {"file": {"clean": str(path)}}
        changed["study"]["transfer_tasks"] = ["of_a_file"]
        study.write_config(changed)
        try:
            return run(target)
        finally:
            study.write_config(study.config)

    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    frame.to_csv(tmp_path / "one" / "p.csv", index=False)
    with_file(tmp_path / "one" / "p.csv", study.snakemake)
    assert str(tmp_path) not in json.dumps(artifacts.table_provenance(study.folder / target))
    shutil.copyfile(tmp_path / "one" / "p.csv", tmp_path / "two" / "p.csv")
    assert with_file(tmp_path / "two" / "p.csv", study.would_run) == {}
    pd.concat([frame, frame[:1]]).to_csv(tmp_path / "two" / "p.csv", index=False)
    assert with_file(tmp_path / "two" / "p.csv", study.would_run) == {"make_prompts": 1}
    shutil.rmtree(made / "of_a_file")


@pytest.mark.slow
def test_no_artifact_holds_a_path_of_this_machine(study):
    """Neither the folder of the project nor that of its environment: in text, and in the metadata of tables."""
    places = [str(place).encode() for place in (study.folder, ROOT, Path(sys.prefix))]
    for name, content in artifacts_of(study.folder / "results").items():
        assert not any(place in content for place in places), name


@pytest.mark.slow
def test_everything_is_what_a_forced_study_runs(study):
    assert study.would_run("--forceall") == incremental.ALL


def test_the_page_is_made_from_these_changes():
    assert (ROOT / "docs" / "incremental.md").read_text() == incremental.page(), "run `make docs`"


@pytest.mark.slow
def test_models_are_compared_where_a_study_has_several(study):
    would = study.with_config(incremental.second_model)
    assert would["compare_models"] == 1 and would["search_edges"] == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value", "rules"),
    [
        (
            ("edges", "methods"),
            [],
            {"search_edges", "compose_heads", "plot_edge_curves", "plot_edge_diagram", "plot_composition"},
        ),
        (("generation", "prompts"), {}, {"generate", "plot_generation"}),
        (("heads", "analyses"), [], {"explain_task", "explain_heads", "detect_heads", "score_roles", "label_heads"}),
    ],
)
def test_what_a_study_leaves_out_has_no_jobs(study, key, value, rules):
    assert not rules & set(study.with_config(incremental.setting(*key, value=value)))
