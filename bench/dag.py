"""Time how Snakemake plans a large study, and how fast it runs a thousand jobs that do nothing.

The study has 50 models (the shipped one under 50 names) and 20 tasks; it is planned by a dry run of the real workflow.
The jobs run from a small Snakefile with this project's profile. CPU seconds vary less than seconds where others use
the machine. Run: python bench/dag.py --runs 3.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--cores", "2"]
MODELS, TASKS, JOBS = 50, 20, 1000

NOTHING = f"""
rule all:
    input:
        expand("done/{{i}}", i=range({JOBS})),


rule nothing:
    output:
        touch("done/{{i}}"),
    shell:
        ":"
"""


def large_study(main_tasks: int) -> str:
    """A configuration to lay over the default one; the tasks that are not searched are transfer tasks."""
    models = [f"model_{i:02}" for i in range(MODELS)]
    tasks = [f"task_{i:02}" for i in range(TASKS)]
    return yaml.safe_dump(
        {
            "study": {"models": models, "tasks": tasks[:main_tasks], "transfer_tasks": tasks[main_tasks:]},
            "models": {name: {"path": "resources/models/ladder-6x8"} for name in models},
            "tasks": {name: {"members": {"range": [1, 20]}} for name in tasks},
        }
    )


def run(*arguments) -> tuple[str, float, float, float]:
    """Jobs (where it prints them), seconds, CPU seconds and peak MB of Snakemake, started in the project's folder."""
    with tempfile.TemporaryFile("w+") as printed:
        start = time.perf_counter()
        process = subprocess.Popen([*SNAKEMAKE, *arguments], cwd=ROOT, stdout=printed, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        text = printed.read()
    if process.returncode:
        sys.exit(text)
    jobs = re.search(r"^total +(\d+)$", text, re.MULTILINE)
    return jobs[1] if jobs else "", seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def plan(main_tasks: int, *quiet):
    """A dry run; Snakemake prints the number of jobs with ``rules`` only, and for it formats every job."""
    with tempfile.TemporaryDirectory() as folder:
        overlay = Path(folder) / "study.yaml"
        overlay.write_text(large_study(main_tasks))
        return run("--configfile", overlay, "--directory", folder, "--dry-run", "--quiet", *quiet)


def do_nothing():
    with tempfile.TemporaryDirectory() as folder:
        snakefile = Path(folder) / "Snakefile"
        snakefile.write_text(NOTHING)
        return run("--snakefile", snakefile, "--directory", folder, "--profile", ROOT / "profiles" / "default")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--runs", type=int, default=1, help="of each plan; the jobs run three times at least")
    runs = options.parse_args().runs
    print(f"{'':50}{'jobs':>6}{'runs':>5}{'s, least':>9}{'median':>7}{'CPU s, least':>13}{'peak MB':>8}  target")
    for name, case, times, target in (
        (f"plan {MODELS} models x {TASKS} tasks, all searched", lambda: plan(TASKS), runs, "60 s, 2,048 MB"),
        ("    and print what would run", lambda: plan(TASKS, "rules"), runs, ""),
        (f"plan {MODELS} models x {TASKS} tasks, 5 searched", lambda: plan(5), runs, "60 s, 2,048 MB"),
        ("    and print what would run", lambda: plan(5, "rules"), runs, ""),
        (f"{JOBS:,} shell jobs that do nothing, and `all`", do_nothing, max(3, runs), "30 s"),
    ):
        jobs, seconds, cpu, peak = zip(*(case() for _ in range(times)), strict=True)
        median = statistics.median(seconds)
        print(f"{name:50}{jobs[0]:>6}{times:5}{min(seconds):9.1f}{median:7.1f}", end="")
        print(f"{min(cpu):13.1f}{max(peak):8,.0f}  {target}", flush=True)


if __name__ == "__main__":
    main()
