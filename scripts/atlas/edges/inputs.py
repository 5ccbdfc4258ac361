"""What the heads of one layer read in an edge circuit, and what their projections make of it."""

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch

from atlas.edges.frame import Frame, rows_in
from atlas.model.attention import Positions
from atlas.model.block import Block

GROUPS = 3  # up to so many different inputs of a layer's heads are projected one after another, more of them at once


class Reader(Protocol):
    """What of a `Pass` is needed here."""

    run: Frame

    def reads(self, level: int, rows: Sequence[int], everywhere: bool) -> torch.Tensor: ...
    def rows_of(self, part: str, layer: int, owners: Iterable[int]) -> list[int]: ...
    def spread(self, x: torch.Tensor, n: int) -> torch.Tensor: ...
    def positions_of(self, n: int) -> Positions: ...


class Inputs:
    """What the heads of one layer read, after the first norm: one tensor for each set of senders.

    Queries and keys are given as they are projected; where one norm is of all heads' together, as they enter the
    scores, since that norm is of what all heads would make of what one receiver reads.
    """

    def __init__(self, made: Reader, layer: int) -> None:
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
            found = projected_each(self.block, part, x, owners)
            at = None if everywhere else self.made.positions_of(rows_in(found))
            return placed_each(self.block, part, found, x, owners, at) if joint(self.block, part) else found
        if new := [row for row in distinct if (row, everywhere) not in self.normed]:
            self.normed |= {(row, everywhere): x for row, x in zip(new, self.read(new, everywhere), strict=True)}
        if len(distinct) == 1:
            return self.of(part, self.normed[rows[0], everywhere], owners, everywhere)
        parts = [
            self.of(part, self.normed[row, everywhere], [owners[i] for i in some], everywhere)
            for row, some in together_by.items()
        ]
        order, n = [i for some in together_by.values() for i in some], max(map(rows_in, parts))
        parts = [self.made.spread(x, n).expand(n, *x.shape[1:]) for x in parts]
        return torch.cat(parts, dim=1)[:, [order.index(i) for i in range(len(order))]]

    def of(self, part: str, normed: torch.Tensor, heads: list[int], everywhere: bool) -> torch.Tensor:
        """[1 or N, h, P, d_head] of heads that read the same, [1 or N, P, D]."""
        if not joint(self.block, part):
            return self.block.project(part, normed, heads)
        return self.block.entering(part, normed, None if everywhere else self.made.positions_of(len(normed)), heads)


def joint(block: Block, part: str) -> bool:
    """Whether one norm is of all heads' queries (keys) together."""
    norm = None if part == "v" else block.head_norm(part)
    return norm is not None and norm.weight.dim() == 2


def entered(block: Block, part: str, x: torch.Tensor, at: Positions | None = None) -> torch.Tensor:
    """Queries or keys as they enter the scores, of what `Inputs.projected` gives, [N, h, P, d_head]."""
    return x if joint(block, part) else block.placed(part, x, at)


def placed_each(
    block: Block, part: str, x: torch.Tensor, normed: torch.Tensor, owners: Sequence[int], at: Positions | None
) -> torch.Tensor:
    """`Block.placed` of x [N, h, P, d_head], each head with the norm of what all heads make of its own input, normed
    [h, N, P, D]."""
    found = [
        block.placed(part, own[:, None], at, [head], block.joint_scale(part, read))
        for head, own, read in zip(owners, x.unbind(1), normed.unbind(0), strict=True)
    ]
    return torch.cat(found, dim=1)


def projected_each(block: Block, part: str, x: torch.Tensor, owners: Sequence[int]) -> torch.Tensor:
    """`Block.project` where each of the heads has its own input, x [h, N, P, D]: [N, h, P, d_head]."""
    weight, bias = block.linear(part)
    if list(owners) != list(range(len(bias))):
        index = torch.tensor(owners, device=weight.device)
        weight, bias = weight[:, index], bias[index]
    out = torch.baddbmm(bias[:, None], x.flatten(1, 2), weight.transpose(0, 1))
    return out.view(*x.shape[:3], -1).transpose(0, 1)
