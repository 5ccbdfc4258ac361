"""Successor scores: planted successors found exactly and nothing without them; and the steps written out with the
checkpoint's own modules of transformers."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from atlas.core.multiple import ALPHA
from atlas.geometry import successors
from atlas.geometry.classes import Members
from atlas.heads import random_heads
from atlas.model import models
from atlas.proof.building import build as build_planted
from atlas.proof.planted import FAMILIES as PLANTED
from atlas.proof.planted import MEMBERS, SELF, VOCABULARY, Head, M, Mlp, Plan, Write, linear_units
from random_models import EVERY, build, load_random

IDS = tuple(VOCABULARY.index(word) for word in MEMBERS)
CYCLIC = Members("around", MEMBERS, IDS, tuple(range(M)), M, cyclic=True)
LINE = Members("line", MEMBERS, IDS, tuple(range(M)), M)
SETTINGS = successors.Settings(draws=25, seed=0)
OTHER = [pytest.param(PLANTED[0], marks=pytest.mark.slow), *PLANTED[1:]]
WRITES = (Write("next", shift=1),)
CASES = {
    "head": Plan((Head(1, 2, SELF, "token", WRITES),), seed=3),
    "two steps": Plan((Head(2, 0, SELF, "token", (Write("next", shift=2),)),), seed=4),
    "mlp": Plan((), (Mlp(0, linear_units("token", 1)),), seed=5),
    "nothing": Plan((), seed=6),
    "constant": Plan((Head(1, 1, SELF, "member", (Write("next", shift=6),)),), seed=7),
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Name and family of a case -> its table, each made once."""
    made = {}

    def table(name, family):
        if (name, family) not in made:
            model = models.load(build_planted(CASES[name], family, tmp_path_factory.mktemp("planted")), device="cpu")
            made[name, family] = successors.table(model, [CYCLIC, LINE], SETTINGS)
        return made[name, family]

    return table


def value(table, kind, target, head, source="mlp0"):
    where = (table["class"] == kind) & (table["target"] == target) & (table["input"] == source)
    (found,) = table[where & (table["layer"] == head[0]) & (table["head"] == head[1])].to_dict("records")
    return found


def sure(table, target="next"):
    rows = table[(table["target"] == target) & (table["head"] >= 0) & (table["p_holm"] < ALPHA)]
    return {(row.layer, row.head) for row in rows.itertuples()}


# ---- planted weights -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", PLANTED)
def test_a_planted_successor_head_is_found_and_no_other(family, planted):
    """It reads members from the embedding, so also without MLP 0; every other head writes nothing to members."""
    table = planted("head", family)
    for kind, count in (("around", M), ("line", M - 1)):
        for source in successors.INPUTS:
            row = value(table, kind, "next", (1, 2), source)
            assert row["value"] == 1 and row["members"] == count and row["p_holm"] < ALPHA
            assert value(table, kind, "previous", (1, 2), source)["value"] == 0
            assert value(table, kind, "greater", (1, 2), source)["value"] == 0.5, "the next member is no part of it"
        assert value(table, kind, "next", (-1, -1))["value"] == 0
    assert sure(table) == {(1, 2)} and not sure(table, "next_next") and not sure(table, "greater")
    others = table[(table["head"] != 2) & (table["target"] == "next")]
    assert (others["value"] == 0).all()


@pytest.mark.parametrize("family", OTHER)
def test_a_head_two_steps_on_has_that_target(family, planted):
    table = planted("two steps", family)
    assert value(table, "around", "next_next", (2, 0))["value"] == 1 and sure(table, "next_next") == {(2, 0)}
    assert value(table, "line", "next_next", (2, 0))["members"] == M - 2 and not sure(table)
    assert value(table, "line", "greater", (2, 0))["value"] == 1, "of members 2 to 6 a later one"


@pytest.mark.parametrize("family", OTHER)
def test_a_successor_in_mlp_0_is_seen_without_a_head(family, planted):
    table = planted("mlp", family)
    row = value(table, "around", "next", (-1, -1))
    assert row["value"] == 1 and row["p"] == row["p_holm"] == pytest.approx(1 / 26)
    assert value(table, "around", "next", (-1, -1), "without_mlp0")["value"] == 0
    assert not sure(table)


@pytest.mark.parametrize("family", OTHER)
def test_without_a_successor_no_head_is_sure(family, planted):
    table = planted("nothing", family)
    assert not any(sure(table, target) for target in successors.TARGETS)
    own = table[table["target"].isin(["next", "previous", "next_next"])]
    assert (own["value"] == 0).all() and (own["p"] == 1).all(), "all logits are equal, which is no hit"
    assert (table.loc[table["target"] == "greater", "value"] == 0.5).all()
    assert table.loc[table["target"] == "greater", "random_median"].between(0.4, 0.6).all(), "of five members"


@pytest.mark.slow
def test_a_head_that_writes_the_same_whatever_it_reads_has_no_bias(planted):
    """It names the seventh member always: the next one of the sixth alone."""
    table = planted("constant", "llama")
    row = value(table, "around", "next", (1, 1))
    assert row["value"] == pytest.approx(1 / M) and row["p_holm"] > ALPHA
    assert value(table, "around", "greater", (1, 1))["value"] == 0.5


def test_heads_of_layer_0_come_before_mlp_0(planted):
    table = planted("head", "llama")
    layers = table[table["head"] >= 0].groupby("input")["layer"].min()
    assert layers.to_dict() == {"mlp0": 1, "without_mlp0": 0}
    heads = table[(table["head"] >= 0) & (table["class"] == "line") & (table["target"] == "next")]
    assert heads.groupby("input").size().to_dict() == {"mlp0": 8, "without_mlp0": 12}


@pytest.mark.slow
def test_the_same_seed_gives_the_same_table(tmp_path, planted):
    model = models.load(build_planted(CASES["head"], "llama", tmp_path), device="cpu")
    pd.testing.assert_frame_equal(successors.table(model, [CYCLIC, LINE], SETTINGS), planted("head", "llama"))


def test_without_classes_there_is_an_empty_table(shipped_model):
    assert list(successors.table(shipped_model, [], SETTINGS)) == successors.COLUMNS


# ---- written out with transformers ---------------------------------------------------------------------------
FIRST = Members("first", tuple("abcdefg"), (3, 9, 4, 11, 5, 20, 6), (0, 1, 2, 4, 5, 6, 8), 9, cyclic=True)
SECOND = Members("second", tuple("uvwxyz"), (12, 2, 25, 1, 8, 29), tuple(range(6)), 6)
NAMES = {"gpt2": ("wte", "h", "ln_f"), "llama": ("embed_tokens", "layers", "norm")}
NAMES |= {name: NAMES["llama"] for name in ("gemma3", "gemma2", "olmo2")}
NAMES |= {name: ("embed_in", "layers", "final_layer_norm") for name in ("neox", "neox sequential")}


class Network:
    """A checkpoint of transformers, of which only modules and weights are used, one token and head at a time."""

    def __init__(self, family):
        torch.manual_seed(0)
        self.family, self.network = family, build(family)
        for name, parameter in self.network.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.3)
        self.network.double().eval()
        self.base = self.network.base_model
        self.embedding, self.layers, self.final = (getattr(self.base, name) for name in NAMES[family])
        self.unembedding = self.network.get_output_embeddings().weight
        self.heads = self.network.config.num_attention_heads
        self.groups = getattr(self.network.config, "num_key_value_heads", None) or self.heads

    def start(self, token):
        return self.embedding(torch.tensor([[token]]))[0, 0]  # Gemma's module scales

    def mlp(self, x):
        layer = self.layers[0]
        if self.family == "gpt2":
            return layer.mlp(layer.ln_2(x))
        if self.family == "olmo2":
            return layer.post_feedforward_layernorm(layer.mlp(x))
        if "gemma" in self.family:
            return layer.post_feedforward_layernorm(layer.mlp(layer.pre_feedforward_layernorm(x)))
        return layer.mlp(layer.post_attention_layernorm(x))

    def head(self, layer, head, x, turn=None):
        """What it writes of a residual, [D]; b_O left out, a norm behind attention by its weight alone."""
        block, width = self.layers[layer], x.shape[-1]
        r_v, r_o = (torch.eye(width), torch.eye(width)) if turn is None else (turn.v, turn.o)
        group = head * self.groups // self.heads
        if self.family == "gpt2":
            normed, size = block.ln_1(x), width // self.heads
            at = slice(2 * width + head * size, 2 * width + (head + 1) * size)
            w_v, b_v = block.attn.c_attn.weight[:, at], block.attn.c_attn.bias[at]
            w_o = block.attn.c_proj.weight[head * size : (head + 1) * size]
        elif "neox" in self.family:
            normed, size = block.input_layernorm(x), width // self.heads
            rows = slice(3 * size * head + 2 * size, 3 * size * (head + 1))
            qkv = block.attention.query_key_value
            w_v, b_v = qkv.weight[rows].T, qkv.bias[rows]
            w_o = block.attention.dense.weight[:, head * size : (head + 1) * size].T
        else:
            normed, attention = x if self.family == "olmo2" else block.input_layernorm(x), block.self_attn
            size = attention.head_dim
            rows, own = slice(group * size, (group + 1) * size), slice(head * size, (head + 1) * size)
            w_v, b_v = attention.v_proj.weight[rows].T, attention.v_proj.bias
            b_v, w_o = 0 if b_v is None else b_v[rows], attention.o_proj.weight[:, own].T
        out = (normed @ r_v.double() @ w_v + b_v) @ w_o @ r_o.double()
        if "gemma" in self.family:
            return out * (1 + block.post_attention_layernorm.weight)
        return out * block.post_attention_layernorm.weight if self.family == "olmo2" else out

    def logits(self, x, ids):
        return (self.final(x) @ self.unembedding.T)[list(ids)].tolist()


def by_hand(logits, members):
    """The four scores of logits [read][written], each counted one by one."""
    n, hits = len(members), {}
    for name, step in {"next": 1, "previous": -1, "next_next": 2}.items():
        won = []
        for i, place in enumerate(members.places):
            target = (place + step) % members.size if members.cyclic else place + step
            if target in members.places:
                own = members.places.index(target)
                won.append(all(logits[i][own] > logits[i][j] for j in range(n) if j != own))
        hits[name] = sum(won) / len(won)
    means, above = [sum(row[j] for row in logits) / n for j in range(n)], []
    for i, place in enumerate(members.places):
        later = [logits[i][j] - means[j] for j, other in enumerate(members.places) if other >= place + 2]
        earlier = [logits[i][j] - means[j] for j, other in enumerate(members.places) if other < place]
        if later and earlier:
            above.append(sum(later) / len(later) > sum(earlier) / len(earlier))
    return hits | {"greater": sum(above) / len(above)}


FAST = ["gpt2"]
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in EVERY if name not in FAST]


@pytest.mark.parametrize("family", [*FAST, *SLOW])
def test_scores_equal_the_steps_written_out(family, tmp_path):
    """Every head, both inputs, and one draw of random heads: the median of all those of a class and target."""
    model, network = load_random(family, tmp_path), Network(family)
    settings = successors.Settings(draws=1, seed=4)
    (turn,) = random_heads.turns(model.d_model, 1, 4)
    table = successors.table(model, [FIRST, SECOND], settings)
    with torch.no_grad():
        for members in (FIRST, SECOND):
            start = [network.start(token) for token in members.ids]
            mlp = [network.mlp(x) for x in start]
            read = {"mlp0": [x + y for x, y in zip(start, mlp, strict=True)], "without_mlp0": start}
            for source, alone in (("mlp0", mlp), ("without_mlp0", start)):
                of = {(-1, -1): by_hand([network.logits(x, members.ids) for x in alone], members)}
                random = []
                for layer in range(source == "mlp0", model.n_layers):
                    for head in range(model.n_heads):
                        rows = [network.head(layer, head, x) for x in read[source]]
                        of[layer, head] = by_hand([network.logits(x, members.ids) for x in rows], members)
                        rows = [network.head(layer, head, x, turn) for x in read[source]]
                        random.append(by_hand([network.logits(x, members.ids) for x in rows], members))
                for at, expected in of.items():
                    for target, wanted in expected.items():
                        row = value(table, members.name, target, at, source)
                        assert row["value"] == pytest.approx(wanted), (members.name, source, at, target)
                        drawn = [one[target] for one in random]
                        if at != (-1, -1):
                            assert row["random_median"] == pytest.approx(np.median(drawn))
                            reached = sum(one >= wanted for one in drawn)
                            assert row["p"] == pytest.approx((1 + reached) / (1 + len(drawn)))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "llama", "neox"])
def test_a_model_without_an_engine_is_read_through_its_hooks(family, tmp_path):
    """TransformerLens's bridge of the same checkpoint: the same inputs, values and table."""
    model = load_random(family, tmp_path)
    bridge = replace(model, weights=None)
    ids = [*FIRST.ids, *SECOND.ids]
    ours, theirs = successors.read(model, ids), successors.read(bridge, ids)
    for part in ("normed", "alone"):
        for name in successors.INPUTS:
            one, other = getattr(ours, part)[name], getattr(theirs, part)[name]
            assert torch.allclose(one, other.to(one.dtype), atol=EVERY[family])
    for layer in range(model.n_layers):
        w_v, b_v = (x.repeat_interleave(4 // len(x), 0) for x in successors.values_of(model, layer))
        found = [x.repeat_interleave(4 // len(x), 0) for x in successors.values_of(bridge, layer)]
        assert torch.allclose(w_v, found[0], atol=1e-5) and torch.allclose(b_v, found[1], atol=1e-5)
    settings = successors.Settings(draws=2, seed=0)
    one, other = (successors.table(m, [FIRST, SECOND], settings) for m in (model, bridge))
    pd.testing.assert_frame_equal(one, other)
