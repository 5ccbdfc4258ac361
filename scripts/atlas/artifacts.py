"""Read and write artifacts: atomic, with provenance, byte-identical for equal content."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

PROVENANCE_KEY = b"atlas"


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success flush it to disk and rename it into place."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


# ---- digests and provenance ----------------------------------------------------------------------------------
def digest(content: object) -> str:
    """SHA-256 of bytes, or of anything that JSON can hold in its canonical form; 16 hexadecimal digits."""
    if not isinstance(content, bytes):
        content = json.dumps(content, sort_keys=True, ensure_ascii=False).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def digest_file(path: Path | str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def provenance(
    inputs: dict[str, Any] | None = None, settings: dict[str, Any] | None = None, packages: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Where an artifact comes from: digests of its input files, its settings, and versions.

    Holds no time and no host, so that equal inputs and settings give byte-identical artifacts.
    """
    return {
        "inputs": {name: digest_file(path) for name, path in (inputs or {}).items()},
        "settings": settings or {},
        "versions": {"python": platform.python_version()} | {p: version(p) for p in ("pandas", *packages)},
    }


# ---- tables --------------------------------------------------------------------------------------------------
def write_table(frame: pd.DataFrame, path: Path | str, provenance: dict[str, Any]) -> None:
    """Write a data frame as Parquet with its provenance in the schema metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame, preserve_index=False)
    metadata = (table.schema.metadata or {}) | {PROVENANCE_KEY: json.dumps(provenance, sort_keys=True).encode()}
    with atomic(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary)


def read_table(path: Path | str) -> pd.DataFrame:
    import pandas as pd

    return pd.read_parquet(path)


def read_tables(paths: Iterable[Path | str]) -> pd.DataFrame:
    """Several tables of one kind as one."""
    import pandas as pd

    return pd.concat([read_table(p) for p in paths], ignore_index=True)


def table_provenance(path: Path | str) -> dict[str, Any]:
    import pyarrow.parquet as pq

    found: dict[str, Any] = json.loads(pq.read_schema(path).metadata[PROVENANCE_KEY])
    return found


# ---- JSON, text, tensors -------------------------------------------------------------------------------------
def write_json(content: dict[str, Any], path: Path | str, provenance: dict[str, Any]) -> None:
    write_text(path, json.dumps(content | {"provenance": provenance}, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path | str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(path).read_text())
    return content


def write_text(path: Path | str, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text)


def write_tensors(content: dict[str, Any], path: Path | str, provenance: dict[str, Any]) -> None:
    """Write a (nested) dict of tensors, loadable without executing anything (``weights_only=True``)."""
    import torch

    # to an open file: given a path, torch writes the (temporary) file's name into the archive
    with atomic(path) as temporary, open(temporary, "wb") as file:
        torch.save(content | {"provenance": json.dumps(provenance, sort_keys=True)}, file)


def read_tensors(path: Path | str) -> dict[str, Any]:
    """Load a dict of tensors; pages are mapped from disk and read when used."""
    import torch

    content: dict[str, Any] = torch.load(path, weights_only=True, mmap=True, map_location="cpu")
    return content


def size_mb(path: Path | str) -> float:
    return Path(path).stat().st_size / 1e6
