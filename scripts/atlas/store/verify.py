"""Check the seal of every artifact of a results folder: `make verify`, or python -m atlas.store.verify results."""

import sys
from pathlib import Path

from atlas.core.errors import StudyError
from atlas.store import artifacts

FOREIGN = {"memo", "checkpoint", "models", "model"}  # folders whose files are in formats of others, without seals


def damaged(folder: Path | str) -> tuple[int, list[str]]:
    """Number of artifacts below a folder, and one line for each that is not what was written there."""
    files = [f for f in sorted(Path(folder).rglob("*")) if f.suffix in (".parquet", ".json", ".pt") and f.is_file()]
    files = [f for f in files if not FOREIGN & set(f.relative_to(folder).parts[:-1])]
    lines = []
    for file in files:
        try:
            artifacts.check(file)
        except StudyError as error:
            lines.append(str(error))
    return len(files), lines


if __name__ == "__main__":
    number, found = damaged(sys.argv[1])
    print(*found, f"{number} artifacts, {len(found)} damaged", sep="\n")
    sys.exit(bool(found))
