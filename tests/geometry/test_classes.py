"""Classes of members: which members are one token, in what order, and which comes next."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.geometry import classes
from atlas.geometry.classes import Members
from conftest import load_tokenizer


def of(tokenizer, **blocks):
    return {found.name: found for found in classes.of(blocks, load_tokenizer(tokenizer))}


def test_members_of_one_token_are_kept_in_order(config):
    found = of("shipped", **config["geometry"]["classes"])
    assert found["months"].words[:2] == ("January", "February") and found["months"].cyclic
    assert found["numerals"].words == tuple(map(str, range(101)))
    tokenizer = load_tokenizer("shipped")
    for own in found.values():
        texts = [tokenizer.decode([token]).strip() for token in own.ids]
        assert texts == list(own.words), "each id is the member's own token"


@pytest.mark.parametrize("tokenizer", ["gpt2", "llama2", "pythia"])
def test_ids_are_what_a_text_has_after_a_space(tokenizer, config):
    """A lone space before a digit (Llama) is no part of the member."""
    own = load_tokenizer(tokenizer)
    for found in of(tokenizer, **config["geometry"]["classes"]).values():
        for word, token in zip(found.words, found.ids, strict=True):
            ids = own(f"in {word}", add_special_tokens=False)["input_ids"]
            assert ids[-1] == token and own.decode(ids[:-1]).strip() == "in"


def test_a_member_of_several_tokens_leaves_a_gap():
    found = of("llama2", days={"members": ["Monday", "Tuesday", "Friday", "Saturday", "Sunday"], "cyclic": True})[
        "days"
    ]
    assert found.words == ("Monday", "Friday", "Saturday", "Sunday") and found.places == (0, 2, 3, 4)
    assert found.steps(1) == {1: 2, 2: 3, 3: 0}, "Tuesday, which is left out, follows Monday"
    assert found.size == 5


def test_small_classes_and_those_set_to_null_are_left_out():
    assert not of("shipped", few={"members": ["one", "two", "three"]}, none=None)
    assert not of("shipped", unknown={"members": ["qqq", "qqqq", "qqqqq", "qqqqqq"]})


def test_a_token_of_two_members_is_none_of_theirs():
    found = of("shipped", twice={"members": ["one", "two", "three", "four", "five", "one"]})["twice"]
    assert found.words == ("two", "three", "four", "five")


@given(places=st.sets(st.integers(0, 11), min_size=1).map(sorted), cyclic=st.booleans(), step=st.integers(-14, 14))
def test_steps_lead_to_the_member_so_many_places_on(places, cyclic, step):
    own = Members("m", tuple(map(str, places)), tuple(places), tuple(places), 12, cyclic)
    expected = {
        i: j
        for i, a in enumerate(places)
        for j, b in enumerate(places)
        if i != j and (b - a == step or (cyclic and (b - a - step) % 12 == 0))
    }
    assert own.steps(step) == expected
