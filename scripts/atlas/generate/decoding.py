"""Greedy decoding with heads ablated: what a model writes without them (methods: generation under ablation).

Keys and values of earlier tokens are remembered. That stays right under ablation because a token's residual, once
computed with the heads ablated, never changes: causal attention looks back only, and the ablation of a position does
not depend on what is written after it. Rows of one batch may have different heads ablated.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from atlas.core.components import Circuit
from atlas.model.attention import Positions
from atlas.model.block import Weights
from atlas.model.engine import Engine
from atlas.model.models import Hook, Model, z_hook


@dataclass(frozen=True)
class Removal:
    """Which heads are ablated in each row, ``heads`` [N, L, H], and how.

    Without ``means`` their z is zero at every position, of the prompt and of what is written. With ``means`` [L, S, H,
    d_head] it is the mean at the S positions of the prompt, and what is written is left alone.
    """

    heads: torch.Tensor
    means: torch.Tensor | None = None

    @classmethod
    def of(cls, sets: list[Circuit], n_layers: int, n_heads: int, means: torch.Tensor | None = None) -> "Removal":
        """One set of heads for each of N rows; ``means`` [L, S, H, d_head]."""
        heads = torch.zeros(len(sets), n_layers, n_heads, dtype=torch.bool)
        for row, chosen in enumerate(sets):
            for head in chosen:
                heads[row, head.layer, head.head] = True
        return cls(heads, means)

    def take(self, rows: slice, device: torch.device) -> "Removal":
        """The same for some of the rows, on a device."""
        return Removal(self.heads[rows].to(device), None if self.means is None else self.means.to(device))

    def apply(self, z: torch.Tensor, layer: int, start: int) -> torch.Tensor:
        """z [N, P, H, d_head] of the positions from ``start`` on, with the heads ablated."""
        ablated = self.heads[:, layer, None, :, None]
        if self.means is None:
            return z.masked_fill(ablated, 0)
        means = self.means[layer, start : start + z.shape[1]].to(z.dtype)  # fewer than P, or none, beyond the prompt
        n = len(means)
        return torch.cat((torch.where(ablated, means, z[:, :n]), z[:, n:]), dim=1)


class Cache:
    """Keys and values of the ``length`` tokens read so far; room for ``capacity``."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.length = capacity, 0
        self.layers: dict[int, torch.Tensor] = {}

    def extend(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Those of all tokens up to now, from those of the new ones, [N, G, P, d_head] each."""
        if layer not in self.layers:
            n, groups, _, d_head = keys.shape
            self.layers[layer] = keys.new_empty(2, n, groups, self.capacity, d_head)
        end = self.length + keys.shape[2]
        kept = self.layers[layer]
        kept[0, :, :, self.length : end], kept[1, :, :, self.length : end] = keys, values
        return kept[:, :, :, :end]


def forward(weights: Weights, tokens: torch.Tensor, removal: Removal, cache: Cache) -> torch.Tensor:
    """Logits [N, d_vocab] after the last of ``tokens`` [N, P], which follow those of ``cache``."""
    start, stop = cache.length, cache.length + tokens.shape[1]
    at = Positions.span(start, stop, tokens.device) if start else None
    x = weights.embed(tokens, start)
    for layer, block in enumerate(weights.blocks):
        normed = block.norm1(x)
        keys, values = cache.extend(layer, *block.keys_values(normed, at))
        z = removal.apply(block.attend(block.queries(normed, at), keys, values, at), layer, start)
        x = block.after_mlp(x, block.after_attention(x, block.head_writes(z)))
    cache.length = stop
    return weights.unembed(x[:, -1])


class Generator:
    """Decodes with the engine and its cache; without an engine (``use_engine=False``, or an architecture that has none)
    through TransformerLens hooks, where every step reads the whole text again."""

    def __init__(self, model: Model, use_engine: bool = True) -> None:
        self.model = model
        self.weights = model.weights if use_engine else None

    def generate(
        self,
        tokens: torch.Tensor,
        steps: int,
        sets: list[Circuit],
        means: torch.Tensor | None = None,
        end: int | None = None,
    ) -> torch.Tensor:
        """The ``steps`` most likely next tokens, one after another, [N, steps], of prompts [N, S] of one length.

        ``sets``: the heads ablated in each row. ``means`` [L, S, H, d_head]: see `Removal`. After the token ``end`` a
        row is filled with it.
        """
        removal = Removal.of(sets, self.model.n_layers, self.model.n_heads, means)
        size = min(self.model.batch_size, self.rows_that_fit(tokens.shape[1] + steps))
        found = []
        with torch.no_grad():
            for i in range(0, len(tokens), size):
                rows = slice(i, i + size)
                found.append(self.decode(tokens[rows].to(self.model.device), steps, removal, rows, end).cpu())
        return torch.cat(found)

    def rows_that_fit(self, length: int) -> int:
        """Rows whose activations and remembered keys and values fit into the model's ``memory_mb``."""
        if not self.weights:
            return self.model.batch_size
        block = self.weights.blocks[0]
        cached: int = 2 * len(self.weights.blocks) * block.w_k.shape[1] * block.w_k.shape[2] * length
        per_row = cached * block.w_k.element_size() + Engine(self.weights).bytes_per_row(length, logits=1)
        return max(1, int(self.model.memory_mb * 2**20) // per_row)

    def decode(self, tokens: torch.Tensor, steps: int, removal: Removal, rows: slice, end: int | None) -> torch.Tensor:
        """[n, steps] of one batch of `generate`, of its tokens [n, S]; ``rows``: which rows of ``removal`` they are."""
        removal = removal.take(rows, tokens.device)
        cache, text, unread = Cache(tokens.shape[1] + steps), tokens, tokens
        ended = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
        for _ in range(steps):
            if self.weights:
                logits = forward(self.weights, unread, removal, cache)
            else:
                logits = self.model.run(text, list(self.hooks(removal)), on_bridge=True)
            unread = logits.argmax(-1, keepdim=True)
            if end is not None:
                unread[ended] = end
                ended |= unread[:, 0] == end
            text = torch.cat((text, unread), dim=1)
        return text[:, tokens.shape[1] :]

    def hooks(self, removal: Removal) -> Iterator[Hook]:
        """The same ablation as hooks on the bridge."""
        for layer in range(self.model.n_layers):
            yield z_hook(layer), lambda z, hook, layer=layer: removal.apply(z, layer, 0)
