"""The MLP in parts and in place equals the plain expression; tanh-GELU equals PyTorch's."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from atlas.model import mlp
from atlas.model.mlp import Mlp, tanh_gelu
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


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_the_logistic_form_of_tanh_gelu_is_as_exact_as_pytorchs(dtype, tolerance):
    """Of values up to 30: absolute, some roundings; where it underflows to zero, both do."""
    x = torch.linspace(-30, 30, 100_001, dtype=dtype)
    exact = F.gelu(x.double(), approximate="tanh")
    assert (tanh_gelu(x) - exact).abs().max() <= tolerance * 4
    assert (tanh_gelu(x) - F.gelu(x, approximate="tanh")).abs().max() <= tolerance * 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_rounded_once(dtype):
    x = torch.linspace(-5, 5, 1001, dtype=dtype)
    assert torch.equal(tanh_gelu(x), F.gelu(x, approximate="tanh"))


def test_gradients_of_tanh_gelu_are_pytorchs():
    x = torch.linspace(-5, 5, 101, dtype=torch.float64, requires_grad=True)
    found, expected = (torch.autograd.grad(f(x).sum(), x)[0] for f in (tanh_gelu, ACTIVATIONS["gelu_new"]))
    assert torch.equal(found, expected)
    step = 1e-6
    slope = (tanh_gelu(x.detach() + step) - tanh_gelu(x.detach() - step)) / (2 * step)
    assert (found - slope).abs().max() < 1e-8, "of the function that is used without a gradient"


def test_an_activation_without_a_form_in_place_is_applied_as_it_is():
    m = replace(made("relu", False), activation=lambda x: (x * 2).cos())
    x = torch.randn(N, P, D, dtype=torch.float64)
    assert (m(x) - plain(m, x)).abs().max() < 1e-10
