"""The library's type annotations hold together, by the settings in pyproject.toml."""

import subprocess
import sys

import pytest

from conftest import ROOT


@pytest.mark.slow
def test_the_library_passes_strict_type_checking():
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
