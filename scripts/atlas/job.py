"""What every workflow script does first: send messages to its log and turn user errors into one line."""

import logging
import sys
from collections.abc import Iterable
from types import TracebackType
from typing import Any, TypeVar

from atlas.errors import StudyError

Item = TypeVar("Item")
log = logging.getLogger("atlas")


def start(snakemake: Any) -> None:
    """Log to the rule's log file and to stderr; a StudyError ends the job with its message alone."""
    handlers: list[logging.Handler] = [logging.FileHandler(str(snakemake.log[0]), mode="w"), logging.StreamHandler()]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", handlers=handlers)
    for noisy in ("httpx", "transformers", "transformer_lens", "matplotlib", "fontTools"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    sys.excepthook = _report


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, StudyError):
        log.error("error: %s", error)
    else:
        log.error("unexpected error", exc_info=(kind, error, trace))


def progress(items: Iterable[Item], description: str) -> Iterable[Item]:
    """A progress bar on a terminal, nothing elsewhere."""
    from tqdm import tqdm

    return tqdm(items, desc=description, disable=None, leave=False)
