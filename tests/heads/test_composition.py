"""Composition scores: naive products of whole matrices, TransformerLens, and pairs that compose by construction."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atlas.core.errors import StudyError
from atlas.core.graph import Edge
from atlas.heads import composition
from random_models import EVERY, load_random


@pytest.fixture(scope="module", params=EVERY)
def tiny_model(request, tmp_path_factory):
    return load_random(request.param, tmp_path_factory.mktemp("random") / "model")


def naive(model, kind: str, sender: tuple[int, int], receiver: tuple[int, int]) -> float:
    """The definition, with D x D matrices in numpy, norms and centring written out."""

    def times(w, norm, head=0):
        """w with the weight of a norm of RMSNorm's kind behind it; the numbers of one head where it is of all heads."""
        if norm is None:
            return w
        return w @ np.diag((norm.weight if norm.weight.dim() == 1 else norm.weight[head]).double().numpy())

    def whole(layer, head):
        block = model.weights.blocks[layer]
        d = block.w_q.shape[0]
        through = np.diag(block.norm1.weight.double().numpy())
        if block.norm1.centred:
            through = (np.eye(d) - 1 / d) @ through
        group = block.w_q.shape[1] // block.w_k.shape[1]
        parts = ((block.w_q, head), (block.w_k, head // group), (block.w_v, head // group))
        w_q, w_k, w_v = (through @ w[:, h].double().numpy() for w, h in parts)
        w_q, w_k = times(w_q, block.norm_q, head), times(w_k, block.norm_k, head // group)
        return w_q @ w_k.T, w_v @ times(block.w_o[head].double().numpy(), block.norm_attn_out)

    (_, ov), (qk, ov_of_receiver) = whole(*sender), whole(*receiver)
    read = {"Q": qk, "K": qk.T, "V": ov_of_receiver}[kind]
    return np.linalg.norm(ov @ read) / np.linalg.norm(ov) / np.linalg.norm(read)


def test_scores_equal_the_definition(tiny_model):
    found = composition.scores(tiny_model)
    assert len(found) == 3 * tiny_model.n_heads**2 * tiny_model.n_layers * (tiny_model.n_layers - 1) // 2
    for row in found.itertuples():
        sender, receiver = (tuple(map(int, name.split("."))) for name in (row.sender, row.receiver))
        assert row.value == pytest.approx(naive(tiny_model, row.kind, sender, receiver), abs=1e-9)
        assert 0 <= row.value <= 1 and row.baseline == pytest.approx(tiny_model.d_model**-0.5)


def test_ports_are_those_of_edges(tiny_model):
    found = composition.scores(tiny_model)
    shared = tiny_model.n_kv_heads < tiny_model.n_heads
    for row in found.itertuples():
        layer, head = map(int, row.receiver.split("."))
        group = head * tiny_model.n_kv_heads // tiny_model.n_heads
        expected = f"{layer}.kv{group}" if shared and row.kind != "Q" else row.receiver
        assert row.port == f"{expected}.{row.kind.lower()}"


def test_scores_equal_transformer_lens_without_norms(tiny_model):
    """Its factored matrices know no norm: ours are folded, so its are given the folded weights."""
    from transformer_lens import FactoredMatrix

    found = composition.scores(tiny_model).set_index(["kind", "sender", "receiver"]).value
    first, second = (composition.maps_of(tiny_model, layer) for layer in (0, 1))
    for a, b in np.ndindex(tiny_model.n_heads, tiny_model.n_heads):
        ov = FactoredMatrix(first.w_v[a], first.w_o[a])
        qk = FactoredMatrix(second.w_q[b], second.w_k[b].mT)
        read = {"Q": qk, "K": qk.T, "V": FactoredMatrix(second.w_v[b], second.w_o[b])}
        for kind, matrix in read.items():
            theirs = (ov @ matrix).norm() / ov.norm() / matrix.norm()
            assert found[kind, f"0.{a}", f"1.{b}"] == pytest.approx(float(theirs), abs=1e-9)


NO_NORM = {"norm_q": None, "norm_k": None, "norm_attn_out": None}


# ---- nulls ---------------------------------------------------------------------------------------------------
def planted(d=24, d_head=3, aligned=True):
    """Two layers of one head each, without centring; the second reads by its query what the first writes, or not."""
    generator = torch.Generator().manual_seed(3)
    basis = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q

    def block(**maps):
        return SimpleNamespace(norm1=SimpleNamespace(weight=torch.ones(d), centred=False), **NO_NORM, **maps)

    rest = basis[:, 6:9, None].transpose(1, 2)  # [D, 1, d_head]
    written = basis[:, :d_head]
    read = written if aligned else basis[:, 12 : 12 + d_head]
    first = block(w_q=rest, w_k=rest, w_v=rest, w_o=written.T[None])
    second = block(w_q=read[:, None], w_k=rest, w_v=rest, w_o=rest.permute(1, 2, 0))
    sizes = {"n_layers": 2, "n_heads": 1, "n_kv_heads": 1, "d_head": d_head, "d_model": d}
    return SimpleNamespace(weights=SimpleNamespace(blocks=[first, second]), **sizes)


def test_a_head_that_reads_all_that_another_one_writes_stands_out():
    found = composition.scores(planted()).set_index("kind")
    assert found.value["Q"] == pytest.approx(3**-0.5)  # three equal singular values each: 1 / sqrt(rank) is the most
    assert found.value["Q"] > found.null_high["Q"]
    assert found.value["K"] == pytest.approx(0, abs=1e-9) and found.value["V"] == pytest.approx(0, abs=1e-9)
    apart = composition.scores(planted(aligned=False)).set_index("kind")
    assert apart.value["Q"] == pytest.approx(0, abs=1e-9)


def test_random_heads_score_the_baseline_and_seldom_exceed_the_null():
    """One pair in twenty exceeds it; from 200 draws and 400 pairs a standard deviation is 1.9 points, of which four."""
    d, d_head, n_heads = 48, 6, 20
    generator = torch.Generator().manual_seed(0)

    def block():
        w = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
        maps = {name: w(d, n_heads, d_head) for name in ("w_q", "w_k", "w_v")}
        return SimpleNamespace(
            norm1=SimpleNamespace(weight=torch.ones(d), centred=False), w_o=w(n_heads, d_head, d), **NO_NORM, **maps
        )

    sizes = {"n_layers": 2, "n_heads": n_heads, "n_kv_heads": n_heads, "d_head": d_head, "d_model": d}
    found = composition.scores(SimpleNamespace(weights=SimpleNamespace(blocks=[block(), block()]), **sizes), seed=1)
    for _, rows in found.groupby("kind"):
        assert np.sqrt((rows.value**2).mean()) == pytest.approx(d**-0.5, rel=0.02)
        assert abs((rows.value > rows.null_high).mean() - 0.05) < 0.076


def test_without_an_engine_it_is_refused():
    with pytest.raises(StudyError, match=r"heads\.analyses: composition"):
        composition.maps_of(SimpleNamespace(weights=None), 0)


# ---- beside edges --------------------------------------------------------------------------------------------
def pairs(values: dict[tuple[str, str], float]):
    """A table of scores with these values for V, and none of Q and K."""
    rows = [("V", s, r, f"{r}.v", value, 0.1, 0.2) for (s, r), value in values.items()]
    return pd.DataFrame(rows, columns=composition.COLUMNS)


NAMES = [f"{layer}.{head}" for layer in range(3) for head in range(4)]
LATER = [(s, r) for s in NAMES for r in NAMES if s[0] < r[0]]


def test_pairs_that_compose_most_and_are_kept_have_the_whole_area_and_a_small_p():
    rng = np.random.default_rng(0)
    values = dict(zip(LATER, rng.permutation(len(LATER)), strict=True))
    kept = sorted(LATER, key=values.get)[-10:]
    found = composition.against_edges(pairs(values), [Edge(s, f"{r}.v") for s, r in kept], NAMES).set_index("kind")
    assert found.auroc["V"] == 1 and found.p["V"] < 0.01 and found.null_high["V"] < 1
    assert (found.pairs["V"], found.edges["V"]) == (len(LATER), 10)
    assert np.isnan(found.auroc["Q"]) and found.edges["Q"] == 0


def test_what_layers_alone_explain_is_no_evidence():
    """All pairs of layers 0 and 1 are kept and compose most, equally: any exchange within layers does as well."""
    values = {(s, r): float((s[0], r[0]) == ("0", "1")) for s, r in LATER}
    kept = [Edge(s, f"{r}.v") for (s, r), value in values.items() if value]
    found = composition.against_edges(pairs(values), kept, NAMES).set_index("kind").loc["V"]
    assert found.auroc == 1 and found.p == 1 and found.null_low == 1


def test_p_is_uniform_where_edges_are_drawn_at_random():
    """Of 200 random circuits a tenth has p <= 0.1: 20 with a standard deviation of 4.2, of which four are allowed."""
    few, small = composition.PERMUTATIONS, 0
    composition.PERMUTATIONS = 99
    try:
        for seed in range(200):
            rng = np.random.default_rng(seed)
            values = dict(zip(LATER, rng.random(len(LATER)), strict=True))
            kept = [Edge(s, f"{r}.v") for s, r in (LATER[i] for i in rng.choice(len(LATER), 12, replace=False))]
            small += composition.against_edges(pairs(values), kept, NAMES, seed).set_index("kind").p["V"] <= 0.1
    finally:
        composition.PERMUTATIONS = few
    assert 20 - 17 <= small <= 20 + 17


@given(st.integers(0, 99))
def test_permutations_keep_layers(seed):
    layers = np.array([0, 0, 2, 3, 3, 3])
    for order in composition.permutations(layers, seed)[:5]:
        assert (layers[order] == layers).all() and sorted(order) == list(range(6))
