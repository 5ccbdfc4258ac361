"""Tables of prompts as they are written: Parquet, CSV, TSV, JSON (a list of records) and JSON lines.

No cell changes its type. CSV and TSV hold text alone; of JSON and Parquet each cell is what the file says it is. Every
row has the cells that the header, or the first record, names.
"""

import csv
import io
import json
import unicodedata
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from atlas.core.errors import StudyError, one_line

WRITTEN = ("csv", "tsv")  # of text alone: a number is what looks like one
FORMATS = (*WRITTEN, "json", "jsonl", "ndjson", "parquet")


class _Unreadable(Exception):
    """What is wrong with a table, and what to do."""


def read(path: Path, key: str) -> pd.DataFrame:
    """The table in a file, cells as objects, rows numbered from 1 (the first below the header).

    ``key``: of the configuration, for messages. Raises StudyError for what cannot be read as it is written.
    """
    kind = path.suffix.lower().removeprefix(".")
    allowed = f"{', '.join('.' + name for name in FORMATS[:-1])} or .{FORMATS[-1]}"
    if not path.is_file():
        said = "is no file" if path.exists() else "does not exist"
        raise StudyError(f"{key}: {path} {said}; give the path of a {allowed} file")
    if kind not in FORMATS:
        raise StudyError(f"{key}: {path} is neither {allowed}")
    try:
        names, rows = _parquet(path) if kind == "parquet" else _text_table(path, kind)
    except _Unreadable as error:
        raise StudyError(f"{key}: {path}: {error}") from None
    except Exception as error:  # whatever a reader says about a broken file
        raise StudyError(f"{key}: {path} cannot be read as {kind} ({one_line(error, kind=False)})") from None
    return pd.DataFrame(rows, columns=names, index=range(1, len(rows) + 1), dtype=object)


def shown(cells: object) -> str:
    """Cells for a message: on one line, and cut where they are long."""
    text = ascii(cells) if not str(cells).isprintable() else repr(cells)
    return text if len(text) <= 80 else text[:77] + "..."


def _parquet(path: Path) -> tuple[list[str], list[list[Any]]]:
    with path.open("rb") as file:
        table = pq.read_table(file)
    names = [str(name) for name in table.column_names]
    _refuse_repeated(names)
    columns = [column.to_pylist() for column in table.columns]
    return names, [list(row) for row in zip(*columns, strict=True)]


def _text_table(path: Path, kind: str) -> tuple[list[str], list[list[Any]]]:
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise _Unreadable(f"line {line} is not UTF-8; save it as UTF-8") from None
    if kind in WRITTEN:
        return _cells(text, "\t" if kind == "tsv" else ",")
    return _records(_json_records(text) if kind == "json" else _json_lines(text))


def _cells(text: str, delimiter: str) -> tuple[list[str], list[list[Any]]]:
    """Header and rows of text with a delimiter; cells may be in quotes, and then hold line breaks and delimiters."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    lines: list[tuple[int, list[str]]] = []
    try:
        for row in reader:
            lines.append((reader.line_num, row))
    except csv.Error as error:
        remedy = "put a cell in quotes, and double those within it"
        raise _Unreadable(f"line {reader.line_num}: {error}; {remedy}") from None
    while lines and not lines[-1][1]:  # line breaks at the end of the file
        lines.pop()
    if not lines:
        raise _Unreadable("is empty; give a header and rows")
    (_, names), *rest = lines
    _refuse_repeated(names)
    for number, (line, row) in enumerate(rest, 1):
        if not row:
            raise _Unreadable(f"row {number} (line {line}) is empty; take it out")
        if len(row) != len(names):
            more = "more" if len(row) > len(names) else "fewer"
            raise _Unreadable(
                f"row {number} (line {line}) has {more} cells than the header, {len(row)} {shown(row)} under "
                f"{len(names)} {shown(names)}; put a cell that holds the delimiter in quotes, or name every column"
            )
    return names, [row for _, row in rest]


def _json_records(text: str) -> list[tuple[str, Any]]:
    try:
        records = _parsed(text)
    except json.JSONDecodeError as error:
        remedy = "; one record a line is .jsonl" if error.msg == "Extra data" else ""
        raise _Unreadable(f"is no JSON ({error}){remedy}") from None
    if not isinstance(records, list):
        raise _Unreadable(f"holds {shown(records)}; give a list of records, [{{...}}, {{...}}]")
    return [(f"row {number}", record) for number, record in enumerate(records, 1)]


def _json_lines(text: str) -> list[tuple[str, Any]]:
    lines = text.replace("\r\n", "\n").rstrip("\n").split("\n")
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append((f"row {number}", _parsed(line)))
        except json.JSONDecodeError as error:
            raise _Unreadable(f"line {number} is no JSON record ({error.msg}): {shown(line)}") from None
    return found


def _parsed(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_record, parse_int=_integer, parse_constant=_refuse_constant)


def _record(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _refuse_repeated([name for name, _ in pairs])
    return dict(pairs)


def _integer(text: str) -> int:
    if str(int(text)) != text:
        raise _Unreadable(f"the number {text} is written in another way than usual; put it in quotes")
    return int(text)


def _refuse_constant(text: str) -> None:
    raise _Unreadable(f"{text} is no number of JSON; put it in quotes")


def _records(found: list[tuple[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of records that all have the same keys."""
    if not found:
        raise _Unreadable("is empty; give records")
    names: list[str] = []
    for number, (where, record) in enumerate(found):
        if not isinstance(record, dict):
            raise _Unreadable(f"{where} is {shown(record)}; give a record, {{...}}")
        names = names if number else list(record)
        odd = [name for name in names if name not in record] or [name for name in record if name not in names]
        if odd:
            has = "lacks" if odd[0] in names else "has"
            raise _Unreadable(f"{where} {has} the key {odd[0]!r}, unlike row 1; give every record the same keys")
    return names, [[record[name] for name in names] for _, record in found]


def _refuse_repeated(names: list[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise _Unreadable(f"has the column {twice!r} twice; rename one")


# ---- cells ---------------------------------------------------------------------------------------------------
def column(frame: pd.DataFrame, name: str, key: str) -> list[str]:
    """A column as the text that it holds; raises StudyError where it is missing, or where a cell is no text.

    A whole number is the text of its digits. Nothing else has one text alone.
    """
    if name not in frame.columns:
        known = ", ".join(map(repr, frame.columns[:20])) + (", ..." if len(frame.columns) > 20 else "")
        raise StudyError(f"{key}: no column {name!r}; there are {known or 'none'}")
    return [_cell(cell, f"{key}: row {row} of column {name!r}") for row, cell in frame[name].items()]


def _cell(cell: Any, where: str) -> str:
    if cell is None or cell != cell or (isinstance(cell, str) and not cell.strip(" \t")):
        raise StudyError(f"{where} is empty; fill it, or select other rows")
    if isinstance(cell, list | tuple | dict | set):
        raise StudyError(f"{where} is a list, {shown(cell)}; give one text a row")
    if not isinstance(cell, str | int) or isinstance(cell, bool):
        raise StudyError(f"{where} is {shown(cell)}, a {type(cell).__name__}; give text or whole numbers")
    odd = next((c for c in str(cell) if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\r\t"), None)
    if odd is not None:
        raise StudyError(f"{where} holds the control character {odd!r}; remove it")
    return str(cell)
