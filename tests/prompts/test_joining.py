"""The text that is shown is the text that is read: how answers join texts, and which texts are rejected."""

import json
import re

import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atlas.core.errors import StudyError
from atlas.core.positions import Layout
from atlas.heads import attention
from atlas.prompts import joining, rejections, tokens
from atlas.prompts.making import prompts_of
from atlas.prompts.tasks import Task, Template, make_prompts
from atlas.prompts.words import words_in_place
from conftest import ROOT, load_tokenizer

FUZZ = settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
TOKENIZERS = ["gpt2", "pythia", "llama2", "shipped"]


@pytest.fixture
def kept(name):
    """Takes the examples of a property that were no refusals: there must be some, with each tokenizer that is here."""
    load_tokenizer(name)
    found: list[int] = []
    yield found
    assert found


# ---- the rule ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("1 2 3", "4"),
        ("9 10 11", "12"),
        ("A B C", "D"),
        ("January February", "March"),
        ("one, two,", "three"),
        ("1, 2, 3,", "4"),
        ("1. 2. 3.", "4"),
        ("Hat in 1. Key in 2. Map in", "3"),
        ("When Ann and Tom went out, Tom gave a book to", "Ann"),
        ("What is it? Answer:", "blue"),
        ("(an aside)", "and"),
        ('He said "no"', "and"),
        ("2 + 2 =", "4"),
        ("año niño", "señor"),
    ],
)
def test_an_answer_follows_after_a_space(text, answer):
    assert joining.between(text, (answer, answer), None) == " "
    assert joining.continuation(answer, " ") == f" {answer}"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The siege went on from the year 1752 to the year 17", "63"),
        ("pi is 3.", "14"),
        ("at 12:", "30"),
        ("on the 4", "th"),
        ("The dog", "s"),
        ("She was walk", "ing"),
        ("f(", "x"),
        ("a list [", "1"),
        ('He said "', "Yes"),
        ("He said '", "Yes"),
        ("the boys'", "hats"),
        ("It costs $", "5"),
        ("Item #", "x"),
        ("twenty-", "one"),
        ("2+2=", "4"),
        ("a/", "b"),
        ("The end", "."),
        ("The dog", "'s"),
        ("f", "(x)"),
        ("It costs", "$5"),
        ("It is", "-5"),
        ("我爱", "你"),
        ("今日は", "晴れ"),
        ("ends。", "了"),
    ],
)
def test_what_can_be_read_both_ways_is_refused_until_the_join_is_said(text, answer):
    with pytest.raises(joining.Unclear, match="both possible"):
        joining.between(text, (answer, answer), None)
    assert joining.between(text, (answer, answer), "space") == " "
    assert joining.between(text, (answer, answer), "exact") == ""


def test_whitespace_joins_by_itself():
    for text in ("Question?\n", "Q\n\n", "a\t"):
        assert joining.between(text, ("Yes", "No"), None) == ""
    assert joining.continuation("\nYes", " ") == "\nYes" and joining.continuation(" Yes", "") == " Yes"
    assert joining.between("year 17", (" 63", " 64"), None) == " ", "as it is written, so that nothing is unclear"
    with pytest.raises(joining.Unclear, match="begin in different ways"):
        joining.between("Q:", ("\nYes", "No"), None)


# ---- prompts of a file ---------------------------------------------------------------------------------------
DEFAULT = {"held_out_share": 0, "hold_out": "auto", "seed": 0}


def prompts(folder, rows, tokenizer="gpt2", bos=False, multi_token=False, **file):
    (folder / "p.json").write_text(json.dumps(rows))
    block = DEFAULT | {"file": {"clean": "p.json"} | file, "multi_token": multi_token}
    if isinstance(tokenizer, str):
        tokenizer = load_tokenizer(tokenizer)
    return prompts_of("t", block, tokenizer, bos, None, folder)[0]


def prompt(text, answer, incorrect, corrupted=None):
    return {"text": text, "answer": answer, "incorrect": incorrect, "corrupted_text": corrupted or text}


def test_the_rest_of_a_year_is_refused_and_either_join_is_what_it_says(tmp_path):
    tokenizer, text = load_tokenizer("gpt2"), "The siege went on from the year 1752 to the year 17"
    rows = [prompt(text, "63", "41")]
    with pytest.raises(StudyError, match=r"^tasks.t.file.join: row 1: '.* the year 17 63' and .* set join: space"):
        prompts(tmp_path, rows)
    for join, text_of_token in (("exact", "63"), ("space", " 63")):
        (row,) = prompts(tmp_path, rows, join=join).rows
        assert tokenizer.decode([row["answer_token"]]) == text_of_token
        assert tokenizer.decode(row["tokens"]) == row["text"] == text
    (row,) = prompts(tmp_path, [row | {"how": "exact"} for row in rows], columns={"join": "how"}).rows
    assert tokenizer.decode([row["answer_token"]]) == "63"


def test_a_column_of_joins_is_checked(tmp_path):
    rows = [prompt("in the year 17", "63", "41") | {"how": "glue"}]
    with pytest.raises(StudyError, match=r"file.columns.join: row 1 of column 'how' is 'glue'; give space or exact"):
        prompts(tmp_path, rows, columns={"join": "how"})
    with pytest.raises(StudyError, match=r"file.join: 'space', and a column of joins beside it"):
        prompts(tmp_path, rows, join="space", columns={"join": "how"})


@pytest.mark.parametrize(
    ("text", "answer", "incorrect"), [("She was walk", "ing", "ed"), ("He cannot, she can", "not", "too")]
)
def test_continued_words_are_refused(tmp_path, text, answer, incorrect):
    """The second only with a tokenizer that knows `cannot`."""
    with pytest.raises(StudyError, match=r"tasks.t.file.join: .*join: space or join: exact") as error:
        prompts(tmp_path, [prompt(text, answer, incorrect)])
    assert "\n" not in str(error.value)
    assert len(prompts(tmp_path, [prompt(text, answer, incorrect)], join="space").rows) == 1


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_a_line_break_at_the_end_is_read(tmp_path, tokenizer):
    (row,) = prompts(tmp_path, [prompt("one two\n", "four", "three")], tokenizer, multi_token=True).rows
    fast = load_tokenizer(tokenizer)
    assert row["text"] == "one two\n" and row["join"] == ""
    read = fast.decode(row["tokens"])
    assert read == "one two\n" and fast.decode(row["tokens"] + row["answer_tokens"]) == "one two\nfour"


def test_a_space_at_the_end_is_counted_or_read_where_the_join_is_exact(tmp_path):
    rows = [prompt("one two", "four", "three"), prompt("one two ", "four", "three")]
    found = prompts(tmp_path, rows)
    assert found.rejected == {rejections.ENDS_WITH_SPACE: 1} and found.rejected_rows[0][0]["text"] == "one two "
    with pytest.raises(
        StudyError, match=r"every prompt was rejected .*; take the space off the end of the text, or set join: exact"
    ):
        prompts(tmp_path, rows[1:])
    found = prompts(tmp_path, [prompt("one in ", "4", "3")], "llama2", join="exact")
    assert load_tokenizer("llama2").decode(found.rows[0]["tokens"]) == "one in ", "its digits bring no space"


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("bos", [False, True])
def test_special_tokens_are_counted_never_read(tmp_path, name, bos):
    tokenizer = load_tokenizer(name)
    rows = [prompt("one two", "four", "three")]
    rows += [prompt(f"{tokenizer.bos_token}one two", "four", "three", "one two")]
    rows += [prompt(f"one {token} two", "four", "three") for token in tokenizer.all_special_tokens]
    found = prompts(tmp_path, rows, name, bos)
    assert [row["text"] for row in found.rows] == ["one two"]
    begins = 1 if bos else 0
    expected = {rejections.BEGINS_WITH_BOS: begins, rejections.SPECIAL: len(rows) - 1 - begins}
    assert found.rejected == {reason: n for reason, n in expected.items() if n}
    assert sum(token == tokenizer.bos_token_id for token in found.rows[0]["tokens"]) == bos


def changed(normalizer):
    """GPT-2's tokenizer behind a normaliser."""
    from tokenizers import normalizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(load_tokenizer("gpt2").name_or_path)
    tokenizer.backend_tokenizer.normalizer = getattr(normalizers, normalizer)()
    return tokenizer


def words_only(*words):
    """A tokenizer of whole words that knows no others."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["<unk>", *words])}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", clean_up_tokenization_spaces=False)


def test_answers_that_a_lower_casing_tokenizer_cannot_tell_are_counted(tmp_path):
    rows = [prompt("in the month of", "May", "may"), prompt("in the month of", "May", "can")]
    found = prompts(tmp_path, rows, changed("Lowercase"))
    assert len(found.rows) == 1 and found.rejected == {rejections.SAME_TOKENS: 1}


def test_words_that_the_tokenizer_does_not_know_are_counted(tmp_path):
    tokenizer = words_only("one", "two", "three", "four")
    rows = [prompt("one two", "four", "three"), prompt("one zwei", "four", "three"), prompt("one two", "vier", "three")]
    found = prompts(tmp_path, rows, tokenizer)
    assert len(found.rows) == 1 and found.rejected == {rejections.UNKNOWN: 2}


def test_characters_that_a_tokenizer_drops_are_counted(tmp_path):
    """Without an unknown token a BPE model leaves out what it does not know, without a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE({c: i for i, c in enumerate("abcd")}, []))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner)
    found = prompts(tmp_path, [prompt("a b", "c", "d"), prompt("a ü b", "c", "d")], tokenizer, join="space")
    assert len(found.rows) == 1 and found.rejected == {rejections.UNKNOWN: 1}


WORDS = ["one", "Tom", "17", "63", "é", "日", "🙂", "�"]
MARKS = [" ", "  ", "\n", "\t", '"', "'", "(", ")", "[", "]", "$", "#", "-", ",", ".", ":"]
SPECIAL = ["<|endoftext|>", "<s>", "</s>", "<|padding|>", "<unk>"]
PIECES = st.sampled_from(WORDS) | st.sampled_from(MARKS) | st.sampled_from([*WORDS, *MARKS, *SPECIAL])
TEXTS = st.lists(PIECES, min_size=1, max_size=6).map("".join)
ANSWERS = st.sampled_from(["four", "Ann", "4", "63", " two", "\n", ")", ".", "five six"]) | TEXTS
JOINS = st.sampled_from([None, "space", "exact"])


@pytest.mark.parametrize("name", TOKENIZERS)
@FUZZ
@given(
    text=TEXTS,
    corrupted=st.none() | TEXTS,
    answers=st.tuples(ANSWERS, ANSWERS),
    join=JOINS,
    bos=st.booleans(),
    several=st.booleans(),
)
def test_a_text_is_read_as_it_stands_or_it_is_refused(
    tmp_path_factory, kept, name, text, corrupted, answers, join, bos, several
):
    """Against the tokenizer alone: ids of what stands in the cells, put together as the join says."""
    folder, tokenizer = tmp_path_factory.mktemp("p"), load_tokenizer(name)
    file = {"join": join} if join else {}
    try:
        found = prompts(folder, [prompt(text, *answers, corrupted)], tokenizer, bos, several, **file)
    except StudyError as error:
        assert "\n" not in str(error) and str(error).startswith("tasks.t"), error
        return
    kept.append(1)
    (row,) = found.rows
    assert row["text"] == text and row["corrupted_text"] == (corrupted or text)
    assert (row["answer"], row["incorrect"]) == answers
    ids = {}
    for key in ("answer", "incorrect"):
        space = " " if join == "space" or (join is None and not text[-1].isspace()) else ""
        follows = row[key] if row[key][0].isspace() else space + row[key]
        ids[key] = tokenizer(text + follows, add_special_tokens=False)["input_ids"]
        after = row[f"{key}_tokens"] if several else [row[f"{key}_token"]]
        assert [*row["tokens"][bos:], *after] == ids[key]
    assert ids["answer"] != ids["incorrect"] and row["tokens"][:bos] == [tokenizer.bos_token_id] * bos
    assert not set(row["tokens"][bos:] + ids["answer"] + ids["incorrect"]) & set(tokenizer.all_special_ids)


# ---- templates -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("pattern", "text", "join"),
    [
        ("{m}", "one two", " "),
        ("({m})", "(one) (two) (", ""),
        ('"{m}"', '"one" "two" "', ""),
        ("${m},", "$one, $two, $", ""),
        ("-{m}", "-one -two -", ""),
        ("\n- {m}", "\n- one\n- two\n-", " "),
        ("{m}\n", "one\ntwo\n", ""),
        ("\n{m}", "\none\ntwo\n", ""),
        ("in {m}.", "in one. in two. in", " "),
        ("in  {m} ", "in  one in  two in", "  "),
        ("- {m}\n\n", "- one\n\n- two\n\n-", " "),
    ],
)
def test_text_before_the_slot_stays(pattern, text, join):
    found = Template.parse(pattern).render(["one", "two"], [])
    assert (found.text, found.join) == (text, join)
    assert [found.text[a:b] for a, b in found.spans] == ["one", "two"]


BEFORE = ["", "(", '"', "'", "$", "-", "#", "[", "\n- ", "\n", "in ", "is: ", "the (", "{name} in ", "“"]
AFTER = ["", ")", '"', "'", ",", ".", "]", "\n", " ;", "”", "?", "!\n\n"]


@pytest.mark.parametrize("name", TOKENIZERS)
@FUZZ
@given(before=st.sampled_from(BEFORE), after=st.sampled_from(AFTER), bos=st.booleans(), multi_token=st.booleans())
def test_an_answer_stands_where_the_next_member_of_its_template_would(kept, name, before, after, bos, multi_token):
    """Against whole clauses with one more member: the text with its answer is how they begin."""
    tokenizer, names = load_tokenizer(name), ("Ann", "Tom", "Jo", "Sam", "Ben", "Kim")
    members = ("one", "two", "three", "four", "five", "six", "seven", "eight")
    block = {"members": list(members), "templates": [before + "{m}" + after], "fillers": {"name": list(names)}}
    block |= {"shown": 3, "per_template": 5, "corruption": "random_members", "forbid_answer": False, "seed": 0}
    block |= {
        "held_out_share": 0,
        "hold_out": "auto",
        "filler_seed": 0,
        "random_words": ["sun"],
        "multi_token": multi_token,
    }
    try:
        found, _ = prompts_of("t", block, tokenizer, bos, None, None)
    except StudyError as error:
        assert "\n" not in str(error), error
        return
    kept.append(1)
    for row in found.rows:
        clauses = [
            before.replace("{name}", filler) + member + after
            for member, filler in zip([*row["members"], row["answer"]], row["fillers"] or [""] * 4, strict=True)
        ]
        apart = "" if before[:1].isspace() or after[-1:].isspace() else " "
        whole = apart.join(clauses)
        assert whole[: len(whole) - len(after)] == row["text"] + row["join"] + row["answer"]
        after_text = row["answer_tokens"] if multi_token else [row["answer_token"]]
        shown = whole[: len(whole) - len(after)]
        assert [*row["tokens"][bos:], *after_text] == tokenizer(shown, add_special_tokens=False)["input_ids"]


def test_a_member_that_merges_with_the_text_beside_it_is_refused():
    """`cat` before an `s` is another token than the answer `cat`."""
    rows = make_prompts(
        Task(
            "t",
            ("cat", "dog", "bird", "horse", "cow"),
            templates=("the {m}s",),
            shown=2,
            per_template=3,
            held_out_share=0,
        )
    )
    with pytest.raises(StudyError, match=rejections.MEMBER_MERGES):
        tokens.encode_prompts(rows, load_tokenizer("gpt2"), False, "t")


# ---- members and fillers -------------------------------------------------------------------------------------
def block_of(config, **changes):
    return config["prompts"] | {"per_template": 10, "held_out_share": 0} | changes


def test_members_that_become_one_token_are_refused(config):
    tokenizer, members = changed("Lowercase"), ["May", "Can", "Will", "may", "Must", "Should"]
    for multi_token in (False, True):
        block = block_of(config, members=members, templates=["{m}"], shown=2, multi_token=multi_token)
        with pytest.raises(StudyError, match=r"tasks.t.members: 'May' and 'may' have the same tokens"):
            prompts_of("t", block, tokenizer, False, None, None)


@pytest.mark.parametrize(
    ("member", "said"),
    [("zwei", rejections.UNKNOWN), ("<unk>", rejections.SPECIAL), ("<|endoftext|>", rejections.SPECIAL)],
)
def test_members_that_no_model_reads_are_refused(config, member, said):
    words = ["one", "two", "three", "four", "five"]
    tokenizer = load_tokenizer("gpt2") if member == "<|endoftext|>" else words_only(*words)
    block = block_of(config, members=[*words, member], templates=["{m}"], shown=2)
    with pytest.raises(StudyError, match=rf"tasks.t.members: {re.escape(repr(member))}: {said}"):
        prompts_of("t", block, tokenizer, False, None, None)


def test_members_are_one_token_where_their_templates_put_them(config):
    tokenizer = load_tokenizer("gpt2")
    block = block_of(config, members=["one", "two", "three", "Tuesday", "April", "eleven"], templates=["#{m}"], shown=2)
    with pytest.raises(StudyError, match=r"'eleven' \(2 tokens\) not one token after '#'"):
        prompts_of("t", block, tokenizer, False, None, None)


def test_a_tokenizer_that_knows_none_of_the_fillers_is_told(config):
    words = [*map(str, range(1, 20)), "found", "in", "packed", "arrived", "."]
    block = block_of(config, members={"range": [1, 12]})
    with pytest.raises(StudyError, match=r"tasks.t: none of the 70 words of fillers.object .* without {object}"):
        prompts_of("t", block, words_only(*words), False, None, None)
    few = words_only(*words, "Apple", "Basket", "Bell")
    with pytest.raises(StudyError, match=r"tasks.t: 3 of the 70 words of fillers.object .* a prompt needs 5"):
        prompts_of("t", block, few, False, None, None)


# ---- names ---------------------------------------------------------------------------------------------------
def test_every_reason_is_listed_for_users():
    page = (ROOT / "docs" / "bad_input.md").read_text()
    reasons = [value for name, value in vars(rejections).items() if name.isupper() and isinstance(value, str)]
    assert len(reasons) > 15 and not [reason for reason in reasons if f"`{reason}`" not in page]


@pytest.mark.parametrize("name", ["gpt2", "llama2", "pythia"])
@pytest.mark.parametrize("template", ["so {m}.", "see ({m})", "{m}"])
def test_words_stand_where_the_members_stood(name, template):
    """Against the text with the words in the members' places, tokenised anew."""
    tokenizer, words = load_tokenizer(name), ["river", "cloud", "music", "city", "fish", "tree", "water", "fire"]
    members = ("one", "two", "three", "four", "five", "six", "man", "day", "king", "old")
    task = Task("t", members, templates=(template,), shown=3, per_template=7)
    encoded = tokens.encode_prompts(make_prompts(task), tokenizer, False, "t")
    frame, layout = pd.DataFrame(encoded.rows), Layout.of(encoded.layout)
    ids = words_in_place(tokenizer, frame, layout.places, [*words, "two", "unbelievable rivers"])
    assert ids.shape[-1] >= len(layout.members)
    clean = torch.tensor(frame.tokens.to_list())
    for row, before in zip(attention.words(clean, ids, layout, 0).tolist(), clean.tolist(), strict=True):
        at = layout.places
        assert [i for i, (a, b) in enumerate(zip(row, before, strict=True)) if a != b] == at
        text = tokenizer.decode(row)
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == row, text
        assert len({tokenizer.decode([row[i]]).strip() for i in at} & set(words)) == len(at)
