"""Every preset on random weights of one layer, with the real tokenizers of ../shared.

Each command is the one that the documents show, with `--config weights=random layers=1 tokenizer=...` behind it. Here a
study is planned whole and run to one task's activations; the Pythia study of the README is run to its report on two of
its tasks. With --every-command each is run to its report on all of them.
"""

import copy
import re
from pathlib import Path

import pytest
import yaml
from snakemake.utils import update_config

from atlas.store import artifacts
from atlas.study import validation
from study import ROOT, in_clone

pytestmark = pytest.mark.slow

STUDY = "snakemake --cores 2 --configfile"
COMMANDS = {  # as it stands in the documents -> tokenizer in ../shared/tokenizers
    f"{STUDY} presets/gpt2-small.yaml": "gpt2",
    f"{STUDY} presets/gpt2-small.yaml presets/gpt2-small-published.yaml": "gpt2",
    f"{STUDY} presets/gpt2-small.yaml presets/gpt2-small-maps.yaml": "gpt2",
    f"{STUDY} presets/gpt2-medium.yaml": "gpt2",
    f"{STUDY} presets/pythia-160m.yaml": "pythia",
    f"{STUDY} presets/pythia-1.4b.yaml": "pythia",
    f"{STUDY} presets/llama-small.yaml": "llama2",
    f"{STUDY} presets/llama-2-7b-chat.yaml": "llama2",
    f"{STUDY} presets/llama-2-7b-chat.yaml presets/generation.yaml": "llama2",
    # their own lie in packages
    f"{STUDY} presets/smollm2.yaml": "llama2",
    f"{STUDY} presets/smollm2.yaml presets/beyond_sequences.yaml": "llama2",
    f"{STUDY} presets/gemma-3-270m.yaml": "gpt2",
}
# Tasks whose words are one token each in those tokenizers, to run such a study to its end
OWN_TASKS = {
    f"{STUDY} presets/smollm2.yaml": """ 'study={"tasks": ["numerals", "months"], "transfer_tasks": ["letters"]}'""",
    f"{STUDY} presets/gemma-3-270m.yaml": """ 'study={"transfer_tasks": ["numerals_plus_two"]}'""",
}
PYTHIA = f"{STUDY} presets/pythia-160m.yaml --config weights=random layers=1"
TWO_TASKS = """study='{"tasks": ["numerals"], "transfer_tasks": ["days"]}'"""


def files_of(command: str) -> list[str]:
    return re.findall(r"presets/\S+", command)


def laid(config: dict, command: str) -> dict:
    """A configuration with the presets of a command over it."""
    merged = copy.deepcopy(config)
    for file in files_of(command):
        update_config(merged, yaml.safe_load((ROOT / file).read_text()))
    return merged


@pytest.fixture(scope="module")
def project(shared, cloned) -> Path:
    return cloned


def test_every_preset_is_tried():
    """The smoke preset runs by itself, without other weights (tests/workflow/test_docs.py)."""
    tried = {Path(file).name for command in COMMANDS for file in files_of(command)}
    assert tried | {"smoke.yaml"} == {path.name for path in (ROOT / "presets").glob("*.yaml")}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_preset_is_a_study_of_its_checkpoint(config, command):
    """What it holds is accepted as it stands; llama-small has no checkpoint and says so."""
    schema = yaml.safe_load((ROOT / "schemas" / "config.schema.yaml").read_text())
    found = validation.validated(laid(config, command), schema, ROOT / "resources" / "published")
    assert (found["weights"] == "random") == ("llama-small" in command)


def run(project: Path, command: str) -> str:
    done = in_clone(project, command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(("command", "tokenizer"), COMMANDS.items())
def test_a_preset_runs_on_random_weights(project, every_command, command, tokenizer):
    options = f"--configfile {' '.join(files_of(command))}"
    options += f" --config weights=random layers=1 tokenizer=../shared/tokenizers/{tokenizer}"
    options += OWN_TASKS.get(command, "")
    name = f"{laid({}, command)['study']['models'][0]}-random"
    if every_command:
        run(project, f"snakemake --cores 2 {options} && snakemake --report results/report.html {options}")
        summary = project / "results" / "figures" / name / f"{name}.summary.html"
        assert "Random weights, no findings" in summary.read_text()
        return
    assert "write_summary" in run(project, f"snakemake --cores 2 --dry-run {options}")
    task = laid({}, command)["study"]["tasks"][0]
    table = f"results/{name}/{task}/clean.parquet"
    run(project, f"snakemake --cores 2 {table} {options}")
    assert artifacts.read_json(project / "results" / name / "model.json")["n_layers"] == 1
    assert artifacts.read_table(project / table)["value"].notna().all()


def test_the_pythia_study_of_the_readme_runs_to_its_report(project, every_command):
    """With the hub's tokenizer from a folder; to be quick, one task is searched and one evaluated."""
    assert PYTHIA in (ROOT / "README.md").read_text()
    tasks = "" if every_command else TWO_TASKS
    text = run(project, f"{PYTHIA} tokenizer=../shared/tokenizers/pythia {tasks}")
    assert "steps (100%) done" in text
    folder = project / "results" / "figures" / "pythia-160m-random"
    assert "Random weights, no findings" in (folder / "pythia-160m-random.summary.html").read_text()
