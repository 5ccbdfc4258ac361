"""The MLP of a layer: two linear maps with an activation between them, or, with a gate, three.

Between the maps stands the largest tensor of a pass, [N P, 4 D]. On a CPU, where nothing asks for a gradient, it is
activated in place and a few rows at a time, which stay in the processor's own memory: another tensor of that size would
be paid for by the page. On a GPU one kernel does better, and with a gradient what is saved must stay.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

Linear = tuple[torch.Tensor, torch.Tensor]  # weight [in, out], bias [out]
Activation = Callable[[torch.Tensor], torch.Tensor]

AT_ONCE = 2**17  # numbers between the maps that are activated at a time: half a megabyte, and as much beside it


@dataclass(frozen=True)
class Mlp:
    """Two linear maps with an activation between them; with ``gate``, the activation of a third times the first."""

    up: Linear
    down: Linear
    activation: Activation
    gate: Linear | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """What the MLP makes of its normed input x [N, P, D], biases included."""
        w_down, b_down = self.down
        rows = x.flatten(0, 1)
        hidden = self.in_parts(rows) if in_place(rows) else self.whole(rows)
        return torch.addmm(b_down, hidden, w_down).view(*x.shape[:-1], -1)

    def whole(self, x: torch.Tensor) -> torch.Tensor:
        """[n, d_mlp] between the maps, of normed rows x [n, D]."""
        up = torch.addmm(self.up[1], x, self.up[0])
        return up.mul(self.activation(torch.addmm(self.gate[1], x, self.gate[0]))) if self.gate else self.activation(up)

    def in_parts(self, x: torch.Tensor) -> torch.Tensor:
        """The same, activated in place by some rows at a time; takes no gradient."""
        (w_up, b_up), gate = self.up, self.gate
        hidden, size = torch.addmm(b_up, x, w_up), max(1, AT_ONCE // w_up.shape[1])
        gates = torch.addmm(gate[1], x, gate[0]).split(size) if gate else ()
        for i, part in enumerate(hidden.split(size)):
            part.mul_(self.activation(gates[i])) if gate else part.copy_(self.activation(part))
        return hidden

    def firsts(self) -> list[Linear]:
        """The maps that read the residual."""
        return [self.up, self.gate] if self.gate else [self.up]

    def after_firsts(self, *inner: torch.Tensor) -> torch.Tensor:
        """[n, D] what the MLP gives, of what `firsts` make of its input, [n, d_mlp] each, biases included; changed."""
        up, size = inner[0], max(1, AT_ONCE // inner[0].shape[1])
        for part in zip(*(x.split(size) for x in inner), strict=True):
            part[0].mul_(self.activation(part[1])) if self.gate else part[0].copy_(self.activation(part[0]))
        return torch.addmm(self.down[1], up, self.down[0])

    @property
    def flops(self) -> int:
        """Multiply-adds at one position."""
        return sum(linear[0].numel() for linear in (self.up, self.down, self.gate) if linear)


def in_place(x: torch.Tensor) -> bool:
    """Whether steps in place pay: on a CPU, without a gradient, and not in halves, which each step would round."""
    return x.device.type == "cpu" and not x.requires_grad and x.dtype.itemsize >= 4
