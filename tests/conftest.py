"""Fixtures that several test files share."""

import functools
import itertools
import os
import sys
from pathlib import Path

import hypothesis
import pytest
import yaml
from xdist.scheduler import LoadScopeScheduling

from study import ROOT, Study, clone

SHARED = ROOT.parent / "shared"
SHIPPED = ROOT / "resources" / "models" / "ladder-6x8"


# Tests of these files share a finished study; they go to one worker, and first, since they take longest
OF_A_STUDY = (
    "atlas",
    "check_data",
    "damage",
    "determinism",
    "atlas_browser",
    "finished",
    "incremental",
    "kills",
    "notebook",
    "quick",
    "slurm",
    "workflow",
)


def of_a_study(file) -> bool:
    return Path(file).stem.removeprefix("test_") in OF_A_STUDY


def pytest_addoption(parser):
    text = "submit the whole smoke study to SLURM, not one task of it (tests/workflow/test_slurm.py)"
    parser.addoption("--whole-cluster-study", action="store_true", help=text)
    text = "run every command of the documents and every preset to its end, and build the container (hours)"
    parser.addoption("--every-command", action="store_true", help=text)
    text = "run a study of every family of docs/architectures.md, not of three (tests/workflow/test_architectures.py)"
    parser.addoption("--every-family", action="store_true", help=text)


# A slow machine is no failure: times belong to `make bench`
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_configure():
    """What libraries remember for the next run stays in the project too, not in the home of whoever tests."""
    folder = ROOT / ".pytest_cache" / "libraries"
    os.environ |= {"XDG_CACHE_HOME": str(folder), "MPLCONFIGDIR": str(folder / "matplotlib")}


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: not of_a_study(item.path))


class ByFile(LoadScopeScheduling):
    """Gives each file to one worker, since its tests share fixtures."""

    def _split_scope(self, nodeid):
        file = nodeid.split("::", 1)[0]
        return "study" if of_a_study(file) else file


def pytest_xdist_make_scheduler(config, log):
    return ByFile(config, log)


@pytest.fixture(scope="session")
def config() -> dict:
    """The default configuration."""
    return yaml.safe_load((ROOT / "config.yaml").read_text())


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the folder ../shared (published figures, real tokenizers) is not here")
    return SHARED


@pytest.fixture(scope="session")
def every_command(pytestconfig) -> bool:
    """Whether commands that take long run to their end."""
    return pytestconfig.getoption("every_command")


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> Study:
    """A finished small study. A test leaves its configuration and results as they were."""
    made = Study(tmp_path_factory.mktemp("study"))
    made.snakemake()
    return made


@pytest.fixture(scope="module")
def cloned(tmp_path_factory) -> Path:
    """The whole project as a user has it, to run commands in (`in_clone`)."""
    if not (Path(sys.prefix) / "bin" / "activate").is_file():
        pytest.skip("these tests run in no virtual environment such as `make` sets up")
    return clone(tmp_path_factory.mktemp("clone"))


def crossed(*lists, step=1):
    """All combinations of lists, for `parametrize`: every value in some that run at once, every other one slow.

    With ``step``, that holds of one value in ``step`` of the first list; its other values are slow.
    """

    def is_slow(first, *rest):
        return first % step > 0 or (first // step + sum(rest)) % 2 > 0

    return [
        pytest.param(*(values[i] for values, i in zip(lists, at, strict=True)), marks=[pytest.mark.slow] * is_slow(*at))
        for at in itertools.product(*(range(len(values)) for values in lists))
    ]


def every_other(values, first=0, step=2):
    """All values, for `parametrize`: one of ``step``, from number ``first`` on, runs at once; the rest are slow."""
    return [pytest.param(x, marks=[pytest.mark.slow] * ((i - first) % step > 0)) for i, x in enumerate(values)]


def slow_but(values, *fast):
    """All values, for `parametrize`: those of ``fast`` run at once; the rest are slow."""
    assert {*fast} <= {*values}, fast
    return [pytest.param(x, marks=[pytest.mark.slow] * (x not in fast)) for x in values]


@functools.cache
def load_tokenizer(name: str):
    """The shipped tokenizer, or a real one of ../shared/tokenizers; skips where that is absent."""
    from atlas.prompts.tokens import load_tokenizer

    folder = SHIPPED if name == "shipped" else SHARED / "tokenizers" / name
    if not folder.is_dir():
        pytest.skip(f"no tokenizer {name}: ../shared/tokenizers is not here")
    return load_tokenizer(str(folder))


@pytest.fixture(scope="session")
def shipped_model():
    from atlas.model import models

    return models.load(SHIPPED, device="cpu", batch_size=64)
