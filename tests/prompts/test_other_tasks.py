"""Tasks that are no sequences: what their prompts promise, told from their texts alone by a solver of each task."""

import re
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_generators import SCHEMA

from atlas.core.errors import StudyError
from atlas.core.positions import Layout
from atlas.prompts import generator
from atlas.prompts.generators import agreement, capitals, pronouns
from atlas.prompts.making import prompts_of
from atlas.study.validation import validated
from conftest import ROOT, load_tokenizer

TASKS = ["agreement", "capitals", "docstrings", "greater_than", "indirect_objects", "induction", "pronouns", "sums"]
TOKENIZERS = ["gpt2", "llama2", "pythia"]
CORRUPTED = [(name, how) for name in TASKS for how in generator.of({"generator": name}).keys["corrupted_by"]["enum"]]
# corruptions whose partner leads to the incorrect answer; all others lead to neither
SWAPPED = {
    ("agreement", "other_number"),
    ("agreement", "other_subject"),
    ("pronouns", "other_pronoun"),
    ("indirect_objects", "other_giver"),
    ("capitals", "incorrect_country"),
}
# corruptions after which the answer stands nowhere
WITHOUT_ANSWER = {
    ("indirect_objects", "random_names"),
    ("induction", "other_first"),
    ("docstrings", "other_arguments"),
    ("capitals", "other_country"),
    ("agreement", "other_number"),
    ("pronouns", "other_pronoun"),
}


def block_of(config, name, **changes):
    keys = generator.of({"generator": name}).keys
    defaults = {key: node["default"] for key, node in keys.items() if "default" in node}
    return config["prompts"] | {"per_template": 24} | defaults | {"generator": name} | changes


def made(config, name, tokenizer, **changes):
    block = block_of(config, name, **changes)
    generator.of(block).check(name, block)
    return generator.of(block).make(name, block, tokenizer, None).rows


# ---- solvers: what a text asks for, by its words alone ---------------------------------------------------------
def indirect_object(text, row):
    first, second, giver = re.findall(r"\b[A-Z][a-z]+", text.split(" ", 1)[1])
    return {first, second} - {giver} if giver in (first, second) else set()


def later(text, row):
    first, second = re.findall(r"\d+", text)
    answers = (row["answer"], row["incorrect"])
    ends = {answer: int((second + answer).ljust(4, "9")) for answer in answers}
    begins = {answer: int((second + answer).ljust(4, "0")) for answer in answers}
    return {answer for answer in answers if begins[answer] > int(first) and ends[answer] > int(first)}


def verb(text, row):
    verbs = next(pair for pair in agreement.VERBS if row["answer"] in pair)
    number = next(pair.index(text.split()[1]) for pair in agreement.SUBJECTS if text.split()[1] in pair)
    return {verbs[number]}


def pronoun(text, row):
    return {next(p for p, people in pronouns.NAMES.items() if text.split()[1] in people)}


def capital(text, row):
    return {capitals.PAIRS[re.search(r".*capital of (\w+)", text)[1]]}


def repeated(text, row):
    words = text.split()
    return {words[words.index(words[-1]) + 1]} if words.index(words[-1]) < len(words) - 1 else set()


def added(text, row):
    return {str(sum(map(int, re.findall(r"\d+", text.splitlines()[-1]))))}


def documented(text, row):
    arguments = re.search(r"self, (.*?)\)", text)[1].split(", ")
    known = re.findall(r":param (\w+):", text)
    return {arguments[len(known)]} if known == arguments[: len(known)] else set()


SOLVERS = dict(
    zip(
        TASKS,
        [verb, capital, documented, later, indirect_object, repeated, pronoun, added],
        strict=True,
    )
)


# ---- properties ------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def gpt2():
    return load_tokenizer("gpt2")


@pytest.mark.parametrize(("name", "how"), CORRUPTED)
@given(seed=st.integers(0, 2**32 - 1), filler_seed=st.integers(0, 2**32 - 1), per_template=st.integers(1, 30))
@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_prompts_keep_their_promises(config, gpt2, name, how, seed, filler_seed, per_template):
    changes = {} if name == "sums" else {"per_template": per_template}
    rows = made(config, name, gpt2, seed=seed, filler_seed=filler_seed, corrupted_by=how, **changes)
    solve = SOLVERS[name]
    for row in rows:
        clean, corrupted = row["text"], row["corrupted_text"]
        assert [clean[a:b] for a, b in row["spans"]] == row["members"]
        assert [corrupted[a:b] for a, b in row["corrupted_spans"]] == row["corrupted_members"]
        assert row["answer"] != row["incorrect"] and clean != corrupted and clean == clean.rstrip()
        assert solve(clean, row) == {row["answer"]}
        led = solve(corrupted, row)
        if (name, how) in SWAPPED:
            assert led == {row["incorrect"]}
        elif name == "greater_than":
            assert led in (set(), {row["answer"], row["incorrect"]}) or how == "first_decade"
        else:
            assert not led & {row["answer"], row["incorrect"]}
        assert row["answer_in_corrupted"] == bool(re.search(rf"\b{row['answer']}\b", corrupted))
        if (name, how) in WITHOUT_ANSWER:
            assert not row["answer_in_corrupted"]
    per_wording = Counter(row["template"] for row in rows)
    assert len(set(per_wording.values())) == 1 and sorted(row["prompt"] for row in rows) == list(range(len(rows)))
    if "per_template" in changes:
        assert min(per_wording.values()) >= per_template or name == "capitals"


@pytest.mark.parametrize("name", ["agreement", "capitals", "indirect_objects", "pronouns"])
def test_every_answer_is_right_and_wrong_equally_often_in_each_wording(config, gpt2, name):
    rows = made(config, name, gpt2)
    for template in {row["template"] for row in rows}:
        own = [row for row in rows if row["template"] == template]
        for key in ("answer", "incorrect"):
            counts = Counter(row[key] for row in own)
            assert len(set(counts.values())) == 1
            assert set(counts) == {row["answer"] for row in own}


def test_years_are_as_far_after_the_first_as_before_it(config):
    """So over the pairs of a year the mean difference is one of means of later and of earlier decades."""
    for tokenizer, digits in (("gpt2", 2), ("llama2", 1)):
        rows = made(config, "greater_than", load_tokenizer(tokenizer), per_template=40)
        cases = Counter()
        for row in rows:
            (member,) = row["members"]
            assert len(member) == len(row["answer"]) == digits
            apart = int(row["answer"]) - int(member)
            assert apart == int(member) - int(row["incorrect"]) > 0
            cases[int(member[0]), apart // 10 ** (digits - 1)] += 1
        assert len(cases) == 20 and set(cases.values()) == {4}


def test_an_attractor_has_the_other_number_or_either(config, gpt2):
    number = {word: i for pair in [*agreement.SUBJECTS, *agreement.ATTRACTORS] for i, word in enumerate(pair)}
    for wanted, cases in (("opposite", {(0, 1), (1, 0)}), ("either", {(0, 0), (0, 1), (1, 0), (1, 1)})):
        rows = made(config, "agreement", gpt2, attractor=wanted)
        counts = Counter(tuple(number[word] for word in row["members"]) for row in rows)
        assert set(counts) == cases and len(set(counts.values())) == 1


def test_words_come_again_from_everywhere(config, gpt2):
    rows = made(config, "induction", gpt2, length=7, again=3)
    starts = Counter(row["members"].index(row["members"][7]) for row in rows)
    assert set(starts) == {0, 1, 2, 3} and len(set(starts.values())) == 1
    for row in rows:
        once, again = row["members"][:7], row["members"][7:]
        assert len(set(once)) == 7 and row["incorrect"] in set(once) - {*again, row["answer"]}


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("name", TASKS)
def test_prompts_align_and_no_side_knows_the_other(config, name, tokenizer):
    tokens = load_tokenizer(tokenizer)
    block = block_of(config, name)
    encoded, _ = prompts_of(name, block, tokens, False, 200, None)
    assert not encoded.rejected and len(encoded.layouts) == 1
    layout = Layout.of(encoded.layout)
    for row in encoded.rows[::7]:
        for kind in ("tokens", "corrupted_tokens"):
            shown = row[kind.replace("tokens", "members")]
            assert len(row[kind]) == layout.tokens
            assert [tokens.decode([row[kind][p]]).strip() for p in layout.places] == list(shown)
        assert tokens.decode([row["answer_token"]]).strip() == row["answer"]
    assert {"members", "last"} <= set(layout.roles) <= {"members", "separators", "last"}
    sides = {side: [row for row in encoded.rows if row["split"] == side] for side in ("search", "held_out")}
    known = {
        "capitals": lambda row: row["members"][0],
        "sums": lambda row: frozenset(row["members"]),
    }.get(name, lambda row: row["text"])
    searched, held_out = ({known(row) for row in rows} for rows in sides.values())
    assert searched and held_out and not searched & held_out
    assert len({row["text"] for row in encoded.rows}) == len(encoded.rows) or name == "greater_than"


def test_names_of_several_tokens_have_partners_of_as_many(config, gpt2):
    names = ["Ada", "Ben", "Dan", "Grace", "Hugo", "Anika", "Fatima", "Goran", "Hiroshi", "Ingrid", "Zainab"]
    block = block_of(config, "indirect_objects", names=names, multi_token=True)
    made_of = generator.of(block).make("x", block, gpt2, None)
    counts = {name: len(gpt2(" " + name)["input_ids"]) for name in names}
    assert set(made_of.dropped["names"]) == {name for name in names if list(counts.values()).count(counts[name]) < 5}
    encoded, _ = prompts_of("x", block, gpt2, False, 200, None)
    assert len(encoded.layouts) == 2
    for row in encoded.rows:
        assert len({counts[name] for name in [*row["members"], *row["corrupted_members"], row["incorrect"]]}) == 1
        assert len(row["answer_tokens"]) == counts[row["answer"]]


def test_capitals_and_sums_may_have_several_tokens(config):
    llama = load_tokenizer("llama2")
    encoded, _ = prompts_of("x", block_of(config, "capitals", multi_token=True), llama, False, 200, None)
    assert {len(row["answer_tokens"]) for row in encoded.rows} > {1}
    encoded, _ = prompts_of("x", block_of(config, "sums", multi_token=True), llama, False, 200, None)
    assert max(int(row["answer"]) for row in encoded.rows) > 9 and not encoded.rejected


# ---- refusals --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("indirect_objects", {"names": ["Ada", "Ben"]}, ".names: 2 words are too few; give at least 5"),
        ("indirect_objects", {"names": [*"ABCDE", "F G"]}, ".names: 'F G' is not one word"),
        ("indirect_objects", {"names": [*"ABCDE", "A"]}, ".names: 'A' occurs more than once"),
        ("indirect_objects", {"places": ["Anna"]}, ".places: 'Anna' is also one of the names"),
        ("indirect_objects", {"wordings": ["{first} met {second}, who"]}, ".wordings: '{first} met {second}, who' has"),
        ("indirect_objects", {"corrupted_by": "random_members"}, ".corrupted_by: 'random_members' is not allowed"),
        ("indirect_objects", {"shown": 3}, ".shown: prompts of the generator 'indirect_objects' do not read it"),
        ("agreement", {"multi_token": True}, ".multi_token: prompts of the generator 'agreement' do not read it"),
        ("agreement", {"subjects": [["key", "key"], ["cat", "cats"]]}, ".subjects: 'key' occurs more than once"),
        ("agreement", {"subjects": [["key", "keys"]]}, ".subjects: 1 pair is too few; give at least 2"),
        ("capitals", {"pairs": {"France": "Paris"}}, ".pairs: 1 are too few; give at least 4"),
        ("capitals", {"pairs": dict.fromkeys("abcd", "X")}, ".pairs: 'X' is the answer of two"),
        ("capitals", {"wordings": ["Not {its}, {country}:"]}, ".wordings: 'Not {its}, {country}:' has one of"),
        ("capitals", {"wordings": ["{country} "]}, ".wordings: '{country} ' ends with a space"),
        (
            "greater_than",
            {"wordings": ["{noun} {start!r}"]},
            ".wordings: '{noun} {start!r}': write {noun}, {start} alone",
        ),
        ("greater_than", {"centuries": [9]}, ".centuries.0: 9 is out of range"),
        ("induction", {"again": 9}, ".again: 9 of 10 words leave none as an answer"),
        ("induction", {"words": ["a", "b"]}, ".words: 2 words are too few; give at least 20"),
        ("pronouns", {"names": {"he": ["Al"], "she": ["Bo", "Cy", "Di"]}}, ".names.he: 1 name is too few"),
        ("pronouns", {"names": {"he": ["Al", "Ed"]}}, ".names: {'he': ['Al', 'Ed']} has too few entries"),
        ("sums", {"numbers": [3, 5]}, ".numbers: 3 to 5 are too few to add"),
        ("sums", {"per_template": 9}, ".per_template: prompts of the generator 'sums' do not read it"),
        ("docstrings", {"words": ["a"]}, ".words: 1 words are too few; give at least 15"),
    ],
)
def test_what_makes_no_prompts_is_refused_before_any_job(config, name, changes, said):
    given = config | {"tasks": config["tasks"] | {"other": {"generator": name} | changes}}
    given["study"] = config["study"] | {"transfer_tasks": ["other"]}
    with pytest.raises(StudyError) as error:
        validated(given, SCHEMA, ROOT / "resources" / "published")
    assert str(error.value).startswith(f"tasks.other{said}") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("agreement", "tasks.x.subjects: 3 of the 32 words can be used as one token"),
        ("capitals", "tasks.x.pairs: none of the 20 words can be used as one token"),
        ("docstrings", "tasks.x.words: 2 of the 55 words can be used as one token"),
        ("greater_than", "tasks.x.nouns: none of the 20 words can be used as one token"),
        ("pronouns", "tasks.x.roles: none of the 12 words can be used as one token"),
    ],
)
def test_words_that_the_tokenizer_splits_are_refused_in_the_first_job(config, name, said):
    """The shipped tokenizer knows names and the words of sequences alone."""
    block = block_of(config, name)
    with pytest.raises(StudyError, match=said):
        generator.of(block).make("x", block, load_tokenizer("shipped"), None)
