"""What the heads of one layer read in an edge circuit, and what their projections make of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from atlas.edges.frame import rows_in
from atlas.model.block import Block

if TYPE_CHECKING:
    from atlas.edges.passes import Pass

GROUPS = 3  # up to so many different inputs of a layer's heads are projected one after another, more of them at once


class Inputs:
    """What the heads of one layer read, after the first norm: one tensor for each set of senders."""

    def __init__(self, made: Pass, layer: int) -> None:
        self.made, self.layer, self.block = made, layer, made.run.blocks[layer]
        self.normed: dict[tuple[int, bool], torch.Tensor] = {}  # of few sets, which other parts may read too

    def read(self, rows: Sequence[int], everywhere: bool) -> torch.Tensor:
        """[rows, 1 or N, S or K, D] for each set of senders."""
        x = self.made.reads(2 * self.layer, rows, everywhere)
        return self.block.norm1(x.flatten(0, 1)).view(x.shape)

    def projected(self, part: str, owners: list[int], everywhere: bool) -> torch.Tensor:
        """Queries, keys or values [1 or N, len(owners), P, d_head]; those that read the same are taken together."""
        rows = self.made.rows_of(part, self.layer, owners)
        together_by = {row: [i for i, other in enumerate(rows) if other == row] for row in dict.fromkeys(rows)}
        distinct = list(together_by)
        if len(distinct) > GROUPS:
            x = self.read(distinct, everywhere)
            if len(distinct) < len(rows):
                x = x[[distinct.index(row) for row in rows]]
            return projected_each(self.block, part, x, owners)
        if new := [row for row in distinct if (row, everywhere) not in self.normed]:
            self.normed |= {(row, everywhere): x for row, x in zip(new, self.read(new, everywhere), strict=True)}
        if len(distinct) == 1:
            return self.block.project(part, self.normed[rows[0], everywhere], owners)
        parts = [
            self.block.project(part, self.normed[row, everywhere], [owners[i] for i in some])
            for row, some in together_by.items()
        ]
        order, n = [i for some in together_by.values() for i in some], max(map(rows_in, parts))
        parts = [self.made.spread(x, n).expand(n, *x.shape[1:]) for x in parts]
        return torch.cat(parts, dim=1)[:, [order.index(i) for i in range(len(order))]]


def projected_each(block: Block, part: str, x: torch.Tensor, owners: Sequence[int]) -> torch.Tensor:
    """`Block.project` where each of the heads has its own input, x [h, N, P, D]: [N, h, P, d_head]."""
    weight, bias = block.linear(part)
    if list(owners) != list(range(len(bias))):
        index = torch.tensor(owners, device=weight.device)
        weight, bias = weight[:, index], bias[index]
    out = torch.baddbmm(bias[:, None], x.flatten(1, 2), weight.transpose(0, 1))
    return out.view(*x.shape[:3], -1).transpose(0, 1)
