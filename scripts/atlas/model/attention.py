"""Attention without its weights: where queries stand, what they see, how they are rotated, and what scores become."""

from functools import lru_cache

import torch

Rotary = tuple[torch.Tensor, torch.Tensor]  # cos and sin of every position, [n_positions, d_rotary] each


class Positions:
    """Where queries stand: [P] for all rows alike, or [N, P] (right-padded rows are read at various positions)."""

    def __init__(self, index: torch.Tensor) -> None:
        rows_agree = index.dim() == 1 or bool((index == index[:1]).all())
        self.index = index[0] if index.dim() == 2 and rows_agree else index
        self.masks: dict[tuple[int, int | None], torch.Tensor | None] = {}

    @classmethod
    def span(cls, start: int, stop: int, device: torch.device) -> "Positions":
        """The positions ``start`` to ``stop`` - 1, of which the last is that of the last key."""
        found = cls(torch.arange(start, stop, device=device))
        if start == stop - 1:
            found.masks[stop, None] = None  # known without a look at the device
        return found

    def take(self, x: torch.Tensor) -> torch.Tensor:
        """x [N or 1, S, ...] at the positions: [N or 1, P, ...]."""
        if self.index.dim() == 1:
            return x.index_select(1, self.index)
        rows = torch.arange(len(self.index), device=x.device)[:, None]
        return x.expand(len(self.index), *x.shape[1:])[rows, self.index]

    def mask(self, s: int, window: int | None = None) -> torch.Tensor | None:
        """May the query at a position see key j of ``s``? [1 or N, 1, P, s]; None where all see everything.

        ``window``: how many keys it sees at most, its own and those just before it.
        """
        window = None if window is None or window >= s else window
        if (s, window) not in self.masks:
            index = self.index if self.index.dim() == 2 else self.index[None]
            if window is None and self.index.dim() == 1 and bool((self.index == s - 1).all()):
                self.masks[s, window] = None
            else:
                keys, queries = torch.arange(s, device=index.device), index[:, :, None]
                seen = keys <= queries
                self.masks[s, window] = (seen if window is None else seen & (keys > queries - window))[:, None]
        return self.masks[s, window]

    def repeat(self, times: int) -> "Positions":
        """The same for ``times`` copies of the rows, one after another."""
        return self if self.index.dim() == 1 else Positions(self.index.repeat(times, 1))


@lru_cache(maxsize=64)
def all_positions(s: int, device: torch.device) -> Positions:
    """Queries at every position of a text of ``s`` tokens, with the masks that were asked for."""
    return Positions.span(0, s, device)


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of the first d_rotary numbers of x [N, h, P, d_head]; cos, sin [(N,) P, d_rotary].

    In the dtype of the tables where that is the wider one, and rounded to that of x.
    """
    if cos.dim() == 3:
        cos, sin = cos[:, None], sin[:, None]
    d = cos.shape[-1]
    turned, rest = x[..., :d], x[..., d:]
    first, second = turned.chunk(2, dim=-1)
    turned = (turned * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)
    return torch.cat((turned, rest), dim=-1) if rest.shape[-1] else turned


def shared_out(x: torch.Tensor, heads: int) -> torch.Tensor:
    """[N, g, ...] of key/value heads as [N, heads, ...], each as often as it is read; one serves all of them."""
    return x if x.shape[1] in (1, heads) else x.repeat_interleave(heads // x.shape[1], 1)


def attention_weights(
    q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None, scale: float | None, cap: float | None
) -> torch.Tensor:
    """[N, h, P, S] in the dtype of k, of queries [N, h, P, d_head] and keys [N, g, S, d_head]; softmax in float32.

    ``mask``: `Positions.mask`. ``scale``: what scores are multiplied by, None: 1 / sqrt(d_head). ``cap`` c: they then
    are c tanh(score / c).
    """
    scores: torch.Tensor = q @ shared_out(k, q.shape[1]).transpose(-1, -2)
    scores = scores / q.shape[-1] ** 0.5 if scale is None else scores * scale
    if cap is not None:
        scores = torch.tanh(scores / cap) * cap
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1, torch.promote_types(scores.dtype, torch.float32)).to(k.dtype)
