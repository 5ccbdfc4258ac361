"""The project's files agree with each other, and its code with its own rules of style."""

import re
import subprocess
import sys

import pytest
import yaml

from conftest import ROOT


def pins(lines) -> dict[str, str]:
    found = (re.match(r"([A-Za-z0-9_.-]+)==(\S+)", line.strip()) for line in lines)
    return {m[1].lower().replace("_", "-"): m[2] for m in found if m}


def test_conda_and_pip_environments_agree():
    conda = yaml.safe_load((ROOT / "envs" / "environment.yaml").read_text())["dependencies"]
    listed = next(d["pip"] for d in conda if isinstance(d, dict))
    assert pins(listed) == pins((ROOT / "envs" / "requirements.txt").read_text().splitlines())


def test_requirements_agree_with_the_constraints():
    required = pins((ROOT / "envs" / "requirements.txt").read_text().splitlines())
    constraints = pins((ROOT / "envs" / "constraints.txt").read_text().splitlines())
    assert required.pop("torch") == "2.13.0" and "torch" not in constraints, "torch has builds of several suffixes"
    assert {name: constraints[name] for name in required} == required


def test_the_configuration_page_is_up_to_date():
    code = "import build_configuration as b; print(b.page(), end='')"
    made = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "docs", capture_output=True, text=True, check=True
    ).stdout
    assert made == (ROOT / "docs" / "configuration.md").read_text(), "run `make docs`"


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "scripts", "tests", "docs", "bench"],
        ["ruff", "format", "--check", "scripts", "tests", "docs", "bench"],
        ["snakefmt", "--check", "Snakefile", "rules", "workflow/Snakefile"],
    ],
    ids=["ruff-check", "ruff-format", "snakefmt"],
)
def test_style(command):
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_data_files_are_never_executed():
    """torch.load only with weights_only, and no pickle anywhere in the library."""
    for path in [*(ROOT / "scripts").rglob("*.py"), *(ROOT / "rules").glob("*.smk")]:
        text = path.read_text()
        assert not re.search(r"^\s*(import|from) pickle|read_pickle|allow_pickle=True", text, re.MULTILINE), path
        assert all("weights_only=True" in call for call in re.findall(r"torch\.load\([^\n]*", text)), path


def test_no_literal_model_sizes():
    """Sizes come from the model's config (published defect: 12 hard-coded)."""
    for path in (ROOT / "scripts").rglob("*.py"):
        assert not re.search(r"range\((12|8|6)\)|n_(layers|heads) *= *\d", path.read_text()), path


def test_the_library_knows_nothing_of_snakemake():
    for path in (ROOT / "scripts" / "atlas").rglob("*.py"):
        assert not re.search(r"^\s*(import|from) snakemake", path.read_text(), re.MULTILINE), path
