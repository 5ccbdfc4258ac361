"""Pieces of the layer that say the same in several ways agree, so that an ingredient added to one is missed in none."""

from dataclasses import replace

import pytest
import torch

from atlas.model import models
from atlas.model.attention import Positions
from atlas.model.norm import Norm
from random_models import EVERY, D, H, N, S, load_random

DTYPE = torch.float64


BEHIND = "norms behind both parts"


@pytest.fixture(scope="module", params=[*EVERY, BEHIND])
def block(request, tmp_path_factory):
    normed = request.param == BEHIND
    family = next(iter(EVERY)) if normed else request.param
    model: models.Model = load_random(family, tmp_path_factory.mktemp("block") / "model")
    block = model.weights.blocks[2]  # a window, where a family has one
    if normed:
        weight = torch.linspace(0.5, 2, D, dtype=DTYPE)
        block = replace(block, norm_attn_out=Norm(weight, None, 1e-6, False), norm_mlp_out=Norm(weight, None, 1e-6))
    return block


@pytest.fixture(scope="module")
def x():
    return torch.randn(N, S, D, generator=torch.Generator().manual_seed(0), dtype=DTYPE)


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() < 1e-9)


PLACES = {
    "one for all": torch.tensor([S - 1]),
    "some for all": torch.tensor([4, 2]),
    "each row its own": torch.arange(2 * N).view(N, 2) % S,
    "rows that agree": torch.tensor([[1, 3]] * N),
}


@pytest.mark.parametrize("place", PLACES)
def test_attention_is_the_same_at_some_positions_as_everywhere_and_by_its_pattern(block, x, place):
    normed = block.norm1(x)
    k, v = block.keys_values(normed)
    whole = block.attend(block.queries(normed), k, v)
    assert close(block.mix(block.pattern(block.queries(normed), k), v), whole)
    at = Positions(PLACES[place])
    assert close(block.attend(block.queries(at.take(normed), at), k, v, at), at.take(whole))
    heads = [3, 1]
    owners = [sorted({block.owners[h] for h in heads}).index(block.owners[h]) for h in heads]
    used = sorted({block.owners[h] for h in heads})
    some = block.attend(block.queries(normed, heads=heads), *block.keys_values(normed, heads=used), owners=owners)
    assert close(some, whole[:, :, heads])


@pytest.mark.parametrize("start", [0, 3, S - 1])
def test_a_span_of_positions_reads_on_from_the_keys_before_it(block, x, start):
    normed, at = block.norm1(x), Positions.span(start, S, x.device)
    expected, found = Positions(torch.arange(start, S)).mask(S), at.mask(S)
    assert (found is None and expected is None) or found.equal(expected)
    whole, end = block.keys_values(normed), block.keys_values(normed[:, start:], at)
    k, v = (torch.cat((old[:, :, :start], new), 2) for old, new in zip(whole, end, strict=True))
    assert close(k, whole[0]) and close(v, whole[1])
    z = block.attend(block.queries(normed), *whole)
    assert close(block.attend(block.queries(normed[:, start:], at), k, v, at), z[:, start:])


def test_the_residual_after_attention_is_the_same_in_every_way(block, x):
    z = torch.randn(N, S, H, D // H, generator=torch.Generator().manual_seed(1), dtype=DTYPE)
    writes = block.head_writes(z)
    after = block.after_attention(x, writes)
    assert close(after, x + block.attn_out(writes))
    assert close(writes, sum(block.head_write(z[:, :, h], h) for h in range(H)))
    kept, others = [0, 2], [1, 3]
    constant = block.b_o + block.head_writes(z[:, :, others], others)
    assert close(block.of_heads(kept).after_kept(x, z[:, :, kept], constant), after)
    assert close(block.after_kept(x, z, block.b_o), after)
    assert close(block.after_kept(x, None, block.b_o + writes), after)
    twice = block.after_kept(torch.cat((x, x)), None, block.b_o + writes)
    assert close(twice, torch.cat((after, after))), "what one row for each prompt says holds for copies of the rows"
    change = block.head_write(z[:, :, 1].flip(0), 1)
    assert close(block.after_change(x, writes, after, change), block.after_attention(x, writes + change))
    expected = after + block.mlp_out(x if block.parallel else after)
    assert close(block.after_mlp(x, after), expected)


def test_what_projects_is_linear_and_takes_some_heads_as_it_takes_all(block, x):
    zero = torch.zeros_like(x)
    for part, number in (("q", block.n_heads), ("k", block.n_kv_heads), ("v", block.n_kv_heads)):
        whole, (w, b) = block.project(part, x), block.linear(part)
        assert w.shape == (D, number, D // H) and b.shape == (number, D // H)
        assert close(whole - block.project(part, zero), torch.einsum("nsd,dhe->nhse", x, w))
        assert close(block.project(part, x, [number - 1]), whole[:, [number - 1]])


@pytest.mark.parametrize("heads", [[0], [3, 1], [1, 2, 3], list(range(H))], ids=str)
@pytest.mark.parametrize("place", [None, *PLACES])
def test_a_layer_of_some_heads_is_the_layer_at_these_heads(block, x, heads, place):
    """One weight for queries, keys and values, everywhere and at some positions."""
    at, normed = None if place is None else Positions(PLACES[place]), block.norm1(x)
    read, owners = block.readers(heads)
    asked = normed if at is None else at.take(normed)
    expected = block.queries(asked, at, heads), *block.keys_values(normed, heads=read)
    some = block.of_heads(heads)
    found = some.all_three(normed, at)
    assert all(map(close, found, expected))
    whole = block.attend(block.queries(asked, at), *block.keys_values(normed), at)[:, :, heads]
    assert close(some.attend(*found, at, owners), whole)
    assert close(some.head_writes(whole), block.head_writes(whole, heads))


def test_copies_of_rows_stand_where_the_rows_do(x):
    for index in PLACES.values():
        at = Positions(index)
        assert close(at.repeat(2).take(torch.cat((x, x))), torch.cat((at.take(x), at.take(x))))
    assert Positions(PLACES["rows that agree"]).index.dim() == 1
