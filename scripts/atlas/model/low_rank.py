"""The MLP behind an attention in which few heads change, of what these give: the change has as many dimensions as they.

The first map of an MLP is linear in what its norm makes of the residual but for one factor a position, so it is taken
of the unchanged residual once, and of what a head writes once for each of the d_head numbers of its z; of a change
there is left a product with d_head rows in place of D. The same numbers, to rounding.
"""

import torch

from atlas.model.block import Block
from atlas.model.logits import at_least_float32


class ChangedMlp:
    """What the MLP of a layer adds to the residual stream where heads of its own layer give something else.

    ``read`` [N, P, D]: the residual that it reads as it is.
    """

    def __init__(self, block: Block, read: torch.Tensor) -> None:
        self.block, self.read = block, read
        self.before = [self.inner(i, read.flatten(0, 1)) for i in range(len(block.mlp.firsts()))]
        self.of_heads: dict[int, list[torch.Tensor]] = {}

    @staticmethod
    def serves(block: Block) -> bool:
        """Not where attention and MLP stand side by side, nor where a norm stands between the heads and the residual,
        nor in halves, whose norms round between their steps."""
        return not block.parallel and block.norm_attn_out is None and not is_half(block)

    def inner(self, i: int, x: torch.Tensor) -> torch.Tensor:
        """[n, d_mlp] the linear part of the i-th first map of x [n, D]."""
        return self.block.norm2.linear(x) @ self.block.mlp.firsts()[i][0]

    def of_head(self, head: int) -> list[torch.Tensor]:
        """[d_head, d_mlp] for each first map: what it makes of each number of the head's z."""
        if head not in self.of_heads:
            self.of_heads[head] = [self.inner(i, self.block.w_o[head]) for i in range(len(self.before))]
        return self.of_heads[head]

    def __call__(self, change: torch.Tensor, heads: list[list[int]], read: torch.Tensor) -> torch.Tensor:
        """[C N, P, D] in each of C copies of the prompts, of which copy i has other z of the heads ``heads[i]``.

        change [C, N P, h d_head]: by how much they differ, head by head; read [C N, P, D]: the changed residual.
        """
        norm, mlp, inner = self.block.norm2, self.block.mlp, []
        scale = norm.scale(read).flatten(0, 1)
        for i, (weight, bias) in enumerate(mlp.firsts()):
            maps = torch.stack([torch.cat([self.of_head(head)[i] for head in some]) for some in heads])
            x = torch.baddbmm(self.before[i].expand(len(heads), -1, -1), change, maps).flatten(0, 1)
            constant = bias if norm.bias is None else bias + norm.bias @ weight
            inner.append(x.mul_(scale).add_(constant))
        out, behind = mlp.after_firsts(*inner).view(read.shape), self.block.norm_mlp_out
        return out if behind is None else behind(out)


def is_half(block: Block) -> bool:
    """Whether a layer's weights are narrower than float32."""
    return block.w_o.dtype != at_least_float32(block.w_o[:0]).dtype
