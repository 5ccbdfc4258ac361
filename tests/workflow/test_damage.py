"""Damaged artifacts, full disks and read-only results: one clear line, and what was computed stays."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from atlas.store.verify import damaged
from study import ROOT, Study, artifacts_of

pytestmark = pytest.mark.slow

TASK = "results/ladder-6x8/numerals"


def lines_of(done) -> list[str]:
    """What a failed run says of errors, without times; a job's words stand in its log too, and are repeated."""
    text = done.stdout + done.stderr
    assert "Traceback" not in text, text
    return [line.split("error: ", 1)[1] for line in text.splitlines() if "error: " in line]


@pytest.mark.parametrize(
    ("artifact", "reader"),
    [
        (f"{TASK}/trace.parquet", "results/figures/ladder-6x8/ladder-6x8.numerals.search_trajectory.svg"),
        (f"{TASK}/means.pt", f"{TASK}/component_scores.parquet"),
        (f"{TASK}/circuits.json", "results/ladder-6x8/comparison/membership.parquet"),
    ],
)
def test_a_damaged_artifact_is_named_with_the_command_that_mends_it(study, artifact, reader):
    path, results = study.folder / artifact, study.folder / "results"
    before, content = artifacts_of(results), path.read_bytes()
    status = path.stat()
    changed = bytearray(content)
    changed[len(content) // 2] ^= 1
    path.write_bytes(changed)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as a failing disk would
    number, found = damaged(results)
    assert number > 90 and len(found) == 1 and artifact in found[0]
    failed = study.snakemake("--force", reader, check=False)
    said = set(lines_of(failed))
    assert failed.returncode and len(said) == 1, said
    (line,) = said
    assert line.startswith(f"{artifact}: damaged")
    command = shlex.split(re.search(r"`(snakemake [^`]*)`", line)[1])
    assert command[0] == "snakemake" and artifact in command
    study.snakemake(*command[3:])
    assert path.read_bytes() == content
    study.snakemake(reader)
    assert artifacts_of(results) == before and damaged(results)[1] == []
    study.snakemake("--touch")  # what follows from it is what it was
    assert study.would_run() == {}


def test_swapped_artifacts_are_refused(study):
    one, other = (
        study.folder / "results" / "ladder-6x8" / task / "trace.parquet" for task in study.config["study"]["tasks"]
    )
    kept = one.read_bytes(), other.read_bytes()
    try:
        one.write_bytes(kept[1])
        other.write_bytes(kept[0])
        assert len(damaged(study.folder / "results")[1]) == 2
    finally:
        one.write_bytes(kept[0])
        other.write_bytes(kept[1])
    study.snakemake("--touch")


@pytest.fixture
def small_disk(study, tmp_path):
    """A study whose results lie on a disk of their own, and a function that mounts it again with other options."""
    made = Study(tmp_path)
    results = tmp_path / "results"
    results.mkdir()

    def mount(options):
        return subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", results], capture_output=True, text=True)

    if not shutil.which("mount") or mount("size=400k").returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield made, lambda options: mount(f"remount,{options}")
    subprocess.run(["umount", results], check=True)


def test_a_full_disk_stops_the_study_in_one_line_and_keeps_what_is_there(small_disk, study):
    made, remount = small_disk
    target = f"{TASK}/component_scores.parquet"
    done = made.snakemake(target, check=False)
    assert done.returncode and set(lines_of(done)) <= {
        "results/ladder-6x8/numerals: No space left on device; free some and run again, what was computed stays",
        f"{TASK}/activations.pt: no space left on the disk; free some and run again, what was computed stays",
    }
    assert lines_of(done)
    kept = {
        f"{TASK}/prompts.parquet",
        f"{TASK}/prompts.json",
        f"{TASK}/tokens.parquet",
        "results/ladder-6x8/model.json",
    }
    for name in kept:
        assert (made.folder / name).read_bytes() == (study.folder / name).read_bytes(), name
    assert not list((made.folder / "results").rglob(".*.tmp"))
    assert remount("size=60m").returncode == 0
    again = made.snakemake(target)
    assert "Make prompts" not in again.stdout + again.stderr
    assert (made.folder / target).read_bytes() == (study.folder / target).read_bytes()


def test_read_only_results_are_refused_before_anything_runs(small_disk):
    made, remount = small_disk
    made.snakemake(f"{TASK}/prompts.parquet")
    before = artifacts_of(made.folder / "results")
    assert remount("ro").returncode == 0
    for arguments, said in (
        ((), "results: cannot be written; make it writable, or run in another folder"),
        (("--forceall",), "Write-protected output files"),  # files that are there, which Snakemake itself refuses
    ):
        done = made.snakemake(*arguments, check=False)
        text = done.stdout + done.stderr
        assert done.returncode and said in text and "Traceback" not in text, text
        assert "\nrule " not in text, "nothing runs"
    assert artifacts_of(made.folder / "results") == before
    assert made.would_run() != {}, "a dry run writes nothing"


def test_an_error_of_the_file_system_is_one_line(tmp_path):
    """Whatever a script was doing, not only where it writes artifacts."""
    code = (
        "import sys; sys.path.insert(0, 'scripts')\n"
        "from types import SimpleNamespace\n"
        "from atlas.store import job\n"
        f"job.start(SimpleNamespace(log=[{str(tmp_path / 'x.log')!r}]))\n"
        "raise OSError(30, 'Read-only file system', 'results/x')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.endswith(
        "error: results/x: Read-only file system; make it writable and run again, what was computed stays"
    )
