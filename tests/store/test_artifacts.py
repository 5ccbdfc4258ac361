"""Artifacts: atomic, with provenance, byte-identical, nothing executed on loading."""

import errno
import os
import pickle
import shutil

import pandas as pd
import pytest
import torch

from atlas.core.components import Component, all_components, from_json, to_json
from atlas.core.errors import StudyError
from atlas.store import artifacts, tensors

TABLE = pd.DataFrame({"task": ["a", "b"], "value": [1.5, 2.0], "tokens": [[1, 2], [3]]})


def test_a_table_comes_back_with_its_provenance(tmp_path):
    source = tmp_path / "source.txt"
    source.write_text("x")
    provenance = artifacts.provenance({"source": source}, {"seed": 1}, ("pyarrow",))
    artifacts.write_table(TABLE, tmp_path / "t.parquet", provenance)
    back = artifacts.read_table(tmp_path / "t.parquet")
    assert back.task.tolist() == ["a", "b"] and list(back.tokens[0]) == [1, 2]
    assert artifacts.table_provenance(tmp_path / "t.parquet") == provenance
    assert provenance["inputs"] == {"source": artifacts.digest(b"x")} and set(provenance["versions"]) >= {
        "python",
        "pyarrow",
    }


def test_equal_content_gives_equal_bytes(tmp_path):
    for name in ("a", "b"):
        artifacts.write_table(TABLE, tmp_path / name / "t.parquet", {"seed": 1})
        tensors.write({"x": torch.arange(3.0)}, tmp_path / name / "x.pt", {"seed": 1})
    for name in ("t.parquet", "x.pt"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.txt"
    artifacts.write_text(path, "old")
    with pytest.raises(RuntimeError), artifacts.atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_tensors_come_back_and_pickles_are_refused(tmp_path):
    content = {"z": torch.arange(6.0).view(2, 3), "inner": {"ids": torch.tensor([1])}, "groups": ["all"]}
    tensors.write(content, tmp_path / "x.pt", {"seed": 1})
    back = tensors.read(tmp_path / "x.pt")
    assert torch.equal(back["z"], content["z"]) and back["groups"] == ["all"]
    tensors.write({"model": torch.nn.Linear(1, 1)}, tmp_path / "bad.pt", {"seed": 1})
    with pytest.raises(pickle.UnpicklingError):
        tensors.read(tmp_path / "bad.pt")


WRITERS = {
    "t.parquet": (artifacts.write_table, artifacts.read_table, TABLE),
    "t.json": (artifacts.write_json, artifacts.read_json, {"circuits": [{"heads": ["1.4"]}], "text": "dieciséis"}),
    "t.pt": (tensors.write, tensors.read, {"z": torch.arange(600.0).view(20, 30)}),
}


def refused(read, path) -> str:
    with pytest.raises(StudyError) as caught:
        read(path)
    line = str(caught.value)
    assert "\n" not in line and str(path) in line and f"snakemake --cores 2 --force {path}" in line
    return line


@pytest.mark.parametrize("name", WRITERS)
def test_any_changed_byte_is_detected_and_named(tmp_path, name):
    """Every byte of the smaller files, a thousand of the tensors'; one bit of it is turned."""
    write, read, content = WRITERS[name]
    path = tmp_path / "results" / "model" / "task" / name
    write(content, path, {"seed": 1})
    good = path.read_bytes()
    step = max(1, len(good) // 1000)
    for i in range(0, len(good), step):
        path.write_bytes(good[:i] + bytes([good[i] ^ 1 << i % 8]) + good[i + 1 :])
        refused(read, path)
    path.write_bytes(good)
    read(path)


@pytest.mark.parametrize("name", WRITERS)
def test_truncated_lengthened_and_foreign_files_are_detected(tmp_path, name):
    write, read, content = WRITERS[name]
    path = tmp_path / name
    write(content, path, {"seed": 1})
    good = path.read_bytes()
    for size in (0, 1, 60, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:size])
        refused(read, path)
    path.write_bytes(good + b"\n")
    refused(read, path)
    path.write_bytes(artifacts.SEAL)
    refused(read, path)


@pytest.mark.parametrize("name", WRITERS)
def test_swapped_artifacts_are_detected_and_a_moved_study_is_not(tmp_path, name):
    """What belongs to one task is no other's, even whole; a results folder may stand anywhere."""
    write, read, content = WRITERS[name]
    own, other = (tmp_path / "results" / "model" / task / name for task in ("numerals", "months"))
    for path in (own, other):
        write(content, path, {"seed": 1})
    own.write_bytes(other.read_bytes())
    assert "another file took its place" in refused(read, own)
    read(other)
    shutil.move(tmp_path / "results", tmp_path / "archive" / "2026" / "results")
    read(tmp_path / "archive" / "2026" / "results" / "model" / "months" / name)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EDQUOT, "quota")])
def test_a_full_disk_is_said_in_one_line_and_keeps_the_old_file(tmp_path, monkeypatch, error):
    path = tmp_path / "x.json"
    artifacts.write_json({"x": 1}, path, {})

    def full(*_):
        raise error

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StudyError, match=r"x\.json: no space left on the disk; free some"):
        artifacts.write_json({"x": 2}, path, {})
    assert artifacts.read_json(path)["x"] == 1 and [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_tables_among_named_files_are_read_by_name_and_joined(tmp_path):
    for i in range(3):
        artifacts.write_table(pd.DataFrame({"x": [i]}), tmp_path / f"{i}.parquet", {})
    one, two, three = (str(tmp_path / f"{i}.parquet") for i in range(3))
    found = artifacts.named_tables({"info": str(tmp_path / "x.json"), "one": one, "several": [three, two]})
    assert {name: list(table["x"]) for name, table in found.items()} == {"one": [0], "several": [2, 1]}


def test_component_names():
    everything = all_components(3, 2)
    assert [str(c) for c in everything[:3]] == ["0.0", "0.1", "m0"]
    assert [Component.parse(str(c)) for c in everything] == everything
    assert from_json(to_json(everything)) == frozenset(everything)
    with pytest.raises(ValueError):
        Component.parse("x")


# ---- a job names its inputs several times --------------------------------------------------------------------
def test_a_file_is_hashed_once_and_again_when_it_changed(tmp_path, monkeypatch):
    """Size, times and place stand for its content, once it is too old to change within a tick of the clock."""
    opened, path = [], tmp_path / "table.parquet"
    monkeypatch.setattr(artifacts, "SETTLED", -1)
    monkeypatch.setattr(artifacts, "_digest_at", lambda *a, real=artifacts._digest_at: opened.append(path) or real(*a))
    artifacts.write_table(pd.DataFrame({"a": [1]}), path, {})
    opened.clear()
    for _ in range(3):
        artifacts.read_table(path)
    assert len(opened) == 1 and artifacts.digest_file(path) == artifacts.digest(path.read_bytes())
    artifacts.write_table(pd.DataFrame({"a": [2]}), path, {})
    opened.clear()
    assert artifacts.read_table(path).a.tolist() == [2] and len(opened) == 1
    assert artifacts.digest_file(path) == artifacts.digest(path.read_bytes())


def test_a_file_that_was_just_written_is_never_taken_for_known(tmp_path):
    path = tmp_path / "f"
    for content in (b"one", b"two"):
        path.write_bytes(content)
        assert artifacts.digest_file(path) == artifacts.digest(content)
