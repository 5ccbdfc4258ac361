"""Singular vectors of what a head or an MLP writes, and the part of its output along one direction.

Weights are read in the space of tokens, as in arXiv 2209.02535.

*Of a head*: M = R O, R [D, d_head] being W_V
of the head's key/value group with the linear part of the norm that it reads through folded in, O [d_head, D] its W_O,
with that of a norm behind attention. M = sum over j of s_j u_j v_j: a normed residual x adds s_j (x . u_j) v_j along
the unit vector v_j. The v_j span all that the head can write; so its output at any place, biases of V included, is the
sum over j of its parts along them. *Of an MLP*: O [d_mlp, D], its last map, with a norm behind it; u_j is then over
neurons. Where singular values are equal their vectors are no more than a basis of what they span.

A direction d of what is written is ablated by moving the output along d alone, to where it is in what the study puts in
the component's place: of a head as z + ((z' - z) . O d) (d O^+), which moves z O by ((z' O - z O) . d) d; of an MLP as
what it adds to the residual stream. Over all v_j together this is the ablation of the whole component.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from atlas.geometry.tails import Split, Tail, weights_of
from atlas.heads.ov import written

if TYPE_CHECKING:
    from atlas.core.components import Component
    from atlas.model.models import Model

RANK = 1e-6  # singular values below this share of the largest are no direction


@dataclass(frozen=True)
class Directions:
    """The r directions of a component, by falling singular value; float64 on the CPU.

    ``values`` [r]; ``read`` [D, r] of a head, [d_mlp, r] of an MLP; ``write`` [r, D] unit vectors; ``out`` [d_head or
    d_mlp, D] the last map.
    """

    component: Component
    values: torch.Tensor
    read: torch.Tensor
    write: torch.Tensor
    out: torch.Tensor

    def __len__(self) -> int:
        return len(self.values)

    def turned(self, sign: torch.Tensor) -> Directions:
        """With u_j and v_j times ``sign`` [r], which changes nothing else."""
        return Directions(self.component, self.values, self.read * sign, self.write * sign[:, None], self.out)

    def coefficients(self, split: Split, replaced: bool = False) -> torch.Tensor:
        """[N, r] the component's output at the last position along each v_j; ``replaced``: in the study's ablation."""
        c, tail, w = self.component, split.tail, self.write
        if c.is_mlp:
            out = split.mlp[c.layer] if replaced else tail.mlp_out(c.layer)
            return out.double().cpu().expand(len(tail), -1) @ w.T
        z = split.z[c.layer][:, c.head] if replaced else tail.z[c.layer][:, 0, c.head]
        return z.double().cpu().expand(len(tail), -1) @ self.out @ w.T

    def attribution(self, split: Split, points: int) -> torch.Tensor:
        """[N, r] what ablating each direction costs by gradients, in logits: (clean - ablated coefficient) times the
        gradient of the logit difference along it, averaged over ``points`` on the way of the whole component's ablation
        (`Tail.gradient`). Its sum over directions is what that costs, but for the rest of the mean over points."""
        c, tail = self.component, split.tail
        moved = self.coefficients(split) - self.coefficients(split, replaced=True)
        if c.is_mlp:
            out = tail.mlp_out(c.layer)
            ends = out, split.mlp[c.layer].expand_as(out)
            by_out = tail.gradient(lambda x: tail.with_mlp(c.layer, x), *ends, points)
            return moved * (by_out.double().cpu() @ self.write.T)
        clean = tail.z[c.layer][:, 0]
        ablated = clean.clone()
        ablated[:, c.head] = split.z[c.layer][:, c.head]
        by_z = tail.gradient(lambda z: tail.with_z(c.layer, z), clean, ablated, points)[:, c.head]
        return moved * (by_z.double().cpu() @ self.dual(self.write).T)

    def dual(self, directions: torch.Tensor) -> torch.Tensor:
        """[n, d_head] the z whose write is each of ``directions`` [n, D], which the head can write."""
        found: torch.Tensor = directions @ torch.linalg.pinv(self.out)
        return found

    def losses(self, split: Split, directions: torch.Tensor) -> torch.Tensor:
        """[n, N] logits that ablating the output along each of ``directions`` [n, D], unit vectors, costs."""
        run = self.along_mlp if self.component.is_mlp else self.along_head
        return split.tail.clean().double().cpu() - split.tail.in_parts(
            len(directions), lambda part: run(split, directions[part])
        )

    def along_mlp(self, split: Split, directions: torch.Tensor) -> torch.Tensor:
        """[c, N] logit differences without each direction."""
        layer, tail = self.component.layer, split.tail
        out = tail.mlp_out(layer)
        d = directions.to(out)
        change = (split.mlp[layer] - out) @ d.T  # [N, c]
        return tail.with_mlp(layer, out[:, None] + change[..., None] * d)

    def along_head(self, split: Split, directions: torch.Tensor) -> torch.Tensor:
        """[c, N] the same of a head."""
        c, tail = self.component, split.tail
        z = tail.z[c.layer][:, 0]
        read, back = (x.to(z) for x in (self.out @ directions.T, self.dual(directions)))
        change = (split.z[c.layer][:, c.head] - z[:, c.head]) @ read  # [N, c]
        moved = z[:, None].repeat(1, len(directions), 1, 1)
        moved[:, :, c.head] += change[..., None] * back
        return tail.with_z(c.layer, moved)

    def random(self, n: int, seed: int) -> torch.Tensor:
        """[n, D] unit vectors, uniform over directions of what the component can write."""
        x = torch.randn(n, len(self), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        found: torch.Tensor = x / x.norm(dim=1, keepdim=True) @ self.write
        return found


def of_component(model: Model, component: Component) -> Directions:
    """The directions of a head or an MLP; raises StudyError where the model has no live engine."""
    block = weights_of(model, "directions").blocks[component.layer]
    if component.is_mlp:
        w, norm = block.mlp.down[0], block.norm_mlp_out
        out = (w if norm is None else norm.linear(w)).detach().double().cpu()
        u, s, v = torch.linalg.svd(out, full_matrices=False)
        held = s > RANK * s.max()
        return Directions(component, s[held], u[:, held], v[held], out)
    out = written(model, component.layer)[component.head].detach().double().cpu()
    w_v = block.w_v[:, block.owners[component.head]]
    read = block.norm1.back(w_v.T).T.detach().double().cpu()
    return Directions(component, *factored(read, out), out)


def factored(read: torch.Tensor, out: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(values [r], u [D', r], v [r, D]) of read [D', K] @ out [K, D]. r is the rank of ``out``, whose rows v spans also
    where the product is of lower rank. Never more than [max(D', D), K] at a time."""
    _, s, basis = torch.linalg.svd(out, full_matrices=False)
    basis = basis[s > RANK * s.max()]
    q, r = torch.linalg.qr(read)
    u, values, v = torch.linalg.svd(r @ (out @ basis.T), full_matrices=False)
    return values, q @ u, v @ basis


def logits_of(tail: Tail) -> torch.Tensor:
    """[N] clean logit differences, float64 on the CPU."""
    return tail.clean().double().cpu()
