"""Tables are read as they are written: every cell, in every format, or the file is refused in one line."""

import csv
import io
import json
import re

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atlas.core.errors import StudyError
from atlas.prompts import tables
from atlas.prompts.files import prompts_from_file, read_file
from atlas.prompts.row_filter import selected

FUZZ = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
NAMES = ["text", "answer", "incorrect", "corrupted_text"]
ROW = ["Ann met", "Tom", "Ann", "Jo met"]


def refusal(call, *arguments) -> str:
    with pytest.raises(StudyError) as error:
        call(*arguments)
    line = str(error.value)
    assert "\n" not in line, line
    return line


def read(folder, name, content):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return tables.read(folder / name, "tasks.t.file.clean")


def task(folder, name, content, **file):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return prompts_from_file("t", {"clean": name} | file, folder)


# ---- cells ---------------------------------------------------------------------------------------------------
CELL = st.text(st.sampled_from("ab 1,;\t\"'\n\r[](){}|é日\\#"), max_size=6) | st.sampled_from(
    ["nan", "NA", "None", "01"]
)


@pytest.mark.parametrize("kind", ["csv", "tsv", "CSV", "json", "jsonl", "NDJSON", "parquet"])
@FUZZ
@given(cells=st.lists(st.lists(CELL, min_size=3, max_size=3), min_size=1, max_size=4))
def test_cells_come_back_as_they_were_written(tmp_path_factory, kind, cells):
    path, names = tmp_path_factory.mktemp("t") / f"p.{kind}", ["a", "b c", "ü"]
    records = [dict(zip(names, row, strict=True)) for row in cells]
    if kind == "parquet":
        pd.DataFrame(cells, columns=names).to_parquet(path)
    elif "json" in kind.lower():
        lines = [json.dumps(record) for record in records]
        path.write_text("[" + ",\n".join(lines) + "]" if kind == "json" else "\n".join(lines) + "\n")
    else:
        with path.open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if kind == "tsv" else ",", quoting=csv.QUOTE_ALL)
            writer.writerows([names, *cells])
    frame = tables.read(path, "key")
    assert frame.columns.tolist() == names and frame.to_numpy().tolist() == cells
    assert frame.index.tolist() == list(range(1, len(cells) + 1))


@FUZZ
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    header=st.integers(2, 5),
    kind=st.sampled_from(["csv", "tsv"]),
)
def test_rows_of_another_length_than_the_header_are_refused(tmp_path_factory, lengths, header, kind):
    folder, out = tmp_path_factory.mktemp("t"), io.StringIO()
    names = [f"c{i}" for i in range(header)]
    csv.writer(out, delimiter="\t" if kind == "tsv" else ",").writerows([names, *(["x"] * n for n in lengths)])
    if all(n == header for n in lengths):
        assert len(read(folder, f"p.{kind}", out.getvalue())) == len(lengths)
        return
    number = next(i for i, n in enumerate(lengths) if n != header)
    said = refusal(read, folder, f"p.{kind}", out.getvalue())
    more = "more" if lengths[number] > header else "fewer"
    assert f"row {number + 1} (line {number + 2}) has {more} cells than the header, {lengths[number]} ['x'" in said
    assert f"under {header} ['c0'" in said


@pytest.mark.parametrize("corrupted", [False, True])
def test_an_unquoted_comma_in_every_row_is_refused(tmp_path, corrupted):
    """pandas takes the first cell for an index, and the prompts are half sentences."""
    text = "text,answer,incorrect\n" + "When Ann and Tom went out, Tom gave a book to,Ann,Tom\n" * 4
    (tmp_path / "clean.csv").write_text("text,answer,incorrect\nTom met,Ann,Tom\n")
    (tmp_path / "bad.csv").write_text(text)
    file = {"clean": "clean.csv", "corrupted": "bad.csv"} if corrupted else {"clean": "bad.csv", "corrupted": "bad.csv"}
    said = refusal(prompts_from_file, "t", file, tmp_path)
    assert said.startswith(f"tasks.t.file.{'corrupted' if corrupted else 'clean'}: ")
    assert "bad.csv: row 1 (line 2) has more cells than the header, 4 ['When Ann and Tom went out'" in said
    assert "under 3 ['text', 'answer', 'incorrect']" in said


def test_a_trailing_comma_in_every_row_is_refused(tmp_path):
    said = refusal(read, tmp_path, "p.csv", "text,answer\nA b,c,\nD e,f,\n")
    assert "row 1 (line 2) has more cells than the header, 3 ['A b', 'c', '']" in said


@pytest.mark.parametrize("answer", ["nan", "NA", "None", "null", "TRUE", "01", "1e3", "N/A", "-0", "1.0"])
@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_no_cell_changes_its_type(tmp_path, answer, kind):
    row = dict(zip(NAMES, [*ROW], strict=True)) | {"answer": answer}
    if kind == "parquet":
        pd.DataFrame([row]).to_parquet(tmp_path / "p.parquet")
        content = (tmp_path / "p.parquet").read_bytes()
    elif kind in ("json", "jsonl"):
        content = json.dumps([row] if kind == "json" else row)
    else:
        mark = "\t" if kind == "tsv" else ","
        content = mark.join(row) + "\n" + mark.join(row.values()) + "\n"
    (found,) = task(tmp_path, f"p.{kind}", content, join="space")
    assert found["answer"] == answer


def test_text_is_not_stripped(tmp_path):
    rows = [dict(zip(NAMES, ["  Q?\n", "Tom", "Ann", "R?\n"], strict=True))]
    (found,) = task(tmp_path, "p.json", json.dumps(rows))
    assert found["text"] == "  Q?\n" and found["corrupted_text"] == "R?\n" and found["join"] == ""


CSV = "text,answer\n"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.csv", CSV + "a,b\n\nc,d\n", "row 2 (line 3) is empty; take it out"),
        ("p.csv", "", "is empty; give a header and rows"),
        ("p.csv", "text,text\na,b\n", "has the column 'text' twice"),
        ("p.csv", CSV + '"a,b\n', "line 2: unexpected end of data; put a cell in quotes"),
        ("p.csv", CSV + '"a"b,c\n', "line 2: "),
        ("p.csv", CSV.encode() + "Häuser,b\n".encode("latin-1"), "line 2 is not UTF-8; save it as UTF-8"),
        ("p.csv", (CSV + "a,b\n").encode("utf-16"), "line 1 is not UTF-8"),
        ("p.json", '{"text": ["a"]}', "give a list of records"),
        ("p.json", '[{"a": 1}, {"a": 1, "b": 2}]', "row 2 has the key 'b', unlike row 1"),
        ("p.json", '[{"a": 1, "b": 2}, {"a": 1}]', "row 2 lacks the key 'b', unlike row 1"),
        ("p.json", '[{"a": 1, "a": 2}]', "has the column 'a' twice"),
        ("p.json", '[{"a": NaN}]', "NaN is no number of JSON; put it in quotes"),
        ("p.json", '[{"a": -0}]', "the number -0 is written in another way than usual"),
        ("p.json", '["a"]', "row 1 is 'a'; give a record"),
        ("p.json", "[]", "is empty"),
        ("p.json", '{"a": 1}\n{"a": 2}\n', "one record a line is .jsonl"),
        ("p.jsonl", '{"a": 1}\n\n{"a": 2}\n', "line 2 is no JSON record"),
        ("p.jsonl", '[{"a": 1}]', "row 1 is [{'a': 1}]; give a record"),
        ("p.jsonl", '{"a": 1}\n{"b": 2}\n', "row 2 lacks the key 'a'"),
        ("p.xlsx", "x", "p.xlsx is neither .csv, .tsv, .json, .jsonl, .ndjson or .parquet"),
        ("p", "x", "p is neither .csv"),
    ],
)
def test_tables_that_are_not_what_they_seem_are_refused(tmp_path, name, content, said):
    line = refusal(read, tmp_path, name, content)
    assert line.startswith("tasks.t.file.clean: ") and said in line


def test_marks_at_the_edges_of_a_file_are_no_cells(tmp_path):
    for content in ("﻿text,answer\r\na,b\r\n\r\n", "text,answer\na,b", "text,answer\na,b\n\n\n"):
        frame = read(tmp_path, "P.CSV", content)
        assert frame.to_dict("records") == [{"text": "a", "answer": "b"}], content
    assert read(tmp_path, "p.jsonl", '{"a": "x"}\r\n{"a": "y"}\r\n\r\n').a.tolist() == ["x", "y"]


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (1.0, "is 1.0, a float; give text or whole numbers"),
        (True, "is True, a bool"),
        (None, "is empty; fill it"),
        ("", "is empty; fill it"),
        (" ", "is empty; fill it"),
        (["cat", "mouse"], "is a list, ['cat', 'mouse']; give one text a row"),
        ('["cat", "mouse"]', 'is a list, \'["cat", "mouse"]\'; give one answer a row'),
        ("('cat', 'mouse')", "give one answer a row"),
        ("a\x00", "holds the control character '\\x00'"),
        ("\ud800", "holds the control character '\\ud800'"),
    ],
)
def test_answers_that_are_no_single_text_are_refused(tmp_path, cell, said):
    rows = [dict(zip(NAMES, ROW, strict=True)), dict(zip(NAMES, ROW, strict=True)) | {"answer": cell}]
    line = refusal(task, tmp_path, "p.json", json.dumps(rows))
    assert line.startswith("tasks.t.file.columns.answer: row 2") and said in line


def test_whole_numbers_are_text(tmp_path):
    rows = [{"text": "It is", "answer": 4, "incorrect": 3, "corrupted_text": "It was"}]
    assert task(tmp_path, "p.json", json.dumps(rows))[0]["answer"] == "4"
    frame = pd.DataFrame(rows)
    frame.to_parquet(tmp_path / "q.parquet")
    assert task(tmp_path, "q.parquet", (tmp_path / "q.parquet").read_bytes())[0]["answer"] == "4"


def test_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "p.csv").write_text(",".join(NAMES) + "\n" + ",".join(ROW) + "\n")
    file = {"clean": "~/p.csv", "corrupted": "~/p.csv", "corrupted_columns": {"text": "corrupted_text"}}
    assert prompts_from_file("t", file, "/nowhere")[0]["text"] == "Ann met"


# ---- select --------------------------------------------------------------------------------------------------
TABLE = pd.DataFrame(
    {
        "row": ["0", "1", "10", "9"],
        "mixed": ["0", "1", "x", "9"],
        "padded": ["01", "1", "2", "3"],
        "half": ["0.5", "-1", "2", "3.25"],
        "split": ["a", "b", "a", "nan"],
    },
    index=range(1, 5),
    dtype=object,
)


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ("row < 9", [1, 2]),
        ("row in [1, 10]", [2, 3]),
        ("row in ['1', '10']", [2, 3]),
        ("row == '1'", [2]),
        ("row != '1' and split == 'a'", [1, 3]),
        ("0 <= row < 10", [1, 2, 4]),
        ("row % 2 == 0", [1, 3]),
        ("half > 0 or split == 'nan'", [1, 3, 4]),
        ("padded == '01'", [1]),
        ("mixed == 'x'", [3]),
        ("row < half", [1]),
        ("row > half", [2, 3, 4]),
        ("mixed == row", [1, 2, 4]),
        ("not (split == 'a')", [2, 4]),
    ],
)
def test_selections_of_text(select, expected):
    found = selected(TABLE, select, written=True)
    assert TABLE.index[found].tolist() == expected


@pytest.mark.parametrize(
    ("select", "said"),
    [
        ("mixed < 5", "row 3 of column 'mixed' is 'x', no plain number"),
        ("padded == 1", "row 1 of column 'padded' is '01', no plain number"),
        ("row in [1, 'a']", "among number; compare like with like"),
        ("split < 'b'", "row 1 of column 'split' is 'a', no plain number"),
        ("row < '5'", "column 'row' is number and '5' is text"),
        ("row == True", "compare like with like"),
        ("split + 1 == 2", "no plain number"),
    ],
)
def test_selections_that_compare_text_with_numbers_are_refused(select, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        selected(TABLE, select, written=True)


TYPED = pd.DataFrame(
    {"n": [0, 1, 2], "name": ["0", "1", "b"], "x": [0.5, None, 2.0], "yes": [True, False, True]},
    index=[1, 2, 3],
    dtype=object,
)


@pytest.mark.parametrize(
    ("select", "said"),
    [
        ("n == '1'", "column 'n' is number and '1' is text"),
        ("name == 1", "column 'name' is text and 1 is number"),
        ("name < 1", "column 'name' is text and 1 is number"),
        ("name < 'b'", "has no order"),
        ("n in ['1']", "compare like with like"),
        ("x > 1", "row 2 of column 'x' holds None"),
        ("n == name", "column 'n' is number and column 'name' is text"),
    ],
)
def test_selections_of_typed_columns_compare_like_with_like(select, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        selected(TYPED, select)


def test_selections_of_typed_columns():
    assert TYPED.index[selected(TYPED, "n > 0 and name != 'b'")].tolist() == [2]
    assert (
        TYPED.index[selected(TYPED, "yes")].tolist() == [1, 3] == TYPED.index[selected(TYPED, "yes == True")].tolist()
    )


@FUZZ
@given(values=st.lists(st.integers(-20, 20), min_size=1, max_size=6), bound=st.integers(-20, 20))
def test_numbers_select_alike_in_every_format(tmp_path_factory, values, bound):
    folder = tmp_path_factory.mktemp("t")
    frame = pd.DataFrame({"n": values})
    frame.to_csv(folder / "p.csv", index=False)
    frame.to_csv(folder / "p.tsv", index=False, sep="\t")
    frame.to_json(folder / "p.json", orient="records")
    frame.to_parquet(folder / "p.parquet")
    expected = [i + 1 for i, n in enumerate(values) if n < bound]
    for kind in ("csv", "tsv", "json", "parquet"):
        assert read_file(folder / f"p.{kind}", f"n < {bound}", "k.clean").index.tolist() == expected, kind


def test_a_refused_selection_names_the_cell(tmp_path):
    line = refusal(lambda: task(tmp_path, "p.csv", "text,n\na,1\na,x\n", select="n < 5"))
    assert line.startswith("tasks.t.file.select: 'n < 5' does not select rows of p.csv (row 2 of column 'n' is 'x'")
