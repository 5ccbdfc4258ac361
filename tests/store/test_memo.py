"""The memo: a killed search resumes, and nothing stale is ever found."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from atlas.core.components import all_components
from atlas.store import memo, sources
from atlas.store.memo import Memo, tensor_digest
from conftest import ROOT

CIRCUITS = [frozenset(all_components(2, 2)), frozenset(all_components(2, 2)[:3]), frozenset()]
SCORES = {"logit_diff": np.array([1.5, -2.25, 0.1]), "kl": np.array([0.0, 1e-300, 7.0])}


def test_scores_come_back_to_the_bit(tmp_path):
    first = Memo(tmp_path, {"model": "a"}, SCORES)
    first.put(CIRCUITS[1], SCORES)
    again = Memo(tmp_path, {"model": "a"}, SCORES)
    for metric, values in again.get(CIRCUITS[1]).items():
        assert values.tobytes() == SCORES[metric].tobytes()
    assert again.get(CIRCUITS[0]) is None and again.get(CIRCUITS[2]) is None


def test_another_context_metric_or_code_finds_nothing(tmp_path, monkeypatch):
    Memo(tmp_path, {"model": "a"}, SCORES).put(CIRCUITS[0], SCORES)
    assert Memo(tmp_path, {"model": "b"}, SCORES).get(CIRCUITS[0]) is None
    assert Memo(tmp_path, {"model": "a"}, ["logit_diff"]).get(CIRCUITS[0]) is None
    monkeypatch.setattr(memo, "code_digest", lambda: "edited")
    assert Memo(tmp_path, {"model": "a"}, SCORES).get(CIRCUITS[0]) is None


def test_every_module_and_package_that_computes_scores_is_part_of_the_key():
    found = sources.of(*memo.CODE)
    names = "circuit/ablation circuit/replacement circuit/legacy model/engine model/block core/metrics model/models"
    names += " model/activations"
    names += " model/source model/reading model/families/gpt2 model/families/gpt_neox model/families/llama core/graph"
    names += " edges/engine edges/run edges/passes edges/variants model/live model/mlp model/norm model/checkpoint"
    names += " model/forward core/components store/memo"
    assert {f"scripts/atlas/{name}.py" for name in names.split()} <= set(found.files)
    assert {"torch", "transformers", "transformer_lens", "safetensors", "numpy"} <= set(found.packages)
    assert memo.code_digest() == found.digest()


def test_digests_tell_tensors_apart():
    x = torch.arange(6.0).view(2, 3)
    assert tensor_digest(x) == tensor_digest(x.clone()) != tensor_digest(x + 1)
    assert tensor_digest(x.T) == tensor_digest(x.T.contiguous())
    assert tensor_digest(x.bfloat16())  # numpy has no such type; its bytes are hashed


def test_a_killed_process_loses_nothing(tmp_path):
    code = (
        "import os, signal, sys, numpy as np\n"
        f"sys.path.insert(0, {str(ROOT / 'scripts')!r})\n"
        "from atlas.core.components import all_components\n"
        "from atlas.store.memo import Memo\n"
        f"m = Memo({str(tmp_path)!r}, {{}}, ['logit_diff'])\n"
        "everything = all_components(2, 2)\n"
        "for i in range(5):\n"
        "    m.put(frozenset(everything[:i]), {'logit_diff': np.full(3, float(i))})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ)
    assert done.returncode == -signal.SIGKILL
    found = Memo(tmp_path, {}, ["logit_diff"])
    everything = all_components(2, 2)
    assert [found.get(frozenset(everything[:i]))["logit_diff"][0] for i in range(5)] == [0, 1, 2, 3, 4]


def test_processes_that_run_side_by_side_write_files_of_their_own(tmp_path):
    """No lock, no shared file: what a network file system can be trusted with."""
    one, two = (Memo(tmp_path, {}, SCORES) for _ in range(2))
    one.put(CIRCUITS[0], SCORES)
    two.put(CIRCUITS[1], SCORES)
    two.put(CIRCUITS[0], SCORES)
    assert len(list(tmp_path.rglob("*.scores"))) == 2
    again = Memo(tmp_path, {}, SCORES)
    assert again.get(CIRCUITS[0]) and again.get(CIRCUITS[1]) and one.get(CIRCUITS[0])


@pytest.mark.parametrize("seed", range(20))
def test_damaged_records_count_as_absent(tmp_path, seed):
    """A record that was cut short or changed is never returned; the others are, to the bit, or count as absent."""
    first, circuits = Memo(tmp_path, {}, ["logit_diff"]), [frozenset(all_components(3, 3)[:i]) for i in range(12)]
    values = [np.random.default_rng(i).normal(size=5) for i in range(12)]
    for circuit, value in zip(circuits, values, strict=True):
        first.put(circuit, {"logit_diff": value})
    (file,) = tmp_path.rglob("*.scores")
    rng, content = np.random.default_rng(seed), bytearray(file.read_bytes())
    place = int(rng.integers(len(content)))
    content[place] ^= 4
    file.write_bytes(content[:place] if seed % 2 else content)
    found = [Memo(tmp_path, {}, ["logit_diff"]).get(circuit) for circuit in circuits]
    for got, value in zip(found, values, strict=True):
        assert got is None or got["logit_diff"].tobytes() == value.tobytes()
    assert any(got is None for got in found)


def test_scores_of_another_version_of_torch_are_not_found(tmp_path, monkeypatch):
    Memo(tmp_path, {}, SCORES).put(CIRCUITS[0], SCORES)
    monkeypatch.setattr(sources, "installed", lambda name: "99.0" if name == "torch" else "1")
    assert Memo(tmp_path, {}, SCORES).get(CIRCUITS[0]) is None


def test_edge_circuits_of_thousands_are_told_apart_by_their_digest(tmp_path):
    from atlas.core.graph import Graph

    edges = Graph(4, 6, 6).all_edges
    found, one = Memo(tmp_path, {}, ["logit_diff"]), next(iter(edges))
    found.put(edges, {"logit_diff": np.array([1.0])})
    found.put(edges - {one}, {"logit_diff": np.array([2.0])})
    assert found.get(edges)["logit_diff"][0] == 1
    assert found.get(edges - {one})["logit_diff"][0] == 2
    assert found.get(frozenset({one})) is None
    assert {len(memo.name(circuit)) for circuit in (edges, edges - {one}, frozenset())} == {16}


def test_a_search_with_a_memo_runs_nothing_twice(shipped_model, tmp_path):
    from atlas.circuit.ablation import Ablator
    from atlas.circuit.replacement import Replacement
    from atlas.circuit.search import Rule, by_layers, node_search
    from atlas.prompts.batch import Prompts

    tokens = torch.randint(200, 900, (4, 6), generator=torch.Generator().manual_seed(0))
    prompts = Prompts(tokens, tokens, torch.arange(4), torch.arange(4) + 1, list(range(4)), torch.zeros(4).long())
    n, d = shipped_model.n_layers, shipped_model.d_model
    zeros = Replacement(
        torch.zeros(n, 1, 6, shipped_model.n_heads, shipped_model.d_head), torch.zeros(n, 1, 6, d), prompts.group
    )
    traces, runs = [], []
    for _ in range(2):
        ablator = Ablator(shipped_model, prompts, zeros, memo=Memo(tmp_path, {}, ["logit_diff"]))
        rule = Rule(threshold=30)
        traces.append(list(node_search(ablator.everything, rule, by_layers(rule), ablator.percents_of_full)))
        runs.append(ablator.evaluations)
    assert traces[0] == traces[1] and runs[0] > 20 and runs[1] == 0


@pytest.mark.parametrize("legacy", [False, True])
def test_a_resumed_search_of_components_has_the_bits_of_one_that_was_not_killed(shipped_model, tmp_path, legacy):
    """Whatever the engine had remembered when it was killed: residuals, a layer's attention, legacy means."""
    from atlas.circuit.ablation import STRETCH, Ablator
    from atlas.circuit.legacy import LegacyAblator
    from atlas.circuit.replacement import Replacement
    from atlas.circuit.search import Rule, by_layers, node_search
    from atlas.prompts.batch import Prompts

    rng = torch.Generator().manual_seed(0)
    tokens, corrupted = (torch.randint(200, 900, (6, 6), generator=rng) for _ in range(2))
    prompts = Prompts(tokens, corrupted, torch.arange(6), torch.arange(6) + 1, list(range(6)), torch.zeros(6).long())
    n, d = shipped_model.n_layers, shipped_model.d_model
    z = torch.randn(n, 1, 6, shipped_model.n_heads, shipped_model.d_head, generator=rng)
    means = Replacement(z, torch.randn(n, 1, 6, d, generator=rng), prompts.group)

    def percents(name, limit=None):
        memo = Memo(tmp_path / name, {}, ["logit_diff"])
        own = {"memo": memo} | ({"reference": prompts} if legacy else {})
        ablator = (LegacyAblator if legacy else Ablator)(shipped_model, prompts, means, **own)
        rule, found = Rule(threshold=60), []
        for step in node_search(ablator.everything, rule, by_layers(rule), ablator.percents_of_full):
            found.append(step.percent)
            if len(found) == limit:
                break
        return found

    whole = percents("whole")
    assert len(whole) > STRETCH
    for killed in (2, 11, STRETCH - 1, STRETCH + 3):
        percents(f"killed after {killed}", killed)
        assert percents(f"killed after {killed}") == whole
