"""The MLP in parts and in place equals the plain expression."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from atlas.model import mlp
from atlas.model.mlp import Mlp
from atlas.model.reading import ACTIVATIONS

N, P, D, WIDE = 5, 7, 16, 48


def made(name, gated, dtype=torch.float64):
    rng = torch.Generator().manual_seed(0)

    def linear(a, b):
        return tuple(torch.randn(*size, generator=rng, dtype=dtype) for size in ((a, b), (b,)))

    return Mlp(linear(D, WIDE), linear(WIDE, D), ACTIVATIONS[name], linear(D, WIDE) if gated else None)


def plain(m: Mlp, x: torch.Tensor) -> torch.Tensor:
    up = x @ m.up[0] + m.up[1]
    hidden = m.activation(x @ m.gate[0] + m.gate[1]) * up if m.gate else m.activation(up)
    return hidden @ m.down[0] + m.down[1]


@pytest.mark.parametrize("rows", [1, 4, N * P, 100])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_parts_of_any_size_are_the_whole(monkeypatch, name, gated, rows):
    """float64: 1e-12 of numbers of order 100; nothing but the order of sums differs."""
    monkeypatch.setattr(mlp, "AT_ONCE", rows * WIDE)
    m, x = made(name, gated), torch.randn(N, P, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    before, expected = x.clone(), plain(m, x)
    assert (m(x) - expected).abs().max() < 1e-12 * expected.abs().max()
    assert torch.equal(x, before), "the input is left as it was"
    with_gradient = x.clone().requires_grad_()
    found = m(with_gradient)
    assert (found - expected).abs().max() < 1e-12 * expected.abs().max()
    (gradient,) = torch.autograd.grad(found.sum(), with_gradient)
    (true,) = torch.autograd.grad(plain(m, with_gradient).sum(), with_gradient)
    assert (gradient - true).abs().max() < 1e-12 * true.abs().max()


def test_float32_has_the_bits_of_the_whole():
    """So that what was computed before the MLP ran in parts is what is computed now."""
    m = made("gelu_new", False, torch.float32)
    x = torch.randn(64, P, D, generator=torch.Generator().manual_seed(1))
    hidden = F.gelu(torch.addmm(m.up[1], x.flatten(0, 1), m.up[0]), approximate="tanh")
    assert torch.equal(m(x), torch.addmm(m.down[1], hidden, m.down[0]).view_as(x))


def test_an_activation_without_a_form_in_place_is_applied_as_it_is():
    m = replace(made("relu", False), activation=lambda x: (x * 2).cos())
    x = torch.randn(N, P, D, dtype=torch.float64)
    assert (m(x) - plain(m, x)).abs().max() < 1e-10
