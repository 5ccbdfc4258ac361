"""Steering on planted directions, and on random models against Hugging Face's own modules with a vector added."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

import steered_models
from atlas.core.components import Component
from atlas.core.statistics import Bootstrap
from atlas.geometry import steering, steering_effects
from atlas.geometry.last_position import Edit, Recorded, continued
from atlas.geometry.sequences import HELD_OUT, SEARCH
from atlas.model import models
from conftest import load_tokenizer
from random_models import FAMILIES, VOCAB, D, H, L, load_random

TOKENS = [[3, 8, 1, 29], [4, 4, 2], [5, 0, 7, 11], [9, 2, 6], [1, 2, 3, 4]]  # of two lengths, in no order
BLOCKS = {"llama": lambda network: network.model.layers, "gpt2": lambda network: network.transformer.h}
SETTINGS = steering.Settings(layers=2, random=40)
CIRCUITS = {"source": frozenset([Component(0, 0), Component(1)])}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    return load_random(request.param, tmp_path_factory.mktemp("random") / "model")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Of a model that reads the class, and of one that does not: (model, table, the steered pair)."""
    found = {}
    for reads in (True, False):
        model = models.load(steered_models.build(tmp_path_factory.mktemp("planted"), reads), device="cpu")
        kept = []
        made = steering.steer(model, [steered_models.prompts()], CIRCUITS, SETTINGS, Bootstrap(50, 0), kept.append)
        found[reads] = model, made, kept[0]
    return found


def cell(table, **where):
    for key, value in where.items():
        table = table[table[key] == value]
    (row,) = table.to_dict("records")
    return row


# ---- planted -------------------------------------------------------------------------------------------------
def test_a_class_that_is_read_linearly_is_steered_by_one_vector_and_by_no_random_one(planted):
    _, table, steered = planted[True]
    assert steered.coefficient == 1
    swept = table[(table.method == steering.MEANS) & (table.metric == "top1")]
    assert set(swept.layer) == {0, 1} and set(swept.split) == {SEARCH, HELD_OUT}
    assert (swept.value == (swept.coefficient == 1)).all(), "half of it leaves a tie, twice as much goes beyond"
    for metric in ("top1", "class_top1"):
        row = cell(table, method=steering.MEANS, split=HELD_OUT, chosen=True, metric=metric)
        assert row["value"] == row["ci_low"] == 1 and row["random_hi"] == 0 and row["draws"] == 40
        assert row["p"] == pytest.approx(1 / 41) and row["p_holm"] == row["p"] and row["tests"] == 1
    assert cell(table, method=steering.UNSTEERED, metric="top1")["value"] == 0
    assert cell(table, method=steering.UNSTEERED, metric="source_top1")["value"] == 1
    assert cell(table, method=steering.TARGET, metric="top1")["value"] == 1
    assert cell(table, method=steering.RESIDUAL, metric="top1")["value"] == 1
    assert cell(table, method=steering.OTHERS, metric="top1")["value"] == 1, "the last layer changes nothing"


def test_the_vector_is_the_planted_direction(planted):
    _, _, steered = planted[True]
    expected = torch.zeros(steered_models.D, dtype=torch.float64)
    expected[steered_models.CLASS] = 2
    for layer in (0, 1):
        assert (steered.vector(layer) - expected).abs().max() < 1e-6
        assert (steered.vectors_without(layer) - expected).abs().max() < 1e-6


def test_a_search_prompt_is_steered_by_the_vector_of_other_sequences(planted):
    _, _, steered = planted[True]
    source, target = (steered.resid[of, SEARCH][:, 0].double() for of in ("source", "target"))
    target[0] += 5  # of the first prompt, of the first sequence
    changed = {**steered.resid, ("target", SEARCH): target[:, None]}
    changed["source", SEARCH] = source[:, None]
    other = steering.Steered(steered.matched, {}, changed, steered.target_z, steered.target_logits, {})
    moved = (other.vectors_without(0) - steered.vectors_without(0)).abs().amax(1)
    of = [steered.matched.sequence[i] for i in steered.matched.rows(SEARCH)]
    assert [float(x) == pytest.approx(5 / 4) for x in moved] == [name != of[0] for name in of]


def test_the_planted_head_carries_the_class_and_the_other_does_not(planted):
    _, table, _ = planted[True]
    row = cell(table, method=steering.CIRCUIT, metric="top1")
    assert row["value"] == 1 and row["heads"] == 1 and row["draws"] == 1 and row["random_hi"] == 0 and row["p"] == 0.5
    assert cell(table, method=steering.ALL_HEADS, metric="top1")["value"] == 1


def test_a_model_that_ignores_the_class_is_not_steered(planted):
    _, table, _ = planted[False]
    for metric in ("top1", "class_top1"):
        assert (table[table.metric == metric].value == 0).all()
        row = cell(table, method=steering.MEANS, split=HELD_OUT, chosen=True, metric=metric)
        assert row["p"] == 1 and row["p_shuffled"] == 1
    assert (table[(table.metric == "source_top1") & (table.method == steering.UNSTEERED)].value == 1).all()


def test_what_is_written_changes_class_and_side_effects_are_those_of_the_direction(planted):
    """Steered by one vector at every step, the model goes on with the target's members, which then are read too."""
    model, _, steered = planted[True]
    texts = {"x": steering_effects.Text([[0, 1, 1], [1, 0, 1]], [2, 3])}
    effects = steering_effects.SideEffects(model, texts, Bootstrap(50, 0))
    rows = pd.DataFrame(effects.rows(steered, (0.5, 1), 5))
    assert (
        set(rows.coefficient) == {0.5, 1} and rows[rows.chosen].draws.eq(5).all() and rows[~rows.chosen].p.isna().all()
    )
    logits = effects.recorded["x"].gathered("logits").double()
    edited = effects.recorded["x"].each(Edit(steered.layer, steered.vector(steered.layer)), lambda x, rows: x).double()
    p, q = edited.softmax(-1), logits.softmax(-1)
    kl = (p * (p / q).log()).sum(1).mean()
    loss = -(p / q).log()[[0, 1], [2, 3]].mean()
    assert cell(rows, coefficient=1, metric="kl")["value"] == pytest.approx(float(kl), abs=1e-5)
    assert cell(rows, coefficient=1, metric="loss_change")["value"] == pytest.approx(float(loss), abs=1e-5)
    written = continued(model, torch.tensor([[0, steered_models.SOURCE, 1]]), 1, Edit(steered.layer, steered.added))
    assert written.tolist() == [[steered_models.TARGET + 1]]


# ---- choice and controls -------------------------------------------------------------------------------------
def test_success_that_one_token_would_have_is_none(planted):
    """A vector that always puts the same member on top is right on the prompts of one sequence of three."""
    _, _, steered = planted[True]
    n = len(steered.question[SEARCH].target_next)
    one_of_three, whole_class = np.zeros((n, 5)), np.zeros((n, 5))
    one_of_three[: n // 3, 0] = 1
    whole_class[:, 1] = 1
    steered = steering.Steered(steered.matched, {}, {}, steered.target_z, steered.target_logits, steered.question)
    steered.choose({(0, 4.0): one_of_three, (1, 2.0): whole_class, (1, 1.0): whole_class})
    assert (steered.layer, steered.coefficient) == (1, 1.0)
    one_of_three[: n // 2, 0] = 1
    steered.choose({(0, 4.0): one_of_three, (1, 2.0): whole_class})
    assert steered.layer == 0


def test_directions_have_the_vectors_length_and_the_seed_decides():
    rng = torch.Generator().manual_seed(0)
    vector = torch.randn(9, generator=rng, dtype=torch.float64)
    source = torch.randn(7, 9, generator=rng, dtype=torch.float64)
    target = source + 3 * vector + 0.1 * torch.randn(7, 9, generator=rng, dtype=torch.float64)
    for make in (
        steering.random_directions,
        lambda v, n, seed: steering.shuffled_directions(source, target, v, n, seed),
    ):
        drawn, again, other = (torch.stack(list(make(vector, 4, seed))) for seed in (1, 1, 2))
        assert torch.equal(drawn, again) and not torch.equal(drawn, other)
        assert (drawn.norm(dim=1) - vector.norm()).abs().max() < 1e-9
    cosines = (
        torch.stack(list(steering.shuffled_directions(source, target, vector, 50, 0))) @ vector / vector.norm() ** 2
    )
    assert cosines.mean().abs() < 0.2, "what distinguishes the classes cancels"
    same = list(steering.shuffled_directions(source, source, vector, 1, 0))
    assert not same[0].any()


def test_ties_count_against_a_member():
    question = steering.Question(torch.tensor([0, 0, 0]), torch.tensor([1, 1, 1]), torch.tensor([1, 2]))
    logits = torch.tensor([[0.0, 2, 1, 2], [0.0, 2, 2, 1], [1.0, 3, 2, 0]])
    found = question.scores(logits, torch.arange(3)).numpy()
    expected = [[0, 0, 1, 0, 2], [0, 1, 0, 0, 2], [1, 1, 1, 0, 2]]
    np.testing.assert_array_equal(found, expected)


def test_p_counts_the_draws_that_do_as_well():
    own, drawn = np.tile([0.5, 0, 0, 0, 1.0], (2, 1)), [np.tile([x, 0, 0, 0, 0.0], (2, 1)) for x in (0.25, 0.5, 1)]
    found = steering.against(own, drawn)
    assert found["top1"] == (pytest.approx(1.75 / 3), 1, 3 / 4) and found["class_top1"][2] == 1
    assert found["logit_diff"][2] == 1 / 4 and "source_top1" not in found and steering.against(own, []) == {}


def test_layers_are_spread_evenly():
    assert steering.layers_of(6, 6) == [0, 1, 2, 3, 4, 5] == steering.layers_of(6, 9)
    assert steering.layers_of(30, 6) == [2, 7, 12, 17, 22, 27] and steering.layers_of(1, 6) == [0]


# ---- runs at the last position alone -------------------------------------------------------------------------
def edits(seed=0):
    rng = torch.Generator().manual_seed(seed)
    vector, rows = (torch.randn(*shape, D, generator=rng, dtype=torch.float64) for shape in ((), (5,)))
    heads = torch.rand(L, H, generator=rng) < 0.5
    z = torch.randn(5, L, H, D // H, generator=rng, dtype=torch.float64)
    return [Edit(), Edit(0, vector), Edit(L - 1, rows), Edit(z=z, heads=heads), Edit(1, rows, z, heads)]


@pytest.mark.slow
def test_a_rerun_of_the_last_position_equals_a_whole_pass_with_hooks(family):
    own, by_hooks = (Recorded(family, TOKENS, use_engine) for use_engine in (True, False))
    for part in ("resid", "z", "logits"):
        assert (own.gathered(part) - by_hooks.gathered(part)).abs().max() < family.tolerance
    for edit in edits():
        found, expected = (recorded.each(edit, lambda x, rows: x) for recorded in (own, by_hooks))
        assert (found - expected).abs().max() < family.tolerance
    assert (own.each(edits()[1], lambda x, rows: x) - own.gathered("logits")).abs().max() > 0.01


@pytest.mark.parametrize("batch_size", [pytest.param(4, marks=pytest.mark.slow), 64])
def test_edits_that_are_run_together_give_what_each_gives_alone(beside, batch_size):
    model = replace(beside[0], batch_size=batch_size)
    recorded = Recorded(model, TOKENS)
    first, second = edits(), edits(7)
    for some in (
        [Edit(0, x.added) for x in (first[1], first[2], second[2])],
        [first[3], second[3]],
        [first[4], second[4]],
    ):
        found = recorded.each_of(some, lambda x, rows: torch.cat((x, rows[:, None]), 1))
        assert (found[..., -1] == torch.arange(len(TOKENS))).all()
        for edit, logits in zip(some, found[..., :-1], strict=True):
            assert (logits - recorded.each(edit, lambda x, rows: x)).abs().max() < 1e-9


@pytest.fixture(scope="module", params=BLOCKS)
def beside(request, tmp_path_factory):
    """(model, Hugging Face's network of the same checkpoint, its blocks)."""
    folder = tmp_path_factory.mktemp("beside")
    model = load_random(request.param, folder)
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    return model, network, BLOCKS[request.param](network)


def test_an_added_vector_is_one_added_in_hugging_faces_module(beside):
    model, network, blocks = beside
    recorded = Recorded(model, TOKENS)
    for edit in edits()[1:3]:
        found = recorded.each(edit, lambda x, rows: x)
        for i, ids in enumerate(TOKENS):
            expected = hugging_face(network, blocks, ids, edit.take(torch.tensor([i])), len(ids) - 1)
            assert (found[i] - expected).abs().max() < model.tolerance


def hugging_face(network, blocks, ids, edit, start):
    """Logits after ids, with the edit's vector added to a block's output at every position from ``start`` on."""

    def add(module, args, output):
        hidden = output[0] if isinstance(output, tuple) else output
        hidden[:, start:] += edit.added.view(-1, D)
        return output

    handle = blocks[edit.layer].register_forward_hook(add)
    with torch.no_grad():
        logits = network(torch.tensor([ids])).logits[0, -1]
    handle.remove()
    return logits


def test_what_is_written_is_what_whole_passes_with_the_edit_at_every_step_write(beside):
    model, network, blocks = beside
    edit, ids, steps = edits(3)[1], [3, 8, 1], 4
    text = list(ids)
    for _ in range(steps):
        text.append(int(hugging_face(network, blocks, text, edit, len(ids) - 1).argmax()))
    assert continued(model, torch.tensor([ids]), steps, edit).tolist() == [text[len(ids) :]]
    ended = continued(model, torch.tensor([ids]), steps, edit, end=text[len(ids)])
    assert ended.tolist() == [[text[len(ids)]] * steps]


@pytest.mark.slow
def test_hooks_write_the_same(family):
    found = [
        continued(family, torch.tensor(TOKENS[3:4]), 3, edits(3)[1], use_engine=engine) for engine in (True, False)
    ]
    assert torch.equal(*found)


# ---- unrelated text ------------------------------------------------------------------------------------------
def test_sentences_of_the_project_stand_in_where_no_task_is_unrelated():
    tokenizer = load_tokenizer("shipped")
    (found,) = steering_effects.texts_of({}, tokenizer, False, 20).values()
    assert {len(ids) for ids in found.tokens} == {20} and len(found.following) == len(steering_effects.SENTENCES)
    frame = pd.DataFrame({"tokens": [[1, i] for i in range(30)], "answer_token": range(30)})
    (found,) = steering_effects.texts_of({"x": frame}, tokenizer, False).values()
    assert len(found.tokens) == steering_effects.MOST and [ids[1] for ids in found.tokens] == found.following
    several = pd.DataFrame({"tokens": [[1, 2]], "answer_tokens": [[7, 8]]})
    assert steering_effects.texts_of({"x": several}, tokenizer, False)["x"].following == [7]


assert VOCAB == 30, "TOKENS are of the random models' vocabulary"
