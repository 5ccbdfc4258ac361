"""A study that is killed goes on where it was, and ends in the very files of one that was not."""

import random
import re
import shutil
import sys

import pytest

import soak
from atlas.circuit.ablation import STRETCH
from soak import Round, Run, killed_study, run
from study import Study, artifacts_of

pytestmark = pytest.mark.slow

# One task from its prompts to its edges; `make soak` makes the whole study again and again
NUMERALS = "results/ladder-6x8/numerals"
TARGETS = [f"{NUMERALS}/{name}.parquet" for name in ("component_effects", "trace", "edge_trace", "evaluation")]
TARGETS += ["results/figures/ladder-6x8/ladder-6x8.numerals.search_trajectory.svg"]


@pytest.fixture(scope="module")
def killed(study, tmp_path_factory):
    """The smoke study's numerals, killed three times on their way, and what became of it."""
    rng, other = random.Random(0), Study(tmp_path_factory.mktemp("killed"))
    moments = [*(rng.uniform(5, 15) for _ in range(3)), None]
    return other, killed_study(other, artifacts_of(study.folder / "results"), moments, TARGETS)


def test_three_kills_leave_no_trace(killed):
    """Every artifact is checked after every kill, and jobs that had finished do not run again (see `killed_study`)."""
    _, found = killed
    assert len(found.kills) == 3 and not found.last.killed
    on_their_way = [job for kill in found.kills for job in kill.started - kill.finished]
    assert set(found.repeated) <= set(on_their_way)


def test_a_killed_study_is_complete(killed):
    other, _ = killed
    assert other.would_run(*TARGETS) == {}


def test_a_killed_search_goes_on_from_its_memo(killed):
    """The resumed search runs the rest, with at most a stretch of what it has, and finds the same to the byte."""
    other, _ = killed
    folder = other.folder / NUMERALS
    names, memo = ("trace.parquet", "circuits.json", "faithfulness.parquet"), other.folder / "results" / "memo"
    before = {name: (folder / name).read_bytes() for name in names}
    target = ["--force", f"{NUMERALS}/trace.parquet"]

    def size():
        return sum(file.stat().st_size for file in memo.rglob("*.scores"))

    def passes():
        log = (other.folder / "logs" / "ladder-6x8" / "numerals" / "search_nodes.log").read_text()
        return int(re.search(r"(\d+) forward passes", log)[1])

    shutil.rmtree(memo)
    run(other, arguments=target)
    whole, all_passes = size(), passes()
    shutil.rmtree(memo)
    assert run(other, until=lambda: size() > whole * 0.6, arguments=target).killed
    other.snakemake("--unlock")
    run(other, arguments=target)
    assert passes() <= all_passes * 0.45 + STRETCH < all_passes
    assert {name: (folder / name).read_bytes() for name in names} == before


def test_the_log_of_a_soak_names_every_kill(monkeypatch, tmp_path):
    """From rounds that are made up: a job killed on its way, which runs again, and one that was done."""
    kill = Run(True, 7.5, {"Search a", "Plot b"}, {"Plot b"})
    rounds = [Run(False, 60.0, {"Search a", "Plot b"}, {"Search a", "Plot b"})]
    rounds += [Round([kill], Run(False, 30.0, {"Search a"}, {"Search a"}), ["Search a"]) for _ in range(2)]
    monkeypatch.setattr(soak, "soak", lambda *_: iter(rounds))
    monkeypatch.setattr(sys, "argv", ["soak.py", "--page", str(tmp_path / "soak.md")])
    soak.main()
    text = (tmp_path / "soak.md").read_text()
    assert "2 kills in 2 studies of 2 jobs each (seed 0); 0 kills came before the first job" in text
    assert "2 jobs ran again" in text and "took\n60 s" in text
    assert text.count("| 7.5 | 1 | Search a |") == 2 and "| 2 | done | 30.0 | 1 | – |" in text
