"""Other ways to use the workflow: the catalogue's shim, Snakemake's `module`, a container; and what comes with it."""

import json
import os
import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import yaml

from conftest import ROOT

MODULE = """
configfile: "config.yaml"
module atlas:
    snakefile: "{root}/Snakefile"
    config: config["atlas"]
    {prefix}
use rule * from atlas as atlas_*
rule all:
    default_target: True
    input: rules.atlas_all.input
"""
CONFIG = {"atlas": {"study": {"title": "Mine", "tasks": ["numerals"], "transfer_tasks": []}}}


def snakemake(folder, *arguments):
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def planned(done) -> dict[str, int]:
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    table = re.search(r"^job +count\n-+ +-+\n(.*?)\ntotal", text, re.MULTILINE | re.DOTALL)[1]
    return {rule.removeprefix("atlas_"): int(n) for rule, n in (line.split() for line in table.splitlines())}


@pytest.mark.slow
def test_the_catalogues_snakefile_plans_the_same_study(tmp_path):
    """From another folder, so that nothing is finished; the shim's target has a name of its own."""
    plans = [
        planned(snakemake(tmp_path, "-s", str(ROOT / name), "--dry-run"))
        for name in ("Snakefile", "workflow/Snakefile")
    ]
    assert plans[0].pop("all") == plans[1].pop("default") == 1
    assert plans[0] == plans[1] and sum(plans[0].values()) > 100
    content = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())
    assert content["usage"]["report"] and content["usage"]["software-stack-deployment"] == {"conda": True}
    assert (ROOT / "config" / "README.md").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "circuits"])
def test_another_workflow_uses_this_one_as_a_module(tmp_path, prefix):
    """Its configuration names what differs; its plan is that of the same study by itself; a target is really made."""
    (tmp_path / "Snakefile").write_text(MODULE.format(root=ROOT, prefix=f'prefix: "{prefix}"' if prefix else ""))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(CONFIG["atlas"]))
    alone = planned(snakemake(tmp_path, "-s", str(ROOT / "Snakefile"), "--configfile", "own.yaml", "--dry-run"))
    assert planned(snakemake(tmp_path, "--dry-run")) == alone
    results = tmp_path / prefix / "results"
    target = (results / "figures" / "ladder-6x8" / "ladder-6x8.numerals.dataset.svg").relative_to(tmp_path)
    done = snakemake(tmp_path, str(target))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (results / "ladder-6x8" / "numerals" / "prompts.parquet").is_file() and (tmp_path / target).is_file()
    made = {path.name for path in tmp_path.iterdir()} - {"Snakefile", "config.yaml", "own.yaml", ".snakemake"}
    assert made == ({prefix} if prefix else {"results", "logs", "benchmarks"}), "nothing outside the prefix"


def test_a_modules_wrong_key_is_named_in_one_line(tmp_path):
    (tmp_path / "Snakefile").write_text(MODULE.format(root=ROOT, prefix=""))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"atlas": {"search": {"threshold": 5}}}))
    done = snakemake(tmp_path, "--dry-run")
    text = done.stdout + done.stderr
    assert done.returncode and "config: search: unknown key 'threshold'" in text and "Traceback" not in text


@pytest.mark.slow
def test_another_workflows_interpreter_is_left_as_it_is(tmp_path):
    """By itself this workflow tunes garbage collection, memory, smart_open, how scripts run and how often Snakemake
    looks for jobs; as a module it changes none of them."""
    report = """
import gc, os, smart_open
from snakemake.scheduling.job_scheduler import JobScheduler
from snakemake.script import PythonScript
seen = gc.get_threshold(), hasattr(smart_open.parse_uri, "cache_info"), "MALLOC_TOP_PAD_" in os.environ
print("seen", *seen, PythonScript.execute_script.__name__, JobScheduler._schedule_reevalutation.__name__)
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    rest = f'include: "{ROOT}/Snakefile"\n'
    for name, text in (("module", MODULE.format(root=ROOT, prefix="")), ("alone", rest)):
        (tmp_path / name).write_text(text + report)
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(CONFIG["atlas"]))
    said = {}
    for name, options in (("module", []), ("alone", ["--configfile", "own.yaml"])):
        command = [sys.executable, "-m", "snakemake", "-s", name, "--list-rules", *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
        said[name] = re.search(r"^seen (.*)$", done.stdout, re.MULTILINE)[1]
    run = "as_a_fork" if sys.platform == "linux" else "execute_script"
    assert said["alone"] == f"(100000, 50, 100) True True {run} look_again_once"
    assert said["module"].endswith(" False False execute_script _schedule_reevalutation")


@pytest.mark.slow
def test_snakemake_looks_for_jobs_once_however_often_it_was_asked_to(tmp_path):
    """And again when it is asked to after that look."""
    report = f"""
include: "{ROOT}/Snakefile"
import threading, time
from snakemake.scheduling.job_scheduler import JobScheduler
class Scheduler:
    _open_jobs = threading.Semaphore(0)
def looks():
    return sum(Scheduler._open_jobs.acquire(timeout=1) for _ in range(3))
for _ in range(3):
    JobScheduler._schedule_reevalutation(Scheduler, 0.1)
first = looks()
JobScheduler._schedule_reevalutation(Scheduler, 0.1)
print("looks", first, looks())
"""
    (tmp_path / "Snakefile").write_text(report)
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(CONFIG["atlas"]))
    command = [sys.executable, "-m", "snakemake", "-s", "Snakefile", "--list-rules", "--configfile", "own.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert re.search(r"^looks (.*)$", done.stdout, re.MULTILINE)[1] == "1 1", done.stderr


@pytest.mark.slow
def test_a_script_of_more_threads_or_of_another_environment_runs_in_a_process_of_its_own(tmp_path):
    """What is forked has one thread and this environment; that of one thread is forked, and fails as it did."""
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(CONFIG["atlas"]))
    (tmp_path / "Snakefile").write_text(f"""
include: "{ROOT}/Snakefile"
for threads in (1, 2):
    rule:
        name:
            f"of_{{threads}}"
        output:
            f"of_{{threads}}.json",
        threads: threads
        benchmark:
            f"of_{{threads}}.tsv"
        script:
            "own.py"
rule fails:
    output:
        "fails.json",
    script:
        "fails.py"
""")
    keys = ("OMP_NUM_THREADS", "TMPDIR")
    text = f"import json, os, sys\nfound = [sys.argv[0], *(os.environ[key] for key in {keys})]\n"
    text += "found.append(open(f'/proc/{os.getppid()}/cmdline').read())\n"
    text += "while os.times().user < 0.7: pass\n"
    text += "json.dump([*found, os.times().user], open(snakemake.output[0], 'w'))\n"
    (tmp_path / "own.py").write_text(text)
    (tmp_path / "fails.py").write_text("raise ValueError('odd')\n")
    options = ("--cores", "2", "--keep-going", "--default-resources", f"tmpdir='{tmp_path}'")
    targets = ("of_1.json", "of_2.json", "fails.json")
    command = [sys.executable, "-m", "snakemake", *targets, *options, "--configfile", "own.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "ValueError: odd" in done.stderr and "rule fails" in done.stderr, done.stderr
    for threads in (1, 2):
        script, own_threads, folder, parent, seconds = json.loads((tmp_path / f"of_{threads}.json").read_text())
        assert script.endswith(".own.py") and (own_threads, folder) == (str(threads), str(tmp_path))
        assert ("forks" in parent) == (threads == 1 and sys.platform == "linux")
        measured = float(pd.read_csv(tmp_path / f"of_{threads}.tsv", sep="\t")["cpu_time"][0])
        assert measured > 0 and (measured > seconds - 0.02 or "forks" not in parent), "to its end"


# ---- container -----------------------------------------------------------------------------------------------
def engine() -> str | None:
    found = (name for name in ("docker", "podman") if shutil.which(name))
    return next((n for n in found if not subprocess.run([n, "info"], capture_output=True).returncode), None)


def test_the_container_is_built_and_plans_the_study(every_command):
    if not every_command:
        pytest.skip("an image is made outside the project: asked for with --every-command (`make commands`)")
    name = engine()
    if name is None:
        pytest.skip("no container engine runs here (docker info, podman info)")
    subprocess.run([name, "build", "--tag", "circuit-atlas-test", str(ROOT)], check=True)
    done = subprocess.run([name, "run", "--rm", "circuit-atlas-test", "--dry-run"], capture_output=True, text=True)
    assert done.returncode == 0 and "check_model" in done.stdout + done.stderr


def test_the_recipe_copies_what_exists_and_leaves_out_what_runs_do_not_need():
    recipe = (ROOT / "Dockerfile").read_text()
    for sources in re.findall(r"^COPY --chown=\w+ (.*) \S+$", recipe, re.MULTILINE):
        assert all((ROOT / source).exists() for source in sources.split()), sources
    ignored = {line.split("/")[0] for line in (ROOT / ".dockerignore").read_text().splitlines()}
    needed = {"Snakefile", "config.yaml", "rules", "scripts", "schemas", "presets", "profiles", "envs", "report"}
    assert not ignored & (needed | {"resources"})
    pins = (ROOT / "envs" / "requirements.txt").read_text()
    (torch,) = re.findall(r"torch==\S+", recipe)
    assert torch in pins


# ---- papers --------------------------------------------------------------------------------------------------
def test_the_licences_of_all_dependencies_are_known_and_listed():
    sys.path.insert(0, str(ROOT / "docs"))
    import build_licences

    assert (ROOT / "docs" / "licences.md").read_text() == build_licences.page(), "run `make docs`"
    unknown = [name for name in build_licences.pins() if build_licences.licence(name) == "unknown"]
    assert not unknown


def test_the_papers_agree():
    """Version and licence are the same wherever they are said."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{citation["version"]}"' in project and f'license = "{citation["license"]}"' in project
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    assert f"({citation['version']})" in (ROOT / "CHANGELOG.md").read_text()
    assert citation["cff-version"] == "1.2.0" and {"message", "title", "authors"} <= set(citation)


def test_every_link_between_the_documents_leads_somewhere():
    """To a file, and where a heading is named, to that heading."""
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "config" / "README.md"]:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if re.match(r"https?:", target):
                continue
            name, _, heading = target.partition("#")
            file = (page.parent / name) if name else page
            assert file.exists(), f"{page.name}: {target}"
            if heading:
                headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
                anchors = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
                assert heading in anchors, f"{page.name}: {target}"
