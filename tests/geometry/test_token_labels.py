"""Labels by rule on lists whose kinds are known, and on random ones, which get none."""

import numpy as np
import pytest
import torch

from atlas.geometry import labels, readings
from atlas.geometry.labels import MIXED, NEXT, SAME, SAME_CLASS, Lexicon, label
from atlas.heads.attribution import Readout
from conftest import load_tokenizer

K = 8


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("shipped")


@pytest.fixture(scope="module")
def lexicon(config, tokenizer):
    return Lexicon.make(tokenizer, len(tokenizer) + 3, config["geometry"]["classes"], config["prompts"]["fillers"])


@pytest.fixture(scope="module")
def null(lexicon):
    """Lists of tokens drawn evenly from the vocabulary."""
    rng = np.random.default_rng(0)
    return np.stack([rng.choice(lexicon.of.shape[1] - 3, K, replace=False) for _ in range(499)])


def ids(tokenizer, words):
    found = [tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in words]
    assert all(len(x) == 1 for x in found)
    return [x[0] for x in found]


MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August")


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (MONTHS, "months"),
        (("one", "two", "three", "four", "five", "six", "Anna", "Bella"), "number_words"),
        (("Anna", "Bella", "Brian", "Carla", "David", "Elena", "Eric", "one"), "name fillers"),
        (("3", "4", "5", "6", "7", "8", "9", "10"), "numerals"),
        (("one", "March", "Anna", "6", "7", "in", "Friday", "dos"), MIXED),
        (("one", "two", "three", "March", "Anna", "Bread", "7", "in"), MIXED),
    ],
)
def test_a_list_is_called_what_most_of_it_is(words, kind, lexicon, tokenizer, null):
    found = label(lexicon, ids(tokenizer, words), null)
    assert found.name == kind
    if kind != MIXED:
        assert found.share >= 6 / K and found.base < 0.2 and found.p == 1 / 500
    else:
        assert found.share < labels.FLOOR


def test_shares_are_counted_one_by_one(lexicon, null):
    reads = [next(iter(lexicon.members))]
    targets, shares = lexicon.relations(reads), lexicon.shares(null[:20], reads)
    for row, chosen in enumerate(null[:20]):
        for column, name in enumerate(lexicon.columns(reads)):
            if name in targets:
                expected = sum(int(t) in targets[name] for t in chosen) / K
            else:
                expected = sum(lexicon.of[lexicon.kinds.index(name), t] for t in chosen) / K
            assert shares[row, column] == pytest.approx(expected)


def test_relations_are_those_to_what_is_read(lexicon, tokenizer):
    one, two, three, december, january = ids(tokenizer, ("one", "two", "three", "December", "January"))
    found = lexicon.relations([two])
    assert one in found[labels.PREVIOUS] and three in found[NEXT] and two in found[SAME]
    assert {one, two, three} <= found[SAME_CLASS] and january not in found[SAME_CLASS]
    assert january in lexicon.relations([december])[NEXT], "months go round"
    assert not lexicon.relations(ids(tokenizer, ("twenty",)))[NEXT], "number words end"


def test_what_follows_what_is_read_is_called_next(lexicon, tokenizer, null):
    read, following = ids(tokenizer, MONTHS[:-1]), ids(tokenizer, MONTHS[1:])
    named = {}
    for name, own in (("next", following), ("same", read)):
        few = own[:4] if name == "next" else read[:4]
        named[name] = label(lexicon, few, null[:, :4], read[:4]).name
    assert label(lexicon, following[:4], null[:, :4], [read[0], read[1], read[2], read[3]]).name == NEXT
    assert named == {"next": NEXT, "same": SAME}
    other = ids(tokenizer, ("September", "October", "November", "December"))
    assert label(lexicon, other, null[:, :4], read[:3]).name == SAME_CLASS
    assert label(lexicon, ids(tokenizer, ("one", "two", "three", "four")), null[:, :4], read[:3]).name == "number_words"


def test_random_lists_seldom_have_a_small_p(lexicon, null):
    """At most one in twenty, by the test's own construction; and ties make it rarer."""
    assert np.mean([label(lexicon, null[i], np.delete(null, i, 0)).p < 0.05 for i in range(200)]) <= 0.05


def test_a_kind_that_random_lists_have_as_often_is_no_label(lexicon, tokenizer):
    months = ids(tokenizer, MONTHS)
    found = label(lexicon, months, np.array([months] * 9))
    assert found.name == MIXED and found.p == 1


def test_kinds_of_single_texts():
    texts = ["three", "The", "the", "3", "37", ".", "...", "", None, "\ufffd", "ing", "\u4e09", "caf\u00e9", "I", "McX"]
    begins = [True] * len(texts)
    begins[texts.index("ing")] = begins[texts.index("caf\u00e9")] = False
    held = dict(zip(labels.WIDE, labels.wide_kinds(texts, begins), strict=True))
    of = {name: [texts[i] for i in np.flatnonzero(where)] for name, where in held.items()}
    assert of == {
        "digits": ["3", "37"],
        "function words": ["The", "the", "I"],
        "punctuation": [".", "..."],
        "spaces": [""],
        "capitalised words": ["The"],
        "pieces of words": ["ing", "caf\u00e9"],
        "other scripts": ["\u4e09"],
        "bytes": ["\ufffd"],
    }
    assert labels.spellings("three") == ("three", "Three") and labels.spellings("May") == ("May",)


def test_surprise_is_the_tail_of_the_binomial():
    found = labels.surprises(np.array([0.5, 0.001]), 3)
    np.testing.assert_allclose(found[0], [0, -np.log(7 / 8), -np.log(1 / 2), -np.log(1 / 8)], atol=1e-12)
    assert found[1, 1] == pytest.approx(-np.log(1 - 0.999**3)) and found[1, 3] == pytest.approx(-3 * np.log(0.001))


def test_half_a_list_of_a_rare_kind_outweighs_all_of_a_wide_one(lexicon, tokenizer, null):
    """Four months and four names are all capitalised words."""
    listed = ids(tokenizer, (*MONTHS[:4], "Anna", "Bella", "Brian", "Monday"))
    assert label(lexicon, listed, null).name == "months"


def test_ids_that_no_token_has_are_of_no_kind(lexicon):
    assert not lexicon.of[:, -3:].any()


def test_lists_of_other_lengths_are_refused(lexicon, null):
    with pytest.raises(ValueError, match="3 tokens"):
        label(lexicon, [1, 2, 3], null)


# ---- readings -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("centred", [True, False])
def test_a_reading_is_the_slope_of_the_logits(centred):
    """Of the written-out end of the model, by the direction, where the norm's scale stands still."""
    g = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    readout = Readout(draw(6), draw(6) if centred else None, 1e-5, centred, draw(6, 11), draw(11))
    x, d = draw(6), draw(3, 6)
    scale = readout.scale(x)

    def logits(y):
        y = readout.centre(y) / scale * readout.weight
        return readout.uncapped(y if readout.bias is None else y + readout.bias)

    for i in range(3):
        slope = (logits(x + 1e-3 * d[i]) - logits(x - 1e-3 * d[i])) / 2e-3 * scale
        torch.testing.assert_close(readings.written(readout, d)[i], slope, atol=1e-8, rtol=1e-8)


def test_top_tokens_are_sorted_and_ties_keep_their_order(monkeypatch):
    readout = Readout(torch.ones(3), None, 0.0, False, torch.tensor([[1.0, 2, 2, 0], [0, 0, 0, 1], [5, 1, 5, 5]]), None)
    monkeypatch.setattr(readings, "AT_ONCE", 4)
    found, values = readings.top_tokens(readout, torch.eye(3), 3)
    assert found[0].tolist() == [1, 2, 0] and found[2].tolist() == [0, 2, 3]
    assert values[0].tolist() == [2, 2, 1]


def test_random_lists_repeat_by_seed(shipped_model):
    readout = Readout.of(shipped_model)
    one, two, other = (readings.random_lists(readout, 5, 4, seed) for seed in (1, 1, 2))
    assert (one == two).all() and (one != other).any() and one.shape == (5, 4)
