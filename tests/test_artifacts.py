"""Artifacts: atomic, with provenance, byte-identical, nothing executed on loading."""

import pickle

import pandas as pd
import pytest
import torch

from atlas import artifacts
from atlas.components import Component, all_components, from_json, to_json

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
        artifacts.write_table(TABLE, tmp_path / name, {"seed": 1})
        artifacts.write_tensors({"x": torch.arange(3.0)}, tmp_path / f"{name}.pt", {"seed": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.txt"
    artifacts.write_text(path, "old")
    with pytest.raises(RuntimeError), artifacts.atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_tensors_come_back_and_pickles_are_refused(tmp_path):
    content = {"z": torch.arange(6.0).view(2, 3), "inner": {"ids": torch.tensor([1])}, "groups": ["all"]}
    artifacts.write_tensors(content, tmp_path / "x.pt", {"seed": 1})
    back = artifacts.read_tensors(tmp_path / "x.pt")
    assert torch.equal(back["z"], content["z"]) and back["groups"] == ["all"]
    torch.save({"model": torch.nn.Linear(1, 1)}, tmp_path / "bad.pt")
    with pytest.raises(pickle.UnpicklingError):
        artifacts.read_tensors(tmp_path / "bad.pt")


def test_component_names():
    everything = all_components(3, 2)
    assert [str(c) for c in everything[:3]] == ["0.0", "0.1", "m0"]
    assert [Component.parse(str(c)) for c in everything] == everything
    assert from_json(to_json(everything)) == frozenset(everything)
    with pytest.raises(ValueError):
        Component.parse("x")
