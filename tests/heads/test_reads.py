"""Where heads look, by clauses: words for keys on real layouts, and shares against the attention of attention.py."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.core.positions import Layout
from atlas.heads import attention, random_heads, reads
from head_prompts import study_task, tokens_of

# Obj found in M . Obj found in M . Obj found in
CLAUSES = Layout(13, ((3, 3), (8, 8)), 12)


def test_each_key_of_a_prompt_has_its_word():
    assert reads.keys_of(CLAUSES, 12) == [
        *("first token", "elsewhere", "same slot", "earlier members", "delimiters"),
        *("elsewhere", "elsewhere", "same slot", "previous member", "delimiters"),
        *("own clause", "own clause", "self"),
    ]
    assert reads.keys_of(CLAUSES, 8) == [
        *("first token", "elsewhere", "elsewhere", "previous member", "delimiters"),
        *("own clause", "own clause", "own clause", "self"),
    ]
    assert reads.queries_of(CLAUSES) == {"last": [12], "member": [8]}


def test_without_members_or_with_bos_a_prompt_has_the_words_that_it_can_have():
    unknown = Layout(4, (), 3)
    assert reads.keys_of(unknown, 3) == ["first token", "elsewhere", "elsewhere", "self"]
    assert reads.queries_of(unknown) == {"last": [3]} and reads.sums(unknown).names == (
        "last to self",
        "last to first token",
    )
    bos = Layout(5, ((1, 2), (3, 3)), 4, bos=True)
    assert reads.keys_of(bos, 4) == ["first token", "earlier members", "earlier members", "previous member", "self"]


@settings(max_examples=30)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.booleans(), st.integers(1, 3))
def test_shares_of_each_query_sum_to_one_with_what_is_elsewhere(gaps, bos, after):
    """Members of one or two tokens, at any distance."""
    spans, at = [], int(bos)
    for i, gap in enumerate(gaps):
        first = at + gap - 1
        spans.append((first, first + i % 2))
        at = first + i % 2 + 1
    layout = Layout(at + after, tuple(spans), at + after - 1, bos)
    found = reads.sums(layout)
    weights = torch.softmax(torch.randn(2, 3, len(found.at), layout.tokens), -1)
    for i, position in enumerate(found.at):
        weights[:, :, i, position + 1 :] = 0
    weights /= weights.sum(-1, keepdim=True)
    shares = dict(zip(found.names, found(weights).unbind(-1), strict=True))
    for query, positions in reads.queries_of(layout).items():
        total = sum(share for name, share in shares.items() if name.startswith(f"{query} to "))
        for p in positions:
            rest = [i for i, key in enumerate(reads.keys_of(layout, p)) if key == reads.ELSEWHERE]
            total = total + weights[:, :, found.at.index(p), rest].sum(-1) / len(positions)
        assert torch.allclose(total, torch.ones_like(total), atol=1e-5)


@pytest.fixture(scope="module")
def prompts(config):
    frame, layout = study_task(config, "numerals", per_template=8)
    return tokens_of(frame), layout


def test_shares_equal_those_of_the_whole_pattern(shipped_model, prompts):
    """`attention.statistics` sums hooked patterns by coarser words."""
    tokens, layout = prompts
    expected = attention.statistics(attention.weights(shipped_model, tokens, layout))
    streams = random_heads.residuals(shipped_model, tokens)
    for layer, block in enumerate(shipped_model.weights.blocks):
        normed = {"in order": block.norm1(streams[layer])}
        found, _ = reads.shares(block, normed, layout)
        coarse = {
            f"{query} to {theirs}": sum(found[f"{query} to {key}"] for key in keys)
            for query in reads.QUERIES
            for theirs, keys in {
                "self": ["self"],
                "last member": ["previous member"],
                "first token": ["first token"],
            }.items()
        }
        coarse["last to same slot"] = found["last to same slot"]
        for name, share in coarse.items():
            assert np.abs(share.numpy() - expected[name][:, layer]).max() < 1e-5, name
        members = found["last to previous member"] + found["last to earlier members"]
        assert np.abs(members.numpy() - expected["last to members"][:, layer]).max() < 1e-5
        members = found["member to previous member"] + found["member to earlier members"]
        assert np.abs(members.numpy() - expected["member to members"][:, layer]).max() < 1e-5


def test_what_members_attract_is_the_smaller_weight_less_that_on_words():
    shown = {"last, in order": [0.9, 0.7], "last, shuffled": [0.6, 0.8], "last, words": [0.1, 0.3]}
    found = {name: np.array(x) for name, x in shown.items()} | {"last to self": np.zeros(2)}
    scores = reads.attracted(found)
    assert set(scores) == {"last to self", "type from last"}
    np.testing.assert_allclose(scores["type from last"], [0.5, 0.5])  # shuffled weighs less in the mean
