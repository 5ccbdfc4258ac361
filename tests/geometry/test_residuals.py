"""Residuals of members against TransformerLens, row by row; and the texts that members stand in."""

import numpy as np
import pytest
import torch

from atlas.core.errors import StudyError
from atlas.geometry import classes, residuals
from atlas.geometry.classes import Members
from atlas.model import models
from conftest import load_tokenizer
from head_prompts import study_task


def days_of(config, name="days"):
    tokenizer = load_tokenizer("shipped")
    return tokenizer, {m.name: m for m in classes.of(config["geometry"]["classes"], tokenizer)}[name]


def texts_of(config, members, number=4, seed=0, **other):
    prompts = config["prompts"] | other
    return residuals.contexts(
        prompts["templates"], prompts["fillers"], prompts["random_words"], [members], number, seed
    )


def test_contexts_differ_take_templates_in_turns_and_hold_no_member(config):
    _, days = days_of(config)
    texts = texts_of(config, days, 7)
    assert len(set(texts)) == 7 and texts == texts_of(config, days, 7) != texts_of(config, days, 7, seed=1)
    for i, text in enumerate(texts):
        ending = config["prompts"]["templates"][i % 3].split("}")[1].split("{")[0]
        assert text.endswith(ending) and text.count(ending) == 2
        assert not set(text.replace(".", "").split()) & set(days.words)


@pytest.mark.parametrize(
    ("pattern", "expected"), [("{m}", "river "), ("- {m}\n", "- river\n- "), ("A {m} then B {m} C", "A river then B ")]
)
def test_contexts_of_other_templates(config, pattern, expected):
    _, days = days_of(config)
    assert texts_of(config, days, 1, templates=[pattern], random_words=["river", "Monday"]) == [expected]


def test_too_few_contexts_are_refused(config):
    _, days = days_of(config)
    with pytest.raises(StudyError, match=r"3 contexts are wanted and .* make 1"):
        texts_of(config, days, 3, templates=["{m}"], random_words=["river"])
    with pytest.raises(StudyError, match=r"prompts\.random_words"):
        texts_of(config, days, 3, random_words=["Monday"])
    with pytest.raises(StudyError, match=r"prompts\.fillers\.animal"):
        texts_of(config, days, 3, templates=["{animal} {m}"])


def test_a_context_that_changes_a_members_token_is_refused(config):
    tokenizer, days = days_of(config)
    with pytest.raises(StudyError, match=r"geometry\.classes\.days is another token"):
        residuals.tokens_in_contexts(days, ["so ("], tokenizer, False)


def test_points_are_spread_from_first_to_last():
    assert residuals.points_of(6) == (0, 1, 2, 3, 4, 5, 6) == residuals.points_of(6, 7)
    assert residuals.points_of(30, 4) == (0, 10, 20, 30)


def test_residuals_at_members_are_those_of_transformer_lens(config, shipped_model):
    """Of contexts of different lengths, which padding must not touch."""
    tokenizer, days = days_of(config)
    texts, points = ["river ", "so much more than "], (0, 3, 6)
    found = residuals.at_members(shipped_model, tokenizer, days, texts, False, points)
    assert found.values.shape == (3, 2, 7, shipped_model.d_model) and found.values.dtype == np.float32
    names = ["blocks.0.hook_resid_pre", "blocks.2.hook_resid_post", "blocks.5.hook_resid_post"]
    for c, text in enumerate(texts):
        for p, word in list(enumerate(days.words))[c::3]:
            ids = torch.tensor([tokenizer(text + word, add_special_tokens=False)["input_ids"]])
            cache = shipped_model.bridge.run_with_cache(ids)[1]
            for place, name in enumerate(names):
                np.testing.assert_allclose(found.values[place, c, p], cache[name][0, -1].numpy(), atol=2e-4)
    np.testing.assert_allclose(found.fit, found.values[:, 0])
    np.testing.assert_allclose(found.held_out, found.values[:, 1])
    np.testing.assert_allclose(found.mean, (found.fit + found.held_out) / 2)


def test_residuals_at_answers_are_means_of_halves_of_each_answers_prompts(config, shipped_model):
    _, months = days_of(config, "months")
    frame, _ = study_task(config, "months", per_template=12)
    found = residuals.at_answers(shipped_model, frame, months, (6,))
    assert found.members.words == months.words and found.at == "answer"
    cache = shipped_model.bridge.run_with_cache(torch.tensor(np.stack(frame.tokens.to_list())))[1]
    x = cache["blocks.5.hook_resid_post"][:, -1].numpy()
    for p, word in enumerate(months.words):
        own = x[(frame.answer == word).to_numpy()]
        np.testing.assert_allclose(found.values[0, 0, p], own[0::2].mean(0), atol=2e-4)
        np.testing.assert_allclose(found.held_out[0, p], own[1::2].mean(0), atol=2e-4)


def test_members_without_prompts_are_left_out_and_a_task_of_another_class_has_none(config, shipped_model):
    _, months = days_of(config, "months")
    frame, _ = study_task(config, "months", per_template=12)
    some = frame[frame.answer != "March"]
    found = residuals.at_answers(shipped_model, some, months, (0,))
    assert "March" not in found.members.words and found.members.places == (0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11)
    assert residuals.at_answers(shipped_model, frame, days_of(config)[1], (0,)) is None
    assert residuals.at_answers(shipped_model, frame.drop(columns="answer_token"), months, (0,)) is None


def test_a_bos_that_the_tokenizer_lacks_and_a_single_context_are_refused(config, shipped_model):
    tokenizer, days = days_of(config)
    with pytest.raises(StudyError, match="2 or more"):
        residuals.at_members(shipped_model, tokenizer, days, ["river "], False, (0,))


@pytest.mark.slow
def test_a_model_without_an_engine_is_read_too(config, shipped_model):
    """On TransformerLens's bridge, where an architecture is of no known family."""
    from dataclasses import replace

    tokenizer, days = days_of(config)
    few = residuals.only(days, [0, 2])
    assert few == Members("days", ("Monday", "Wednesday"), (days.ids[0], days.ids[2]), (0, 2), 7, True)
    other = replace(shipped_model, weights=None)
    other.bridge = models.boot(shipped_model.folder, "cpu", torch.float32)
    one, two = (
        residuals.at_members(model, tokenizer, few, ["river ", "a "], False, (0, 6)) for model in (shipped_model, other)
    )
    np.testing.assert_allclose(one.values, two.values, atol=2e-4)
