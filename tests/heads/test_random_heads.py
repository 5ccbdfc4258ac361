"""Random heads: what they are, against weights turned by hand; their p-values; and how seldom they mislead."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from atlas.core.statistics import Bootstrap
from atlas.heads import labels, random_heads, reads, role_scores
from atlas.heads.explained import Explained
from atlas.model import models
from atlas.model.attention import Positions
from conftest import SHIPPED, load_tokenizer
from head_prompts import study_task
from random_models import EVERY, FAMILIES, VOCAB, D, load_random


def turn_of(width, seed=0) -> random_heads.Turn:
    return next(random_heads.turns(width, 1, seed))


@settings(max_examples=20)
@given(st.integers(1, 24), st.integers(0, 9))
def test_rotations_keep_lengths_and_angles_and_come_again(width, seed):
    first, again = turn_of(width, seed), turn_of(width, seed)
    for part in "qkvo":
        rotation = getattr(first, part)
        assert torch.allclose(rotation @ rotation.T, torch.eye(width), atol=1e-5)
        assert rotation.equal(getattr(again, part))
    assert width < 3 or not torch.allclose(first.q, first.k, atol=1e-3)


def test_rotations_are_uniform():
    """Of Haar's measure each entry has mean 0 and mean square 1 / width, and no place is favoured; over 4,000 rotations
    means are within 5 of their standard errors."""
    made = torch.stack([rotation for t in random_heads.turns(3, 1000, 0) for rotation in (t.q, t.k, t.v, t.o)])
    assert made.mean(0).abs().max() < 5 * (1 / 3 / 4000) ** 0.5
    assert (made.pow(2).mean(0) - 1 / 3).abs().max() < 5 * (4 / 45 / 4000) ** 0.5  # variance of a square: 1/5 - 1/9


@pytest.mark.parametrize("family", FAMILIES)
def test_random_heads_are_heads_with_turned_weights(family, tmp_path):
    """The same patterns as a layer whose W_Q and W_K are turned themselves: R (x W) = x (R W), biases as they are."""
    model, turn = load_random(family, tmp_path), turn_of(D)
    tokens = torch.randint(VOCAB, (3, 7), generator=torch.Generator().manual_seed(0))
    x = random_heads.residuals(model, tokens)[1]
    block = model.weights.blocks[1]
    q, k = (getattr(turn, part).to(block.w_q.dtype) for part in "qk")
    by_hand = replace(
        block,
        w_q=torch.einsum("ed,dhk->ehk", q, block.w_q),
        w_k=torch.einsum("ed,dhk->ehk", k, block.w_k),
        joint=None,
    )
    normed, at = block.norm1(x), Positions(torch.tensor([6, 3]))
    expected = by_hand.pattern(by_hand.queries(normed), by_hand.entering("k", normed))[:, :, [6, 3]]
    assert torch.allclose(reads.rows(block, normed, at, turn), expected, atol=max(1e-5, EVERY[family]))
    own = block.pattern(block.queries(normed), block.entering("k", normed))[:, :, [6, 3]]
    assert torch.allclose(reads.rows(block, normed, at), own, atol=1e-6)
    assert not torch.allclose(expected, own, atol=1e-3)


def test_residuals_are_those_that_enter_each_layer(shipped_model):
    """Transformers' own; its last one has gone through the final norm."""
    tokens = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        hidden = GPT2LMHeadModel.from_pretrained(SHIPPED)(tokens, output_hidden_states=True).hidden_states
    found = random_heads.residuals(shipped_model, tokens)
    found[-1] = shipped_model.weights.norm_final(found[-1])
    for own, theirs in zip(found, hidden, strict=True):
        assert torch.allclose(own, theirs, atol=1e-4)


# ---- p-values ------------------------------------------------------------------------------------------------
values = st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), min_size=6, max_size=6)


@settings(max_examples=20)
@given(values, st.lists(values, min_size=1, max_size=5))
def test_p_counts_random_heads_that_reach_a_score_and_the_head_itself(own, drawn):
    own, drawn = np.reshape(own, (2, 3)), np.reshape(drawn, (-1, 2, 3))
    found = random_heads.p_values(own, drawn)
    for at in np.ndindex(2, 3):
        assert found[at] == (1 + sum(x >= own[at] for x in drawn.ravel())) / (1 + drawn.size)


def test_a_head_without_a_score_has_no_p():
    found = random_heads.p_values(np.array([[0.5, np.nan]]), np.array([[[0.1, 0.2]], [[0.6, np.nan]]]))
    assert found[0, 0] == (1 + 1) / (1 + 3) and np.isnan(found[0, 1])


@settings(max_examples=20)
@given(st.integers(0, 100))
def test_in_units_of_its_own_versions_a_head_is_one_among_them(seed):
    """Trading it for one of its versions trades their scores; and a head twice as large has the same ones."""
    rng = np.random.default_rng(seed)
    own, drawn = rng.normal(size=(2, 3)), rng.normal(size=(8, 2, 3))
    first, rest = random_heads.standardised(own, drawn)
    traded = drawn.copy()
    traded[4] = own
    other, others = random_heads.standardised(drawn[4], traded)
    np.testing.assert_allclose(first, others[4], atol=1e-12)
    np.testing.assert_allclose(rest[4], other, atol=1e-12)
    np.testing.assert_allclose(random_heads.standardised(2 * own, 2 * drawn)[0], first, atol=1e-12)
    assert (random_heads.standardised(np.ones((1, 1)), np.ones((3, 1, 1)))[0] == 0).all()


# ---- how seldom they mislead ---------------------------------------------------------------------------------
DRAWS = 60


def random_gpt2(folder, seed: int, spread: float) -> models.Model:
    """3 layers of 4 heads; ``spread``: of its weights. From 0.2 on its heads look at few tokens each."""
    torch.manual_seed(seed)
    sizes = {"vocab_size": 1189, "n_positions": 40, "n_embd": 64, "n_layer": 3, "n_head": 4}
    config = GPT2Config(**sizes, initializer_range=spread, bos_token_id=1188, eos_token_id=1188)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return models.load(folder, device="cpu")


def roles_of(config, folder, task, seed, spread) -> pd.DataFrame:
    """`role_tests` of a random model."""
    frame, layout = study_task(config, task, per_template=8)
    of = Explained(task, random_gpt2(folder, seed, spread), load_tokenizer("shipped"), frame, layout, Bootstrap(10, 0))
    made = role_scores.variants(of, config["prompts"]["random_words"], 0)
    found = role_scores.table(of, made, ["attention", "ov", "attribution"], role_scores.Settings(DRAWS, 12, seed))
    return labels.tests({"role_scores": found}, config["heads"]["labels"])


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.02, 0.25])
def test_a_random_model_has_nearly_no_roles(config, spread, tmp_path):
    """24 random models of 12 heads, whose heads are as good as random ones.

    A family of tests (a role) has a false positive with a chance of at most 0.05, so that of 24 x 13 families at most
    15.6 have one on average; more than 30 have one with a chance below 1e-3 even where they come together in one model
    (twice the variance of independent ones: 5.4 standard deviations of 3.9 above). Of 288 heads nearly none gets a
    label, which has to reach its floor as well.
    """
    found = [
        roles_of(config, tmp_path / str(seed), ("numerals", "months")[seed % 2], seed, spread) for seed in range(24)
    ]
    families = [(t.p_holm < 0.05).groupby(t.label).any() for t in found]
    assert all(len(family) == 13 for family in families)
    assert sum(map(sum, families)) <= 30
    assert sum(t[t.holds].component.nunique() for t in found) <= 6
    uncorrected = np.concatenate([t.p for t in found])
    assert (uncorrected < 0.05).mean() < 0.06, "and few prompts make random heads spread wider, not narrower"
