"""OV scores against the same steps written out with the checkpoint's own modules, and on heads whose writes are known.

TransformerLens has no OV score; its weights and norms are what the written-out steps use.
"""

import numpy as np
import pandas as pd
import pytest
import torch

from atlas.core.errors import StudyError
from atlas.core.positions import Layout
from atlas.core.statistics import Bootstrap
from atlas.heads import ov
from atlas.heads.attribution import Readout
from atlas.model import models
from atlas.proof import exact, fixtures
from atlas.proof.planted import MEMBERS, M
from conftest import load_tokenizer
from head_prompts import layout_of, study_task, tokens_of
from random_models import EVERY, VOCAB, build

NORMS = ("own", "block1", "in place")

KS = (1, 5)


@pytest.fixture(scope="module")
def months(config):
    return study_task(config, "months")


def residual_after_block_0(model, tokens):
    name = "blocks.0.hook_resid_post"
    return model.bridge.run_with_cache(tokens, names_filter=name)[1][name]


# ---- what heads read -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("norm", ["own", "block1"])
@pytest.mark.parametrize("family", EVERY)
def test_values_equal_the_weights_written_out(family, norm, tmp_path):
    """With the weights that the engine reads from the checkpoint: norm, W_V and b_V of a query head's group."""
    torch.manual_seed(0)
    network = build(family)
    for name, parameter in network.named_parameters():
        if "norm" in name or "ln_" in name or name.endswith("bias"):
            torch.nn.init.normal_(parameter, mean=1, std=0.3)  # so that a norm or bias that is left out shows
    network.save_pretrained(tmp_path)
    load_tokenizer("shipped").save_pretrained(tmp_path)
    model = models.load(tmp_path, device="cpu", dtype="float64")
    tokens, positions = torch.randint(VOCAB, (3, 7)), [1, 4]
    found = ov.values_after_block_0(model, tokens, positions, norm)
    blocks = model.weights.blocks
    x = residual_after_block_0(model, tokens)[:, positions]
    for layer, block in enumerate(blocks):
        normed = (blocks[1] if norm == "block1" else block).norm1(x)
        for head in range(model.n_heads):
            group = head * block.w_v.shape[1] // model.n_heads
            expected = normed @ block.w_v[:, group] + block.b_v[group]
            assert (found[layer, :, :, head] - expected).abs().max() < EVERY[family]


def test_one_layer_alone_is_read_through_the_norms_that_it_has():
    assert ov.norms_of(NORMS, 1) == ["own", "in place"]
    assert ov.norms_of(NORMS, 2) == list(NORMS)


def test_block1_needs_two_layers(shipped_model):
    from dataclasses import replace

    with pytest.raises(StudyError, match=r"heads\.ov\.norms: block1"):
        ov.values_after_block_0(replace(shipped_model, n_layers=1), None, [], "block1")


# ---- scores --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("norm", NORMS)
def test_scores_equal_ranks_counted_one_by_one(shipped_model, months, norm):
    frame, layout = months
    frame = frame.iloc[:12]
    tokens, answers = tokens_of(frame), frame.answer_token.tolist()
    words = ov.ids_of_words(months[0], layout)
    targets = ov.task_targets(ov.successors(months[0], layout), words.values())
    found = ov.scores(shipped_model, tokens, layout, targets, KS, norm, answers)
    bridge = shipped_model.bridge
    _, cache = bridge.run_with_cache(tokens)
    for layer, head in ((1, 4), (2, 3), (4, 7)):
        if norm == "in place":
            places = [layout.answer_position]
            z = cache[f"blocks.{layer}.attn.hook_z"][:, places, head]
        else:
            places = layout.places
            with torch.no_grad():
                x = bridge.blocks[1 if norm == "block1" else layer].ln1(residual_after_block_0(shipped_model, tokens))
            z = x[:, places] @ bridge.blocks[layer].attn.W_V[head] + bridge.b_V[layer].view(8, -1)[head]
        with torch.no_grad():
            logits = bridge.unembed(bridge.ln_final(z @ bridge.W_O[layer, head]))
        for score, target in targets.items():
            if norm == "in place" and score not in ("copy", "next"):
                assert score not in found
                continue
            for column, k in enumerate(KS):
                for n in range(len(tokens)):
                    hits, pool = 0, 0.0
                    for p, place in enumerate(places):
                        read = int(tokens[n, place if norm != "in place" else layout.places[-1]])
                        wanted = answers[n] if (norm, score) == ("in place", "next") else target.of[read]
                        top = logits[n, p].topk(k).indices.tolist()
                        hits += wanted in top
                        pool += np.mean([m in top for m in target.pool])
                    assert found[score].hits[n, layer, head, column] == hits
                    assert found[score].random[n, layer, head, column] == pytest.approx(pool, abs=1e-6)
        if norm != "in place":
            read = tokens[:, layout.places]
            following = torch.tensor([[targets["next"].of[int(i)] for i in row] for row in read])
            leads = logits.gather(-1, following[..., None]) > logits.gather(-1, read[..., None])
            assert (found[ov.LEAD].hits[:, layer, head, 0] == leads[..., 0].sum(1).numpy()).all()


@pytest.mark.parametrize("family", exact.FAMILIES)
def test_planted_heads_write_what_they_were_planted_to_write(family, tmp_path):
    """0.1 finds in layer 0, so that after block 0 each member's position holds it; 2.3 writes its successor, 2.0 takes
    it away; all other heads write to places that the unembedding does not read."""
    fixture = exact.inhibitory(family)
    model, layout, prompts = models.load(fixture.build(tmp_path), device="cpu"), layout_of(fixture), fixture.prompts()
    members = fixtures.ids(MEMBERS)
    targets = ov.task_targets({a: members[(i + 1) % M] for i, a in enumerate(members)}, members)
    table = ov.table(ov.scores(model, prompts.tokens, layout, targets, [1], "own"), "own", Bootstrap(100, 0)).set_index(
        ["score", "layer", "head"]
    )
    assert table.value[("next", 2, 3)] == 1 and table.baseline[("next", 2, 3)] == pytest.approx(1 / M)
    assert table.value[(ov.LEAD, 2, 3)] == 1 and table.value[(ov.LEAD, 2, 0)] == 0
    others = [row for row in table.index if row != ("next", 2, 3) and row[0] != ov.LEAD]
    assert (table.value[others] == 0).all()
    assert (table.instances == 4 * len(prompts)).all()


def test_an_induction_head_copies(tmp_path):
    fixture = exact.induction("gpt2")
    model, layout, prompts = models.load(fixture.build(tmp_path), device="cpu"), layout_of(fixture), fixture.prompts()
    members = fixtures.ids(MEMBERS)
    targets = ov.task_targets({}, members)
    found = ov.scores(model, prompts.tokens, layout, targets, [1], "own")
    table = ov.table(found, "own", Bootstrap(100, 0))
    assert set(table.score) == {"copy"}, "scores without any target have no rows"
    assert table[table.value > 0][["layer", "head", "value"]].to_numpy().tolist() == [[1, 1, 1]]


def test_ties_count_against_a_target():
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [3.0, 1.0, 2.0, 0.0], [1.0, 1.0 - 1e-9, 0.0, 0.0]])
    in_top_1, in_top_2, in_all = (logits > bar[:, None] for bar in ov.bars(logits, (1, 2, 4)).unbind(-1))
    assert in_top_1.tolist() == [[False] * 4, [True, False, False, False], [False] * 4], "the last is a tie to rounding"
    assert in_top_2.tolist()[1] == [True, False, True, False]
    assert in_all.all(), "where k is the whole vocabulary everything is in"


# ---- targets -------------------------------------------------------------------------------------------------
def test_successors_follow_the_members_and_then_the_answer():
    frame = pd.DataFrame({"tokens": [[9, 1, 2], [9, 2, 3]], "answer_token": [3, 1]})
    layout = Layout(3, ((1, 1), (2, 2)), 2)
    assert ov.successors(frame, layout) == {1: 2, 2: 3, 3: 1}
    other = pd.DataFrame({"tokens": [[9, 1, 2], [9, 1, 3]], "answer_token": [3, 4]})
    assert ov.successors(other, layout) == {2: 3, 3: 4}, "1 goes on to 2 and to 3"


def test_targets_of_a_task_and_of_another():
    targets = ov.task_targets({1: 2, 2: 3}, [3, 1, 2])
    assert targets["copy"].of == {1: 1, 2: 2, 3: 3}
    assert targets["previous"].of == {2: 1, 3: 2} and targets["next_next"].of == {1: 3}
    assert all(t.pool == (1, 2, 3) for t in targets.values())
    ids, others = {"one": 1, "two": 2, "three": 3}, {"January": 7, "February": 8}
    cross = ov.cross_target(list(ids), ids, list(others), others)
    assert cross.of == {1: 7, 2: 8} and cross.pool == (7, 8)
    assert ov.cross_target(list(ids), ids, ["two", "four"], {"two": 2, "four": 4}) is None


def test_members_steps_of_a_task_with_another_step(config):
    """Two steps up the numerals: `next` is the task's next member, not the next number."""
    frame, layout = study_task(config, "numerals_plus_two")
    words = ov.ids_of_words(frame, layout)
    targets = ov.task_targets(ov.successors(frame, layout), words.values())
    assert targets["next"].of[words["3"]] == words["5"] and targets["previous"].of[words["5"]] == words["3"]
    assert targets["next_next"].of[words["3"]] == words["7"]


def test_a_readout_of_the_write_alone(shipped_model):
    """A head's write is normed by itself: its scale does not matter."""
    readout, x = Readout.of(shipped_model), torch.randn(4, shipped_model.d_model)
    one, two = (readout.unembed(readout.norm(c * x)).argsort(-1)[:, -5:] for c in (10.0, 20.0))
    assert (one == two).all()
