"""Patches within a shape, on models whose answer is planted in a circle of their embeddings, or in no order at all."""

import numpy as np
import pandas as pd
import pytest
import torch

from atlas.core.statistics import Bootstrap
from atlas.geometry import shape_patches, shapes
from atlas.geometry.classes import Members
from atlas.geometry.residuals import Residuals, read
from atlas.model import models
from conftest import load_tokenizer
from planted_members import members_of, ring

N, D, LAYERS = 7, 32, 2
BOOTSTRAP = Bootstrap(200, 0)
DAYS = Members("days", tuple(f"d{i}" for i in range(N)), tuple(range(5, 5 + N)), tuple(range(N)), N, True)


def build(folder, embeddings):
    """A model that says again what it read last: blocks that write nothing, and the embeddings as unembedding.

    ``embeddings`` [N, K], of members: each column and its negative, so that norms only scale.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    network = GPT2LMHeadModel(GPT2Config(vocab_size=30, n_layer=LAYERS, n_head=2, n_embd=D, n_positions=8))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "ln_" not in name:
                parameter.zero_()
        for column, values in enumerate(embeddings.T):
            network.transformer.wte.weight[5 : 5 + N, 2 * column] = torch.tensor(values, dtype=torch.float32)
            network.transformer.wte.weight[5 : 5 + N, 2 * column + 1] = -torch.tensor(values, dtype=torch.float32)
    network.save_pretrained(folder)
    load_tokenizer("shipped").save_pretrained(folder)
    return models.load(folder, device="cpu", dtype="float64")


def frame_of(n=14):
    """Three members in turn, of which the last is the answer; another token stands first."""
    rows = [[(start + i) % N for i in range(3)] for start in range(n)]
    tokens = [[1, *(DAYS.ids[i] for i in row)] for row in rows]
    return pd.DataFrame({"tokens": tokens, "answer_token": [row[-1] for row in tokens]})


def residuals_of(model):
    tokens = torch.tensor([[1, i] for i in DAYS.ids])
    found = read(model, tokens, torch.ones(N, dtype=torch.long), (0, LAYERS))
    return Residuals(DAYS, (0, LAYERS), np.stack([found, found], axis=1))


def patched(folder, embeddings, draws=19):
    model = build(folder, embeddings)
    of, prompts = residuals_of(model), shape_patches.moved(frame_of(), (1, 2, 3), DAYS, 12, 0)
    return model, of, prompts, shape_patches.table(model, of, prompts, shapes.table(of, 39, 0), draws, BOOTSTRAP)


@pytest.fixture(scope="module")
def circle(tmp_path_factory):
    """Beside the circle, which the unembedding reads, one direction that says nothing of order and has no effect."""
    return patched(tmp_path_factory.mktemp("circle"), ring(N))


def test_the_plane_of_a_planted_circle_obtains_all_and_planes_of_other_orders_less(circle):
    _, _, _, table = circle
    assert list(table) == [name for name in shape_patches.COLUMNS if name != "task"]
    own = table[table.chosen].set_index("patched")
    assert own.loc["whole", "value"] == pytest.approx(1) and own.loc["fitted", "value"] == pytest.approx(1)
    assert own.loc["fitted", "variance"] == pytest.approx(1) and set(own.dimensions[own.index != "whole"]) == {2}
    assert set(table[~table.chosen].patched) == {"whole", "fitted"}
    assert set(table.prompts) == {6} and (table.exchanged > table.clean).all()


def test_where_members_have_no_order_a_plane_of_theirs_is_no_better_than_others(tmp_path):
    _, _, _, table = patched(tmp_path, np.eye(N))
    own = table[table.chosen].set_index("patched")
    assert own.loc["whole", "value"] == pytest.approx(1)
    assert own.loc["fitted", "value"] < 0.7 and own.loc["fitted", "p"] > 0.05
    assert own.loc["permuted", "draws_low"] <= own.loc["fitted", "value"] <= own.loc["permuted", "draws_high"]
    assert own.loc["fitted", "variance"] == pytest.approx(2 / 6) == own.loc["random", "variance"]


def test_a_circle_among_other_directions_beats_every_permuted_plane(tmp_path):
    """Members also differ in directions of their own, which the answer is read off too, but less."""
    _, _, _, table = patched(tmp_path, np.column_stack([3 * ring(N), 0.6 * np.eye(N)]))
    own = table[table.chosen].set_index("patched")
    assert own.loc["fitted", "value"] > 0.9 and own.loc["fitted", "p"] == 1 / 20
    assert own.loc["fitted", "value"] > own.loc["permuted", "draws_high"] > own.loc["random", "value"]


def test_shares_equal_runs_on_residuals_moved_by_hand(circle):
    """The last residual, moved within the plane, through the model's own last norm and unembedding."""
    model, of, prompts, table = circle
    clean, full, within = [], [], []
    w = model.weights
    plane = np.linalg.svd(of.mean[1] - of.mean[1].mean(0))[2][:2]
    for n in range(1, 12, 2):
        x = read(model, prompts.tokens[[n]], torch.tensor([3]), (LAYERS,))[0, 0].astype(float)
        by = of.mean[1][prompts.new[n, -1]] - of.mean[1][prompts.old[n, -1]]
        swapped = read(model, prompts.moved[[n]], torch.tensor([3]), (LAYERS,))[0, 0].astype(float)
        for values, residual in ((clean, x), (full, swapped), (within, x + plane.T @ (plane @ by))):
            logits = w.unembed(torch.tensor(residual)[None, None])[0, 0]
            values.append(float(logits[prompts.moved_answer[n]] - logits[prompts.answer[n]]))
    expected = (np.mean(within) - np.mean(clean)) / (np.mean(full) - np.mean(clean))
    own = table[(table.patched == "fitted") & (table.point == LAYERS)].iloc[0]
    assert own.value == pytest.approx(expected, abs=1e-5)
    assert own.clean == pytest.approx(np.mean(clean), abs=1e-5)


def test_points_are_chosen_where_the_whole_obtains_half_of_the_most():
    assert shape_patches.reached([1.0, 0.6, 0.5, 0.49, -0.1]) == [0, 1, 2]
    assert shape_patches.reached([-0.4, -0.1, -0.2]) == [1]


# ---- prompts -------------------------------------------------------------------------------------------------
def test_members_and_answer_move_by_the_same_number_of_steps():
    found = shape_patches.moved(frame_of(), (1, 2, 3), DAYS, 50, 0)
    assert len(found) == 14 and (found.tokens[:, 0] == found.moved[:, 0]).all()
    by = (found.new - found.old) % N
    assert (by == by[:, :1]).all() and (by > 0).all()
    assert (found.moved[:, 1:].numpy() == np.array(DAYS.ids)[found.new]).all()
    assert (found.moved_answer == found.moved[:, 3]).all() and (found.answer == found.tokens[:, 3]).all()


def test_members_of_a_line_stay_on_it_and_prompts_that_cannot_move_are_left_out():
    line = Members("line", DAYS.words, DAYS.ids, DAYS.places, N)
    rows = [[0, 1, 2], [4, 5, 6], [0, 3, 6], [2, 3, 4], [1, 2, 3]]
    frame = pd.DataFrame({"tokens": [[line.ids[i] for i in row] for row in rows]})
    frame["answer_token"] = [row[-1] for row in frame.tokens]
    found = shape_patches.moved(frame, (0, 1, 2), line, 50, 0)
    assert found.old.tolist() == [rows[i] for i in (0, 1, 3, 4)]
    assert ((found.new >= 0) & (found.new < N)).all()
    assert shape_patches.moved(frame.head(3), (0, 1, 2), line, 50, 0) is None
    assert shape_patches.moved(frame.assign(answer_token=1), (0, 1, 2), line, 50, 0) is None
    assert shape_patches.moved(frame, (), line, 50, 0) is None


def test_the_number_of_prompts_is_kept_to_and_they_are_spread():
    found = shape_patches.moved(frame_of(14), (1, 2, 3), DAYS, 7, 0)
    assert found.old[:, 0].tolist() == [1, 3, 5, 0, 2, 4, 6]


# ---- subspaces -----------------------------------------------------------------------------------------------
def test_the_subspace_of_a_shape_is_spanned_by_its_coefficients():
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.standard_normal((10, 2)))[0]
    x = ring(N) @ directions.T + 5
    found = shape_patches.subspace(x, shapes.basis("circle", DAYS))
    np.testing.assert_allclose(found @ found.T, directions @ directions.T, atol=1e-9)
    drawn = shape_patches.random_subspace(x, 2, rng)
    np.testing.assert_allclose(drawn @ drawn.T, directions @ directions.T, atol=1e-9)


def test_which_shapes_are_patched():
    assert shape_patches.shapes_of(DAYS) == ["circle"]
    assert shape_patches.shapes_of(members_of(19)) == ["line"]
    assert shape_patches.shapes_of(members_of(20)) == ["line", "helix"]


def test_where_the_tokens_do_not_move_the_answer_nothing_is_measured(tmp_path):
    assert not len(patched(tmp_path, np.zeros((N, 1)))[-1])
