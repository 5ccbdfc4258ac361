"""Prompts from a user's file."""

import pandas as pd
import pytest

from atlas.core.errors import StudyError
from atlas.prompts.files import find_members, prompts_from_file
from atlas.prompts.generator import holds

CLEAN = pd.DataFrame(
    {
        "text": ["Hat in 1. Key in 2. Map in", "Map in 04. Hat in 05. Key in"],
        "right": ["3", "06"],
        "wrong": ["2", "05"],
        "bad": ["Hat in 7. Key in 1. Map in", "Map in 09. Hat in 06. Key in"],
        "A": ["1", "04"],
        "B": ["2", "05"],
        "n": [0, 1],
    }
)
COLUMNS = {"answer": "right", "incorrect": "wrong", "corrupted_text": "bad", "members": ["A", "B"]}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_one_file(tmp_path, kind):
    path = tmp_path / f"p.{kind}"
    CLEAN.to_csv(path, index=False) if kind == "csv" else CLEAN.to_parquet(path)
    prompts = prompts_from_file("t", {"clean": path.name, "columns": COLUMNS}, tmp_path)
    assert [p["answer"] for p in prompts] == ["3", "06"], "answers stay text"
    assert [p["answer_in_corrupted"] for p in prompts] == [False, True]
    assert prompts[1]["members"] == ["04", "05"]
    assert [prompts[1]["text"][a:b] for a, b in prompts[1]["spans"]] == ["04", "05"]


def test_rows_are_selected_and_a_second_file_gives_the_corrupted_texts(tmp_path):
    CLEAN.to_csv(tmp_path / "clean.csv", index=False)
    CLEAN[["bad"]].iloc[1:].to_parquet(tmp_path / "bad.parquet")
    file = {"clean": "clean.csv", "corrupted": "bad.parquet", "select": "n > 0", "corrupted_columns": {"text": "bad"}}
    prompts = prompts_from_file("t", file | {"columns": {"answer": "right", "incorrect": "wrong"}}, tmp_path)
    assert [p["corrupted_text"] for p in prompts] == ["Map in 09. Hat in 06. Key in"]


@pytest.mark.parametrize(
    ("text", "words", "held"),
    [
        ("When Tom, Ann and Jo", "Tom", True),
        ("(Tom)", "Tom", True),
        ("Tomorrow", "Tom", False),
        ("the cost is $5.", "$5", True),
        ("the cost is $55", "$5", False),
        ("in New York City", "New York", True),
    ],
)
def test_an_answer_stands_in_a_text_as_words_of_its_own(text, words, held):
    assert holds(text, words) == held


def test_a_column_names_the_strata(tmp_path):
    CLEAN.to_csv(tmp_path / "p.csv", index=False)
    prompts = prompts_from_file("t", {"clean": "p.csv", "columns": COLUMNS | {"stratum": "n"}}, tmp_path)
    assert [p["stratum"] for p in prompts] == ["0", "1"]
    assert "stratum" not in prompts_from_file("t", {"clean": "p.csv", "columns": COLUMNS}, tmp_path)[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"clean": "absent.csv"}, "tasks.t.file.clean: .*absent.csv does not exist"),
        ({"clean": "p.txt"}, "p.txt is neither .csv, .tsv, .json, .jsonl, .ndjson or .parquet"),
        ({"clean": "broken.parquet"}, "cannot be read as parquet"),
        ({"columns": COLUMNS | {"answer": "nope"}}, "tasks.t.file.columns.answer: no column 'nope'"),
        ({"columns": COLUMNS | {"stratum": "nope"}}, "tasks.t.file.columns.stratum: no column 'nope'"),
        ({"select": "n > 5"}, "no rows selected"),
        ({"select": "unknown > 5"}, "tasks.t.file.select: 'unknown > 5' does not select rows"),
        ({"corrupted": "p.csv", "corrupted_columns": {"text": "bad"}, "corrupted_select": "n > 0"}, "not row-aligned"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, changes, said):
    CLEAN.to_csv(tmp_path / "p.csv", index=False)
    (tmp_path / "p.txt").write_text("x")
    (tmp_path / "broken.parquet").write_text("x")
    with pytest.raises(StudyError, match=said):
        prompts_from_file("t", {"clean": "p.csv", "columns": COLUMNS} | changes, tmp_path)


def test_members_are_found_where_they_stand_in_most_texts():
    """One published prompt has a person called April before the month; one field here disagrees with its text."""
    texts = ["April met in April. Jo in May", "Ann met in May. Jo in June", "Bob met in July. Jo in June"]
    members = [["April", "May"], ["May", "June"], ["March", "June"]]
    found = find_members(texts, members)
    assert found[0] == ((13, 18), (26, 29))
    assert [texts[1][a:b] for a, b in found[1]] == ["May", "June"]
    assert found[2][0] == (0, 0), "covers no token, so that the prompt is rejected"
