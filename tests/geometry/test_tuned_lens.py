"""A tuned lens on residuals whose way to the answer is planted, and its numbers against Hugging Face and naive sums."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from atlas.core.errors import StudyError
from atlas.core.statistics import Bootstrap
from atlas.geometry import lens_training, tuned_lens
from atlas.geometry.lens_training import Training
from atlas.heads import lens
from atlas.heads.attribution import Readout
from atlas.prompts.batch import Prompts
from head_prompts import study_task
from random_models import VOCAB, load_random

D, V = 6, 12
BOOTSTRAP = Bootstrap(200, 0)
TRAINING = Training(steps=60, rate=0.05, batch=32)


def readout(seed=0, size=V, cap=None) -> Readout:
    rng = torch.Generator().manual_seed(seed)
    return Readout(torch.ones(D), None, 1e-5, True, 1.5 * torch.randn(D, size, generator=rng), None, cap)


def planted(n=240, seed=1):
    """[3, n, D]: the final residual is an affine map of the middle point's, and has nothing to do with the first."""
    rng = torch.Generator().manual_seed(seed)
    map_ = torch.randn(D, D, generator=torch.Generator().manual_seed(7))
    first, middle = torch.randn(2, n, D, generator=rng)
    return torch.stack((first, middle, middle @ map_ + 1))


def divergences(own, final, translated):
    """[len(translated), N] KL in nats from what final residuals say."""
    log_p = lens_training.log_probabilities(own, final)
    return np.stack([lens_training.divergence(own, log_p, x).numpy() for x in translated])


@pytest.fixture(scope="module")
def tuned():
    return lens_training.train(readout(), planted(), planted(60, 2), TRAINING)


def away(tuned, point, lens_of=None):
    fresh = planted(200, 3)
    x = fresh[point] if lens_of is None else lens_of(point, fresh[point])
    return divergences(readout(), fresh[-1], [x])[0]


# ---- what is planted is found --------------------------------------------------------------------------------
def test_layers_that_are_an_affine_map_are_recovered(tuned):
    """On fresh residuals nothing is left to final rounding, where the logit lens is far off."""
    assert away(tuned, 1, tuned.translated).mean() < 1e-3 < 1 < away(tuned, 1).mean()
    assert tuned.start[1] == lens_training.LEAST_SQUARES and tuned.after[1] < 1e-3


def test_where_nothing_of_the_answer_is_a_lens_is_no_nearer_than_the_mean_answer(tuned):
    constant = tuned_lens.constant_kl(readout(), planted(200, 3)[-1])
    found = away(tuned, 0, tuned.translated) - constant
    assert found.mean() > 0
    assert BOOTSTRAP.mean(away(tuned, 1, tuned.translated) - constant)[2] < -0.5


def test_no_state_that_is_kept_is_farther_than_the_logit_lens(tuned):
    assert all(after <= before for before, after in zip(tuned.before, tuned.after, strict=True))
    aside = planted(60, 2)
    for point in (0, 1):
        values = divergences(readout(), aside[-1], [aside[point], tuned.translated(point, aside[point])])
        np.testing.assert_allclose(values.mean(1), [tuned.before[point], tuned.after[point]], rtol=1e-4, atol=1e-6)
    assert (tuned.trained, tuned.aside) == (240, 60)


def test_a_point_that_is_the_answer_already_is_left_as_it_is():
    x = planted()[[2, 2]]
    found = lens_training.train(readout(), x, x[:, :40], replace(TRAINING, steps=5))
    assert found.start == [lens_training.IDENTITY] and found.step == [0] and found.after == [0]
    assert torch.equal(found.translated(0, x[0]), x[0]) and torch.equal(found.translated(1, x[0]), x[0])


def test_training_goes_beyond_least_squares():
    """Where the final residual is a bent image of a point, KL gets below that of the least-squares map."""
    points = planted()
    points[-1] = points[-1].relu() + 0.3 * points[-1] ** 2
    short, long = (
        lens_training.train(readout(), points[1:, :200], points[1:, 200:], replace(TRAINING, steps=n)).after[0]
        for n in (5, 60)
    )
    assert long < 0.9 * short


def test_the_same_lens_twice(tuned):
    again = lens_training.train(readout(), planted(), planted(60, 2), TRAINING)
    assert torch.equal(again.translators[1].map, tuned.translators[1].map) and again.after == tuned.after


# ---- numbers -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("cap", [None, 2.0])
def test_divergence_is_that_of_torch_one_by_one(cap):
    own, final, x = readout(cap=cap), planted(5)[-1], planted(5)[0]
    found = divergences(own, final, [x, final])
    for i in range(5):
        log_p, log_q = (own.unembed(own.norm(y[i])).log_softmax(-1) for y in (final, x))
        assert found[0, i] == pytest.approx(float(F.kl_div(log_q, log_p, reduction="sum", log_target=True)), rel=1e-4)
    assert np.abs(found[1]).max() < 1e-6


def test_the_loss_of_all_tokens_is_the_divergence_and_what_p_has_of_its_own():
    own, points = readout(), planted(7)
    log_p = lens_training.log_probabilities(own, points[-1])
    found = lens_training.loss(own, points[0], log_p.exp(), torch.zeros(V))
    entropy = -(log_p.exp() * log_p).sum(-1).mean()
    kl = divergences(own, points[-1], [points[0]]).mean()
    assert float(found - entropy) == pytest.approx(kl, abs=1e-5)


def test_drawn_tokens_stand_for_all_that_are_not_favoured():
    own, final = readout(size=400), planted(20)[-1]
    small = lens_training.Vocabulary(own, final, 300, 100)
    assert len(small.draw(torch.Generator()).ids) == 400
    large, rng = lens_training.Vocabulary(own, final, 40, 60), torch.Generator().manual_seed(0)
    logits = own.unembed(own.norm(final))
    mean = logits.softmax(-1).mean(0)
    assert mean[large.favoured].min() >= mean[large.others].max() and len(large.others) == 360
    sums = [(logits[:, part.ids] + part.log_weight).exp().sum(-1) for part in (large.draw(rng) for _ in range(400))]
    np.testing.assert_allclose(torch.stack(sums).mean(0), logits.exp().sum(-1), rtol=0.05)


def test_a_lens_of_a_large_vocabulary_learns_from_a_part_of_it():
    own, points = readout(size=300), planted()
    found = lens_training.train(own, points[:, :200], points[:, 200:], replace(TRAINING, favoured=60, drawn=60))
    assert found.after[1] < 0.02 < 1 < found.before[1]


@pytest.mark.slow
def test_steps_are_those_of_torchs_adam():
    start, target = torch.randn(5, 3), torch.randn(5, 3)
    own, other = (start.clone().requires_grad_() for _ in range(2))
    adam, torchs = lens_training.Adam([own]), torch.optim.Adam([other], lr=0.05)
    for _ in range(20):
        for x in (own, other):
            ((x - target) ** 3).abs().sum().backward()
        adam.step(0.05)
        torchs.step()
        torchs.zero_grad()
    assert (own - other).abs().max() < 1e-5 and (own - start).abs().max() > 0.3


def test_whitened_numbers_are_uncorrelated_and_of_size_one():
    x = planted()[-1].double() * torch.logspace(-2, 3, D).double()
    x[:, 2] = 5  # never varies
    white = lens_training.Whitened.of(x)
    y = white(x)
    expected = torch.eye(D, dtype=x.dtype)
    expected[2, 2] = 0
    assert (y.T @ y / len(y) - expected).abs().max() < 0.1


def test_no_constant_is_nearer_than_the_mean_distribution():
    own, final = readout(), planted(30)[-1]
    p = lens_training.log_probabilities(own, final).exp()
    found = tuned_lens.constant_kl(own, final)
    np.testing.assert_allclose(found, (p * (p / p.mean(0)).log()).sum(-1), rtol=1e-4)
    for q in (*p, torch.full((V,), 1 / V), 0.9 * p.mean(0) + 0.1 * p[0]):
        assert (p * (p / q).log()).sum(-1).mean() > found.mean()


def test_the_answer_leads_from_the_point_after_which_it_is_never_lost():
    leads = np.array([[0, 1, 0, 1], [1, 1, 0, 0], [0, 1, 0, 1], [1, 1, 0, 1]])  # [points, N]
    assert tuned_lens.leads_from(leads, BOOTSTRAP)[0] == pytest.approx((3 + 0 + 2) / 3)
    assert np.isnan(tuned_lens.leads_from(leads[:, [2]], BOOTSTRAP)).all()


# ---- of a model ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "family", ["gpt2", *(pytest.param(f, marks=pytest.mark.slow) for f in ("llama", "neox", "gemma3", "gemma2"))]
)
def test_residuals_are_those_of_hugging_face(family, tmp_path):
    from transformers import AutoModelForCausalLM

    model = load_random(family, tmp_path)
    tokens, at = torch.randint(VOCAB, (3, 7), generator=torch.Generator().manual_seed(0)), torch.tensor([[6, 1]] * 3)
    found = tuned_lens.residuals(model, tokens, at)
    assert found.shape == (model.n_layers + 1, 3, 2, model.d_model)
    network = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    with torch.no_grad():
        out = network(tokens, output_hidden_states=True)
    for point, states in enumerate(out.hidden_states[:-1]):  # the last one is normed already
        assert (found[point] - states[:, [6, 1]]).abs().max() < model.tolerance
    own = lens_training.log_probabilities(Readout.of(model), found[-1].flatten(0, 1))
    assert (own - out.logits[:, [6, 1]].flatten(0, 1).log_softmax(-1)).abs().max() < 10 * model.tolerance


def test_a_model_that_ends_otherwise_is_refused():
    logits = torch.randn(3, V)
    tuned_lens.refuse_another_end(logits, logits + 1e-5, torch.float32)
    with pytest.raises(StudyError, match=r"geometry\.analyses: tuned_lens: .*leave tuned_lens out"):
        tuned_lens.refuse_another_end(logits, logits + 0.1, torch.float32)


def frames(config, task, held_out=True):
    """prompts.parquet and clean.parquet of a task of the default study, with and without prompts held out."""
    frame, _ = study_task(config, task)
    frame = frame.assign(task=task, split=np.where((np.arange(len(frame)) % 2 == 1) & held_out, "held_out", "search"))
    return frame, pd.DataFrame({"prompt": frame["prompt"], "kept": True})


def test_texts_are_searched_on_and_prompts_held_out(config):
    frame, clean = frames(config, "months")
    found = tuned_lens.Texts.of(frame, clean, 10, 4)
    own, other = (frame[frame["split"] == split] for split in ("search", "held_out"))
    assert len(found.trained) == 10 and len(found.measured) == 4 and found.split == "held_out"
    texts = {tuple(ids) for column in ("tokens", "corrupted_tokens") for ids in own[column]}
    assert {tuple(ids) for ids in found.trained} <= texts
    assert set(found.measured["prompt"]) <= set(other["prompt"])


def test_where_nothing_is_held_out_every_other_prompt_is_measured(config):
    found = tuned_lens.Texts.of(*frames(config, "months", held_out=False), 1000, 1000)
    trained = {tuple(ids) for ids in found.trained}
    assert found.split == "half" and not trained & {tuple(ids) for ids in found.measured["tokens"]}
    frame, clean = frames(config, "months", held_out=False)
    with pytest.raises(StudyError, match=r"tasks\.months: one prompt cannot both train and test a lens"):
        tuned_lens.Texts.of(frame.iloc[:1], clean.iloc[:1], 10, 10)


def test_steps_take_all_positions_before_any_again_and_the_choice_sees_as_many_last_tokens_as_others():
    found = lens_training.batches(26, Training(steps=9, batch=4), torch.Generator().manual_seed(0))
    assert len(found) == 9 and len(set(torch.cat(found[:6]).tolist())) == 24
    x = torch.arange(5 * 3).view(1, 5, 3, 1).float()  # 5 texts of 3 positions, the first of them the last token
    assert tuned_lens.spread_aside(x)[0, :, 0].tolist() == [0, 3, 6, 9, 12, 1, 4, 7, 10, 13]
    assert tuned_lens.spread_aside(x[:, :, :1])[0, :, 0].tolist() == [0, 3, 6, 9, 12]


def test_positions_are_the_last_and_others_but_the_first():
    found = tuned_lens.positions_of([9, 3, 2, 1], 4, 0).tolist()
    assert [row[0] for row in found] == [8, 2, 1, 0]
    assert len(set(found[0])) == 4 and 0 not in found[0] and set(found[1]) == {1, 2} and set(found[2]) == {1}
    assert found == tuned_lens.positions_of([9, 3, 2, 1], 4, 0).tolist()


@pytest.fixture(scope="module")
def shipped(shipped_model, config):
    tasks = {task: frames(config, task) for task in ("months", "numerals")}
    settings = tuned_lens.Settings(texts=48, positions=4, prompts=12, training=Training(steps=5))
    return tasks, tuned_lens.tables(shipped_model, tasks, settings, BOOTSTRAP)


def test_the_logit_lens_beside_it_is_that_of_the_lens(shipped, shipped_model):
    """Share of prompts that the answer leads, its reciprocal rank, and the model's own last point."""
    tasks, made = shipped
    table = made["tuned_lens"]
    measured = tuned_lens.Texts.of(*tasks["months"], 24, 12).measured
    expected = lens.read_lenses(shipped_model, Prompts.from_frame(measured), k=1)["norm"]
    own = table[(table["task"] == "months") & (table["lens"] == "logit") & (table["point"] >= 0)]
    for metric, values in (("leads", expected.leads), ("reciprocal_rank", 1 / (1 + expected.rank))):
        found = own[own["metric"] == metric].sort_values("point")
        np.testing.assert_allclose(found["value"], values[::2].mean(1), atol=1e-6)
        assert found["name"].tolist() == expected.names[::2]
    last = table[(table["point"] == shipped_model.n_layers) & (table["metric"] == "kl")]
    assert last[last["lens"].isin(["logit", "tuned"])]["value"].abs().max() < 1e-6


def test_tables_hold_every_lens_point_and_metric(shipped, shipped_model):
    _, made = shipped
    table, training = made["tuned_lens"], made["tuned_lens_training"]
    points = shipped_model.n_layers + 1
    assert list(table.columns) == tuned_lens.COLUMNS and list(training.columns) == tuned_lens.TRAINING_COLUMNS
    counts = table[table["task"] == "months"].groupby("lens").size()
    each = points * len(tuned_lens.METRICS) + 1
    assert counts.to_dict() == {
        "logit": each,
        "tuned": each,
        "constant": 1,
        "tuned less logit": points,
        "tuned less constant": points,
    }
    kl = table[table["metric"] == "kl"].pivot_table(index=["task", "point"], columns="lens", values="value")
    kl["constant"] = kl["constant"].groupby("task").transform("first")
    kl = kl[kl.index.get_level_values("point") >= 0]
    np.testing.assert_allclose(kl["tuned"] - kl["logit"], kl["tuned less logit"], atol=1e-9)
    np.testing.assert_allclose(kl["tuned"] - kl["constant"], kl["tuned less constant"], atol=1e-9)
    assert len(training) == points - 1 and (training["after"] <= training["before"]).all()
    assert set(training["texts"]) == {48} and set(table["prompts"]) == {12} and set(table["split"]) == {"held_out"}


def test_too_few_texts_are_refused(shipped_model, config):
    settings = tuned_lens.Settings(texts=8, positions=2, prompts=4, training=Training(steps=5))
    with pytest.raises(StudyError, match=r"geometry\.tuned_lens\.texts: 8 texts are too few"):
        tuned_lens.tables(shipped_model, {"months": frames(config, "months")}, settings, BOOTSTRAP)
