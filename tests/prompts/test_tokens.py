"""Alignment of prompts on real tokenizers and on the shipped one."""

import calendar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.core.errors import StudyError
from atlas.core.positions import Layout
from atlas.prompts.tasks import Task, make_prompts
from atlas.prompts.tokens import covering, encode_prompts
from atlas.prompts.words import check_members, single_token_fillers
from atlas.study.settings import task_block
from conftest import crossed, load_tokenizer

MONTHS = list(calendar.month_name)[1:]
MEMBERS = {
    "numerals": tuple(str(i) for i in range(1, 13)),
    "number_words": tuple(
        ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    ),
    "months": tuple(MONTHS),
}
# Llama-2 splits numerals into digits, so that only one-digit members are single tokens
CASES = [(t, m) for t in ("shipped", "gpt2", "pythia") for m in MEMBERS] + [
    ("llama2", "one_digit"),
    ("llama2", "months"),
]
MEMBERS["one_digit"] = tuple("123456789")


def build(tokenizer, config, members, prepend_bos=False, **changes):
    templates = ["{object} found in {m}.", "{name} is in {m}."]  # one token each word, on all of these tokenizers
    block = config["prompts"] | {"templates": templates, "members": members, "per_template": 40} | changes
    usable = {kind: single_token_fillers(tokenizer, words) for kind, words in block["fillers"].items()}
    task = Task.from_config("t", block | {"fillers": usable})
    check_members(tokenizer, "t", task.members)
    return encode_prompts(make_prompts(task), tokenizer, prepend_bos, "t")


@pytest.mark.parametrize(("case", "bos"), crossed(CASES, [False, True]))
@given(seed=st.integers(0, 50))
@settings(max_examples=5)
def test_prompts_align_on_every_tokenizer(config, case, bos, seed):
    name, members = case
    tokenizer = load_tokenizer(name)
    encoded = build(tokenizer, config, MEMBERS[members], bos, seed=seed, filler_seed=seed)
    layout, rows = encoded.layout, encoded.rows
    assert rows and not encoded.rejected
    for row in rows:
        for tokens, shown in ((row["tokens"], row["members"]), (row["corrupted_tokens"], row["corrupted_members"])):
            assert len(tokens) == layout["tokens"]
            assert [tokenizer.decode(tokens[p]).strip() for p in Layout.of(layout).places] == shown
            assert (tokens[0] == tokenizer.bos_token_id) == bos
        # the answer position comes from ids: what follows the prompt is the answer, BOS or not
        assert tokenizer.decode(row["answer_token"]).strip() == row["answer"]
        assert tokenizer.decode(row["incorrect_token"]).strip() == row["incorrect"]
        start = 1 if bos else 0
        full = tokenizer(row["text"] + " " + row["answer"], add_special_tokens=False)["input_ids"]
        assert [*row["tokens"][start:], row["answer_token"]] == full, "no retokenisation drift"
    assert layout["answer_position"] == layout["tokens"] - 1


def test_gpt2_prompts_have_the_published_layout(config):
    """23 tokens, members at 3, 8, 13, 18 (published/gpt2_circuits.json, prompt_layout)."""
    encoded = build(load_tokenizer("gpt2"), config, MEMBERS["number_words"])
    assert Layout.of(encoded.layout) == Layout(23, ((3, 3), (8, 8), (13, 13), (18, 18)), 22)


def test_llama_puts_its_lone_space_into_the_prompt(config):
    tokenizer = load_tokenizer("llama2")
    encoded = build(tokenizer, config, MEMBERS["one_digit"])
    assert all(row["tokens"][-1] == 29871 for row in encoded.rows)


@pytest.mark.parametrize(
    ("name", "members", "said"), [("llama2", "numerals", "'10' .2 tokens"), ("gpt2", "spanish", "not one token")]
)
def test_members_of_several_tokens_are_refused_by_name(config, name, members, said):
    words = config["tasks"]["spanish_number_words"]["members"] if members == "spanish" else MEMBERS[members]
    with pytest.raises(StudyError, match=said):
        build(load_tokenizer(name), config, tuple(words))


def test_fillers_of_several_tokens_are_dropped():
    tokenizer = load_tokenizer("shipped")
    assert single_token_fillers(tokenizer, ["Apple", "Zyzzyva", "Ada"]) == ["Apple", "Ada"]


@pytest.mark.parametrize("task", ["numerals", "months", "days", "numerals_plus_two", "spanish_number_words"])
def test_the_default_tasks_align_on_the_shipped_tokenizer(config, task):
    block = task_block(config, task)
    settings_of_task = Task.from_config(task, block)
    encoded = encode_prompts(make_prompts(settings_of_task), load_tokenizer("shipped"), False, task)
    assert not encoded.rejected and len(encoded.rows) >= 288


def row(text="a b", corrupted="b a", answer="c", incorrect="b", **more):
    return {"text": text, "corrupted_text": corrupted, "answer": answer, "incorrect": incorrect, "template": "x"} | more


def test_prompts_that_cannot_be_used_are_rejected_and_counted():
    tokenizer = load_tokenizer("shipped")
    rows = [
        row("one two three", "two one one", "four", "three"),
        row("one two three", "two one one", "Zyzzyva", "three"),  # an answer of several tokens
        row("one two three", "two one", "four", "three"),  # corrupted text of another length
        row("one two three", "two one one", "four", "four"),
    ]
    encoded = encode_prompts(rows, tokenizer, False, "t")
    assert len(encoded.rows) == 1 and sum(encoded.rejected.values()) == 3
    assert encoded.rejected["answer and incorrect answer are equal"] == 1


def test_templates_that_do_not_align_are_refused_by_name():
    tokenizer = load_tokenizer("shipped")
    rows = [row("one two", "two one", "three", "two")] * 3
    rows.append(row("one and two", "two and one", "three", "two", template="long"))
    with pytest.raises(StudyError, match="'long' gives 3 tokens"):
        encode_prompts(rows, tokenizer, False, "t")


def test_covering():
    offsets = [(0, 3), (3, 9), (9, 10)]
    assert covering((4, 9), offsets) == [1] and covering((2, 5), offsets) == [0, 1]


def test_published_prompts_are_read_without_conversion(shared):
    from atlas.prompts.files import prompts_from_file

    file = {
        "clean": "published/prompts/months_clean.parquet",
        "corrupted": "published/prompts/months_corrupted.parquet",
        "select": "row < 512",
        "columns": {
            "answer": "corr",
            "incorrect": "incorr",
            "members": ["S1", "S2", "S3", "S4"],
            "template": "template",
        },
    }
    prompts = prompts_from_file("months", file, shared)
    encoded = encode_prompts(prompts, load_tokenizer("gpt2"), False, "months")
    assert len(encoded.rows) == 1536 and not encoded.rejected
    assert Layout.of(encoded.layout) == Layout(23, ((3, 3), (8, 8), (13, 13), (18, 18)), 22)
