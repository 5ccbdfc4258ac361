"""Features of sparse autoencoders: planted dictionaries and planted successor heads found, and nothing without them."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from atlas.core.errors import StudyError
from atlas.core.statistics import Bootstrap
from atlas.geometry import (
    autoencoder,
    classes,
    feature_effects,
    feature_heads,
    feature_members,
    feature_quality,
    features,
)
from atlas.geometry import feature_text as text_of
from atlas.geometry.autoencoder import Autoencoder, Training
from atlas.geometry.classes import Members
from atlas.geometry.feature_members import Fired
from atlas.geometry.feature_text import Place, Sample, Text
from atlas.model import models
from atlas.proof.building import build as build_planted
from atlas.proof.fixtures import finder, ids, successor
from atlas.proof.planted import LOGIT, MEMBERS, SELF, SPACE, VOCABULARY, Head, M, Plan, Write
from atlas.report import shown
from conftest import load_tokenizer
from head_prompts import study_task
from random_models import FAMILIES, load_random

IDS = tuple(ids(MEMBERS))
CYCLIC = Members("around", MEMBERS, IDS, tuple(range(M)), M, cyclic=True)
PLACE = Place("resid_post", 0)
HOOK = PLACE.hook
BOOTSTRAP = Bootstrap(100, 0)


# ---- training ------------------------------------------------------------------------------------------------
def sparse_sums(width=24, size=32, n=6000, active=3):
    """Activations that are sums of a few directions out of many, and the directions."""
    generator = torch.Generator().manual_seed(0)
    directions = F.normalize(torch.randn(size, width, generator=generator), dim=1)
    at = torch.rand(n, size, generator=generator).topk(active).indices
    amounts = torch.zeros(n, size).scatter(1, at, 0.5 + torch.rand(n, active, generator=generator))
    return amounts @ directions + 0.3, directions


def nearest(directions, sae):
    return (directions @ F.normalize(sae.w_dec, dim=1).T).amax(1)


SMALL = Training(expansion=2, active=4, steps=400, batch=256, rate=5e-3)


@pytest.mark.slow
def test_a_planted_dictionary_is_recovered_and_a_turned_one_is_not():
    x, directions = sparse_sums()
    sae = autoencoder.trained(x, SMALL, 0)
    assert nearest(directions, sae).min() > 0.95
    turned = directions.roll(1, dims=1)  # as long and as many, but not what activations are made of
    assert nearest(turned, sae).mean() < 0.75
    error = (sae.reconstruct(x) - x).pow(2).sum() / (x - x.mean(0)).pow(2).sum()
    assert error < 0.06 and (sae.encode(x) > 0).sum(1).max() <= 4
    torch.testing.assert_close(sae.norms, torch.ones(sae.size))


def test_a_small_planted_dictionary_is_recovered():
    x, directions = sparse_sums(width=12, size=12, n=2000, active=2)
    sae = autoencoder.trained(x, Training(expansion=2, active=3, steps=250, batch=128, rate=5e-3), 0)
    assert nearest(directions, sae).mean() > 0.93 > 0.85 > nearest(directions.roll(1, dims=1), sae).mean()


def test_training_repeats_to_the_bit_and_the_seed_counts():
    x = sparse_sums(n=600)[0]
    short = replace(SMALL, steps=60)
    first, again, other = (autoencoder.trained(x, short, seed) for seed in (3, 3, 4))
    assert torch.equal(first.w_dec, again.w_dec) and torch.equal(first.w_enc, again.w_enc)
    assert not torch.equal(first.w_dec, other.w_dec)


def test_equal_activations_are_refused():
    with pytest.raises(StudyError, match=r"geometry\.features\.hook: all activations there are equal"):
        autoencoder.trained(torch.ones(50, 4), SMALL, 0)


# ---- files ---------------------------------------------------------------------------------------------------
D, SIZE = 6, 10


def written(folder, kind="standard", **config):
    """A folder in SAELens's format, written by hand; its tensors."""
    generator = torch.Generator().manual_seed(1)
    tensors = {"W_enc": (D, SIZE), "b_enc": (SIZE,), "W_dec": (SIZE, D), "b_dec": (D,)}
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in tensors.items()}
    if kind == "jumprelu":
        tensors["threshold"] = torch.rand(SIZE, generator=generator)
    about = {"architecture": kind, "d_in": D, "d_sae": SIZE, "hook_name": HOOK, "apply_b_dec_to_input": True}
    about |= {"k": 3} if kind == "topk" else {}
    folder.mkdir(exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(about | config))
    save_file(tensors, folder / "sae_weights.safetensors")
    return tensors


def encoded_one_by_one(x, t, kind, centred, rescaled):
    """Activities by loops, from the definition of each architecture."""
    found = torch.zeros(len(x), SIZE)
    for n, row in enumerate(x):
        given = row - t["b_dec"] if centred else row
        before = torch.stack([given @ t["W_enc"][:, f] + t["b_enc"][f] for f in range(SIZE)])
        size = torch.stack([row.norm() if rescaled else torch.tensor(1.0) for row in t["W_dec"]])
        kept = sorted(range(SIZE), key=lambda f: -float(before[f] * size[f]))[:3] if kind == "topk" else range(SIZE)
        for f in kept:
            floor = max(float(t["threshold"][f]), 0) if kind == "jumprelu" else 0.0
            found[n, f] = before[f] if before[f] > floor else 0.0
    return found


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("standard", {}),
        ("standard", {"apply_b_dec_to_input": False}),
        ("jumprelu", {}),
        ("topk", {}),
        ("topk", {"rescale_acts_by_decoder_norm": True}),
        ("standard", {"hook_name": None, "metadata": {"hook_name": HOOK}}),
    ],
)
def test_files_are_read_as_their_architecture_says(kind, config, tmp_path):
    t, x = written(tmp_path, kind, **config), torch.randn(7, D, generator=torch.Generator().manual_seed(2))
    sae = autoencoder.read(tmp_path, HOOK, D)
    centred = config.get("apply_b_dec_to_input", True)
    rescaled = config.get("rescale_acts_by_decoder_norm", False)
    expected = encoded_one_by_one(x, t, kind, centred, rescaled)
    torch.testing.assert_close(sae.encode(x), expected)
    torch.testing.assert_close(sae.reconstruct(x), expected @ t["W_dec"] + t["b_dec"])


def test_what_is_written_is_read_again(tmp_path):
    folder = tmp_path / "results" / "features"
    sae = autoencoder.initial(torch.randn(40, D), replace(SMALL, active=2), torch.Generator().manual_seed(0))
    autoencoder.write_weights(sae, folder / "sae_weights.safetensors", {"a": 1})
    (folder / "cfg.json").write_text(json.dumps(autoencoder.config_of(sae, HOOK, "m")))
    again, x = autoencoder.read(folder, HOOK, D), torch.randn(9, D)
    assert again.architecture == "topk" and again.k == 2
    assert torch.equal(sae.encode(x), again.encode(x)) and torch.equal(sae.reconstruct(x), again.reconstruct(x))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"hook_name": "blocks.1.hook_resid_post"}, "hook_name is 'blocks.1.hook_resid_post'"),
        ({"architecture": "gated"}, "architecture 'gated' is not known"),
        ({"d_in": D + 1}, f"d_in is {D + 1}, the model's width {D}"),
        ({"normalize_activations": "layer_norm"}, "normed or reshaped"),
        ({"d_sae": SIZE - 1}, "W_enc is"),
        ({"architecture": "topk", "k": 0}, "is no number of features"),
        ({"activation_fn_str": "tanh-relu"}, "not relu"),
    ],
)
def test_other_files_are_refused_in_one_line(config, said, tmp_path):
    written(tmp_path, **config)
    with pytest.raises(StudyError, match=said) as error:
        autoencoder.read(tmp_path, HOOK, D)
    assert "\n" not in str(error.value)


def test_missing_damaged_and_pickled_files_are_refused(tmp_path):
    with pytest.raises(StudyError, match=r"cfg\.json: cannot be read"):
        autoencoder.read(tmp_path, HOOK, D)
    written(tmp_path)
    torch.save({"W_enc": torch.zeros(D, SIZE)}, tmp_path / "sae_weights.safetensors")
    with pytest.raises(StudyError, match=r"sae_weights\.safetensors: cannot be read"):
        autoencoder.read(tmp_path, HOOK, D)


# ---- text ----------------------------------------------------------------------------------------------------
def test_hooks_are_named_or_refused():
    assert Place.of("mlp_out.2", 4).hook == "blocks.2.hook_mlp_out"
    for wrong in ("resid_pre.0", "resid_post.4", "resid_post", "resid_post.x"):
        with pytest.raises(StudyError, match=r"geometry\.features\.hook"):
            Place.of(wrong, 4)


@pytest.fixture(scope="module")
def study_text(config):
    """A little text of the default study's classes."""
    tokenizer, prompts = load_tokenizer("shipped"), config["prompts"]
    own = classes.of(config["geometry"]["classes"], tokenizer)
    source = text_of.Source(tuple(prompts["templates"]), prompts["fillers"], prompts["shown"])
    return own, text_of.together(*text_of.texts(own, source, tokenizer, 1500, 0), [], 40)


@pytest.mark.parametrize("name", ["resid_post.0", "mlp_out.1"])
def test_activations_are_those_of_the_whole_run(name, shipped_model, study_text):
    text = study_text[1].take(torch.arange(5))
    place = Place.of(name, shipped_model.n_layers)
    sample = Sample.of(shipped_model, text, place)
    kept = {}
    hooks = [(hook, lambda x, hook, n=hook: kept.update({n: x.clone()})) for hook in (place.hook, place.residual)]
    shipped_model.run(text.tokens, hooks)
    expected = torch.cat([kept[place.hook][n, 1:length] for n, length in enumerate(text.lengths)])
    torch.testing.assert_close(sample.x, expected)
    if name == "resid_post.0":
        assert sample.rest is None
    else:
        rest = torch.cat([kept[place.residual][n, 1:length] for n, length in enumerate(text.lengths)]) - expected
        torch.testing.assert_close(sample.rest, rest)


def test_every_class_has_texts_in_both_parts_and_full_stops_are_capped(study_text, shipped_model):
    own, text = study_text
    for part in (text.held_out, ~text.held_out):
        held = set(text.tokens[part].flatten().tolist())
        assert all(len(held & set(members.ids)) >= 3 for members in own)
    sample = Sample.of(shipped_model, text.take(torch.arange(20)), PLACE)
    counts = torch.bincount(sample.token)
    assert len(sample.capped(3, 0)) == counts.clamp(max=3).sum() < len(sample.x)


# ---- features of members -----------------------------------------------------------------------------------
def fired(activity, unit, token_ids, others=0):
    return Fired(torch.tensor(token_ids), unit, activity, (activity > 0).sum(0) + others)


def test_planted_own_features_are_found_and_noise_is_not():
    generator, unit = torch.Generator().manual_seed(0), torch.arange(M).repeat(12)
    planted = torch.rand(len(unit), 30, generator=generator)
    planted = 0.2 * planted * (torch.rand(len(unit), 30, generator=generator) < 0.2)
    planted[torch.arange(len(unit)), 20 + unit] = 1.0
    noise = torch.rand(len(unit), 30, generator=generator) * (torch.rand(len(unit), 30, generator=generator) < 0.3)
    for activity, found in ((planted, True), (noise, False)):
        both = fired(activity, unit, IDS)
        tables = feature_members.find([CYCLIC], both, fired(activity.clone(), unit, IDS), 39, 0)
        members, (test,) = tables["feature_members"], tables["feature_tests"].head(1).to_dict("records")
        if found:
            assert members["feature"].tolist() == list(range(20, 20 + M))
            hits = both.firing[20 : 20 + M].numpy()
            np.testing.assert_allclose(members["precision"], 12 / hits)
            assert (members["recall"] == 1).all() and test["p"] == 1 / 40
            activity = tables["feature_activity"]
            on_own = activity[activity["member"] == activity["own_of"]]
            assert len(activity) == M * M and (on_own["value"] == 1).all() and (activity["value"] >= 0).all()
            assert activity["value"].sum() < M * 1.2
    # noise is found again on the tokens it was chosen on, so its test is made on others
    tables = feature_members.find([CYCLIC], fired(noise, unit, IDS), fired(noise.flip(0), unit, IDS), 39, 0)
    assert tables["feature_tests"]["p"].iloc[0] > 0.05


def test_own_features_equal_a_loop():
    mean = torch.rand(5, 9, generator=torch.Generator().manual_seed(3))
    for i, feature in enumerate(feature_members.own_features(mean).tolist()):
        leads = [float(mean[i, f]) - np.mean([float(mean[j, f]) for j in range(5) if j != i]) for f in range(9)]
        assert feature == int(np.argmax(leads)) and max(leads) > 0
    assert feature_members.own_features(torch.ones(3, 2)).tolist() == [-1, -1, -1]


def three_classes():
    numerals = Members("numerals", tuple(map(str, range(20))), tuple(range(100, 120)), tuple(range(20)), 20)
    words = Members("words", tuple("abcdefghij"), tuple(range(200, 210)), tuple(range(10)), 10)
    ranks = Members("ranks", tuple("klmnopqrst"), tuple(range(300, 310)), tuple(range(10)), 10)
    return [numerals, words, ranks]


@pytest.mark.parametrize("planted", [True, False])
def test_a_feature_of_an_index_is_found_where_it_is_planted(planted):
    """It fires on 3 and 13 and the third of two other classes; else on as many members of other indices."""
    own = three_classes()
    token_ids = [token for members in own for token in members.ids]
    generator = torch.Generator().manual_seed(5)
    activity = (torch.rand(40, 25, generator=generator) < 0.15).float()
    at = [103, 113, 202, 302] if planted else [103, 117, 205, 309]
    activity[:, 7] = 0
    activity[[token_ids.index(token) for token in at], 7] = 2.0
    found, tests = feature_members.index_features(own, fired(activity, torch.arange(40), token_ids), 199, 0)
    modulo_10 = found[found["period"] == 10]
    if planted:
        assert modulo_10[["feature", "residue", "value", "members"]].values.tolist() == [[7, 3, 1.0, "3, 13, c, m"]]
        assert tests[0]["value"] == pytest.approx(1) and tests[0]["p"] == 1 / 200
    else:
        assert 7 not in set(found["feature"])


def test_indices_are_numbers_of_numerals_and_places_of_others():
    assert feature_members.indices_of(three_classes()[0]).tolist() == list(range(20))
    assert feature_members.indices_of(CYCLIC).tolist() == list(range(1, M + 1))


# ---- planted heads -------------------------------------------------------------------------------------------
HEAD = Plan((Head(1, 2, SELF, "token", (Write("next", 1.0, 1),)),), seed=3)
WHOLE = Plan((finder(1, 2), successor(2, 2)), seed=1)
FILLER = VOCABULARY.index("box")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Name of a plan -> its model."""
    plans = {"head": HEAD, "whole": WHOLE, "nothing": Plan((), seed=6)}
    folder = tmp_path_factory.mktemp("planted")
    return {
        name: models.load(build_planted(plan, "llama", folder / name), device="cpu") for name, plan in plans.items()
    }


def texts_of_members() -> Text:
    """BOS filler member filler member filler, with every member."""
    rows = [[0, FILLER, IDS[i], FILLER, IDS[(i + 3) % M], FILLER] for i in range(M)] * 2
    return Text(torch.tensor(rows), torch.full((len(rows),), 6), torch.arange(len(rows)) >= M)


def dictionary(model, shuffled=False) -> tuple[Autoencoder, Sample, Sample]:
    """A feature for each member, whose direction is its one-hot (shuffled: another member's), and four of noise; what
    all members have in common is in b_dec; with activations of both parts of the text."""
    text = texts_of_members()
    parts = [Sample.of(model, text.take(rows.nonzero()[:, 0]), PLACE) for rows in (~text.held_out, text.held_out)]
    width = model.d_model
    common = parts[0].x[torch.isin(parts[0].token, torch.tensor(IDS))].mean(0)
    common[SPACE["token"]] = 0
    one_hot = torch.zeros(M, width)
    one_hot[:, SPACE["token"]] = torch.eye(M)
    junk = torch.zeros(4, width)
    junk[:, SPACE["junk"]] = torch.randn(
        4, SPACE["junk"].stop - SPACE["junk"].start, generator=torch.Generator().manual_seed(0)
    )
    w_dec = torch.cat((one_hot.roll(3, 0) if shuffled else one_hot, F.normalize(junk, dim=1)))
    w_enc = torch.cat((one_hot, 0.01 * F.normalize(junk, dim=1))).T.contiguous()  # no member's own feature
    sae = Autoencoder(w_enc, torch.zeros(M + 4), w_dec, common, "standard", centred=False)
    return sae, *parts


def features_of(model, shuffled=False):
    sae, trained, held_out = dictionary(model, shuffled)
    return feature_heads.Features.of(sae, [CYCLIC], Fired.of(sae, trained.x, trained.token, IDS)), held_out


def heads_of(model, shuffled=False):
    features, held_out = features_of(model, shuffled)
    table = feature_heads.find(model, features, [CYCLIC], held_out, 1, {(1, 2)}, 2, 99, BOOTSTRAP)
    return table.set_index(["edit", "layer", "head"]).sort_index()


def test_features_that_feed_a_planted_successor_head_are_found(planted):
    """A member's one-hot is all that the head reads of it: without it the advantage of the next member, LOGIT, is gone;
    with another's in its place the logit moves from one to the other. Other heads write nothing."""
    table = heads_of(planted["head"])
    own = table.loc[("ablate", 1, 2)]
    assert own["score"] == 1 and own["in_circuit"]
    assert own[["untouched", "reconstruction", "value"]].to_numpy(float) == pytest.approx(LOGIT, abs=1e-3)
    assert own["p"] == 0.01 and own["random_high"] < 1 and own["p_holm"] < 0.05
    swap = table.loc[("swap", 1, 2)]
    assert swap["value"] == pytest.approx(2 * LOGIT, abs=1e-3) and swap["moved"] == 1 and swap["p_holm"] < 0.05
    rest = table.drop(index=[("ablate", 1, 2), ("swap", 1, 2)])
    assert len(rest) == 2 and (rest["value"].abs() < 1e-3).all() and (rest["p_holm"] > 0.05).all()


def test_nothing_is_found_without_the_head_or_with_a_shuffled_dictionary(planted):
    for table in (heads_of(planted["nothing"]), heads_of(planted["head"], shuffled=True)):
        assert (table["p_holm"] > 0.05).all() and (table.loc["ablate", "value"] < 1e-3).all()


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_values_by_weights_are_those_of_a_run(family, tmp_path):
    model = load_random(family, tmp_path / "model")
    x = torch.randn(5, model.d_model, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    without = replace(model, weights=None)
    for layer in (1, 2):
        kept = {}
        edits = [
            (f"blocks.{layer}.hook_resid_pre", lambda before, hook: x[:, None].to(before)),
            (f"blocks.{layer}.attn.hook_v", lambda v, hook, kept=kept: kept.update(v=v)),
        ]
        model.run(torch.zeros(5, 1, dtype=torch.long), edits)
        expected = kept["v"][:, 0].repeat_interleave(model.n_heads // kept["v"].shape[2], dim=1)
        found = feature_heads.values(model, layer, x)
        assert (found - expected).abs().max() < model.tolerance
    if family == "llama":
        assert (feature_heads.values(without, 1, x) - feature_heads.values(model, 1, x)).abs().max() < model.tolerance


def test_logits_of_a_head_are_those_of_its_write_written_out(shipped_model):
    from atlas.heads.attribution import Readout

    readout = Readout.of(shipped_model)
    reader = feature_heads.Reader.of(shipped_model, readout, 2, 3, [5, 9, 11])
    x = torch.randn(4, shipped_model.d_model, generator=torch.Generator().manual_seed(0))
    z = reader.z(x)
    write = z @ shipped_model.w_o(2)[3]
    offset = readout.unembed(readout.norm(torch.zeros_like(write)))  # the final norm's bias and b_U
    expected = (readout.unembed(readout.norm(write)) - offset)[:, [5, 9, 11]]
    torch.testing.assert_close(reader.logits(z, reader.scale(z)), expected, rtol=1e-4, atol=1e-4)
    lead = feature_heads.advantage(expected, torch.tensor([0, 1, 2, 0]))
    assert float(lead[1]) == pytest.approx(float(expected[1, 1] - (expected[1, 0] + expected[1, 2]) / 2), abs=1e-5)


# ---- answers ---------------------------------------------------------------------------------------------------
def examined(features):
    rows = [[0, FILLER, IDS[(i + 5) % M], FILLER, IDS[i], FILLER] for i in range(M)] * 2
    answers = [IDS[(i + 1) % M] for i in range(M)] * 2
    frame = pd.DataFrame({"tokens": rows, "answer_token": answers, "incorrect_token": list(IDS) * 2})
    return feature_effects.Examined.of("planted", frame, 4, [CYCLIC], features, 99)


def test_an_own_feature_carries_the_answer_where_a_later_head_reads_it(planted):
    model = planted["whole"]
    features, _ = features_of(model)
    table = feature_effects.find(model, [examined(features)], features, PLACE, BOOTSTRAP).set_index("edit")
    assert table.loc["own feature", "full"] == pytest.approx(LOGIT, abs=1e-3)
    assert table.loc["reconstruction", "value"] == pytest.approx(0, abs=1e-3)
    assert table.loc["own feature", "value"] == pytest.approx(LOGIT, abs=1e-3)
    assert table.loc["random features", "value"] <= 1e-3, "they never take the answer away"
    assert table.loc["beyond random", "p_holm"] < 0.001
    assert table.loc["swap", "value"] == pytest.approx(2 * LOGIT, abs=1e-3) and table.loc["swap", "moved"] == 1


def test_behind_the_head_that_reads_it_nothing_is_lost(planted):
    """The head of layer 1 has read the member when its residual is edited behind that layer."""
    model = planted["whole"]
    features, _ = features_of(model)
    table = feature_effects.find(model, [examined(features)], features, Place("resid_post", 1), BOOTSTRAP)
    assert (table["value"].abs() < 1e-3).all() and not (table["p_holm"] < 0.05).any()


def test_prompts_whose_last_member_is_of_no_class_are_left_out(planted):
    features, _ = features_of(planted["whole"])
    frame = pd.DataFrame({"tokens": [[0, FILLER]] * 4, "answer_token": [1] * 4, "incorrect_token": [2] * 4})
    assert feature_effects.Examined.of("other", frame, 1, [CYCLIC], features, 9) is None
    assert feature_effects.find(planted["whole"], [], features, PLACE, BOOTSTRAP).empty


def test_flips_of_signs_tell_a_shift_from_none():
    rng = np.random.default_rng(0)
    assert feature_effects.flipped(rng.normal(1, 1, 30), 0) < 0.001
    assert feature_effects.flipped(rng.normal(0, 1, 30), 0) > 0.05
    assert feature_effects.flipped(np.zeros(10), 0) == 1


# ---- quality ---------------------------------------------------------------------------------------------------
def test_divergence_is_that_of_each_text_run_alone(shipped_model, study_text):
    text = study_text[1].take(torch.arange(4))
    replaced = {"same": lambda x: x, "zero": torch.zeros_like}
    found = feature_quality.divergences(shipped_model, text, PLACE, replaced, 0)
    rng = np.random.default_rng(0)
    for n, length in enumerate(text.lengths.tolist()):
        at = int(rng.integers(1, length))

        def zero(x, hook):
            x[:, 1:] = 0
            return x

        own = text.tokens[n : n + 1, : at + 1]
        clean, edited = shipped_model.run(own), shipped_model.run(own, [(HOOK, zero)])
        expected = F.kl_div(edited.log_softmax(-1), clean.log_softmax(-1), log_target=True, reduction="sum")
        assert found["zero"][n] == pytest.approx(float(expected), rel=1e-3) and abs(found["same"][n]) < 1e-5


def test_quality_of_a_perfect_and_of_an_empty_autoencoder():
    x, mean = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(4)
    both = torch.cat((torch.eye(4), -torch.eye(4)))
    perfect = Autoencoder(both.T.contiguous(), torch.zeros(8), both, mean, "standard")
    about, alive = feature_quality.of_activations(perfect, x, mean)
    assert about == {"l0": 4, "explained": pytest.approx(1), "dead": 0} and alive.all()
    empty = replace(perfect, b_enc=torch.full((8,), -99.0))
    about, alive = feature_quality.of_activations(empty, x, mean)
    assert about == {"l0": 0, "explained": pytest.approx(0), "dead": 8} and not alive.any()
    same = feature_quality.agreement(perfect, torch.ones(8, dtype=torch.bool), perfect, 0)
    assert same["agreement"] == same["agreement_90"] == 1 and same["agreement_null"] < 0.95


# ---- all of it -------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_a_study_makes_every_table_and_repeats_it(config, shipped_model, tmp_path):
    """Trained and, from its files, loaded: the same autoencoder says the same."""
    own = config["geometry"]["features"] | {"tokens": 800, "steps": 20, "most": 64, "texts": 4, "permutations": 19}
    own |= {"draws": 19, "prompts": 4, "heads": 1}
    prompts = {key: config["prompts"][key] for key in ("templates", "fillers", "shown")}
    given = {key: value for key, value in own.items() if key != "path"} | prompts
    settings = features.Settings(classes=config["geometry"]["classes"], **given)
    frame, layout = study_task(config, "months")
    frame["split"] = ["search", "held_out"] * (len(frame) // 2)
    tokenizer = load_tokenizer("shipped")

    def made(path=None):
        read = features.read(shipped_model, tokenizer, [frame], 40, settings, 0)
        sae, quality = features.made(shipped_model, read, settings, path, BOOTSTRAP)
        held_out = frame[frame["split"] == "held_out"]
        reported = {"months": (held_out, layout)}
        found = features.found(shipped_model, read, sae, reported, {(1, 4)}, settings, BOOTSTRAP)
        return sae, found | {"features": quality}

    sae, tables = made()
    assert set(tables) == set(shown.GEOMETRY["features"])
    columns = {"features": feature_quality.COLUMNS, "feature_members": feature_members.MEMBER_COLUMNS}
    columns |= {"feature_heads": feature_heads.COLUMNS, "feature_effects": feature_effects.COLUMNS}
    for name, expected in columns.items():
        assert list(tables[name].columns) == expected and len(tables[name])
    folder = tmp_path / "results" / "features"
    autoencoder.write_weights(sae, folder / "sae_weights.safetensors", {})
    (folder / "cfg.json").write_text(json.dumps(autoencoder.config_of(sae, HOOK, "ladder")))
    again, loaded = made()[1], made(folder)[1]
    for name in tables:
        pd.testing.assert_frame_equal(tables[name], again[name])
        if name != "features":
            pd.testing.assert_frame_equal(tables[name], loaded[name])
    same = ["l0", "explained", "dead", "kl", "kl_mean"]
    assert tables["features"].loc[0, same].tolist() == loaded["features"].loc[0, same].tolist()
