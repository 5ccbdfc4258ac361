"""Pairs of sequences, and prompts of both that differ in their members alone."""

import pytest

from atlas.core.errors import StudyError
from atlas.geometry import sequences
from atlas.geometry.sequences import HELD_OUT, SEARCH, Making, Ordered, Pair
from atlas.study.settings import task_block
from conftest import load_tokenizer

MAKING = Making(12, 0, False)


@pytest.fixture(scope="module")
def blocks(config):
    study = config["study"]
    return {name: task_block(config, name) for name in study["tasks"] + study["transfer_tasks"]}


def pairs(config, blocks, setting="auto"):
    return sequences.pairs_of(setting, blocks, config["study"]["tasks"], config["geometry"]["classes"])


def test_auto_steers_numerals_to_words_ranks_and_months_and_next_to_previous(config, blocks):
    assert [pair.name for pair in pairs(config, blocks)] == [
        "numerals -> number_words",
        "numerals -> months",
        "numerals -> ordinals",
        "number_words -> number_words_decreasing",
    ]
    without = blocks | {"numerals": blocks["numerals"] | {"multi_token": True}}
    assert pairs(config, without)[0].source.name == "number_words"
    assert sequences.pairs_of("auto", {"x": {"generator": "x", "members": [1]}}, ["x"], {}) == []


def test_named_pairs_are_tasks_or_end_in_a_class(config, blocks):
    named = pairs(config, blocks, [["months", "days"], ["numerals", "letters"]])
    assert [pair.name for pair in named] == ["months -> days", "numerals -> letters"]
    with pytest.raises(StudyError, match=r"geometry\.steering\.pairs: 'letters' is no task"):
        pairs(config, blocks, [["letters", "months"]])
    for target in ("nothing", "months"):
        with pytest.raises(StudyError, match=rf"'{target}' is no other such task"):
            pairs(config, blocks, [["months", target]])


def test_members_are_matched_by_rank():
    assert Ordered("n", ("0", "1", "2")).ranks == {0: "0", 1: "1", 2: "2"}
    assert Ordered("w", ("one", "two")).ranks == {1: "one", 2: "two"}
    assert Ordered("w", ("Zero", "one")).ranks == {0: "Zero", 1: "one"}
    digits, months = Ordered("n", tuple("0123456")), Ordered("m", ("Jan", "Feb", "Mar", "Apr", "May"), cyclic=True)
    assert Pair(digits, months).sequences(2) == [
        (["1", "2", "3"], ["Jan", "Feb", "Mar"]),
        (["2", "3", "4"], ["Feb", "Mar", "Apr"]),
        (["3", "4", "5"], ["Mar", "Apr", "May"]),
    ], "the end of months is not followed by their beginning, since numerals end"


def test_previous_is_matched_by_the_last_member_shown():
    up, down = Ordered("up", tuple("abcdef")), Ordered("down", tuple("abcdef"), -1)
    pair = Pair(up, down)
    assert pair.same_members and pair.sequences(2) == [
        (["a", "b", "c"], ["c", "b", "a"]),
        (["b", "c", "d"], ["d", "c", "b"]),
        (["c", "d", "e"], ["e", "d", "c"]),
        (["d", "e", "f"], ["f", "e", "d"]),
    ]
    around = Pair(Ordered("up", tuple("abcde"), cyclic=True), Ordered("down", tuple("abcde"), -1, cyclic=True))
    assert len(around.sequences(2)) == 5 and (["e", "a", "b"], ["b", "a", "e"]) in around.sequences(2)


def test_matched_prompts_differ_in_their_members_alone(config, blocks):
    tokenizer = load_tokenizer("shipped")
    for pair in pairs(config, blocks):
        found = sequences.matched(pair, blocks[pair.source.name], {}, tokenizer, MAKING)
        assert len(found.rows(SEARCH)) == len(found.rows(HELD_OUT)) == MAKING.prompts
        assert not {found.sequence[i] for i in found.rows(SEARCH)} & {found.sequence[i] for i in found.rows(HELD_OUT)}
        back = {word: rank for rank, word in pair.target.ranks.items()}
        ranks = {word: rank for rank, word in pair.source.ranks.items()}
        for i, sequence in enumerate(found.sequence):
            words = sequence.split()
            assert back[found.expected[i]] == ranks[words[-2]] + pair.target.step
            one, other = found.source_tokens[i], found.target_tokens[i]
            assert len(one) == len(other)
            changed = [(a, b) for a, b in zip(one, other, strict=True) if a != b]
            assert {a for a, _ in changed} <= set(found.source_ids) and {b for _, b in changed} <= set(found.target_ids)
            assert tokenizer.decode([found.target_next[i]]).strip() == found.expected[i]
            assert tokenizer.decode([found.source_next[i]]).strip() == words[-1]


def test_sides_are_those_of_the_studys_prompts(config, blocks):
    pair = pairs(config, blocks)[0]
    shown = [tuple(one[:4]) for one, _ in pair.sequences(4)]
    sides = sequences.sides_of([*shown, shown[0]], [HELD_OUT] * 3 + [SEARCH] * (len(shown) - 3) + [SEARCH])
    assert shown[0] not in sides, "it stands on both"
    found = sequences.matched(pair, blocks["numerals"], sides, load_tokenizer("shipped"), MAKING)
    held_out = {tuple(found.sequence[i].split()[:4]) for i in found.rows(HELD_OUT)}
    assert held_out == {shown[1], shown[2]}
    assert sequences.sides_of(shown, [SEARCH] * len(shown)) == {}, "where nothing is held out, in turns"


def test_too_few_sequences_are_refused(config, blocks):
    numerals = Ordered("numerals", tuple("123456"))
    days = Ordered("days", ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"))
    with pytest.raises(StudyError, match="at least 2 of either are needed; leave the pair out"):
        sequences.matched(Pair(numerals, days), blocks["numerals"], {}, load_tokenizer("shipped"), MAKING)
    odd = Ordered("odd", ("xylophonically", "quizzaciously", "jazzinesses", "zyzzyvas", "quixotry", "zymurgy"))
    with pytest.raises(StudyError, match=r"geometry\.steering\.pairs"):
        sequences.matched(Pair(numerals, odd), blocks["numerals"], {}, load_tokenizer("shipped"), MAKING)
    few = blocks["numerals"] | {"fillers": {"object": ["Cup", "Hat"], "name": ["Ada"]}}
    with pytest.raises(StudyError, match=r"prompts\.fillers\.object: 2 words"):
        sequences.matched(pairs(config, blocks)[0], few, {}, load_tokenizer("shipped"), MAKING)
