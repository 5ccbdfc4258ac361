"""bench/gpu.py measures every part on a CPU, so that it is known to work where a GPU is lent for a few minutes."""

import importlib
import os
import subprocess
import sys

import pytest

from conftest import ROOT


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    return importlib.import_module("gpu")


def cells(file) -> list[list[str]]:
    """The rows of a table in Markdown, without its head."""
    lines = [line for line in file.read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


@pytest.mark.slow
def test_every_part_is_measured_on_a_cpu(tmp_path):
    command = [sys.executable, str(ROOT / "bench" / "gpu.py"), "--device", "cpu", "--small", "--threads", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts"), "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "--out", "table.md"], cwd=tmp_path, env=environment, check=True, capture_output=True)
    rows = cells(tmp_path / "table.md")
    assert not [row for row in rows if row[1] in ("failed", "not run")]
    parts = ["device", "agreement with the CPU", "search, 8 prompts", "edges, 4 prompts"]
    parts += ["single ablations, 8 prompts", "bfloat16, 8 prompts", "all"]
    assert list(dict.fromkeys(row[0] for row in rows)) == parts
    said = {(row[0], row[1]): row[2:] for row in rows}
    checked = [remark for (_, what), (_, remark) in said.items() if "checked" in what]
    assert len(checked) == 2 and all(remark.startswith("steps equal") for remark in checked)
    same = [figure for (_, what), (figure, *_) in said.items() if "largest difference" in what]
    assert len(same) == 3 and all(float(figure) <= 1e-4 for figure in same)
    assert said["agreement with the CPU", "circuit at T = 20"][0] == "the same"


def test_a_table_is_written_as_it_grows_and_outlives_a_part_that_fails(gpu, tmp_path, capsys):
    table = gpu.Table(tmp_path / "t.md", seconds=60)

    def broken():
        table.add("one", "half of it", "3 s")
        raise RuntimeError("no such kernel\nand more")

    table.part("one", broken)
    assert cells(table.file)[1][:2] == ["one", "failed"] and "RuntimeError: no such kernel" in cells(table.file)[1][3]
    table.part("two", lambda: table.add("two", "all of it", "4 s", "quick"))
    table.seconds = 0
    table.part("three", lambda: table.add("three", "never", ""))
    assert [row[:2] for row in cells(table.file)] == [
        ["one", "half of it"],
        ["one", "failed"],
        ["two", "all of it"],
        ["three", "not run"],
    ]
    assert "two | all of it | 4 s | quick" in capsys.readouterr().out
