"""Where the files of a study lie on this machine, and what stands for their content.

Places are read from the configuration whenever they are needed. They are part of no param and of no artifact, so that a
study that is copied or moved, with its files or without, is the same study. What counts instead is `contents`.
Parsed by Snakemake in every job: nothing heavy is imported here.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from atlas.core.errors import StudyError
from atlas.store import artifacts
from atlas.store.sources import ROOT

LARGE = 64 * 2**20  # bytes; larger files are not read while a study is planned
CHECKPOINT = ("config.json", "tokenizer*", "*.safetensors", "pytorch_model*.bin")
CACHE = "CIRCUIT_ATLAS_CACHE"  # environment variable
CHECKPOINTS, WHEELS = "checkpoints", "wheels"  # folders in the cache
TOKENIZER = ("tokenizer*", "vocab*", "merges*", "special_tokens_map.json", "added_tokens.json")


def below_root(path: str, root: Path | str = ROOT) -> Path:
    """A path of the configuration: absolute, from the user's home (`~`), or from ``root``, the workflow's folder."""
    return Path(root) / Path(path).expanduser()


def contents(files: Iterable[Path]) -> dict[str, str]:
    """Name -> what stands for the content of each file that is there, in order of names; without its folder.

    The SHA-256 (16 digits); of a file larger than LARGE its size and time, which copies keep and new weights change.
    """
    return {file.name: _content(file) for file in sorted(files) if file.is_file()}


def _content(file: Path) -> str:
    about = file.stat()
    if about.st_size > LARGE:
        return f"{about.st_size} bytes of {int(about.st_mtime)}"
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:16]


def matching(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """Files of a folder, those of the first pattern before those of the next; one may come twice."""
    return [file for pattern in patterns for file in folder.glob(pattern)]


# ---- models --------------------------------------------------------------------------------------------------
def checkpoint_files(block: dict[str, Any]) -> list[Path]:
    """Files of the local checkpoint that a model's block names; none of a hub id."""
    return matching(below_root(block["path"]), CHECKPOINT) if "path" in block else []


def gguf_source(block: dict[str, Any]) -> dict[str, Any]:
    """What a model's block says of its GGUF, without folders: of packages the names of the parts, which its ``sha256``
    stands for; of files on this machine the content of each, in order."""
    parts = [block["gguf"]] if isinstance(block["gguf"], str) else block["gguf"]
    stated = {key: block[key] for key in ("package", "sha256", "licence") if key in block}
    return stated | {"gguf": parts if "package" in block else [contents([below_root(part)]) for part in parts]}


def cache_folder() -> Path:
    """Where fetched packages, and the checkpoints made of GGUF files, are kept for all studies of a user.

    The environment variable CIRCUIT_ATLAS_CACHE, else the place of this platform (XDG_CACHE_HOME or ~/.cache on Linux).
    """
    if os.environ.get(CACHE):
        return Path(os.environ[CACHE]).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("circuit-atlas", appauthor=False))


def model_folder(block: dict[str, Any], random_weights: bool, model_json: Path | str) -> Path:
    """The folder of a model that was found before (`check_model`): what its block names, or what was built.

    ``model_json``: its description, beside which a random model lies; of a hub id it says which commit was found, of a
    GGUF which folder of the cache was made. Raises StudyError where the local cache no longer holds that.
    """
    if random_weights:
        return Path(model_json).parent / "checkpoint"
    if "path" in block:
        return below_root(block["path"])
    if "gguf" in block:
        name: str = artifacts.read_json(model_json)["source"]["folder"]
        folder = cache_folder() / CHECKPOINTS / name
        if not (folder / "config.json").is_file():
            raise StudyError(
                f"models: {folder} is not there any more; run `snakemake --cores 2 fetch_models` with the "
                f"configuration of your study, or set {CACHE} to the folder that holds it"
            )
        return folder
    import huggingface_hub

    commit = artifacts.read_json(model_json)["commit"]
    try:
        return Path(huggingface_hub.snapshot_download(block["hub"], revision=commit, local_files_only=True))
    except Exception as error:  # the hub client raises many kinds
        raise StudyError(
            f"models: {block['hub']!r} at {commit} is not in the local cache of the hub any more "
            f"({type(error).__name__}); run again with `--forcerun check_model`, or set HF_HOME to its cache"
        ) from None


# ---- what a user gives ---------------------------------------------------------------------------------------
def prompt_files(block: dict[str, Any]) -> dict[str, Path]:
    """`clean` and `corrupted` of a task's block -> the file; nothing of a task that is made from members."""
    given = block.get("file") or {}
    return {key: below_root(given[key]) for key in ("clean", "corrupted") if key in given}


def without_places(block: dict[str, Any]) -> dict[str, Any]:
    """A task's block less the paths of its prompt files."""
    if "file" not in block:
        return block
    return block | {"file": {k: v for k, v in block["file"].items() if k not in ("clean", "corrupted")}}


def with_places(block: dict[str, Any], configured: dict[str, Any]) -> dict[str, Any]:
    """Such a block with the paths of its prompt files, as they stand in the task's block of the configuration."""
    return block | {"file": configured["file"]} if "file" in block else block
