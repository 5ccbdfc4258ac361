"""The documents show what works: shell commands run as they stand, configurations pass, code compiles.

In the clone in which they run, config.yaml is the smoke preset laid over the default study, so that the commands about
the default study take seconds. With --every-command it is the default study itself, and commands that take long are
run to their end too. Presets of models from a hub are run by tests/workflow/test_presets.py.
"""

import ast
import copy
import importlib
import json
import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import test_presets
import test_tutorial
import yaml
from snakemake.utils import update_config

import documented
from atlas.study import validation
from study import ROOT, SNAKEMAKE, in_clone

RUN = [  # in this order, since some need what others leave
    "source .venv/bin/activate",
    "snakemake --cores 2 --configfile presets/smoke.yaml",
    "snakemake --cores 2 quick",
    "make quick",
    "make run",
    "make run CORES=1",
    "make resume",
    "snakemake --cores 2",
    "python bench/cpu_seconds.py .",
    "snakemake --report results/report.html",
    "snakemake --report",
    "snakemake --unlock",
    "snakemake --cores 2 check_data",
    "snakemake --cores 2 fetch_models",
    "make verify",
    "make docs",
]

PLANNED_HERE = {  # with --dry-run here, and to their end with --every-command
    "snakemake --cores 2 certify": "takes two minutes or more",
    "snakemake --cores 2 leaderboard": "takes ten minutes or more",
    "snakemake --cores 2 geometry": "part of the default study, and run whole by test_geometry_study.py",
    "snakemake --cores 2 --config weights=random": "takes minutes; test_random_weights.py runs such a study",
    """snakemake --cores 2 --config layers=2 weights=random 'study={"tasks": ["numerals"]}'""": "takes minutes",
    "snakemake --cores 2 --configfile my_study.yaml": "takes minutes",
    "make lint": "takes minutes; other tests run its parts",
    "make bench": "takes a quarter of an hour",
}
A_FINISHED_STUDY = "needs finished studies of three models; tests/report/test_findings.py writes such a page"
AN_HOUR, CLUSTER, THE_TESTS = "takes half an hour or more", "needs a cluster", "runs these tests"
PLANNED = {  # with --dry-run only
    "snakemake --cores 2 train_ladder": AN_HOUR,
    "make families": AN_HOUR,
    "make soak": AN_HOUR,
    "make real GEMMA_TERMS=accept": AN_HOUR,
    "make findings": A_FINISHED_STUDY,
    "make claims": A_FINISHED_STUDY,
    "make leaderboard": "takes ten minutes or more",
    "make leaderboard SMOLLM2=true": AN_HOUR,
    "snakemake --cores 2 leaderboard --config real=true": AN_HOUR,
    "make gallery": "needs a finished default study; tests/report/test_gallery.py writes such a page",
    "make commands": AN_HOUR,
    "snakemake --profile profiles/slurm": CLUSTER,
    "snakemake --profile profiles/slurm --default-resources slurm_account=mine slurm_partition=short": CLUSTER,
    "make cluster": CLUSTER,
    "make slurm": "installs packages outside the project",
    "make test": THE_TESTS,
    "make test-slow": THE_TESTS,
    "make coverage": THE_TESTS,
}

NETWORK, ENGINE = "needs a network", "needs a container engine; tests/workflow/test_usage.py builds where one is"
EXCEPTED = {
    "snakemake --cores 2 --sdm conda": "needs conda and a network",
    "make site": NETWORK,
    "pip install -e .": NETWORK,
    "pip install snakemake-executor-plugin-lsf": NETWORK,
    "pip install snakemake-executor-plugin-kubernetes": NETWORK,
    "snakemake --jobs 10 --executor kubernetes --container-image <image> --default-storage-provider s3"
    " --default-storage-prefix s3://<bucket>": "needs Kubernetes and a bucket",
    "docker build -t circuit-atlas . && "
    'docker run --rm -v "$PWD/results:/atlas/results" circuit-atlas --cores 2': ENGINE,
    "apptainer build atlas.sif docker-daemon://circuit-atlas:latest": ENGINE,
    "apptainer exec atlas.sif snakemake --cores 2": ENGINE,
}


@pytest.fixture(scope="module")
def project(cloned, every_command) -> Path:
    """A clone with a `my_study.yaml` in it: the task that the README adds."""
    if not every_command:
        config = yaml.safe_load((cloned / "config.yaml").read_text())
        update_config(config, yaml.safe_load((cloned / "presets" / "smoke.yaml").read_text()))
        (cloned / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    (cloned / "my_study.yaml").write_text(next(b.text for b in fragments() if "letters" in b.text))
    return cloned


# ---- commands ------------------------------------------------------------------------------------------------
PAGE = """```
make run     # comment
```
Write `snakemake
--cores 2`, `--config layers=2`, or `snakemake` and `make`.
```yaml
study: {title: snakemake --cores 9}
```
"""


def test_commands_are_found_wherever_they_are_shown(tmp_path):
    """In blocks of shell, in running text over the end of a line, and in comments; not in other blocks."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "presets").mkdir()
    (tmp_path / "docs" / "page.md").write_text(PAGE)
    (tmp_path / "presets" / "x.yaml").write_text(
        "# A preset:\n#   snakemake --cores 3   # comment\n# as `make x` does\n"
    )
    assert documented.commands(tmp_path) == {
        "make run": "docs/page.md",
        "snakemake --cores 2": "docs/page.md",
        "snakemake --cores 2 --config layers=2": "docs/page.md",
        "snakemake --cores 3": "presets/x.yaml",
        "make x": "presets/x.yaml",
    }


def test_every_command_of_the_documents_is_run_or_excepted_by_name():
    listed = [*RUN, *PLANNED_HERE, *PLANNED, *EXCEPTED, *test_presets.COMMANDS, test_presets.PYTHIA]
    listed += test_tutorial.COMMANDS
    shown = documented.commands()
    assert len(set(listed)) == len(listed)
    assert not {command: where for command, where in shown.items() if command not in listed}, "neither run nor excepted"
    assert not set(listed) - set(shown), "no document shows them any more"


@pytest.mark.slow
@pytest.mark.parametrize("command", RUN)
def test_a_command_runs(project, command):
    done = in_clone(project, command)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_what_the_commands_leave(project):
    """After those above: a report, pages as they are committed, and a study in which nothing is left to do."""
    if not (project / "results" / "report.html").is_file():
        pytest.skip("the commands above did not run")
    assert "1 Data" in (project / "results" / "report.html").read_text()
    for name in ("docs/configuration.md", "docs/licences.md", "docs/incremental.md"):
        assert (project / name).read_text() == (ROOT / name).read_text(), "run `make docs`"
    artifacts = (ROOT / "docs" / "artifacts.md").read_text()
    left = {path for kind in ("parquet", "json", "pt") for path in (project / "results").rglob(f"*.{kind}")}
    assert left and {path.name for path in left if not re.search(rf"`\S*{path.name}`", artifacts)} == set()
    assert "Nothing to be done" in in_clone(project, "snakemake --cores 2 --dry-run").stdout


@pytest.mark.slow
@pytest.mark.parametrize("command", [*PLANNED_HERE, *PLANNED])
def test_a_long_command_is_planned(project, command, every_command):
    done = in_clone(project, command if every_command and command in PLANNED_HERE else f"{command} --dry-run")
    assert done.returncode == 0, done.stdout + done.stderr


# ---- blocks --------------------------------------------------------------------------------------------------
def fragments() -> list[documented.Block]:
    """Every configuration that a page shows, as it lies over config.yaml."""
    return [block for block in documented.blocks() if block.language == "yaml"]


def over_default(config: dict, block: documented.Block) -> dict:
    shown = yaml.safe_load(block.text)
    merged = copy.deepcopy(config)
    update_config(merged, shown.get("atlas", shown))  # of a workflow that uses this one as the module `atlas`
    return merged


def test_blocks_are_of_languages_that_are_tested():
    known = {*documented.SHELL, "yaml", "python", "text"}
    assert not {block.page: block.language for block in documented.blocks() if block.language not in known}


@pytest.mark.parametrize("block", fragments(), ids=lambda block: f"{block.page}: {block.text.split()[1]}")
def test_a_configuration_that_is_shown_is_accepted(config, block):
    schema = yaml.safe_load((ROOT / "schemas" / "config.schema.yaml").read_text())
    validation.validated(over_default(config, block), schema, ROOT / "resources" / "published")


@pytest.mark.slow
def test_the_tasks_and_the_circuit_that_the_readme_adds_are_taken(project, config):
    """Prompts of the new task, and of a file with the columns that are named, are made; a study of all is planned."""
    over = {}
    for block in fragments():
        if block.page == "README.md" and "hub" not in block.text:
            update_config(over, yaml.safe_load(block.text))
    over["study"]["tasks"] = ["numerals", "letters", "my_prompts"]
    over["study"]["transfer_tasks"] = []
    (project / "readme.yaml").write_text(yaml.safe_dump(over))
    file = over["tasks"]["my_prompts"]["file"]
    circuit = re.search(r'\{"heads".*?\}', next(b.text for b in fragments() if "my_circuit" in b.text))[0]
    (project / over["circuits"]["mine"]["file"]).write_text(circuit)
    assert set(json.loads(circuit)) == {"heads", "mlps"}
    folder = "results/ladder-6x8"
    study = "snakemake --configfile readme.yaml --cores 2"
    done = in_clone(project, f"{study} {folder}/letters/prompts.parquet {folder}/numerals/prompts.parquet")
    assert done.returncode == 0, done.stdout + done.stderr
    made = pd.read_parquet(project / folder / "numerals" / "prompts.parquet")
    rows = made[["row", *file["columns"]]].rename(columns=file["columns"])
    (project / file["clean"]).parent.mkdir(exist_ok=True)
    rows.to_parquet(project / file["clean"])
    done = in_clone(project, f"{study} {folder}/my_prompts/prompts.parquet && {study} --dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(pd.read_parquet(project / folder / "my_prompts" / "prompts.parquet")) == len(made)


def python_blocks() -> list[documented.Block]:
    return [block for block in documented.blocks() if block.language == "python"]


def test_the_script_that_is_shown_uses_what_the_library_has():
    """All but its own module, which it takes as an example."""
    (script,) = (block.text for block in python_blocks() if "job.start" in block.text)
    compile(script, "README.md", "exec")
    for node in ast.walk(ast.parse(script)):
        match node:
            case ast.Attribute(value=ast.Name(id="artifacts" | "job" as module)):
                assert hasattr(importlib.import_module(f"atlas.store.{module}"), node.attr), node.attr


def test_the_workflow_that_is_shown_uses_this_one(tmp_path):
    """As docs/usage.md has it, the Snakefile and its config.yaml."""
    (snakefile,) = (block.text for block in python_blocks() if "module atlas" in block.text)
    (config,) = (block.text for block in fragments() if block.page == "docs/usage.md")
    assert "/path/to/circuit-atlas/" in snakefile
    (tmp_path / "Snakefile").write_text(snakefile.replace("/path/to/circuit-atlas", str(ROOT)))
    (tmp_path / "config.yaml").write_text(config)
    done = subprocess.run([*SNAKEMAKE, "--dry-run"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "atlas_write_summary" in done.stdout + done.stderr, done.stdout + done.stderr


def test_python_blocks_are_one_of_these():
    """The README's first is run by tests/study/test_finished.py, that of the tutorial by test_tutorial.py."""
    assert len(python_blocks()) == 5
