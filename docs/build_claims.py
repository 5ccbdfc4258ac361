"""Write docs/claims.md, published claims about order beside our numbers, from the tables of finished studies.

PYTHONPATH=scripts python docs/build_claims.py [--results results] [MODEL ...], by default of the two real models of
`make real` and of the default study. What is absent is named, on the page and here, and left out of nothing.
"""

from pathlib import Path

import of_studies

from atlas.report.claims import page
from atlas.report.findings.reading import Results


def write(models: list[Results], docs: Path) -> None:
    for line in page.write(models, docs / "claims.md", "make claims"):
        print(line)


if __name__ == "__main__":
    of_studies.main(__doc__, write)
