"""docs/architectures.md says what bench/architectures.py finds."""

import importlib.util
import re

import pytest

from conftest import ROOT


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("architectures_bench", ROOT / "bench" / "architectures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def listed() -> dict[str, tuple[str, str]]:
    """Family -> (node level, live engine) as the page says."""
    text = (ROOT / "docs" / "architectures.md").read_text()
    return {m[1]: (m[2], m[3]) for m in re.finditer(r"^\| `(\S+)` \| (\w+) \| (\w+) \|", text, re.MULTILINE)}


def test_the_page_lists_every_family_that_is_tried(bench, listed):
    assert list(listed) == list(bench.FAMILIES)


@pytest.mark.parametrize("family", ["gpt2", "opt", "qwen2", "gemma2", "bloom", "mamba"])
def test_a_family_does_what_the_page_says(bench, listed, family):
    found = bench.attempt(family)
    said = {True: "yes", False: "no"}
    assert (said[found.ok], said[found.engine]) == listed[family], found.problem


def test_a_wrong_ablation_is_noticed(bench, tmp_path, monkeypatch):
    """The comparison can fail: hooks that ablate another head give other logits."""
    original = bench.build("llama", tmp_path)
    model = bench.models.load(tmp_path, device="cpu")
    edits = bench.ablation.edits
    other = {bench.Component(0, 1): bench.Component(0, 2)}

    def wrong(model, circuit, substitute):
        everything = frozenset(bench.ablation.all_components(model.n_layers, model.n_heads))
        gone = {other.get(c, c) for c in everything - circuit}
        return edits(model, everything - gone, substitute)

    monkeypatch.setattr(bench.ablation, "edits", wrong)
    found = bench.compare(original, model)
    assert not found.ok and found.problem.startswith("head: logits differ by")
