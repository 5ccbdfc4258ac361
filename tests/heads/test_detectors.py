"""Head detectors: TransformerLens's own on the shipped model, and the planted induction pair and no other head."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformer_lens.head_detector import detect_head

from atlas.core.errors import StudyError
from atlas.core.statistics import Bootstrap
from atlas.heads import detectors
from atlas.model import models
from atlas.proof import exact, fixtures
from atlas.proof.planted import MEMBERS
from conftest import load_tokenizer

HALF = 0.5  # the default thresholds of the labels


@pytest.mark.parametrize("bos", [None, 1188])
def test_scores_equal_transformerlens(shipped_model, bos):
    """`detect_head` divides by all S rows of the pattern, we by the rows that have a target (see the module)."""
    bridge, length = shipped_model.bridge, 12
    tokens = detectors.repeated_tokens(range(1188), length, 3, seed=0, bos=bos)
    found = detectors.scores(shipped_model, tokens, bos is not None)
    s = tokens.shape[1]
    rows = {"previous": s - 1, "duplicate": length, "induction": length}
    for i, sequence in enumerate(tokens):
        _, cache = bridge.run_with_cache(sequence[None], remove_batch_dim=True)
        model = SimpleNamespace(cfg=bridge.cfg, to_tokens=lambda _, sequence=sequence: sequence[None])
        for name in detectors.DETECTORS:
            theirs = detect_head(model, "", f"{name}_{'' if name == 'induction' else 'token_'}head", cache=cache)
            assert np.abs(found[name][i] - theirs.numpy() * s / rows[name]).max() < 1e-4


@pytest.mark.parametrize("family", exact.FAMILIES)
def test_the_planted_pair_is_found_and_no_other_head(family, tmp_path):
    """The planted match is by members, so the random tokens are members."""
    model = models.load(exact.induction(family).build(tmp_path), device="cpu")
    bos = fixtures.ids([fixtures.BOS])[0]
    tokens = detectors.repeated_tokens(fixtures.ids(MEMBERS), 7, 20, seed=0, bos=bos)
    drawn = detectors.null(model, tokens[:4], detectors.Settings(7, 20, True, 0, draws=41))
    table = detectors.table(detectors.scores(model, tokens, bos=True), Bootstrap(100, 0), drawn)
    found = table[table.value >= HALF]
    assert set(zip(found.detector, found.layer, found["head"], strict=True)) == {
        ("previous", 0, 2),
        ("induction", 1, 1),
    }
    assert found.value.to_numpy() == pytest.approx(1, abs=1e-6), "they do nothing else"
    assert table.value.between(0, 1 + 1e-6).all()
    assert (found.p == 1 / (1 + 41 * 12)).all() and (found.null_high < HALF).all(), "no random head comes near"


@given(st.integers(2, 8), st.integers(1, 4), st.integers(0, 5), st.booleans())
def test_sequences_are_different_tokens_twice(length, sequences, seed, with_bos):
    bos = 3 if with_bos else None
    tokens = detectors.repeated_tokens(range(10), length, sequences, seed, bos)
    assert tokens.shape == (sequences, 2 * length + with_bos)
    for row in tokens[:, int(with_bos) :].tolist():
        assert row[:length] == row[length:] and len(set(row)) == length and set(row) <= set(range(10))
        assert not with_bos or 3 not in row
    assert torch.equal(tokens, detectors.repeated_tokens(range(10), length, sequences, seed, bos))
    for queries, keys in detectors.targets(length, with_bos).values():
        assert all(0 <= k < q < tokens.shape[1] for q, k in zip(queries, keys, strict=True))


def test_targets_are_where_their_names_say():
    row = torch.tensor([9, 4, 5, 6, 4, 5, 6])  # BOS, then 4 5 6 twice
    queries, keys = detectors.targets(3, True)["duplicate"]
    assert queries == [4, 5, 6] and (row[queries] == row[keys]).all()
    queries, keys = detectors.targets(3, True)["induction"]
    assert (row[[k - 1 for k in keys]] == row[queries]).all()


def test_too_few_tokens_or_positions():
    with pytest.raises(StudyError, match=r"heads.detectors.length: 11 needs .* there are 9"):
        detectors.repeated_tokens(range(10), 11, 1, 0, bos=3)
    assert detectors.half_length(50, 40, False) == 20 and detectors.half_length(50, 40, True) == 19
    assert detectors.half_length(50, None, True) == 50


def test_random_tokens_are_text_that_the_model_has():
    """Special tokens are none, and a tokenizer may have more tokens than the model."""
    tokenizer = load_tokenizer("shipped")
    found = detectors.ordinary_tokens(tokenizer, 1189)
    assert found == sorted(set(range(1189)) - set(tokenizer.all_special_ids))
    assert detectors.ordinary_tokens(tokenizer, 100) == [i for i in found if i < 100]


@pytest.mark.parametrize("bos", [False, True])
def test_a_model_is_scored_on_as_many_tokens_as_it_takes(shipped_model, bos):
    tokenizer, bootstrap = load_tokenizer("shipped"), Bootstrap(50, 0)
    settings = detectors.Settings(length=30, sequences=4, prepend_bos=bos, seed=3, draws=2)
    found = detectors.detect(shipped_model, tokenizer, {"d_vocab": 1189, "max_tokens": 40}, settings, bootstrap)
    length = 19 if bos else 20
    tokens = detectors.repeated_tokens(
        detectors.ordinary_tokens(tokenizer, 1189), length, 4, 3, tokenizer.bos_token_id if bos else None
    )
    assert tokens.shape == (4, 2 * length + bos)
    drawn = detectors.null(shipped_model, tokens, settings)
    assert found.equals(detectors.table(detectors.scores(shipped_model, tokens, bos), bootstrap, drawn))
    assert drawn["previous"].shape == (2, 6, 8) and found["p"].between(1 / 97, 1).all()


def test_a_bos_token_that_the_tokenizer_lacks_is_refused(shipped_model):
    tokenizer = SimpleNamespace(bos_token_id=None)
    with pytest.raises(StudyError, match="prepend_bos is true but the tokenizer has no BOS token"):
        detectors.detect(shipped_model, tokenizer, {}, detectors.Settings(5, 1, True, 0, 2), Bootstrap(50, 0))
