"""Write docs/claims.md, published claims about order beside our numbers, from the tables of finished studies.

PYTHONPATH=scripts python docs/build_claims.py [--results results] [MODEL ...], by default of the two real models of
`make real` and of the default study. What is absent is named, on the page and here, and left out of nothing.
"""

import argparse
import sys
from pathlib import Path

from atlas.core.errors import StudyError
from atlas.report.claims import page
from atlas.report.findings.reading import Results

DOCS = Path(__file__).resolve().parent
MODELS = ("smollm2", "gemma-3-270m", "ladder-6x8")
COMMAND = "make claims"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--results", type=Path, default=DOCS.parent / "results")
    parser.add_argument("--docs", type=Path, default=DOCS)
    given = parser.parse_args(arguments)
    models = [Results(given.results, name) for name in given.models]
    for line in page.write(models, given.docs / "claims.md", COMMAND):
        print(line)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except StudyError as error:
        sys.exit(str(error))
