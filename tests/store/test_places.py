"""Places of files count for nothing, contents for everything: the same content anywhere has the same identity."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from snakemake.iocontainers import InputFiles, OutputFiles, Params, Wildcards

from atlas.circuit.task_data import TaskData
from atlas.core.errors import StudyError
from atlas.edges.methods import EdgeSettings
from atlas.model import source
from atlas.store import artifacts, job, places
from conftest import ROOT, SHIPPED


@given(st.dictionaries(st.sampled_from(["a.bin", "b.json", "c"]), st.binary(max_size=20), max_size=3))
def test_contents_do_not_know_the_folder_or_the_time(tmp_path_factory, files):
    found = []
    for when in (1, 2_000_000_000):
        folder = tmp_path_factory.mktemp("place")
        for name, content in files.items():
            (folder / name).write_bytes(content)
            os.utime(folder / name, (when, when))
        found.append(places.contents(folder.iterdir()))
    assert found[0] == found[1] and list(found[0]) == sorted(files)
    assert len(set(found[0].values())) == len(set(files.values()))


def test_large_files_are_told_by_size_and_time_which_a_copy_keeps(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "LARGE", 3)
    (tmp_path / "w.bin").write_bytes(b"12345")
    shutil.copytree(tmp_path, tmp_path / "copy")
    one, copied = places.contents([tmp_path / "w.bin"]), places.contents([tmp_path / "copy" / "w.bin"])
    assert one == copied and "5 bytes" in one["w.bin"]
    os.utime(tmp_path / "w.bin", (5, 5))
    assert places.contents([tmp_path / "w.bin"]) != copied


def test_a_file_that_is_not_there_has_no_content(tmp_path):
    assert places.contents([tmp_path / "nothing.csv"]) == {}


def test_paths_start_at_the_workflow_at_home_or_at_the_root(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert places.below_root("data/p.csv") == ROOT / "data" / "p.csv"
    assert str(places.below_root("~/p.csv")) == "/home/someone/p.csv"
    assert str(places.below_root("/data/p.csv")) == "/data/p.csv"


def test_the_paths_of_prompt_files_are_taken_out_of_a_block_and_put_back():
    block = {"file": {"clean": "~/p.csv", "corrupted": "q.csv", "select": "row < 5"}, "seed": 1}
    tracked = places.without_places(block)
    assert tracked == {"file": {"select": "row < 5"}, "seed": 1}
    assert places.with_places(tracked, block) == block
    made = {"members": ["a"], "seed": 1}
    assert places.without_places(made) == places.with_places(made, made) == made


def test_a_description_holds_no_place(tmp_path):
    """Neither a folder nor, within the configuration of Hugging Face, the folder that it was read from."""
    moved = tmp_path / "elsewhere"
    shutil.copytree(SHIPPED, moved)
    one, other = (source.describe("x", folder) for folder in (SHIPPED, moved))
    assert json.dumps(one) == json.dumps(other) and str(ROOT) not in json.dumps(one)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache of the hub that holds one commit of one model."""
    cache, commit = tmp_path / "hub", "0" * 40
    snapshot = cache / "models--some--model" / "snapshots" / commit
    shutil.copytree(SHIPPED, snapshot)
    (cache / "models--some--model" / "refs").mkdir()
    (cache / "models--some--model" / "refs" / "main").write_text(commit)
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return snapshot


def test_a_model_of_the_hub_is_found_again_by_its_commit(hub, tmp_path):
    found = source.resolve("x", {"hub": "some/model"}, ROOT)
    assert found == hub
    path = tmp_path / "results" / "x" / "model.json"
    artifacts.write_json(source.describe("x", found), path, {})
    assert artifacts.read_json(path)["commit"] == hub.name
    (hub.parents[1] / "refs" / "main").write_text("1" * 40)  # the hub moved on
    assert places.model_folder({"hub": "some/model"}, False, path) == hub
    shutil.rmtree(hub)
    with pytest.raises(StudyError, match=r"'some/model' at 0{40} is not in the local cache .*--forcerun check_model"):
        places.model_folder({"hub": "some/model"}, False, path)


def test_local_and_random_models_are_found_without_a_record_of_their_place(tmp_path):
    path = tmp_path / "results" / "x" / "model.json"
    assert places.model_folder({"path": "resources/models/ladder-6x8"}, False, path) == SHIPPED
    assert places.model_folder({"architecture": "a"}, True, path) == path.parent / "checkpoint"


# ---- what a job says of its results --------------------------------------------------------------------------
def named(**values):
    """As Snakemake's lists of names."""
    return SimpleNamespace(items=values.items, **values)


def test_provenance_has_every_param_and_every_input(tmp_path, monkeypatch):
    for name in "abc":
        (tmp_path / name).write_text(name)
    params = {"code": "0123", "run": {"device": "cpu", "dtype": "bfloat16"}, "seed": 3, "points": 5, "filter": None}
    made = SimpleNamespace(
        input=named(model=str(tmp_path / "a"), tables=[str(tmp_path / "b"), str(tmp_path / "c")], nothing=[]),
        params=named(**params),
    )
    monkeypatch.setattr("__main__.__file__", str(ROOT / "scripts" / "search_edges.py"), raising=False)
    found = job.provenance(made)
    assert found["inputs"] == {
        k: artifacts.digest(v) for k, v in {"model": b"a", "tables 0": b"b", "tables 1": b"c"}.items()
    }
    assert found["settings"] == {key: value for key, value in params.items() if key != "code"}
    assert {"python", "pandas", "torch", "transformers", "transformer_lens", "numpy"} <= set(found["versions"])
    assert str(tmp_path) not in json.dumps(found)


def job_of(tmp_path, **params):
    """A job as Snakemake gives it to a script, of the model `m` and the task `t`."""
    return SimpleNamespace(
        input=InputFiles(
            fromdict={"model": str(tmp_path / "results/m/model.json"), "means": str(tmp_path / "means.pt")}
        ),
        output=OutputFiles(fromdict={"table": str(tmp_path / "t.parquet"), "text": str(tmp_path / "t.json")}),
        params=Params(fromdict=params),
        wildcards=Wildcards(fromdict={"model": "m", "task": "t"}),
        config={"models": {"m": {"path": "/models/m"}}, "weights": "checkpoint"},
    )


def test_settings_are_the_params_of_their_names_and_defaults_elsewhere(tmp_path):
    made = job_of(tmp_path, methods=["eap"], points=3, seed=1)
    found = job.settings(made, EdgeSettings)
    assert (found.methods, found.points, found.change) == (["eap"], 3, EdgeSettings().change)


def test_the_data_of_a_task_are_put_together_from_its_job(tmp_path):
    run = {"device": "cpu", "dtype": "float32", "batch_size": 4}
    data = TaskData(**job.task_data(job_of(tmp_path, run=run, kind="zero", allow_negative_clean=True, seed=1)))
    assert (data.task, data.kind, data.allow_negative_clean, data.legacy_mlp_means) == ("t", "zero", True, False)
    assert data.paths["means"] == str(tmp_path / "means.pt") and data.folder == Path("/models/m") and data.run == run
    assert data.memo_folder == tmp_path / "results" / "memo"


def test_what_a_job_saves_names_its_model_and_task_first_and_has_its_provenance(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "provenance", lambda made: {"inputs": dict(made.params.items())})
    table = pd.DataFrame({"value": [1.0, 2.0]})
    job.save(job_of(tmp_path, seed=1), table=table, text={"order": "layers"})
    found = artifacts.read_table(tmp_path / "t.parquet")
    assert list(found.columns) == ["model", "task", "value"] and set(found.task) == {"t"}
    assert list(table.columns) == ["value"], "what was given stays as it is"
    assert artifacts.table_provenance(tmp_path / "t.parquet") == {"inputs": {"seed": 1}}
    text = artifacts.read_json(tmp_path / "t.json")
    assert list(text)[:3] == ["model", "task", "order"] and text["provenance"] == {"inputs": {"seed": 1}}


def test_every_artifact_of_a_script_has_that_provenance():
    for path in (ROOT / "scripts").glob("*.py"):
        text = path.read_text()
        writes = any(f"{call}(" in text for call in ("write_table", "write_json", "tensors.write", "style.save"))
        assert not writes or "job.provenance(snakemake" in text, path
        assert "artifacts.provenance(" not in text, path


def test_a_folder_has_the_digest_of_its_files_by_name(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "in").mkdir(parents=True)
        (tmp_path / name / "in" / "f").write_text("x")
    assert artifacts.digest_file(tmp_path / "one") == artifacts.digest_file(tmp_path / "two")
    (tmp_path / "two" / "in" / "f").rename(tmp_path / "two" / "in" / "g")
    assert artifacts.digest_file(tmp_path / "one") != artifacts.digest_file(tmp_path / "two")
