"""The library is installed with pip from a checkout; what it needs is what the project pins."""

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
from test_environment import pins

from conftest import ROOT

LIBRARY = ROOT / "scripts" / "atlas"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
OFFLINE = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
IMPORTED_AS = {"yaml": "pyyaml"}  # module -> its distribution, where another


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """What an installation reads of the project; building leaves files beside it."""
    made = tmp_path_factory.mktemp("install") / "circuit-atlas"
    shutil.copytree(ROOT / "scripts", made / "scripts", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "config.yaml"):
        shutil.copy(ROOT / name, made / name)
    return made


@pytest.fixture(scope="module")
def python(checkout) -> Path:
    """An interpreter of an environment of its own, beside the checkout, that sees the packages of this one."""
    folder = checkout.parent / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (own,) = folder.glob("lib/python*/site-packages")
    (own / "packages_of_the_tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


def run(*command, **options) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_editable_installation_imports_the_files_of_the_checkout(checkout, python, tmp_path):
    """From any folder, without a path set by hand; what an edit of the checkout says is what runs."""
    run(*PIP, "--python", python, *OFFLINE, "--editable", checkout)
    code = (
        "import importlib.metadata as m, atlas, atlas.study.finished as f; print(atlas.__file__, m.version('{}'), {})"
    )
    said = run(python, "-c", code.format("circuit-atlas", "f.open_study.__name__"), cwd=tmp_path)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert said.split() == [str(checkout / "scripts" / "atlas" / "__init__.py"), project["version"], "open_study"]
    with (checkout / "scripts" / "atlas" / "study" / "finished.py").open("a") as module:
        module.write("\nEDITED = 'edited'\n")
    assert "edited" in run(python, "-c", code.format("circuit-atlas", "f.EDITED"), cwd=tmp_path)


def test_an_installed_copy_has_every_module_and_template(checkout, tmp_path):
    run(*PIP, *OFFLINE, "--target", tmp_path, checkout)
    kinds = ("*.py", "*.html", "*.css", "*.js")
    wanted = {f.relative_to(LIBRARY).as_posix() for kind in kinds for f in LIBRARY.rglob(kind)}
    there = {f.relative_to(tmp_path / "atlas").as_posix() for kind in kinds for f in (tmp_path / "atlas").rglob(kind)}
    assert there == wanted and {f.name for f in tmp_path.iterdir() if f.suffix == ".py"} == set(), "no scripts of rules"


def test_what_the_library_imports_is_what_it_asks_for():
    """Every package named by an import statement, and no other but those that these load by name."""
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    asked = {name.lower().replace("_", "-") for name in asked}
    imported = set()
    for path in LIBRARY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            imported |= {name.split(".")[0] for name in names}
    own = imported - set(sys.stdlib_module_names) - {"atlas", "_typeshed"}
    assert {IMPORTED_AS.get(name, name).lower().replace("_", "-") for name in own} == asked
    pinned = pins((ROOT / "envs" / "constraints.txt").read_text().splitlines()).keys() | {"torch"}
    assert asked <= pinned
    assert all(importlib.metadata.version(name) for name in asked)
    assert not [name for name in asked if re.search(r"[<>=~]", name)], "versions stand in envs/"
