"""Compare two results folders of one study: python tests/compare_results.py before/results after/results.

Tables must have the same rows in the same order, text and whole numbers alike, and each number equal to 1e-6, or to
1e-6 of itself where it is larger than 1; JSON files and tensors likewise. Provenance and seals are left out: they name
versions of code. What only one folder has is named. Exits with 1 where anything differs.

--renamed table.column:old=new   a value that the second folder calls otherwise (may be given often)
--added table.column or table    a column, or rows of a table, or a file, that only the second folder has
--left-out file.key              a key of a JSON file that is not compared
"""

import argparse
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch

TOLERANCE = 1e-6
LEFT_OUT = ("provenance", "seal")  # keys of JSON files


@dataclass(frozen=True)
class Allowed:
    """What may differ: see the options."""

    renamed: dict[str, dict[str, str]] = field(default_factory=dict)  # table.column -> old value -> new one
    added: frozenset[str] = frozenset()
    left_out: frozenset[str] = frozenset()


def compared(before: Path, after: Path, allowed: Allowed) -> tuple[list[str], float, int]:
    """What differs, one line each; the largest relative difference of numbers; how many files were compared."""
    found, largest, count = [], 0.0, 0
    ours, theirs = ({p.relative_to(f): p for p in f.rglob("*") if p.suffix in READERS} for f in (before, after))
    found += [f"{name}: only in {before}" for name in sorted(ours.keys() - theirs.keys())]
    found += [
        f"{name}: only in {after}" for name in sorted(theirs.keys() - ours.keys()) if name.stem not in allowed.added
    ]
    for name in sorted(ours.keys() & theirs.keys()):
        said, size = READERS[name.suffix](ours[name], theirs[name], allowed)
        found += [f"{name}: {line}" for line in said]
        largest, count = max(largest, size), count + 1
    return found, largest, count


def numbers(a: np.ndarray, b: np.ndarray) -> tuple[str, float]:
    """What is wrong, if anything, and the largest difference, relative where numbers are larger than 1."""
    if a.shape != b.shape:
        return f"shape {a.shape} became {b.shape}", 0.0
    a, b = a.astype(float), b.astype(float)
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        return "nan in other places", 0.0
    same = (a == b) | np.isnan(a)
    if same.all():
        return "", 0.0
    size = float((np.abs(a[~same] - b[~same]) / np.maximum(1, np.abs(a[~same]))).max())
    return (f"differs by {size:.1e}" if not size <= TOLERANCE else ""), size


def tables(ours: Path, theirs: Path, allowed: Allowed) -> tuple[list[str], float]:
    name, largest, found = ours.stem, 0.0, []
    a, b = pd.read_parquet(ours), pd.read_parquet(theirs)
    b = b.drop(columns=[column for column in b if column not in a and f"{name}.{column}" in allowed.added])
    if list(a.columns) != list(b.columns):
        return [f"columns {list(a.columns)} became {list(b.columns)}"], 0.0
    for column in a:
        new = allowed.renamed.get(f"{name}.{column}", {})
        a[column] = a[column].replace(new) if new else a[column]
    if name in allowed.added:
        keys = [column for column in a if not pd.api.types.is_float_dtype(a[column])]
        b = (
            a[keys]
            .astype(str)
            .merge(b.assign(**{k: b[k].astype(str) for k in keys}), on=keys, how="inner")[list(a.columns)]
        )
    if len(a) != len(b):
        return [f"{len(a)} rows became {len(b)}"], 0.0
    for column in a:
        if pd.api.types.is_float_dtype(a[column]):
            said, size = numbers(a[column].to_numpy(), b[column].to_numpy(dtype=float))
            largest = max(largest, size)
            found += [f"{column} {said}"] if said else []
        elif not a[column].map(as_text).equals(b[column].map(as_text)):
            found.append(f"{column} holds other values")
    return found, largest


def as_text(value: object) -> str:
    return str(value.tolist() if isinstance(value, np.ndarray) else value)


def objects(ours: Path, theirs: Path, allowed: Allowed) -> tuple[list[str], float]:
    return nested(json.loads(ours.read_text()), json.loads(theirs.read_text()), "", ours.stem, allowed)


def nested(a: object, b: object, at: str, name: str, allowed: Allowed) -> tuple[list[str], float]:
    """The same of two JSON values; ``at``: their place in the file."""
    if isinstance(a, dict) and isinstance(b, dict):
        left_out = {key for key in a.keys() | b.keys() if key in LEFT_OUT or f"{name}.{key}" in allowed.left_out}
        found = [f"{at}.{key} is gone" for key in a.keys() - b.keys() - left_out]
        new = b.keys() - a.keys() - left_out
        found += [f"{at}.{key} is new" for key in new if f"{name}.{key}" not in allowed.added]
        pairs = [(a[key], b[key], f"{at}.{key}") for key in a if key in b and key not in left_out]
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        found, pairs = [], [(x, y, f"{at}[{i}]") for i, (x, y) in enumerate(zip(a, b, strict=True))]
    elif all(isinstance(x, int | float) and not isinstance(x, bool) for x in (a, b)):
        said, size = numbers(np.array([a]), np.array([b]))
        return ([f"{at} {said}"] if said else []), size
    else:
        return ([] if a == b else [f"{at} {str(a)[:60]!r} became {str(b)[:60]!r}"]), 0.0
    largest = 0.0
    for x, y, place in pairs:
        said, size = nested(x, y, place, name, allowed)
        found, largest = found + said, max(largest, size)
    return found, largest


def tensors(ours: Path, theirs: Path, allowed: Allowed) -> tuple[list[str], float]:
    a, b = (plain(torch.load(path, weights_only=True)) for path in (ours, theirs))
    found, largest = [f"{key}: only in one of them" for key in a.keys() ^ b.keys()], 0.0
    for key in a.keys() & b.keys():
        said, size = numbers(a[key].double().numpy(), b[key].double().numpy())
        found, largest = found + ([f"{key} {said}"] if said else []), max(largest, size)
    return found, largest


def plain(content: object, at: str = "") -> dict[str, torch.Tensor]:
    """Dotted key -> tensor."""
    if isinstance(content, torch.Tensor):
        return {at: content}
    parts = content.items() if isinstance(content, dict) else ()
    return {key: x for name, part in parts for key, x in plain(part, f"{at}.{name}").items()}


READERS = {".parquet": tables, ".json": objects, ".pt": tensors}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--renamed", action="append", default=[])
    parser.add_argument("--added", action="append", default=[])
    parser.add_argument("--left-out", action="append", default=[])
    given = parser.parse_args()
    renamed: dict[str, dict[str, str]] = {}
    for text in given.renamed:
        place, _, change = text.partition(":")
        old, _, new = change.partition("=")
        renamed.setdefault(place, {})[old] = new
    allowed = Allowed(renamed, frozenset(given.added), frozenset(given.left_out))
    found, largest, count = compared(given.before, given.after, allowed)
    print(*found, sep="\n", end="\n" if found else "")
    print(f"{count} files compared, {len(found)} differences; the largest between two numbers: {largest:.1e}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
