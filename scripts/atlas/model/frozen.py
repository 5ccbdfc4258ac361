"""A model that computes the same and whose gradient is relevance patching's (RelP, arXiv 2508.21258; methods: edges).

In its backward pass these are constants: the denominator of every norm, the attention pattern, and of an activation,
or of a cap of logits, the ratio f(x) / x. Of a product of two activations, a gate and what it multiplies, each gets
half of the gradient. So the gradient is that of a function which equals the model where it is taken and is linear,
apart from biases, in every residual: a step along it is exact however large.

Nothing flows back into queries and keys. Values are the model's own but for rounding.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch

from atlas.model.attention import Positions, all_positions, attention_weights
from atlas.model.block import Block, Weights, numbers
from atlas.model.logits import at_least_float32
from atlas.model.mlp import Mlp
from atlas.model.norm import NoNorm, Norm

NEAR = 1e-3  # f(x) / x at x = 0 is the slope of f there, taken between minus and plus this


def straight(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """function(x) of an elementwise function that is 0 at 0, whose gradient is function(x) / x."""
    with torch.no_grad():
        near = torch.full_like(x[..., :1], NEAR)
        slope = (function(near) - function(-near)) / (2 * NEAR)
        ratio = torch.where(x == 0, slope, function(x) / torch.where(x == 0, 1, x))
    return x * ratio


@dataclass(frozen=True)
class FrozenNorm(Norm):
    """A norm whose denominator is a constant."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        y = at_least_float32(x)
        y = y - y.mean(-1, keepdim=True) if self.centred else y
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps).detach()
        if not self.centred:
            return self.weighted(y, self.weight, x.dtype)
        return (self.weight * y if self.bias is None else self.weight * y + self.bias).to(x.dtype)


@dataclass(frozen=True)
class FrozenMlp(Mlp):
    """An MLP whose activation is a constant times its input; a gate shares the gradient with what it multiplies."""

    def whole(self, x: torch.Tensor) -> torch.Tensor:
        up = torch.addmm(self.up[1], x, self.up[0])
        if not self.gate:
            return straight(self.activation, up)
        gate = straight(self.activation, torch.addmm(self.gate[1], x, self.gate[0]))
        return (up * gate.detach() + up.detach() * gate) / 2


@dataclass(frozen=True)
class FrozenBlock(Block):
    """A layer whose attention patterns are constants."""

    def attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        at: Positions | None = None,
        owners: list[int] | None = None,
    ) -> torch.Tensor:
        if owners is not None:
            k, v = (x.index_select(1, numbers(tuple(owners), x.device)) for x in (k, v))
        with torch.no_grad():
            mask = (at or all_positions(k.shape[2], q.device)).mask(k.shape[2], self.window)
            pattern = attention_weights(q, k, mask, self.scale, self.cap)
        return self.mix(pattern, v)


@dataclass(frozen=True)
class FrozenWeights(Weights):
    """A model of such layers, whose cap of logits is a constant ratio too."""

    def shown(self, logits: torch.Tensor) -> torch.Tensor:
        return logits if self.logit_factor is None and self.logit_cap is None else straight(super().shown, logits)


def frozen(weights: Weights) -> Weights:
    """The model of ``weights``, which it shares, with the gradient of relevance patching."""
    blocks, final = [layer(block) for block in weights.blocks], of_norm(weights.norm_final)
    found: Weights = as_a(FrozenWeights, weights, blocks=blocks, norm_final=final)
    return found


def layer(block: Block) -> Block:
    """A layer with constant norms, patterns and ratios. Norms of queries and keys are part of the pattern."""
    names = ("norm1", "norm2", "norm_attn_out", "norm_mlp_out")
    norms = {name: of_norm(getattr(block, name)) for name in names}
    found: Block = as_a(FrozenBlock, block, mlp=as_a(FrozenMlp, block.mlp), **norms)
    return found


def of_norm(own: Norm | None) -> Norm | None:
    """A norm with a constant denominator; what has none stays as it is."""
    return own if own is None or isinstance(own, NoNorm) else as_a(FrozenNorm, own)


def as_a(kind: type[Any], made: Any, **changes: Any) -> Any:
    """A record of a subclass with the fields of ``made``, but for these changes."""
    return kind(**{field.name: getattr(made, field.name) for field in fields(made)} | changes)
