"""docs/architectures.md says what bench/architectures.py finds: whole studies, to their reports or refused at once."""

import json
import os
import re
import subprocess
import sys

import pytest

import families
from conftest import ROOT

pytestmark = pytest.mark.slow

SOME = ["gpt2", "glm4", "mamba"]  # with the engine; on hooks, served in part; refused


def bench(arguments, **options):
    """Run bench/architectures.py, or a line of Python that imports it."""
    path = os.pathsep.join(str(ROOT / name) for name in ("scripts", "tests", "bench"))
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, env=environment, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def listed() -> dict[str, str]:
    """Family -> its line in the page's table."""
    text = (ROOT / "docs" / "architectures.md").read_text()
    return {m[1]: m[0] for m in re.finditer(r"^\| `(\S+)` \|.*", text, re.MULTILINE)}


def test_the_page_lists_every_family_that_is_tried(listed):
    assert list(listed) == list(families.FAMILIES)


def test_families_do_what_the_page_says(listed, tmp_path, pytestconfig):
    """Their studies run to their reports, or are refused before anything is searched, with the line of the page."""
    tried = list(families.FAMILIES) if pytestconfig.getoption("--every-family") else SOME
    bench(["bench/architectures.py", "--done", tmp_path, "--only", *tried])
    found = {family: json.loads((tmp_path / f"{family}.json").read_text()) for family in tried}
    code = "import architectures as a, json, sys; print(*(a.row(*x) for x in json.load(sys.stdin).items()), sep='\\n')"
    rows = bench(["-c", code], input=json.dumps(found)).splitlines()
    assert rows == [listed[family] for family in tried]
    assert all(outcome["ran"] or outcome["refused"] for outcome in found.values())
    assert not any(outcome["problem"] for outcome in found.values())


def test_a_wrong_ablation_is_noticed(tmp_path, monkeypatch):
    """The comparison can fail: hooks that ablate another head give other logits."""
    code = """
import sys
from pathlib import Path
import architectures as bench, families
from atlas.core.components import Component
original = families.build("llama", Path(sys.argv[1]))
model = bench.models.load(sys.argv[1], device="cpu")
edits = bench.hooks.edits
assert bench.compare(original, model) == ""

def wrong(model, circuit, substitute):
    everything = frozenset(bench.all_components(model.n_layers, model.n_heads))
    gone = {Component(0, 2) if c == Component(0, 1) else c for c in everything - circuit}
    return edits(model, everything - gone, substitute)

bench.hooks.edits = wrong
print(bench.compare(original, model))
"""
    assert "head: logits differ by" in bench(["-c", code, tmp_path])
