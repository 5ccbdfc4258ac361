"""Read and write dicts of tensors as artifacts. A module of its own: artifacts.py serves jobs that need no torch."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import torch

from atlas.store import artifacts


def write(content: dict[str, Any], path: Path | str, provenance: dict[str, Any]) -> None:
    """Write a (nested) dict of tensors, loadable without executing anything (``weights_only=True``)."""
    with artifacts.atomic(path) as temporary:
        with open(temporary, "wb") as file:  # given a path, torch writes the (temporary) file's name into the archive
            torch.save(content | {"provenance": json.dumps(provenance, sort_keys=True)}, file)
            comment = artifacts.SEAL + artifacts.BLANK  # of the archive, after its length, so far its last bytes
            file.seek(-2, os.SEEK_END)
            file.write(struct.pack("<H", len(comment)) + comment)
        artifacts.seal(temporary, path)


def read(path: Path | str) -> dict[str, Any]:
    """Load a dict of tensors; pages are mapped from disk and read when used."""
    artifacts.check(path)
    content: dict[str, Any] = torch.load(path, weights_only=True, mmap=True, map_location="cpu")
    return content
