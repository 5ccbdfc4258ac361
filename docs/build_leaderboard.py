"""Write docs/leaderboard.md and its figure from the tables of `snakemake leaderboard`.

PYTHONPATH=scripts python docs/build_leaderboard.py [--results results/leaderboard]

Ends with one line where a table is missing or damaged.
"""

import argparse
import shutil
import sys
from pathlib import Path

from atlas.core.errors import StudyError
from atlas.proof import board_page
from atlas.store import artifacts

DOCS = Path(__file__).resolve().parent
PICTURE = "images/leaderboard.png"


def write(results: Path, docs: Path) -> Path:
    """Write the page and its figure; the page's path. Raises StudyError where a table or the figure is missing."""
    figure = results / "leaderboard.png"
    for file in (results / "leaderboard.parquet", results / "ranks.parquet", figure):
        if not file.is_file():
            raise StudyError(f"{file}: missing; run `snakemake --cores 2 leaderboard` first")
    table, ranks = (artifacts.read_table(results / f"{name}.parquet") for name in ("leaderboard", "ranks"))
    page = docs / "leaderboard.md"
    artifacts.write_text(page, board_page.page(table, ranks, PICTURE))
    (docs / PICTURE).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(figure, docs / PICTURE)
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("results/leaderboard"))
    try:
        print(write(parser.parse_args().results, DOCS))
    except StudyError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
