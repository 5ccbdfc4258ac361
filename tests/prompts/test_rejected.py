"""Rejected prompts are kept with their tokens and the reason, and every reason has a remedy."""

from atlas.prompts import layouts, rejected, rejections, tokens
from atlas.prompts.files import prompts_from_file
from conftest import load_tokenizer

BAD_ROWS = """text,corrupted_text,answer,incorrect
Monday Tuesday,Friday Monday,Wednesday,Tuesday
Tuesday Wednesday,Sunday Monday,Thursday,Wednesday
Monday Tuesday,Friday Monday,Wednesday,Wednesday
Monday Tuesday,Friday Monday,Wednesday Thursday,Tuesday
Monday Tuesday,Friday Monday Sunday,Wednesday,Tuesday
Monday,Friday,Tuesday,Monday
"""


def bad_rows(folder) -> layouts.Encoded:
    (folder / "bad.csv").write_text(BAD_ROWS)
    rows = prompts_from_file("mine", {"clean": "bad.csv"}, folder)
    return tokens.encode_prompts(rows, load_tokenizer("shipped"), False, "mine")


def test_every_row_of_a_file_is_kept_or_rejected_with_its_tokens(tmp_path):
    encoded = bad_rows(tmp_path)
    table = rejected.rejected_table(encoded.rejected_rows, load_tokenizer("shipped"))
    assert {row["prompt"] for row in encoded.rows} | set(table.prompt) == set(range(6))
    assert table.prompt.tolist() == [2, 3, 4, 5]
    assert dict(table.reason.value_counts()) == dict(encoded.rejected)
    assert list(table.reason) == [
        "answer and incorrect answer are equal",
        "an answer is not one token",
        "the corrupted text has another number of tokens",
        "another layout than most prompts",
    ]
    two = table.set_index("prompt").loc[3]
    assert list(two.clean_strings) == ["Monday", " Tuesday", " Wednesday", " Thursday"]
    for row in table.itertuples():
        assert "".join(row.clean_strings) == f"{row.text} {row.answer}"
        assert "".join(row.incorrect_strings) == f"{row.text} {row.incorrect}"
        assert "".join(row.corrupted_strings) == f"{row.corrupted_text} {row.answer}"


def test_nothing_rejected_is_an_empty_table():
    table = rejected.rejected_table([], load_tokenizer("shipped"))
    assert list(table.columns) == list(rejected.COLUMNS) and len(table) == 0


def test_every_reason_of_the_tokenizer_has_a_remedy():
    """Reasons are the texts of `rejections`."""
    reasons = {value for name, value in vars(rejections).items() if name.isupper() and isinstance(value, str)}
    assert len(reasons) > 20 and set(rejections.REMEDIES) == reasons
