"""What the scripts that write a page of finished studies share: their arguments, and their ending in one line."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from atlas.core.errors import StudyError
from atlas.report.findings.reading import Results

DOCS = Path(__file__).resolve().parent
MODELS = ("smollm2", "gemma-3-270m", "ladder-6x8")  # of `make real` and of the default study
Write = Callable[[list[Results], Path], None]  # the results of each model, and the folder to write into


def run(arguments: list[str], description: str, write: Write) -> None:
    """Read `[--results FOLDER] [--docs FOLDER] [MODEL ...]` and write the page. Raises StudyError as ``write`` does."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--results", type=Path, default=DOCS.parent / "results")
    parser.add_argument("--docs", type=Path, default=DOCS)
    given = parser.parse_args(arguments)
    write([Results(given.results, name) for name in given.models], given.docs)


def main(description: str, write: Write) -> None:
    """`run` with the arguments of the command, whose error is one line."""
    try:
        run(sys.argv[1:], description, write)
    except StudyError as error:
        sys.exit(str(error))
