"""One layer of a transformer, and its two ends: what every forward pass of this library is made of.

Norms, projections, rotation, attention (who sees what, shared keys), what heads write, the parallel or sequential
choice, what an MLP reads and writes, embedding and unembedding are each decided here, once, in pieces. The plain pass
(`forward.py`), the live engine, generation with its cache, patching, edges and gradients call the pieces, and differ in
what they compute, keep or replace between them:

    normed = block.norm1(x)
    q, (k, v) = block.queries(normed), block.keys_values(normed)
    z = block.attend(q, k, v)  # what is ablated and patched of a head
    after = block.after_attention(x, block.head_writes(z))  # the residual with what attention writes
    x = block.after_mlp(x, after)  # and with what the MLP writes

Where the next ingredients go: a norm of queries and keys into `Block.placed`; a window or a cap of scores into
`Block.attend` and `Block.pattern`; a norm after attention into `Block.attn_out` and the three functions below it, one
after the MLP into `Block.mlp_out`, so that what they give is what reaches the residual stream; a norm weight of 1 + w
into `Norm`; scaled embeddings into `Weights.embed_tokens`, scaled or capped logits into `Weights.unembed` and
`Weights.logit_diff`; factors of what a layer writes into w_o, b_o and the MLP's last map as they are read. Rotary bases
differ by layer as `Block.rope` does, multi-query attention is G = 1.

Two readers take sums apart: edges and direct attribution take it that heads' writes add up (`Block.head_write`), and
`heads.attribution.Readout` takes the final norm and W_U apart. What a family breaks of that, `heads.analyses` finds out
on the model itself and refuses before anything is searched, for attribution; for edges a family's test does.

Letters for sizes, here and everywhere in the library:

    C   circuits that are run together            N   prompts, or rows of a batch
    D   width of the residual stream              P   positions that are computed, of the S
    G   key/value heads; H is a multiple of it    R   rows that stand in for prompts: one mean, groups, or each its own
    H   query heads                               S   tokens of a prompt
    K   positions at which a score is read        h, g  some of the query, of the key/value heads
    L   layers                                    d_head, d_vocab, d_rotary  as in their names
"""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import torch
import torch.nn.functional as F

from atlas.model.mlp import Linear, Mlp
from atlas.model.norm import Norm

WIDENED = 2**24  # numbers of W_U that are held in float32 at a time, where the model's dtype is a half

Rotary = tuple[torch.Tensor, torch.Tensor]  # cos and sin of every position, [n_positions, d_rotary] each


class Positions:
    """Where queries stand: [P] for all rows alike, or [N, P] (right-padded rows are read at various positions)."""

    def __init__(self, index: torch.Tensor) -> None:
        rows_agree = index.dim() == 1 or bool((index == index[:1]).all())
        self.index = index[0] if index.dim() == 2 and rows_agree else index
        self.masks: dict[int, torch.Tensor | None] = {}

    @classmethod
    def span(cls, start: int, stop: int, device: torch.device) -> "Positions":
        """The positions ``start`` to ``stop`` - 1, of which the last is that of the last key."""
        found = cls(torch.arange(start, stop, device=device))
        if start == stop - 1:
            found.masks[stop] = None  # known without a look at the device
        return found

    def take(self, x: torch.Tensor) -> torch.Tensor:
        """x [N or 1, S, ...] at the positions: [N or 1, P, ...]."""
        if self.index.dim() == 1:
            return x.index_select(1, self.index)
        rows = torch.arange(len(self.index), device=x.device)[:, None]
        return x.expand(len(self.index), *x.shape[1:])[rows, self.index]

    def mask(self, s: int) -> torch.Tensor | None:
        """May the query at a position see key j of ``s``? [1 or N, 1, P, s]; None where all see everything."""
        if s not in self.masks:
            last = self.index.dim() == 1 and bool((self.index == s - 1).all())
            index = self.index if self.index.dim() == 2 else self.index[None]
            keys = torch.arange(s, device=index.device)
            self.masks[s] = None if last else (keys <= index[:, :, None])[:, None]
        return self.masks[s]

    def repeat(self, times: int) -> "Positions":
        """The same for ``times`` copies of the rows, one after another."""
        return self if self.index.dim() == 1 else Positions(self.index.repeat(times, 1))


@dataclass(frozen=True)
class Block:
    """One layer. Heads have d_head numbers each; query head h reads the keys and values of head h // (H / G)."""

    norm1: Norm  # of the residual before attention
    norm2: Norm  # of the residual before the MLP
    w_q: torch.Tensor  # [D, H, d_head]
    w_k: torch.Tensor  # [D, G, d_head]
    w_v: torch.Tensor  # [D, G, d_head]
    b_q: torch.Tensor  # [H, d_head]; zeros where the model has none, likewise below
    b_k: torch.Tensor  # [G, d_head]
    b_v: torch.Tensor  # [G, d_head]
    w_o: torch.Tensor  # [H, d_head, D]
    b_o: torch.Tensor  # [D]
    mlp: Mlp
    rope: Rotary | None = None  # the first d_rotary numbers of queries and keys are rotated; None: nothing is
    parallel: bool = False  # attention and MLP both read the residual that enters the layer
    norm_attn_out: Norm | None = None  # of the sum of what the heads write, b_O included, before it is added
    norm_mlp_out: Norm | None = None  # of what the MLP gives, before it is added
    joint: Linear | None = None  # [D, H + 2 G, d_head] and [H + 2 G, d_head], where w_q, w_k and w_v are views of one

    @property
    def n_heads(self) -> int:
        """H."""
        return self.w_q.shape[1]

    @property
    def n_kv_heads(self) -> int:
        """G."""
        return self.w_k.shape[1]

    @cached_property
    def owners(self) -> list[int]:
        """[H]: the key/value head that each query head reads."""
        return [h * self.n_kv_heads // self.n_heads for h in range(self.n_heads)]

    # ---- queries, keys, values ---------------------------------------------------------------------------
    def linear(self, part: str) -> Linear:
        """The weight [D, H or G, d_head] and bias [H or G, d_head] of ``part``, `q`, `k` or `v`."""
        return {"q": (self.w_q, self.b_q), "k": (self.w_k, self.b_k), "v": (self.w_v, self.b_v)}[part]

    def project(self, part: str, normed: torch.Tensor, heads: list[int] | None = None) -> torch.Tensor:
        """`q`, `k` or `v` [N, h, P, d_head] of these heads (of that part; None: all) from what `norm1` gives [N, P, D].

        Linear in its input, so that a gradient goes back by the weight alone; what else is done is in `placed`.
        """
        w, b = (chosen(x, heads, x.dim() - 2) for x in self.linear(part))
        out = torch.addmm(b.flatten(), normed.flatten(0, 1), w.flatten(1))
        return out.view(*normed.shape[:2], *w.shape[1:]).transpose(1, 2)

    def placed(self, part: str, x: torch.Tensor, at: Positions | None = None) -> torch.Tensor:
        """Queries or keys [N, h, P, d_head] as they enter the scores: rotated to where they stand.

        ``at``: their positions; None: the first P.
        """
        if self.rope is None:
            return x
        cos, sin = (table[: x.shape[2]] if at is None else table[at.index] for table in self.rope)
        return rotated(x, cos, sin)

    def queries(
        self, normed: torch.Tensor, at: Positions | None = None, heads: list[int] | None = None
    ) -> torch.Tensor:
        """q [N, h, P, d_head] of the normed residual at ``at``, as they enter the scores."""
        return self.placed("q", self.project("q", normed, heads), at)

    def keys_values(
        self, normed: torch.Tensor, at: Positions | None = None, heads: list[int] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """k and v [N, g, P, d_head] of key/value heads, likewise."""
        return self.placed("k", self.project("k", normed, heads), at), self.project("v", normed, heads)

    def all_three(
        self, normed: torch.Tensor, at: Positions | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """q at ``at`` (None: everywhere), k and v everywhere, of the normed residual [N, S, D]; one product where one
        weight holds all three."""
        if self.joint is None or at is not None:
            return self.queries(normed if at is None else at.take(normed), at), *self.keys_values(normed)
        w, b = self.joint
        out = torch.addmm(b.flatten(), normed.flatten(0, 1), w.flatten(1)).view(*normed.shape[:2], *b.shape)
        q, k, v = (x.transpose(1, 2) for x in out.split([self.n_heads, self.n_kv_heads, self.n_kv_heads], 2))
        return self.placed("q", q), self.placed("k", k), v

    # ---- attention ---------------------------------------------------------------------------------------
    def attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        at: Positions | None = None,
        owners: list[int] | None = None,
    ) -> torch.Tensor:
        """z [N, P, h, d_head] of queries [N, h, P, d_head] at ``at`` (None: everywhere, P = S), keys and values of S.

        k, v [N, g, S, d_head]; ``owners`` [h]: which of the g each query head reads; None: equal shares of them. What
        reads means alone may have one row for all prompts.
        """
        if owners is not None:
            k, v = (x.index_select(1, numbers(tuple(owners), x.device)) for x in (k, v))
        n = max(map(len, (q, k, v)))
        q, k, v = (x.expand(n, *x.shape[1:]) for x in (q, k, v))
        mask = None if at is None else at.mask(k.shape[2])
        shared = q.shape[1] != k.shape[1]
        z = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=at is None, enable_gqa=shared)
        return z.transpose(1, 2)

    def pattern(self, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        """Attention weights [N, h, S, S] of queries [N, h, S, d_head] and keys [N, g, S, d_head]; softmax in float32.

        The same as in `attend`, for those who look at them or change them.
        """
        scores: torch.Tensor = q @ shared_out(k, q.shape[1]).transpose(-1, -2) / q.shape[-1] ** 0.5
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        softmax = scores.masked_fill(future, -torch.inf).softmax(-1, torch.promote_types(scores.dtype, torch.float32))
        return softmax.to(k.dtype)

    def mix(self, pattern: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """z [N, S, h, d_head] of attention weights [N, h, S, S] and values [N, g, S, d_head]."""
        return (pattern @ shared_out(v, pattern.shape[1])).transpose(1, 2)

    # ---- writes to the residual stream -------------------------------------------------------------------
    def head_writes(self, z: torch.Tensor, heads: list[int] | None = None) -> torch.Tensor:
        """What these heads (None: all) write together, [N, P, D], of their z [N, P, h, d_head]; without b_O.

        Linear in z: the writes of single heads add up.
        """
        return z.flatten(2) @ chosen(self.w_o, heads, 0).flatten(0, 1)

    def contracted_writes(self, z: torch.Tensor) -> torch.Tensor:
        """`head_writes` of all heads as one contraction: recorded runs keep the last digits that they always had."""
        return torch.einsum("nphd,hdm->npm", z, self.w_o)

    def head_write(self, z: torch.Tensor, head: int) -> torch.Tensor:
        """What one head writes, [N, P, D], of its z [N, P, d_head]."""
        return z @ self.w_o[head]

    def attn_out(self, writes: torch.Tensor) -> torch.Tensor:
        """What attention adds to the residual stream, [N, P, D], of the sum of all its heads' writes."""
        return self.added(writes + self.b_o)

    def added(self, attention: torch.Tensor) -> torch.Tensor:
        """What is added to the residual stream, [N, P, D], of all that the attention gives, b_O included."""
        return attention if self.norm_attn_out is None else self.norm_attn_out(attention)

    def after_attention(self, x: torch.Tensor, writes: torch.Tensor) -> torch.Tensor:
        """x [N, P, D] plus `attn_out`: the residual in the middle of the layer."""
        return x + self.b_o + writes if self.norm_attn_out is None else x + self.attn_out(writes)

    def of_heads(self, heads: list[int]) -> "Block":
        """The layer with these heads alone, whose weights lie side by side; itself where they are all of them.

        Its key/value heads are those that are read; which of them each head reads is said by `readers`, since they need
        be no equal shares.
        """
        if len(heads) == self.n_heads:
            return self
        read, _ = self.readers(heads)
        qkv = torch.cat([chosen(self.w_q, heads, 1), chosen(self.w_k, read, 1), chosen(self.w_v, read, 1)], 1)
        bias = torch.cat([chosen(self.b_q, heads, 0), chosen(self.b_k, read, 0), chosen(self.b_v, read, 0)])
        sizes = [len(heads), len(read), len(read)]
        weights = dict(zip(("w_q", "w_k", "w_v"), qkv.split(sizes, 1), strict=True))
        biases = dict(zip(("b_q", "b_k", "b_v"), bias.split(sizes), strict=True))
        return replace(self, **weights, **biases, w_o=chosen(self.w_o, heads, 0), joint=(qkv, bias))

    def readers(self, heads: list[int]) -> tuple[list[int], list[int] | None]:
        """The key/value heads that these heads read, and which of those each reads; None: each its own, in order."""
        owners = [self.owners[h] for h in heads]
        read = sorted(set(owners))
        return read, None if owners == read else [read.index(g) for g in owners]

    def after_kept(self, x: torch.Tensor, z: torch.Tensor | None, constant: torch.Tensor) -> torch.Tensor:
        """The same of z [N, P, H, d_head] of all heads (None: of none), and all else that attention gives.

        ``constant`` [1 or n, P, D] or [D]: b_O and what other heads write; n divides N, and is repeated.
        """
        normed = self.norm_attn_out is not None
        start = torch.zeros_like(x) if normed else x
        after: torch.Tensor
        if constant.dim() == 3 and len(constant) > 1:
            after = (start.unflatten(0, (-1, len(constant))) + constant).flatten(0, 1)
        else:
            after = start + constant
        if z is not None:
            after.view(-1, after.shape[-1]).addmm_(z.flatten(2).flatten(0, 1), self.w_o.flatten(0, 1))
        return x + self.added(after) if normed else after

    def after_change(
        self, x: torch.Tensor, writes: torch.Tensor, after: torch.Tensor, change: torch.Tensor
    ) -> torch.Tensor:
        """[N, P, D] what ``after``, `after_attention` of x and ``writes``, becomes where these change by ``change``."""
        return after + change if self.norm_attn_out is None else self.after_attention(x, writes + change)

    def mlp_reads(self, x: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """[N, P, D] the residual that the MLP reads: what enters the layer, or that with what attention writes."""
        return x if self.parallel else after

    def mlp_out(self, read: torch.Tensor) -> torch.Tensor:
        """What the MLP adds to the residual stream, [N, P, D], of the residual that it reads."""
        out = self.mlp(self.norm2(read))
        return out if self.norm_mlp_out is None else self.norm_mlp_out(out)

    def after_mlp(self, x: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """[N, P, D] the layer's output, of the residual that enters it and of that with what attention writes."""
        return after + self.mlp_out(self.mlp_reads(x, after))


@dataclass(frozen=True)
class Weights:
    """A model: embeddings, layers, final norm and unembedding."""

    w_e: torch.Tensor  # [d_vocab, D]
    w_pos: torch.Tensor | None  # [n_positions, D]; None for models with rotary positions
    blocks: list[Block]
    norm_final: Norm
    w_u: torch.Tensor  # [d_vocab, D]
    b_u: torch.Tensor | None  # [d_vocab]

    @property
    def n_heads(self) -> int:
        return self.blocks[0].n_heads

    @property
    def mlp_flops(self) -> int:
        """Multiply-adds of one MLP at one position."""
        return self.blocks[0].mlp.flops

    def embed_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """[N, S, D] of tokens [N, S], without their positions."""
        return self.w_e[tokens]

    def embed(self, tokens: torch.Tensor, start: int = 0) -> torch.Tensor:
        """What enters the first layer, [N, S, D], of tokens [N, S], the first at position ``start``."""
        x = self.embed_tokens(tokens)
        return x if self.w_pos is None else x + self.w_pos[start : start + tokens.shape[1]]

    def unembed(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [..., d_vocab] of final residuals [..., D]; at least float32."""
        return unembedded(self.norm_final(x), self.w_u, self.b_u)

    def logit_diff(self, x: torch.Tensor, answer: torch.Tensor, incorrect: torch.Tensor) -> torch.Tensor:
        """The one column difference that the metric needs, [..., N], of final residuals [..., N, D]; at least float32.

        The only expression for logit differences of one token, whichever other metrics are asked for beside it.
        """
        w, b = self.w_u, self.b_u
        direction = at_least_float32(w[answer]) - at_least_float32(w[incorrect])
        out = (at_least_float32(self.norm_final(x)) * direction).sum(-1)
        return out if b is None else out + (at_least_float32(b[answer]) - at_least_float32(b[incorrect]))


def chosen(w: torch.Tensor, heads: list[int] | None, dim: int) -> torch.Tensor:
    """w, whose axis ``dim`` is [heads of a part], at these heads (None: all); no copy where they are all of them."""
    if heads is None or len(heads) == w.shape[dim]:
        return w
    return w.index_select(dim, numbers(tuple(heads), w.device))


@lru_cache(maxsize=4096)
def numbers(heads: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """[heads] these numbers on a device, kept there: to send them each time makes a GPU wait."""
    return torch.tensor(heads, dtype=torch.long, device=device)


def shared_out(x: torch.Tensor, heads: int) -> torch.Tensor:
    """[N, g, ...] of key/value heads as [N, heads, ...], each as often as it is read; one serves all of them."""
    return x if x.shape[1] in (1, heads) else x.repeat_interleave(heads // x.shape[1], 1)


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of the first d_rotary numbers of x [N, h, P, d_head]; cos, sin [(N,) P, d_rotary]."""
    if cos.dim() == 3:
        cos, sin = cos[:, None], sin[:, None]
    d = cos.shape[-1]
    turned, rest = x[..., :d], x[..., d:]
    first, second = turned.chunk(2, dim=-1)
    turned = turned * cos + torch.cat((-second, first), dim=-1) * sin
    return torch.cat((turned, rest), dim=-1) if rest.shape[-1] else turned


def unembedded(x: torch.Tensor, w_u: torch.Tensor, b_u: torch.Tensor | None) -> torch.Tensor:
    """Logits [..., d_vocab] of normed residuals [..., D] through W_U [d_vocab, D] and b_U; at least float32.

    Halves are multiplied and summed in float32: a logit rounded to bfloat16 has 8 bits, and a difference of two fewer.
    W_U is widened a part at a time, since all of a large one would not fit beside the model.
    """
    x = at_least_float32(x)
    if w_u.dtype == x.dtype:
        logits = x @ w_u.T
    else:
        parts = w_u.split(max(1, WIDENED // w_u.shape[1]))
        logits = torch.cat([x @ part.to(x.dtype).T for part in parts], -1)
    return logits if b_u is None else logits + at_least_float32(b_u)


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """x, of any shape, in float32 where its dtype is narrower; else as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
