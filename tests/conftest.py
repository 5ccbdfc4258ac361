"""Fixtures that several test files share."""

import functools
from pathlib import Path

import pytest
import yaml

from study import ROOT, Study

SHARED = ROOT.parent / "shared"
SHIPPED = ROOT / "resources" / "models" / "ladder-6x8"


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
def study(tmp_path_factory) -> Study:
    """A finished small study. A test leaves its configuration and results as they were."""
    made = Study(tmp_path_factory.mktemp("study"))
    made.snakemake()
    return made


@functools.cache
def load_tokenizer(name: str):
    """The shipped tokenizer, or a real one of ../shared/tokenizers; skips where that is absent."""
    from atlas.tokens import load_tokenizer

    folder = SHIPPED if name == "shipped" else SHARED / "tokenizers" / name
    if not folder.is_dir():
        pytest.skip(f"no tokenizer {name}: ../shared/tokenizers is not here")
    return load_tokenizer(str(folder))


@pytest.fixture(scope="session")
def shipped_model():
    from atlas import models

    return models.load(SHIPPED, device="cpu", batch_size=64)
