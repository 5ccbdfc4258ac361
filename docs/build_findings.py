"""Write docs/findings.md and its figures from the tables of finished studies.

PYTHONPATH=scripts python docs/build_findings.py [--results results] [MODEL ...], by default of the two real models of
`make real` and of the default study. Ends with one line where a table is missing.
"""

from pathlib import Path

import of_studies

from atlas.report.findings import page
from atlas.report.findings.reading import Results


def write(models: list[Results], docs: Path) -> None:
    page.write(models, docs / "findings.md", docs / "images" / "findings", "make findings")


if __name__ == "__main__":
    of_studies.main(__doc__, write)
