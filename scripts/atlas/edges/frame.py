"""What stands still while edge circuits are run: ablated writes, biases, and room for what edges carry."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from atlas.core.graph import EMBED, Graph
from atlas.model.attention import Positions
from atlas.model.engine import Engine, Substitute


class Differences:
    """What the edges of senders carry, [senders, N, S or K, D], of the circuit that asked last; made where it is read.

    ``made_of[everywhere][s]``: what sender s gave when its row was made.
    """

    def __init__(self) -> None:
        self.made_of: dict[bool, list[torch.Tensor | None]] = {}
        self.held: dict[bool, torch.Tensor] = {}

    def rows(self, everywhere: bool, shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
        """The tensor of a shape; of the largest that was asked for its first numbers. Rows never made are zeros."""
        size = math.prod(shape)
        if everywhere not in self.held or self.held[everywhere].numel() < size:
            self.held[everywhere], self.made_of[everywhere] = like.new_zeros(size), [None] * shape[0]
        return self.held[everywhere][:size].view(shape)


class Frame:
    """What all edge circuits share on fixed tokens [N, S].

    ``substitute(name, layer)``: what replaces components (`z`, `mlp_out`) and the embeddings (`embed`), see
    `EdgeReplacement.reader`. ``positions``: where the score reads the model, by default the last position.
    ``differences``: where those of senders are held, if shared with other tokens.
    """

    def __init__(
        self,
        engine: Engine,
        graph: Graph,
        tokens: torch.Tensor,
        substitute: Substitute,
        positions: torch.Tensor | None = None,
        differences: Differences | None = None,
    ) -> None:
        self.engine, self.blocks, self.graph, self.tokens = engine, engine.blocks, graph, tokens
        self.substitute = substitute
        last = torch.tensor([tokens.shape[1] - 1], device=tokens.device)
        self.positions = Positions(last if positions is None else positions)
        self.differences = differences or Differences()
        self.mixes = engine.weights.mixes_heads
        # senders whose writes add up in the residual stream: all, or, where a norm mixes heads' writes, all but these
        self.adding = ~sum(map(self.heads_of, range(graph.n_layers))) if self.mixes else -1
        self.mixtures: list[torch.Tensor] = []  # of each layer, where they are mixed: b_O and heads' ablated writes
        self.bases = self.constant_parts()

    def constant_parts(self) -> list[torch.Tensor]:
        """Biases and ablated writes that stand before the attention (2 l) and the MLP (2 l + 1) of layer l, and the
        logits (2 L): [1 or N, S, D] each."""
        bases = [self.ablated(EMBED)]
        for layer, block in enumerate(self.blocks):
            writes = block.head_writes(self.ablated("z", layer))
            if self.mixes:
                self.mixtures.append(writes + block.b_o)
            bases.append(block.after_attention(bases[-1], writes))
            bases.append(bases[-1] + self.ablated("mlp_out", layer))
        return bases

    def heads_of(self, layer: int) -> int:
        """The senders that are heads of a layer."""
        return ((1 << self.graph.n_heads) - 1) << self.graph.first(layer)

    def ablated(self, name: str, layer: int = 0) -> torch.Tensor:
        """What stands in for the components of a layer, or for the embeddings; [1 or N, S, ...]."""
        return self.substitute(name, layer).to(self.engine.weights.w_u.dtype)

    def senders_before(self, level: int) -> int:
        """The senders whose writes a level holds: 2 l stands before the attention of layer l, 2 l + 1 behind it."""
        layer, after_heads = divmod(level, 2)
        return (1 << self.graph.first(layer) + after_heads * self.graph.n_heads) - 1


def matrix(rows: Sequence[int], columns: int) -> np.ndarray:
    """[rows, columns] 1 where a row has the bit of a column, else 0; ``columns``: the set of those that there are."""
    size = columns.bit_length() // 8 + 1
    held = b"".join([row.to_bytes(size, "little") for row in (columns, *rows)])
    bits = np.unpackbits(np.frombuffer(held, dtype=np.uint8).reshape(-1, size), axis=1, bitorder="little")
    return bits[1:, bits[0].astype(bool)].astype(np.int8)


def rows_in(x: torch.Tensor) -> int:
    """How many rows x has; `len` of a tensor takes several times as long."""
    return x.shape[0]
