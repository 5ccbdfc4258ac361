"""Read and write artifacts: atomic, sealed, with provenance, byte-identical for equal content.

A seal is the digest of the whole file and of its place in the results, kept inside the file. Whoever reads an artifact
checks it first, so that a damaged file, or one put in another's place, is named instead of used.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import mmap
import os
import platform
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.core.errors import StudyError

if TYPE_CHECKING:
    import pandas as pd

PROVENANCE_KEY = b"atlas"
SEAL = b"circuit-atlas-seal:"  # 64 hexadecimal digits follow; the last one in a file counts
BLANK = b"0" * 64
FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success flush it to disk and rename it into place.

    Raises StudyError where the disk is full; what stood at ``path`` stays.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):  # by a process that was killed
            left.unlink(missing_ok=True)
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        full = isinstance(error, RuntimeError) and shutil.disk_usage(path.parent).free < 2**16  # as torch raises it
        if full or getattr(error, "errno", None) in FULL:
            raise StudyError(
                f"{path}: no space left on the disk; free some and run again, what was computed stays"
            ) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


# ---- seals ---------------------------------------------------------------------------------------------------
def seal(file: Path | str, path: Path | str) -> None:
    """Put into a written file, which holds a blank seal, the seal of the artifact that it becomes at ``path``."""
    with open(file, "r+b") as opened, mmap.mmap(opened.fileno(), 0) as content:
        place = content.rfind(SEAL + BLANK)
        assert place >= 0, f"no blank seal in {path}"
        start = place + len(SEAL)
        content[start : start + len(BLANK)] = _digest_at(content, start, path)


def check(path: Path | str) -> None:
    """Raise StudyError unless the artifact at ``path`` is what was written there; the same file is checked once."""
    key = _identity(path)
    if key not in _checked:
        _check(path)
        if key:
            _checked.add(key)


def _check(path: Path | str) -> None:
    said = "it is cut short, or was not written by this workflow"
    try:
        with open(path, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            start = content.rfind(SEAL) + len(SEAL)
            if start >= len(SEAL) and len(content) >= start + len(BLANK):
                if content[start : start + len(BLANK)] == _digest_at(content, start, path):
                    return
                said = "it is not what was written there: some of it changed, or another file took its place"
    except ValueError:  # an empty file cannot be mapped
        pass
    raise StudyError(
        f"{path}: damaged, {said}; recompute it with `snakemake --cores 2 --force {path}` (and the --configfile of "
        "your study), then run the study again"
    )


# What a process has hashed, by `_identity`: a job names its inputs several times, and they are large
Identity = tuple[str, int, int, int, int]
_checked: set[Identity] = set()
_digests: dict[Identity, str] = {}
SETTLED = 2e9  # nanoseconds: a file may change again within the tick of a clock, and would keep size and time


def _identity(path: Path | str) -> Identity | None:
    """What stands for a file's content within a process; None while that may change unseen."""
    about = os.stat(path)
    if time.time_ns() - max(about.st_mtime_ns, about.st_ctime_ns) < SETTLED:
        return None
    return os.path.abspath(path), about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino


def _digest_at(content: mmap.mmap, start: int, path: Path | str) -> bytes:
    """Of the file with a blank seal at ``start``, and of its place in the results; 64 hexadecimal digits."""
    parts = Path(path).parts
    place = parts[len(parts) - parts[::-1].index("results") :] if "results" in parts else parts[-1:]
    found = hashlib.sha256("/".join(place).encode() + b"\n")
    with memoryview(content) as view:
        for part in (view[:start], BLANK, view[start + len(BLANK) :]):
            found.update(part)
            if isinstance(part, memoryview):
                part.release()
    return found.hexdigest().encode()


# ---- digests and provenance ----------------------------------------------------------------------------------
def digest(content: object) -> str:
    """SHA-256 of bytes, or of anything that JSON can hold in its canonical form; 16 hexadecimal digits."""
    if not isinstance(content, bytes):
        content = json.dumps(content, sort_keys=True, ensure_ascii=False).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def digest_file(path: Path | str) -> str:
    """SHA-256 of a file, 16 hexadecimal digits; of a folder that of its files by name. The same file is read once."""
    if Path(path).is_dir():
        files = sorted(file for file in Path(path).rglob("*") if file.is_file())
        return digest({file.relative_to(path).as_posix(): digest_file(file) for file in files})
    key = _identity(path)
    if key in _digests:
        return _digests[key]
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    if key:
        _digests[key] = found
    return found


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
    table = table.replace_schema_metadata(metadata)
    with atomic(path) as temporary:
        with pq.ParquetWriter(temporary, table.schema) as writer:
            writer.write_table(table)
            writer.add_key_value_metadata({"seal": (SEAL + BLANK).decode()})
        seal(temporary, path)


def read_table(path: Path | str) -> pd.DataFrame:
    """Raises StudyError where the file is damaged, as do all readers here."""
    import pandas as pd

    check(path)
    return pd.read_parquet(path)


def read_tables(paths: Iterable[Path | str]) -> pd.DataFrame:
    """Several tables of one kind as one."""
    import pandas as pd

    return pd.concat([read_table(p) for p in paths], ignore_index=True)


def named_tables(files: Mapping[str, str | Sequence[str]]) -> dict[str, pd.DataFrame]:
    """The tables among a job's named inputs; several files of one name as one table."""
    named = {name: [paths] if isinstance(paths, str) else list(paths) for name, paths in files.items()}
    return {name: read_tables(paths) for name, paths in named.items() if str(paths[0]).endswith(".parquet")}


def table_provenance(path: Path | str) -> dict[str, Any]:
    """What `provenance` was given when a Parquet table was written; the table is not read, nor checked."""
    import pyarrow.parquet as pq

    found: dict[str, Any] = json.loads(pq.read_schema(path).metadata[PROVENANCE_KEY])
    return found


# ---- JSON, text ----------------------------------------------------------------------------------------------
def write_json(content: dict[str, Any], path: Path | str, provenance: dict[str, Any]) -> None:
    """Write an object as JSON, sealed, ``provenance`` under that key. Raises StudyError where the disk is full."""
    whole = content | {"provenance": provenance, "seal": (SEAL + BLANK).decode()}
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
        seal(temporary, path)


def read_json(path: Path | str) -> dict[str, Any]:
    """The object that `write_json` wrote, with `provenance` and `seal`; raises StudyError where it is damaged."""
    check(path)
    content: dict[str, Any] = json.loads(Path(path).read_text())
    return content


def write_text(path: Path | str, text: str) -> None:
    """Write a text as UTF-8, without a seal. Raises StudyError where the disk is full."""
    with atomic(path) as temporary:
        temporary.write_text(text)


def size_mb(path: Path | str) -> float:
    """Size of a file in millions of bytes."""
    return Path(path).stat().st_size / 1e6
