"""Logit lens against the model's own logits, TransformerLens's tools, and a planted answer.

Tolerances: 1e-4 on logits of order 10 in float32; in float64 those of
`random_models`, for the same reasons.
"""

import numpy as np
import pandas as pd
import pytest
import torch

from atlas.core.metrics import per_prompt
from atlas.core.positions import Layout
from atlas.core.statistics import Bootstrap
from atlas.heads import attribution, lens
from atlas.model import models
from atlas.prompts.batch import Prompts
from atlas.prompts.tasks import Task, make_prompts
from atlas.prompts.tokens import encode_prompts
from atlas.proof import exact
from atlas.proof.planted import LOGIT
from atlas.study.settings import task_block
from conftest import load_tokenizer
from random_models import EVERY, VOCAB, build


@pytest.fixture(scope="module")
def encoded(config):
    block = task_block(config, "months") | {"per_template": 12, "held_out_share": 0}
    made = make_prompts(Task.from_config("months", block))
    return encode_prompts(made, load_tokenizer("shipped"), False, "months")


@pytest.fixture(scope="module")
def prompts(encoded):
    return Prompts.from_frame(pd.DataFrame(encoded.rows), ["all"])


@pytest.fixture(scope="module")
def lenses(shipped_model, prompts):
    return lens.read_lenses(shipped_model, prompts, k=5)


@pytest.mark.parametrize("kind", lens.KINDS)
def test_every_point_equals_transformerlens(shipped_model, prompts, lenses, kind):
    """`accumulated_resid` with its norm, unembedded with b_U, at every point: logit differences, ranks, top tokens."""
    bridge = shipped_model.bridge
    with torch.no_grad():
        _, cache = bridge.run_with_cache(prompts.tokens)
        stack, labels = cache.accumulated_resid(
            incl_mid=True, apply_ln=kind == "norm", pos_slice=-1, return_labels=True
        )
        logits = stack @ bridge.W_U + bridge.b_U
    found = lenses[kind]
    assert len(labels) == len(found.names) and labels[1] == "0_mid"
    for point, expected in enumerate(logits):
        scores = per_prompt(["logit_diff"], expected, prompts.answer, prompts.incorrect)
        assert np.abs(found.logit_diff[point] - scores["logit_diff"].numpy()).max() < 1e-4
        top = expected.topk(5).values.numpy()
        assert np.abs(found.logits[point] - top).max() < 1e-4
        assert np.abs(expected.gather(1, torch.tensor(found.tokens[point])).numpy() - top).max() < 1e-4
        ahead = expected - expected.gather(1, prompts.answer[:, None])  # rounding may swap logits that nearly tie
        assert (found.rank[point] >= (ahead > 1e-4).sum(1).numpy()).all()
        assert (found.rank[point] <= (ahead > -1e-4).sum(1).numpy() - 1).all()


def test_the_logit_lens_tool_agrees_before_every_layer(shipped_model, prompts, lenses):
    """TransformerLens's `logit_lens`, which has no points inside layers."""
    with torch.no_grad():
        _, cache = shipped_model.bridge.run_with_cache(prompts.tokens[:6])
        tool = cache.logit_lens(top_k=5, positions=-1)
    assert np.abs(lenses["norm"].logits[::2, :6] - tool.values.reshape(-1, 6, 5).numpy()).max() < 1e-4


def test_the_last_point_is_the_models_own_output_and_the_raw_lens_is_not(shipped_model, prompts, lenses):
    own = per_prompt(["logit_diff"], shipped_model.run(prompts.tokens), prompts.answer, prompts.incorrect)
    difference = own["logit_diff"].numpy()
    assert np.abs(lenses["norm"].logit_diff[-1] - difference).max() < 1e-4
    assert np.abs(lenses["raw"].logit_diff[-1] - difference).max() > 0.1


@pytest.mark.parametrize("family", EVERY)
def test_the_last_point_is_the_models_own_output_in_every_family(family, tmp_path):
    torch.manual_seed(0)
    network = build(family)
    for name, parameter in network.named_parameters():
        if "norm" in name or "ln_" in name or name.endswith("bias"):
            torch.nn.init.normal_(parameter, mean=1, std=0.3)
    network.save_pretrained(tmp_path)
    load_tokenizer("shipped").save_pretrained(tmp_path)
    model = models.load(tmp_path, device="cpu", dtype="float64", batch_size=3)
    stream = attribution.read_stream(model, torch.randint(VOCAB, (3, 7)))
    readout = attribution.Readout.of(model)
    assert (readout.unembed(readout.norm(stream.points()[-1])) - stream.logits).abs().max() < EVERY[family]
    between = stream.resid_pre[1:] - stream.resid_pre[:-1] - stream.attn_out[:-1] - stream.mlp_out[:-1]
    assert between.abs().max() < EVERY[family]


@pytest.mark.parametrize("family", exact.FAMILIES)
def test_a_planted_answer_appears_where_it_is_written(family, tmp_path):
    """2.2 of `two_heads` writes the answer: it leads from the attention of layer 2 on; before, all logits are equal."""
    fixture = next(f for f in exact.all_fixtures() if (f.name, f.family) == ("two_heads", family))
    model = models.load(fixture.build(tmp_path), device="cpu", batch_size=64)
    prompts = fixture.prompts()
    found = lens.read_lenses(model, prompts, k=2)["norm"]
    assert np.abs(found.logits[:5]).max() < 1e-3 * LOGIT
    assert found.leads[5:].all()
    assert found.logit_diff[-1] == pytest.approx(LOGIT, abs=1e-3 * LOGIT)


# ---- tables --------------------------------------------------------------------------------------------------
def made(top, rank=None) -> lens.Lens:
    """A lens of two layers whose top-1 tokens [5, N] are given; the answer is token 9."""
    top = np.array(top)
    rank = (top != 9).astype(float) if rank is None else np.array(rank, dtype=float)
    return lens.Lens(attribution.point_names(2), np.zeros_like(rank), rank, top[:, :, None], top[:, :, None] / 2)


def test_where_the_answer_leads_and_stays():
    # prompt 10: leads at 1, loses the lead, has it again from 3; prompt 11: never; 12: always; 13: loses it at the end
    top = [[1, 1, 9, 1], [9, 1, 9, 9], [1, 1, 9, 9], [9, 1, 9, 9], [9, 1, 9, 1]]
    rows = lens.lead_rows(made(top), [10, 11, 12, 13])
    assert [(r["prompt"], r["leads"], r["stays"]) for r in rows] == [(10, 1, 3), (11, -1, -1), (12, 0, 0), (13, 1, -1)]
    assert (rows[0]["leads_name"], rows[0]["stays_name"]) == ("resid_mid 0", "resid_mid 1")
    assert (rows[1]["leads_name"], rows[3]["stays_name"]) == ("never", "never")
    assert list(rows[0]) == lens.LEAD_COLUMNS


def test_increments_go_from_a_member_to_the_answer_across_one_block():
    # columns: member to answer in block 1; another token to answer in block 1; member to member; member, within block
    # 0, to answer; points 1 and 3 (inside blocks) are not compared
    top = [[1, 1, 1, 2], [5, 5, 1, 2], [2, 7, 2, 9], [2, 9, 2, 9], [9, 9, 3, 9]]
    rows = lens.increment_rows({"norm": made(top)}, np.full(4, 9), np.array([[1, 2, 3]] * 4), Bootstrap(200))
    assert [(r["from_point"], r["to_point"], r["share"]) for r in rows] == [(0, 2, 0.25), (2, 4, 0.25)]
    assert list(rows[0]) == lens.INCREMENT_COLUMNS
    assert rows[0]["prompts"] == 4


def test_an_answer_that_was_shown_is_no_earlier_member():
    rows = lens.increment_rows({"raw": made([[9]] * 5)}, np.array([9]), np.array([[1, 9]]), Bootstrap(200))
    assert [r["share"] for r in rows] == [0, 0]


def test_earlier_members_come_from_the_layout(encoded, prompts):
    members = lens.earlier_members(prompts, Layout.of(encoded.layout).member_positions)
    assert members.shape == (len(prompts), 4)
    assert np.array_equal(members[:, -1], prompts.incorrect)  # the last shown member is the incorrect answer
    assert np.array_equal(lens.earlier_members(prompts, []), prompts.incorrect[:, None])


def test_tables_of_the_shipped_model(prompts, lenses):
    table = pd.DataFrame(lens.lens_rows(lenses, Bootstrap(200)))
    assert list(table) == lens.COLUMNS
    last = table[(table.lens == "norm") & (table.name == "resid_post")].iloc[0]
    assert last.top1 > 0.5 and last["rank"] == 0  # the model answers this task
    assert last.value == pytest.approx(lenses["norm"].logit_diff[-1].mean())
    decode = load_tokenizer("shipped").decode
    tokens = pd.DataFrame(lens.token_rows(lenses["norm"], prompts.prompt, decode))
    assert list(tokens) == lens.TOKEN_COLUMNS
    assert len(tokens) == len(prompts) * 13 * 5
    assert (tokens.groupby(["prompt", "point"]).logit.diff().dropna() <= 0).all()
    shown = tokens[tokens.place == tokens.answer_place]
    answer = dict(zip(prompts.prompt, prompts.answer.tolist(), strict=True))
    assert len(shown) and (shown.token_id == shown.prompt.map(answer)).all()
    assert (shown.token == shown.token_id.map(lambda i: decode(i))).all()
