"""The study on a real SLURM cluster of one node: artifacts of a local run, retries that grow, GPUs asked for."""

import subprocess
import sys
from collections import Counter

import pytest
import torch
import yaml

import slurm_cluster
from conftest import ROOT
from study import Study, artifacts_of, unlike

PROFILE = ["--profile", "profiles/slurm"]
# no accounting here, so that squeue must answer; and no time lost between answers
SOON = ["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1"]
SOON += ["--seconds-between-status-checks", "1", "--latency-wait", "5"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    why = slurm_cluster.missing()
    if why:
        pytest.skip(why)
    with slurm_cluster.Cluster(tmp_path_factory.mktemp("slurm")) as started:
        yield started


def submit(cluster, study, *arguments):
    command = [sys.executable, "-m", "snakemake", *PROFILE, *SOON, *arguments]
    return subprocess.run(command, cwd=study.folder, env=cluster.environment, capture_output=True, text=True)


def test_a_study_on_slurm_leaves_what_a_local_one_leaves(cluster, study, tmp_path_factory):
    """Byte for byte: the jobs are the same processes, started elsewhere."""
    made = Study(tmp_path_factory.mktemp("submitted"), study.model)
    done = submit(cluster, made)
    assert done.returncode == 0, done.stdout + done.stderr
    reference = artifacts_of(study.folder / "results")
    assert set(artifacts_of(made.folder / "results")) == set(reference)
    assert unlike(made.folder / "results", reference) == []
    assert made.would_run() == {}
    jobs = cluster.jobs()
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}
    assert len(jobs) < 40, "small jobs go together"
    assert {"4000M", "2000M"} <= {job["MinMemoryNode"] for job in jobs}, "the rules' own memory is asked for"
    assert list((made.folder / ".snakemake" / "slurm_logs").rglob("*.log")), "logs are kept"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a job that fails for want of a GPU")
def test_a_failing_job_is_tried_again_with_more_memory_and_asks_for_its_gpu(cluster, study, tmp_path):
    before = {job["JobId"] for job in cluster.jobs()}
    made = Study(tmp_path, study.model)
    made.config["models"]["ladder-6x8"]["device"] = "cuda"
    made.write_config(made.config)
    done = submit(cluster, made, "results/ladder-6x8/numerals/clean.parquet")
    assert done.returncode and "models.*.device: cuda is not available here" in done.stdout + done.stderr
    jobs = [job for job in cluster.jobs() if job["JobId"] not in before]
    assert Counter(job["JobState"] for job in jobs) == {"COMPLETED": 1, "FAILED": 3}
    failed = [job for job in jobs if job["JobState"] == "FAILED"]
    assert sorted(job["MinMemoryNode"] for job in failed) == ["12000M", "4000M", "8000M"]
    assert all("gpu" in job.get("TresPerJob", "") + job.get("TresPerNode", "") for job in failed), failed
    assert (tmp_path / "results" / "ladder-6x8" / "numerals" / "prompts.parquet").is_file(), "what was computed stays"


def test_the_profile_groups_every_small_job():
    """Every rule that draws or gathers tables is in a group, and no rule that is not there."""
    profile = yaml.safe_load((ROOT / "profiles" / "slurm" / "config.yaml").read_text())
    grouped = dict(entry.split("=") for entry in profile["groups"])
    text = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    rules = {line.split()[1].rstrip(":") for line in text.splitlines() if line.startswith("rule ")}
    assert set(grouped) <= rules
    assert {rule for rule in rules if rule.startswith(("plot_", "write_"))} <= set(grouped)
    assert set(grouped.values()) == {entry.split("=")[0] for entry in profile["group-components"]}
