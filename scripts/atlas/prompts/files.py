"""Prompts from a user's table: one prompt a row, its text and answers as they are written."""

import ast
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from atlas.core.errors import StudyError, one_line
from atlas.prompts import joining, tables
from atlas.prompts.generator import prompt
from atlas.prompts.row_filter import selected
from atlas.prompts.tables import column
from atlas.store.places import below_root

REQUIRED = ("text", "answer", "incorrect")


def read_file(path: Path, select: str | None, key: str) -> pd.DataFrame:
    """A table of prompts; ``select`` picks rows (row_filter.py), as in ``row < 512``; the others keep their numbers."""
    frame = tables.read(path, key)
    if not select or frame.empty:
        return frame
    try:
        return frame[selected(frame, select, path.suffix.lower().removeprefix(".") in tables.WRITTEN)]
    except Exception as error:  # besides ValueError, whatever pandas says of odd comparisons
        said = f"{key.rsplit('.', 1)[0]}.select: {select!r} does not select rows of {path.name}"
        raise StudyError(f"{said} ({one_line(error, kind=False)}); compare columns, as in row < 512") from None


def prompts_from_file(name: str, file: dict[str, Any], root: Path | str) -> list[dict[str, Any]]:
    """Prompts of a task whose block has ``file``; rows in the order of the file.

    Corrupted texts come from column ``corrupted_text`` of the same file, or row by row from a second file
    (``corrupted``), whose texts stand in ``corrupted_columns.text``. How answers join their texts (``join`` of a row: a
    space or nothing) says ``file["join"]``, a column of it, or the text itself where it can (joining.py). With
    ``columns.stratum`` each has a ``stratum``, which is on both sides of the split (splits.py).
    """
    key, columns = f"tasks.{name}.file", {c: c for c in (*REQUIRED, "corrupted_text")} | file.get("columns", {})
    clean = read_file(below_root(file["clean"], root), file.get("select"), f"{key}.clean")
    fields = {c: column(clean, columns[c], f"{key}.columns.{c}") for c in REQUIRED}
    for c in ("answer", "incorrect"):
        _refuse_lists(fields[c], clean.index, f"{key}.columns.{c}")
    corrupted_texts = _corrupted_texts(clean, file, columns, root, key)
    templates = column(clean, columns["template"], f"{key}.columns.template") if "template" in columns else None
    members = [column(clean, c, f"{key}.columns.members") for c in columns.get("members", [])]
    strata = column(clean, columns["stratum"], f"{key}.columns.stratum") if "stratum" in columns else None
    said = _said_joins(file, columns, clean, key)
    prompts: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    for i, text in enumerate(fields["text"]):
        template = templates[i] if templates else "file"
        texts, answers = (text, corrupted_texts[i]), (fields["answer"][i], fields["incorrect"][i])
        made = prompt(
            i,
            template=template,
            row=counts[template],
            texts=texts,
            join=_join(texts, answers, said[i], f"{key}.join: row {clean.index[i]}"),
            answers=answers,
            members=([m[i] for m in members], []),
        )
        counts[template] += 1
        prompts.append(made | ({"stratum": strata[i]} if strata else {}))
    for template in counts:
        rows = [p for p in prompts if p["template"] == template]
        spans = find_members([p["text"] for p in rows], [p["members"] for p in rows])
        for row, found in zip(rows, spans, strict=True):
            row["spans"] = found
    return prompts


def _corrupted_texts(
    clean: pd.DataFrame, file: dict[str, Any], columns: dict[str, Any], root: Path | str, key: str
) -> list[str]:
    """The corrupted text of each clean row, from a column beside it or from a second file; refuses no rows at all."""
    if "corrupted" in file:
        corrupted = read_file(below_root(file["corrupted"], root), file.get("corrupted_select"), f"{key}.corrupted")
        text_column = file.get("corrupted_columns", {}).get("text", "text")
        texts = column(corrupted, text_column, f"{key}.corrupted_columns.text")
    else:
        texts = column(clean, columns["corrupted_text"], f"{key}.columns.corrupted_text")
    if len(clean) != len(texts):
        raise StudyError(
            f"{key}: {len(clean)} clean and {len(texts)} corrupted rows are not row-aligned; select the same rows"
        )
    if not len(clean):
        raise StudyError(f"{key}: no rows selected")
    return texts


def says_joins(file: dict[str, Any]) -> bool:
    """Does a task's ``file`` say how its answers join their texts?"""
    return "join" in file or "join" in file.get("columns", {})


def _said_joins(file: dict[str, Any], columns: dict[str, Any], clean: pd.DataFrame, key: str) -> list[str | None]:
    """The join that is said for each row; None where none is."""
    if "join" not in columns:
        return [file.get("join")] * len(clean)
    if "join" in file:
        raise StudyError(f"{key}.join: {file['join']!r}, and a column of joins beside it; give one of the two")
    found = column(clean, columns["join"], f"{key}.columns.join")
    odd = next((i for i, join in enumerate(found) if join not in joining.JOINS), None)
    if odd is not None:
        said = f"{key}.columns.join: row {clean.index[odd]} of column {columns['join']!r} is {found[odd][:40]!r}"
        raise StudyError(f"{said}; give {' or '.join(joining.JOINS)}")
    return list(found)


def _join(texts: tuple[str, str], answers: tuple[str, str], said: str | None, where: str) -> str:
    """What stands between both texts of a row, clean and corrupted, and its answers."""
    try:
        clean, corrupted = (joining.between(text, answers, said) for text in texts)
        if clean != corrupted:
            raise joining.Unclear("only one of its texts, clean and corrupted, ends with whitespace")
    except joining.Unclear as unclear:
        raise StudyError(f"{where}: {unclear}; set join: space or join: exact, or name a column of them") from None
    return clean


def _refuse_lists(cells: list[str], rows: pd.Index, key: str) -> None:
    """Refuse answers that are lists written as text, such as ``["cat", "mouse"]``."""
    for row, cell in zip(rows, cells, strict=True):
        if cell.strip()[:1] not in ("[", "(", "{"):
            continue
        try:
            found = ast.literal_eval(cell.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        if isinstance(found, list | tuple | set | dict):
            raise StudyError(f"{key}: row {row} is a list, {tables.shown(cell)}; give one answer a row")


def find_members(texts: list[str], members: list[list[str]]) -> list[tuple[tuple[int, int], ...]]:
    """Character spans of each text's members, for texts of one template.

    A member may stand in a text twice (a person called April); it is looked for at the word where the member of that
    slot stands in most texts. A text with another word there gets spans that cover nothing, and is rejected later.
    """
    words = [[match.span() for match in re.finditer(r"\w+", text)] for text in texts]
    spans: list[list[tuple[int, int]]] = [[] for _ in texts]
    for slot in range(len(members[0]) if members else 0):
        places = Counter(
            i
            for text, found, shown in zip(texts, words, members, strict=True)
            for i, (a, b) in enumerate(found)
            if text[a:b] == shown[slot]
        )
        place = places.most_common(1)[0][0] if places else -1
        for text, found, shown, out in zip(texts, words, members, spans, strict=True):
            here = found[place] if 0 <= place < len(found) else (0, 0)
            out.append(here if text[slice(*here)] == shown[slot] else (0, 0))
    return [tuple(row) for row in spans]
