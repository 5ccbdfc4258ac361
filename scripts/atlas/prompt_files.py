"""Prompts from a user's Parquet or CSV file."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from atlas.errors import StudyError
from atlas.row_filter import selected

REQUIRED = ("text", "answer", "incorrect")


def read_file(path: Path | str, select: str | None, key: str) -> pd.DataFrame:
    """A table of prompts; ``select`` picks rows (row_filter.py), as in ``row < 512``."""
    path = Path(path)
    if not path.is_file():
        said = "is no file" if path.exists() else "does not exist"
        raise StudyError(f"{key}: {path} {said}; give the path of a .parquet or .csv file")
    if path.suffix not in (".parquet", ".csv"):
        raise StudyError(f"{key}: {path} is neither .parquet nor .csv")
    try:
        frame = (
            pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype=str, keep_default_na=False)
        )
    except Exception as error:  # whatever the reader says about a broken file
        raise StudyError(f"{key}: {path} cannot be read as {path.suffix[1:]} ({one_line(error)})") from None
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise StudyError(f"{key}: {path} has the column {str(twice[0])!r} twice; rename one")
    if select:
        if (
            path.suffix == ".csv"
        ):  # read as text, so that answers such as 04 stay as they are; numbers only for the query
            numbers = frame.apply(lambda column: pd.to_numeric(column, errors="coerce"))
            query_frame = frame.where(numbers.isna(), numbers)
        else:
            query_frame = frame
        try:
            frame = frame[selected(query_frame, select)]
        except Exception as error:  # besides ValueError, whatever pandas says of types that do not compare
            where = f"{key.rsplit('.', 1)[0]}.select: {select!r}"
            said = f"{where} does not select rows of {path.name} ({one_line(error)}); compare columns, as in row < 512"
            raise StudyError(said) from None
    return frame.reset_index(drop=True)


def one_line(error: object) -> str:
    """What another library says, on one line."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:197] + "..."


def column(frame: pd.DataFrame, name: str, key: str) -> list[str]:
    """A column as text; raises StudyError where it is missing, or a cell is empty or no text and no whole number."""
    if name not in frame.columns:
        known = ", ".join(map(str, frame.columns[:20])) + (", ..." if len(frame.columns) > 20 else "")
        raise StudyError(f"{key}: no column {name!r}; there are {known or 'none'}")
    cells = frame[name].tolist()
    for row, cell in enumerate(cells):
        where = f"{key}: row {row} of column {name!r}"
        if any(cell is nothing for nothing in (None, pd.NaT, pd.NA)) or str(cell).strip() in ("", "nan"):
            raise StudyError(f"{where} is empty; fill it, or select other rows")
        if not isinstance(cell, str | int) or isinstance(cell, bool):
            raise StudyError(f"{where} is {str(cell)[:40]!r}, a {type(cell).__name__}; give text or whole numbers")
    return [str(cell) for cell in cells]


def prompts_from_file(name: str, file: dict[str, Any], root: Path | str) -> list[dict[str, Any]]:
    """Prompts of a task whose block has ``file``; rows in the order of the file.

    Corrupted texts come from column ``corrupted_text`` of the same file, or row by row from a second file
    (``corrupted``), whose texts stand in ``corrupted_columns.text``. With ``columns.stratum`` each has a ``stratum``,
    which is on both sides of the split (splits.py).
    """
    key, columns = f"tasks.{name}.file", {c: c for c in (*REQUIRED, "corrupted_text")} | file.get("columns", {})
    clean = read_file(Path(root) / file["clean"], file.get("select"), f"{key}.clean")
    fields = {c: column(clean, columns[c], f"{key}.columns.{c}") for c in REQUIRED}
    if "corrupted" in file:
        corrupted = read_file(Path(root) / file["corrupted"], file.get("corrupted_select"), f"{key}.corrupted")
        text_column = file.get("corrupted_columns", {}).get("text", "text")
        corrupted_texts = column(corrupted, text_column, f"{key}.corrupted_columns.text")
    else:
        corrupted_texts = column(clean, columns["corrupted_text"], f"{key}.columns.corrupted_text")
    if len(clean) != len(corrupted_texts):
        raise StudyError(
            f"{key}: {len(clean)} clean and {len(corrupted_texts)} corrupted rows are not row-aligned; "
            "select the same rows"
        )
    if not len(clean):
        raise StudyError(f"{key}: no rows selected")
    templates = column(clean, columns["template"], f"{key}.columns.template") if "template" in columns else None
    members = [column(clean, c, f"{key}.columns.members") for c in columns.get("members", [])]
    strata = column(clean, columns["stratum"], f"{key}.columns.stratum") if "stratum" in columns else None
    prompts: list[dict[str, Any]] = []
    counts: dict[str, int] = {}
    for i, text in enumerate(fields["text"]):
        template = templates[i] if templates else "file"
        k = counts[template] = counts.get(template, -1) + 1
        shown = [m[i] for m in members]
        prompts.append(
            {
                "prompt": i,
                "template": template,
                "row": k,
                "start": -1,
                "text": text.rstrip(),
                "corrupted_text": corrupted_texts[i].rstrip(),
                "answer": fields["answer"][i],
                "incorrect": fields["incorrect"][i],
                "members": shown,
                "corrupted_members": [],
                "fillers": [],
                "answer_in_corrupted": fields["answer"][i].strip() in corrupted_texts[i].replace(".", " ").split(),
            }
        )
        if strata:
            prompts[-1]["stratum"] = strata[i]
    for template in counts:
        rows = [p for p in prompts if p["template"] == template]
        spans = find_members([p["text"] for p in rows], [p["members"] for p in rows])
        for row, found in zip(rows, spans, strict=True):
            row["spans"] = found
    return prompts


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
