"""What `memory_mb: auto` takes, and that it changes no result."""

import logging
import subprocess
import sys

import numpy as np
import pytest
import torch

from atlas.circuit.ablation import Ablator
from atlas.core.components import all_components
from atlas.model import memory, models
from atlas.store import job
from conftest import ROOT, SHIPPED
from random_models import load_random, random_prompts, substitute

GB, MB = 2**30, 2**20


@pytest.fixture
def card(monkeypatch):
    """A GPU with 40 GB free of 80, as torch says it."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (40 * GB, 80 * GB))


def test_a_gpu_gives_a_third_of_what_is_free_less_a_margin(card, caplog):
    caplog.set_level(logging.INFO, "atlas")
    found = memory.auto_mb("cuda", 0)
    assert found == (40 * GB - memory.MARGIN) // 3 // MB == 13482
    assert "memory_mb: auto takes 13482 MB, of 40960 MB free on cuda" in caplog.text
    assert memory.auto_mb("cuda", 0, limit_mb=1000) == found, "Snakemake's mem_mb is memory of the host"


def test_room_for_a_float32_copy_stays_free(card):
    assert memory.auto_mb("cuda", 27 * GB) == (13 * GB - memory.MARGIN) // 3 // MB
    assert memory.auto_mb("cuda", 80 * GB) == memory.LEAST, "batches are split to whatever fits"


def test_a_cpu_gives_a_quarter_within_what_the_job_was_given(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 64 * GB)
    monkeypatch.setattr(memory, "taken_bytes", lambda: 700 * MB)
    assert memory.auto_mb("cpu", 0) == 16 * 1024
    assert memory.auto_mb("cpu", 0, limit_mb=4000) == 1100
    assert memory.auto_mb("cpu", 0, limit_mb=8000) == 2433, "a second attempt has more"
    assert memory.auto_mb("cpu", 300 * MB, limit_mb=4000) == 1000
    assert memory.auto_mb("cpu", 0, limit_mb=500) == memory.LEAST


def test_memory_of_tensors_counts_what_is_shared_once():
    x = torch.zeros(10, 10)
    assert memory.bytes_of([x, (x.T, None), x[:5]]) == 400
    assert memory.bytes_of([x, torch.zeros(3, dtype=torch.bfloat16)]) == 406


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_resolves_auto_once_its_weights_are_loaded(monkeypatch, dtype):
    """The size of the shipped model in float32 is that of its file, less what a header takes."""
    asked = []
    monkeypatch.setattr(memory, "auto_mb", lambda *args: asked.append(args) or 77)
    model = models.load(SHIPPED, device="cpu", dtype=dtype, memory_mb="auto", limit_mb=4000)
    assert model.memory_mb == 77
    ((device, reserved, limit),) = asked
    on_disk = (SHIPPED / "model.safetensors").stat().st_size
    assert (device, limit) == ("cpu", 4000)
    assert reserved == (0 if dtype == "float32" else pytest.approx(on_disk, rel=0.02))
    assert models.load(SHIPPED, device="cpu", memory_mb=300).memory_mb == 300 and len(asked) == 1


def test_auto_changes_no_result(tmp_path, monkeypatch):
    """Batches are split by it; scores stay the same to rounding (`tests/random_models.py` says of what size)."""
    model = load_random("gpt2", tmp_path)
    prompts, everything = random_prompts(), all_components(model.n_layers, model.n_heads)
    values = substitute(torch.zeros(len(prompts), dtype=torch.long))
    found, batches = [], []
    for megabytes in (0.004, 1000):
        monkeypatch.setattr(memory, "auto_mb", lambda *args, megabytes=megabytes: megabytes)
        loaded = models.load(tmp_path, device="cpu", dtype="float64", memory_mb="auto")
        ablator = Ablator(loaded, prompts, values)
        batches.append(len(ablator.batches))
        found.append([ablator.logit_diff(frozenset(everything[:k])) for k in range(0, len(everything), 3)])
    assert batches == [len(prompts), 1]
    assert np.abs(np.subtract(*found)).max() < model.tolerance


class Job:
    """As a job of Snakemake, with what `job.run` reads."""

    def __init__(self, memory_mb) -> None:
        self.params = type("Params", (), {"run": {"device": "cpu", "memory_mb": memory_mb}})
        self.resources = {"mem_mb": 4000}


def test_a_job_hands_on_its_memory_where_auto_asks_for_it():
    assert job.run(Job("auto")) == {"device": "cpu", "memory_mb": "auto", "limit_mb": 4000}
    assert job.run(Job(1024)) == {"device": "cpu", "memory_mb": 1024}


def test_freed_memory_between_pieces_in_use_goes_back_to_the_system():
    """Half of many tensors is freed, every other one; glibc keeps them until it is told. 25 MB of 50 at least."""
    if memory._malloc_trim() is None:
        pytest.skip("this C library has no malloc_trim")
    script = """
import torch
from pathlib import Path
from atlas.model import memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

del_me = torch.ones(2**22)  # 16 MB, freed: from now on glibc takes what is smaller from its heap
del del_me
held = [torch.ones(2**16) for _ in range(400)]
del held[::2]
before = resident()
memory.give_back()
print(before - resident())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT / "scripts")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 25e6


def test_without_that_function_nothing_happens(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", missing)
    memory._malloc_trim.cache_clear()
    memory.give_back()
    memory._malloc_trim.cache_clear()
