"""Role scores against slow paths: attribution and OV scores of their own modules, loops, and every permutation."""

from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from atlas.core.positions import Layout
from atlas.core.statistics import Bootstrap
from atlas.heads import attribution, mlp_writes, ov, role_scores, writes
from atlas.heads.attribution import Readout
from atlas.heads.explained import Explained
from atlas.prompts.batch import Prompts
from conftest import load_tokenizer
from head_prompts import study_task
from random_models import EVERY, FAMILIES, VOCAB, load_random

SOME = role_scores.Settings(draws=3, prompts=6, seed=0)
WANTED = ("attention", "ov", "attribution")


@pytest.fixture(scope="module")
def numerals(config, shipped_model):
    frame, layout = study_task(config, "numerals", per_template=8)
    return Explained("numerals", shipped_model, load_tokenizer("shipped"), frame, layout, Bootstrap(50, 0))


@pytest.fixture(scope="module")
def table(numerals, config):
    made = role_scores.variants(numerals, config["prompts"]["random_words"], 0)
    assert set(made) == {"in order", "shuffled", "words"}
    return role_scores.table(numerals, made, WANTED, SOME)


def grid(table, score, column="value"):
    rows = table[table["score"] == score]
    return rows.set_index(["layer", "head"])[column].unstack().to_numpy()


def test_every_score_of_every_head_has_a_row_with_its_nulls(table):
    assert list(table.columns) == role_scores.COLUMNS
    assert (table.groupby("score").size() == 48).all() and table["score"].nunique() == 22
    assert table[["value", "ci_low", "ci_high", "null_low", "null_high", "p"]].notna().all(axis=None)
    assert (table["ci_low"] <= table["value"] + 1e-9).all() and (table["value"] <= table["ci_high"] + 1e-9).all()
    of_logits = table["score"].isin(["attribution", "against", "suppression"])
    written = of_logits | table["score"].str.startswith(("ov", "in place"))
    assert (table["shuffled_high"].notna() == written).all()
    assert (table["shuffled_low"][written] <= table["shuffled_high"][written]).all()
    assert table["p"].between(1 / (1 + 3 * 48), 1).all()


def test_attribution_is_that_of_its_own_module(numerals, table):
    rows = attribution.attribute(numerals.model, numerals.prompts)
    heads = {k["name"]: v.mean() for k, v in rows if k["part"] == "head"}
    full = sum(heads.values())
    for row in table[table["score"] == "attribution"].itertuples():
        assert row.value == pytest.approx(heads[f"{row.layer}.{row.head}"] / abs(full), abs=1e-5)
    np.testing.assert_allclose(grid(table, "against"), -grid(table, "attribution"), atol=1e-12)
    np.testing.assert_allclose(grid(table, "against", "shuffled_low"), -grid(table, "attribution", "shuffled_high"))
    assert full == pytest.approx(role_scores.logit_differences(numerals).mean(), abs=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_attribution_is_that_of_its_own_module_in_every_family(family, tmp_path):
    """Grouped heads, rotation, and norms behind attention whose scale is that of the run."""
    model = load_random(family, tmp_path)
    tokens = torch.randint(VOCAB, (5, 7), generator=torch.Generator().manual_seed(0))
    answer, incorrect = torch.arange(5), torch.arange(1, 6)
    frame = pd.DataFrame({"tokens": tokens.tolist(), "prompt": range(5)})
    frame = frame.assign(answer_token=answer.numpy(), incorrect_token=incorrect.numpy())
    prompts = Prompts(tokens, tokens, answer, incorrect, list(range(5)), torch.zeros(5))
    of = SimpleNamespace(model=model, frame=frame, layout=Layout(7, (), 6), bootstrap=Bootstrap(10, 0), prompts=prompts)
    found = role_scores.table(of, {"in order": tokens}, ["attribution"], SOME)
    expected = {k["name"]: v.mean() for k, v in attribution.attribute(model, of.prompts) if k["part"] == "head"}
    scale = abs(role_scores.logit_differences(of).mean())
    assert set(found["score"]) == {"attribution", "against"}
    for row in found[found["score"] == "attribution"].itertuples():
        assert row.value * scale == pytest.approx(expected[f"{row.layer}.{row.head}"], abs=max(1e-5, EVERY[family]))


def test_shares_from_members_alone_are_those_of_hooked_values(numerals, table):
    """`ov.values_after_block_0` runs the model with hooks; the winner is read from the whole unembedding."""
    model, members = numerals.model, writes.Members.of(numerals.frame, numerals.layout)
    readout, places = Readout.of(model), numerals.layout.places
    v = ov.values_after_block_0(model, numerals.prompts.tokens, places, "own")
    succession = ov.successors(numerals.frame, numerals.layout)
    tokens = numerals.prompts.tokens[:, places].tolist()
    for layer, head in ((0, 3), (2, 3), (4, 7)):
        added = readout.centre(v[layer, :, :, head] @ model.w_o(layer)[head]) * readout.weight @ readout.w_u
        hits = {"ov copy": [], "ov next": []}
        for n, row in enumerate(tokens):
            for p, token in enumerate(row):
                winner = max(members.ids, key=lambda i: added[n, p, i])
                hits["ov copy"].append(winner == token)
                hits["ov next"] += [winner == succession[token]] if token in succession else []
        for score, own in hits.items():
            assert grid(table, score)[layer, head] == pytest.approx(np.mean(own), abs=1e-9)


def test_what_is_written_in_place_by_hand(numerals, table):
    model, frame = numerals.model, numerals.frame
    readout, stream = Readout.of(model), attribution.read_stream(model, numerals.prompts.tokens)
    shown = numerals.prompts.tokens[:, numerals.layout.places].tolist()
    ids = sorted({*numerals.prompts.tokens[:, numerals.layout.places].flatten().tolist(), *frame.answer_token})
    difference = role_scores.logit_differences(numerals).mean()
    for layer, head in ((1, 2), (2, 3), (4, 0)):
        write = stream.z[layer, :, head] @ model.w_o(layer)[head]
        logits = readout.centre(write) / readout.scale(stream.resid_post) * readout.weight @ readout.w_u
        following, copied, lowered = [], [], []
        for n, answer in enumerate(frame.answer_token):
            own = {i: float(logits[n, i]) for i in ids}
            winner = max(own, key=own.get)
            following.append(winner == answer)
            copied.append(winner == shown[n][-1])
            rest = [x for i, x in own.items() if i not in (*shown[n], answer)]
            lowered.append(np.mean(rest) - np.mean([own[i] for i in shown[n]]))
        assert grid(table, "in place next")[layer, head] == pytest.approx(np.mean(following), abs=1e-9)
        assert grid(table, "in place copy")[layer, head] == pytest.approx(np.mean(copied), abs=1e-9)
        assert grid(table, "suppression")[layer, head] == pytest.approx(np.mean(lowered) / difference, abs=1e-5)


def test_random_heads_are_drawn_from_the_seed_and_no_other_numbers_depend_on_it(numerals, table):
    made = {"in order": numerals.prompts.tokens}
    settings = (role_scores.Settings(3, 6, seed) for seed in (0, 1))
    again, other = (role_scores.table(numerals, made, ["ov"], of).reset_index(drop=True) for of in settings)
    own = table[table["score"].isin(again["score"].unique())].reset_index(drop=True)
    pd.testing.assert_frame_equal(again, own)
    assert again["value"].equals(other["value"]) and not again["p"].equals(other["p"])


# ---- members shuffled ----------------------------------------------------------------------------------------
def members_of(shown, answer, incorrect, m=5) -> writes.Members:
    after = np.array([*range(1, m), writes.NONE])
    return writes.Members(list(range(m)), *(np.array(x) for x in (answer, incorrect, shown)), after, True)


def test_shuffled_sequences_are_scored_as_if_they_were_another(monkeypatch):
    """Three sequences, one of two prompts: all six permutations by hand, of which 2.5 and 97.5 % are taken."""
    made = members_of([[0, 1], [1, 2], [2, 3], [0, 1]], [2, 3, 4, 2], [1, 2, 3, 1])
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 2, 5))
    won = logits.argmax(-1)
    monkeypatch.setattr(writes, "PERMUTATIONS", 4000)
    found = writes.shuffled_in_place(logits, won, made, seed=0)
    which, first = made.sequences
    assert sorted(which.tolist()) == [0, 0, 1, 2] and which[0] == which[3]
    every = {score: [] for score in found}
    for order in permutations(range(3)):
        taken = made.at(first[np.array(order)][which])
        for score, x in writes.in_place(logits, won, taken).items():
            every[score].append(x.mean(0))
    assert set(found) == {"attribution", "in place next", "in place copy", "suppression"}
    for score, (low, high) in found.items():
        np.testing.assert_allclose(low, np.min(every[score], axis=0), atol=1e-12)  # one of six is more than 2.5 %
        np.testing.assert_allclose(high, np.max(every[score], axis=0), atol=1e-12)


def test_shuffled_members_trade_their_targets(monkeypatch):
    made = members_of([[0, 1], [1, 2], [2, 3]], [2, 3, 4], [1, 2, 3])
    won = np.array([[[1], [2]], [[2], [0]], [[3], [3]]])  # [N, P, 1]: 0 -> 1, 1 -> 2 twice, 2 -> 0, 2 -> 3, 3 -> 3
    scores = writes.from_members(won, made)
    assert scores["ov next"][0].sum() == 4 and scores["ov next"][1].sum() == 6 and scores["ov copy"][0].sum() == 1
    monkeypatch.setattr(writes, "PERMUTATIONS", 4000)
    found, read = writes.shuffled_from_members(won, made, seed=0), [0, 1, 2, 3]
    for score, target in (("ov next", made.after), ("ov copy", np.arange(5))):
        shares = []
        for order in permutations(read):
            to = dict(zip(read, (target[i] for i in order), strict=True))
            shares.append(np.mean([won[n, p, 0] == to[made.shown[n, p]] for n in range(3) for p in range(2)]))
        low, high = found[score]
        assert (low[0], high[0]) == pytest.approx(tuple(np.percentile(shares, [2.5, 97.5])), abs=0.17)
        assert high[0] == pytest.approx(max(shares)) and low[0] == pytest.approx(min(shares))


def test_nobody_wins_a_tie_and_one_member_alone_wins_nothing():
    assert writes.winners(torch.tensor([[1.0, 1.0, 0.0], [0.0, 2.0, 1.0]])).tolist() == [writes.NONE, 1]
    assert writes.winners(torch.zeros(2, 3)).tolist() == [writes.NONE] * 2
    assert writes.winners(torch.ones(2, 1)).tolist() == [writes.NONE] * 2


def test_members_without_places_leave_attribution_alone(numerals):
    unknown = Explained("x", numerals.model, None, numerals.frame, Layout(23, (), 22), Bootstrap(10, 0))
    found = role_scores.table(unknown, {"in order": unknown.prompts.tokens}, WANTED, SOME)
    assert set(found["score"]) == {"attribution", "against", "last to self", "last to first token"}


def test_without_an_engine_or_an_analysis_there_are_no_scores(numerals):
    from dataclasses import replace

    made = {"in order": numerals.prompts.tokens}
    bridge = replace(numerals, model=replace(numerals.model, weights=None))
    for of, wanted in ((bridge, WANTED), (numerals, ("patching",))):
        found = role_scores.table(of, made, wanted, SOME)
        assert found.empty and list(found.columns) == role_scores.COLUMNS


# ---- MLPs ----------------------------------------------------------------------------------------------------
def test_mlps_write_what_attribution_says_and_tokens_by_hand(numerals):
    found = mlp_writes.tables(numerals, 3)
    answers, tokens = found["mlp_answers"], found["mlp_tokens"]
    rows = attribution.attribute(numerals.model, numerals.prompts)
    by_name = {k["name"]: v for k, v in rows if k["part"] == "write"}
    full = sum(by_name.values())
    whole = answers[answers["answer"].isna()].set_index("component")
    assert list(whole.index) == [f"m{layer}" for layer in range(6)] and (whole["prompts"] == len(numerals.frame)).all()
    for name, row in whole.iterrows():
        assert row["value"] == pytest.approx(by_name[name].mean(), abs=1e-4)
        assert row["share"] == pytest.approx(by_name[name].mean() / full.mean(), abs=1e-5)
        assert row["share_low"] <= row["share"] <= row["share_high"]
    single = answers[answers["answer"].notna()]
    assert single.groupby("component")["prompts"].sum().eq(len(numerals.frame)).all()
    answer = numerals.frame["answer"].iloc[0]
    own = (numerals.frame["answer"] == answer).to_numpy()
    row = single[(single["component"] == "m5") & (single["answer"] == answer)].iloc[0]
    assert row["value"] == pytest.approx(by_name["m5"][own].mean(), abs=1e-4) and row["prompts"] == own.sum()
    readout, stream = Readout.of(numerals.model), attribution.read_stream(numerals.model, numerals.prompts.tokens)
    logits = (readout.centre(stream.mlp_out[5]) / readout.scale(stream.resid_post) * readout.weight) @ readout.w_u
    logits = logits.mean(0) - logits.mean()
    top = tokens[(tokens["component"] == "m5") & (tokens["end"] == "top")]
    assert top["token_id"].tolist() == logits.topk(3).indices.tolist() and top["place"].tolist() == [1, 2, 3]
    np.testing.assert_allclose(top["logit"], logits.topk(3).values.numpy(), atol=1e-4)
    bottom = tokens[(tokens["component"] == "m5") & (tokens["end"] == "bottom")]
    assert bottom["token_id"].tolist() == (-logits).topk(3).indices.tolist()
    assert top["token"].iloc[0] == numerals.tokenizer.decode([top["token_id"].iloc[0]])
