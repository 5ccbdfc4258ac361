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


def main(description: str, write: Write) -> None:
    """Write a page, as `[--results FOLDER] [--docs FOLDER] [MODEL ...]` asks for; a StudyError is one line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--results", type=Path, default=DOCS.parent / "results")
    parser.add_argument("--docs", type=Path, default=DOCS)
    given = parser.parse_args()
    try:
        write([Results(given.results, name) for name in given.models], given.docs)
    except StudyError as error:
        sys.exit(str(error))
