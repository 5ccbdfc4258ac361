"""The comparison of two results folders finds what differs, and nothing else."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

import compare_results


@pytest.fixture
def folders(tmp_path):
    """Two equal results folders: a table, a JSON file, tensors."""
    for name in ("before", "after"):
        folder = tmp_path / name
        folder.mkdir()
        table = pd.DataFrame({"head": ["1.2", "m3"], "value": [80.0, np.nan], "n": [1, 2]})
        table.to_parquet(folder / "effects.parquet")
        (folder / "circuits.json").write_text(
            json.dumps({"circuits": [{"heads": ["1.2"], "percent": 80.0}], "seal": name})
        )
        torch.save({"z": torch.ones(2, 3), "groups": ["all"]}, folder / "means.pt")
    return tmp_path / "before", tmp_path / "after"


def found(folders, renamed=None, added=(), left_out=()):
    allowed = compare_results.Allowed(renamed or {}, frozenset(added), frozenset(left_out))
    return compare_results.compared(*folders, allowed)


def change(folder, **columns):
    path = folder / "effects.parquet"
    pd.read_parquet(path).assign(**columns).to_parquet(path)


def test_equal_folders_differ_in_nothing(folders):
    assert found(folders) == ([], 0.0, 3)


def test_a_number_may_move_by_a_millionth_of_itself(folders):
    change(folders[1], value=[80.0 * (1 + 9e-7), np.nan])
    said, size, _ = found(folders)
    assert not said and size == pytest.approx(9e-7, rel=1e-3)
    change(folders[1], value=[80.0 * (1 + 2e-6), np.nan])
    assert len(found(folders)[0]) == 1


@pytest.mark.parametrize(
    ("columns", "word"),
    [
        ({"value": [80.0, 1.0]}, "nan"),
        ({"head": ["1.3", "m3"]}, "other values"),
        ({"n": [1, 3]}, "other values"),
        ({"new": [0, 0]}, "columns"),
    ],
)
def test_each_change_of_a_table_is_named(folders, columns, word):
    change(folders[1], **columns)
    said, _, _ = found(folders)
    assert len(said) == 1 and word in said[0] and "effects.parquet" in said[0]


def test_what_is_said_to_be_renamed_or_added_is_no_difference(folders):
    change(folders[1], head=["head 1.2", "m3"], new=[0, 0])
    assert found(folders)[0]
    assert not found(folders, {"effects.head": {"1.2": "head 1.2"}}, ["effects.new"])[0]


def test_a_key_of_json_is_left_out_where_that_is_asked_for():
    a, b = {"layout": {"tokens": 3}, "n": 1}, {"layout": {"length": 3}, "n": 1}
    compare = compare_results.nested
    assert len(compare(a, b, "", "prompts", compare_results.Allowed())[0]) == 2
    assert not compare(a, b, "", "prompts", compare_results.Allowed(left_out=frozenset({"prompts.layout"})))[0]
    assert compare(a, b, "", "other", compare_results.Allowed(left_out=frozenset({"prompts.layout"})))[0]


def test_added_rows_do_not_hide_a_changed_one(folders):
    path = folders[1] / "effects.parquet"
    more = pd.DataFrame({"head": ["0.0", "1.2", "m3"], "value": [5.0, 80.0, np.nan], "n": [0, 1, 2]})
    more.to_parquet(path)
    assert "rows" in found(folders)[0][0]
    assert not found(folders, added=["effects"])[0]
    more.assign(value=[5.0, 81.0, np.nan]).to_parquet(path)
    assert found(folders, added=["effects"])[0]
    more.iloc[:2].to_parquet(path)
    assert found(folders, added=["effects"])[0]


def test_circuits_tensors_and_missing_files_are_compared(folders):
    after = folders[1]
    (after / "circuits.json").write_text(json.dumps({"circuits": [{"heads": ["1.3"], "percent": 80.0}]}))
    torch.save({"z": torch.ones(2, 3) + 1e-3, "groups": ["all"]}, after / "means.pt")
    (after / "effects.parquet").unlink()
    said, size, count = found(folders)
    assert len(said) == 3 and count == 2 and size == pytest.approx(1e-3, rel=1e-3)
    assert any("only in" in line for line in said) and any("1.3" in line for line in said)


def test_the_command_exits_with_1_where_something_differs(folders, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["compare_results", *map(str, folders)])
    assert compare_results.main() == 0
    change(folders[1], n=[1, 3])
    assert compare_results.main() == 1
    assert "effects.parquet" in capsys.readouterr().out
