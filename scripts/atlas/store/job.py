"""What workflow scripts share: messages and errors, where a job's files are, and what its results came from.

The only module that knows Snakemake's object of a job.
"""

import dataclasses
import errno
import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from atlas.core.errors import StudyError
from atlas.store import artifacts, places, sources

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Item = TypeVar("Item")
Settings = TypeVar("Settings", bound="DataclassInstance")
log = logging.getLogger("atlas")
REMEDIES = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some")
REMEDIES |= dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "make it writable")


def start(snakemake: Any) -> None:
    """Log to the rule's log file and to stderr; a StudyError or an interrupt ends the job with one line."""
    logging.raiseExceptions = False  # a log that cannot be written is no reason to stop
    sys.excepthook = _report
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    file = logging.FileHandler(str(snakemake.log[0]), mode="w")
    file.setFormatter(logging.getLogger().handlers[0].formatter)
    logging.getLogger().addHandler(file)
    for noisy in ("httpx", "transformers", "transformer_lens", "matplotlib", "fontTools"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, StudyError):
        log.error("error: %s", error)
    elif isinstance(error, OSError) and error.errno in REMEDIES:
        remedy = REMEDIES[error.errno]
        log.error(
            "error: %s: %s; %s and run again, what was computed stays",
            error.filename or "results",
            error.strerror,
            remedy,
        )
    elif issubclass(kind, KeyboardInterrupt):
        log.error("interrupted; run again to go on, what was computed stays")
    else:
        log.error("unexpected error", exc_info=(kind, error, trace))


def progress(items: Iterable[Item], description: str) -> Iterable[Item]:
    """A progress bar on a terminal, nothing elsewhere."""
    from tqdm import tqdm

    return tqdm(items, desc=description, disable=None, leave=False)


# ---- places, which are no settings (see places.py) -----------------------------------------------------------
def model_folder(snakemake: Any) -> Path:
    """Where the files of the job's model lie, once `check_model` has found or built it."""
    config, name = snakemake.config, snakemake.wildcards.model
    return places.model_folder(config["models"][name], config["weights"] == "random", snakemake.input.model)


def memo_folder(snakemake: Any) -> Path:
    """Where scores of evaluated circuits are kept: beside the folders of models; no artifact, may be deleted."""
    return Path(snakemake.input.model).parents[1] / "memo"


def task_block(snakemake: Any) -> dict[str, Any]:
    """The job's block of a task (param ``task``), with the paths of its prompt files."""
    return places.with_places(snakemake.params.task, snakemake.config["tasks"][snakemake.wildcards.task])


# ---- what library functions take -----------------------------------------------------------------------------
def settings(snakemake: Any, kind: type[Settings]) -> Settings:
    """A dataclass of settings, from the params of the same names; of those that the rule lacks its defaults."""
    given = dict(snakemake.params.items())
    return kind(**{field.name: given[field.name] for field in dataclasses.fields(kind) if field.name in given})


def run(snakemake: Any) -> dict[str, Any]:
    """How a job runs its model (param ``run``), as `models.load` takes it.

    With `memory_mb: auto` also the memory that Snakemake gives the job, which is no param: what runs do not depend on.
    """
    found = dict(snakemake.params.run)
    return found | ({"limit_mb": snakemake.resources.get("mem_mb")} if found.get("memory_mb") == "auto" else {})


def task_data(snakemake: Any) -> dict[str, Any]:
    """The arguments of `task_data.TaskData`: the files, model and task of a job, and how it runs and ablates."""
    names, given = ("run", "kind", "legacy_mlp_means", "allow_negative_clean"), dict(snakemake.params.items())
    given |= {"run": run(snakemake)} if "run" in given else {}
    places_of = {"paths": dict(snakemake.input.items()), "folder": model_folder(snakemake)}
    places_of |= {"identity": {key: snakemake.wildcards[key] for key in ("model", "task")}}
    return places_of | {"memo_folder": memo_folder(snakemake)} | {key: given[key] for key in names if key in given}


def data_of_tasks(snakemake: Any) -> dict[str, Any]:
    """The arguments of `geometry.tails.data_of`: the files of a model's tasks (param ``tasks``; inputs that are lists
    have one of each), and how its jobs run and ablate."""
    names, given = ("kind", "legacy_mlp_means"), dict(snakemake.params.items())
    how = {key: given[key] for key in names if key in given}
    how |= {"folder": model_folder(snakemake), "run": run(snakemake)}
    of_model = {"name": snakemake.wildcards.model, "how": how}
    return {"files": dict(snakemake.input.items()), "tasks": given["tasks"], "given": of_model}


# ---- results and provenance ----------------------------------------------------------------------------------
def provenance(snakemake: Any, *modules: Path | str) -> dict[str, Any]:
    """Where what a job writes comes from: digests of all its inputs, all its params, and versions.

    The param ``code`` is left out: an edit that changes no number changes no artifact. Versions are those of the
    packages that the script imports, and ``modules``: files of modules that it
    loads by name.
    """
    inputs: dict[str, str] = {}
    for name, paths in snakemake.input.items():
        one = isinstance(paths, str)
        inputs |= {name: paths} if one else {f"{name} {i}": path for i, path in enumerate(paths)}
    settings = {name: value for name, value in snakemake.params.items() if name != "code"}
    script = sys.modules["__main__"].__file__
    assert script is not None
    return artifacts.provenance(inputs, settings, sources.of(script, *modules).packages)


def save(snakemake: Any, **contents: Any) -> None:
    """Write tables (data frames) and JSON (dicts) to the outputs of their names, with the job's provenance.

    The model and task of the job stand first in each.
    """
    wildcards = dict(snakemake.wildcards.items())
    identity = {key: wildcards[key] for key in ("model", "task") if key in wildcards}
    whence = provenance(snakemake)
    for name, content in contents.items():
        if isinstance(content, dict):
            artifacts.write_json(identity | content, snakemake.output[name], whence)
            continue
        table = content.copy(deep=False)
        for place, (key, value) in enumerate(identity.items()):
            table.insert(place, key, value)
        artifacts.write_table(table, snakemake.output[name], whence)
