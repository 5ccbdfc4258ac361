"""What every workflow script does first: send messages to its log and turn user errors into one line."""

import errno
import logging
import sys
from collections.abc import Iterable
from types import TracebackType
from typing import Any, TypeVar

from atlas.errors import StudyError

Item = TypeVar("Item")
log = logging.getLogger("atlas")
REMEDIES = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some")
REMEDIES |= dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "make it writable")


def start(snakemake: Any) -> None:
    """Log to the rule's log file and to stderr; a StudyError ends the job with its message alone."""
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
    else:
        log.error("unexpected error", exc_info=(kind, error, trace))


def progress(items: Iterable[Item], description: str) -> Iterable[Item]:
    """A progress bar on a terminal, nothing elsewhere."""
    from tqdm import tqdm

    return tqdm(items, desc=description, disable=None, leave=False)
