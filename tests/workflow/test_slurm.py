"""The study on a real SLURM cluster of one node: artifacts of a local run, retries that grow, GPUs asked for."""

import re
import subprocess
import sys

import pytest
import torch
import yaml

import slurm_cluster
from atlas.report import contents
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


NUMERALS = "results/ladder-6x8/numerals"
PROMPTS = ("prompts.parquet", "prompts.json", "tokens.parquet", "rejected.parquet")
# What `make test-slow` submits: one task to its circuit, with jobs that stand alone and jobs that go together
TARGETS = [f"{NUMERALS}/component_effects.parquet"]
TARGETS += [f"results/figures/ladder-6x8/ladder-6x8.numerals.{name}.svg" for name in ("dataset", "search_trajectory")]


@pytest.fixture(scope="module")
def submitted(cluster, study, tmp_path_factory, pytestconfig):
    """A study made through the profile, whole with --whole-cluster-study, and its targets."""
    made = Study(tmp_path_factory.mktemp("submitted"))
    targets = [] if pytestconfig.getoption("whole_cluster_study") else TARGETS
    done = submit(cluster, made, *targets)
    assert done.returncode == 0, done.stdout + done.stderr
    return made, targets


@pytest.mark.slow
def test_a_study_on_slurm_leaves_what_a_local_one_leaves(cluster, study, submitted):
    """Byte for byte: the jobs are the same processes, started elsewhere."""
    made, targets = submitted
    reference, found = artifacts_of(study.folder / "results"), artifacts_of(made.folder / "results")
    assert unlike(made.folder / "results", reference) == []
    assert set(found) >= {name.removeprefix("results/") for name in targets or reference}
    assert made.would_run(*targets) == {}
    jobs = cluster.jobs()
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}
    assert len(jobs) < (8 if targets else 45), "small jobs go together: 9 are 7 submissions, 81 about 40"
    assert {"4000M", "2000M"} <= {job["MinMemoryNode"] for job in jobs}, "the rules' own memory is asked for"
    assert list((made.folder / ".snakemake" / "slurm_logs").rglob("*.log")), "logs are kept"


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a job that fails for want of a GPU")
def test_a_failing_job_is_tried_again_with_more_memory_and_asks_for_its_gpu(cluster, submitted):
    made, _ = submitted
    before, kept = {job["JobId"] for job in cluster.jobs()}, artifacts_of(made.folder / "results")
    made.config["models"]["ladder-6x8"]["device"] = "cuda"
    made.write_config(made.config)
    done = submit(cluster, made, f"{NUMERALS}/clean.parquet")
    assert done.returncode and "models.*.device: cuda is not available here" in done.stdout + done.stderr
    failed = [job for job in cluster.jobs() if job["JobId"] not in before]
    assert {job["JobState"] for job in failed} == {"FAILED"}
    assert sorted(job["MinMemoryNode"] for job in failed) == ["12000M", "4000M", "8000M"]
    assert all("gpu" in job.get("TresPerJob", "") + job.get("TresPerNode", "") for job in failed), failed
    own = {
        f"ladder-6x8/{name}.json" for name in ("model", "analyses")
    }  # of the submission that failed: checks, prompts
    own |= {f"ladder-6x8/numerals/{name}" for name in PROMPTS}
    left = artifacts_of(made.folder / "results")
    assert {name: left[name] for name in kept.keys() - own} == {name: kept[name] for name in kept.keys() - own}


def test_small_jobs_go_in_groups_that_the_profile_knows():
    """Every rule that draws or writes what is shown is in a group; no job that reads the weights is, but for checks."""
    profile = yaml.safe_load((ROOT / "profiles" / "slurm" / "config.yaml").read_text())
    text = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    rules = dict(re.findall(r"^ *rule ?(\w*):\n(.*?)(?=^ *rule ?\w*:\n|\Z)", text, re.MULTILINE | re.DOTALL))
    groups = {rule: re.findall(r'group:\n +"(\w+)"', body) for rule, body in rules.items()}
    assert groups[""] == ["figures"], "the rule of figures, one for each row of the table, has no name here"
    assert {rule for rule in contents.BY_RULE if rule.startswith("write_")} <= set(groups)
    alone = {"write_first_page"}  # what is made first waits for no group
    assert all((found == ["figures"]) == (rule not in alone) for rule, found in groups.items() if rule[:6] == "write_")
    assert {rule for rule, body in rules.items() if "gpu=True" in body and groups[rule]} == (
        {"check_model", "check_analyses"}
    )
    used = {group for found in groups.values() for group in found}
    assert used == {entry.split("=")[0] for entry in profile["group-components"]}


# ---- installing ----------------------------------------------------------------------------------------------
@pytest.fixture
def without_slurm(monkeypatch):
    """A machine without SLURM's programs, and the commands that are given to it."""
    commands = []

    def run(command, **options):
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(slurm_cluster, "lacking", lambda: ["sbatch", "munged"])
    monkeypatch.setattr(slurm_cluster.subprocess, "run", run)
    return commands


def test_a_test_never_installs_slurm(without_slurm):
    """It is skipped, and the reason says what would install it."""
    assert slurm_cluster.missing() == "no SLURM here (sbatch, munged missing); `make slurm` installs it"
    assert without_slurm == []


def test_what_is_installed_is_said_before(without_slurm, monkeypatch, capsys):
    monkeypatch.setattr(slurm_cluster.os, "geteuid", lambda: 0)
    monkeypatch.setattr(slurm_cluster.shutil, "which", lambda name: f"/usr/bin/{name}")
    slurm_cluster.install()
    said = capsys.readouterr().out
    command = f"apt-get install --no-install-recommends {' '.join(slurm_cluster.PACKAGES)}"
    assert said.count("\n") == 1 and f"`{command}`" in said
    assert [command[:2] for command in without_slurm] == [["apt-get", "-q"], ["apt-get", "install"]]
    assert set(slurm_cluster.PACKAGES) <= set(without_slurm[1])


def test_who_cannot_install_is_told_how(without_slurm, monkeypatch):
    monkeypatch.setattr(slurm_cluster.os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit, match=r"SLURM is missing .*; install it as root, .* `apt-get install .*munge`"):
        slurm_cluster.install()
    assert without_slurm == []


def test_nothing_is_installed_where_slurm_is(monkeypatch, capsys):
    monkeypatch.setattr(slurm_cluster, "lacking", list)
    slurm_cluster.install()
    assert slurm_cluster.missing() == "" and "nothing to install" in capsys.readouterr().out
