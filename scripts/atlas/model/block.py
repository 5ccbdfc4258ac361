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

Where ingredients are: a norm of queries and keys in `Block.placed`; a window, a scale or a cap of scores in
`Block.attend` and `Block.pattern`; a norm after attention in `Block.reached`, one after the MLP in `Block.mlp_out`, so
that what they give is what reaches the residual stream; a norm weight of 1 + w in `Norm`; scaled embeddings in
`Weights.embed_tokens`, scaled or capped logits in `Weights.shown`. Factors of what a layer writes go into w_o, b_o and
the MLP's last map as they are read. Rotary bases differ by layer as `Block.rope` does, multi-query attention is G = 1.

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

from atlas.model.attention import Positions, Rotary, all_positions, attention_weights, rotated, shared_out
from atlas.model.logits import at_least_float32, unembedded, unembedded_at
from atlas.model.mlp import Linear, Mlp
from atlas.model.norm import Norm


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
    norm_q: Norm | None = None  # of queries before they are rotated: of each head's, or all heads' together (see Norm)
    norm_k: Norm | None = None  # of keys, likewise
    scale: float | None = None  # of scores; None: 1 / sqrt(d_head)
    cap: float | None = None  # c of scores that are c tanh(score / c)
    window: int | None = None  # how many keys a query sees at most, its own and those just before it
    whole: "Block | None" = None  # the layer of all heads, of which this one holds some
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

    def joint_scale(
        self, part: str, normed: torch.Tensor, projected: torch.Tensor | None = None
    ) -> torch.Tensor | None:
        """[N, 1, P, 1] what a norm of all heads' queries or keys together multiplies them by, of what `norm1` gives
        [N, P, D]; None where ``part`` has no such norm. ``projected`` [N, H or G, P, d_head]: all of them, if at hand.
        """
        norm = self.head_norm(part)
        if norm is None or norm.weight.dim() == 1:
            return None
        x = (self.whole or self).project(part, normed) if projected is None else projected
        return norm.scale(x.transpose(1, 2).flatten(2).float())[:, None]

    def head_norm(self, part: str) -> Norm | None:
        """The norm of `q` or `k` before they are rotated."""
        return self.norm_q if part == "q" else self.norm_k

    def placed(
        self,
        part: str,
        x: torch.Tensor,
        at: Positions | None = None,
        heads: list[int] | None = None,
        scale: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Queries or keys [N, h, P, d_head] of these heads (None: all) as they enter the scores: normed, and rotated to
        where they stand.

        ``at``: their positions; None: the first P. ``scale``: `joint_scale` of what they are made of. Raises ValueError
        where a norm needs that and it is not given.
        """
        norm = self.head_norm(part)
        if norm is not None and norm.weight.dim() == 1:
            x = norm(x)
        elif norm is not None:
            if scale is None:
                raise ValueError(f"the norm of {part} is of all heads together; give the scale of what they read")
            x = norm.weighted(x.float() * scale, chosen(norm.weight, heads, 0)[:, None], x.dtype)
        if self.rope is None:
            return x
        cos, sin = (table[: x.shape[2]] if at is None else table[at.index] for table in self.rope)
        return rotated(x, cos, sin)

    def entering(
        self, part: str, normed: torch.Tensor, at: Positions | None = None, heads: list[int] | None = None
    ) -> torch.Tensor:
        """`q` or `k` [N, h, P, d_head] of the normed residual at ``at``, as they enter the scores."""
        x = self.project(part, normed, heads)
        every = self.whole is None and (heads is None or heads == list(range(len(self.linear(part)[1]))))
        return self.placed(part, x, at, heads, self.joint_scale(part, normed, x if every else None))

    def queries(
        self, normed: torch.Tensor, at: Positions | None = None, heads: list[int] | None = None
    ) -> torch.Tensor:
        """q [N, h, P, d_head] of the normed residual at ``at``, as they enter the scores."""
        return self.entering("q", normed, at, heads)

    def keys_values(
        self, normed: torch.Tensor, at: Positions | None = None, heads: list[int] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """k and v [N, g, P, d_head] of key/value heads, likewise."""
        return self.entering("k", normed, at, heads), self.project("v", normed, heads)

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
        scales = (self.joint_scale(part, normed, None if self.whole else x) for part, x in (("q", q), ("k", k)))
        return self.placed("q", q, scale=next(scales)), self.placed("k", k, scale=next(scales)), v

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
        mask = self.seen(k.shape[2], at, q.device)
        if self.cap is not None:
            return self.mix(attention_weights(q, k, mask, self.scale, self.cap), v)
        causal, shared = mask is None and at is None, q.shape[1] != k.shape[1]
        z = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, scale=self.scale, enable_gqa=shared
        )
        return z.transpose(1, 2)

    def seen(self, s: int, at: Positions | None, device: torch.device) -> torch.Tensor | None:
        """`Positions.mask` of ``s`` keys; None where all are seen, or, everywhere, where all but later ones are, unless
        a cap forbids the product that knows so by itself."""
        if at is None and self.cap is None and (self.window is None or self.window >= s):
            return None
        return (at or all_positions(s, device)).mask(s, self.window)

    def pattern(self, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        """Attention weights [N, h, S, S] of queries [N, h, S, d_head] and keys [N, g, S, d_head]; softmax in float32.

        The same as in `attend`, for those who look at them or change them.
        """
        mask = all_positions(k.shape[2], k.device).mask(k.shape[2], self.window)
        return attention_weights(q, k, mask, self.scale, self.cap)

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
        norms = self.norm_of(self.norm_q, heads), self.norm_of(self.norm_k, read)
        weights = dict(zip(("w_q", "w_k", "w_v"), qkv.split(sizes, 1), strict=True))
        biases = dict(zip(("b_q", "b_k", "b_v"), bias.split(sizes), strict=True))
        made = replace(self, **weights, **biases, w_o=chosen(self.w_o, heads, 0), joint=(qkv, bias))
        return replace(made, norm_q=norms[0], norm_k=norms[1], whole=self.whole or self)

    @staticmethod
    def norm_of(norm: Norm | None, heads: list[int]) -> Norm | None:
        """A norm of queries or keys at these heads."""
        if norm is None or norm.weight.dim() == 1:
            return norm
        return replace(norm, weight=chosen(norm.weight, heads, 0))

    def readers(self, heads: list[int]) -> tuple[list[int], list[int] | None]:
        """The key/value heads that these heads read, and which of those each reads; None: each its own, in order."""
        owners = [self.owners[h] for h in heads]
        read = sorted(set(owners))
        return read, None if owners == read else [read.index(g) for g in owners]

    def after_kept(self, x: torch.Tensor, z: torch.Tensor | None, constant: torch.Tensor) -> torch.Tensor:
        """The same of z [N, P, H, d_head] of all heads (None: of none), and all else that attention gives.

        ``constant`` [1 or n, P, D] or [D]: b_O and what other heads write; n divides N, and is repeated.
        """
        return self.reached(x, self.summed(x, z, constant))

    def summed(self, x: torch.Tensor, z: torch.Tensor | None, constant: torch.Tensor) -> torch.Tensor:
        """[N, P, D] the sum that `reached` takes: all that attention gives, and x where no norm keeps them apart."""
        start = x if self.norm_attn_out is None else torch.zeros_like(x)
        found: torch.Tensor
        if constant.dim() == 3 and len(constant) > 1:
            found = (start.unflatten(0, (-1, len(constant))) + constant).flatten(0, 1)
        else:
            found = start + constant
        if z is not None:
            found.view(-1, found.shape[-1]).addmm_(z.flatten(2).flatten(0, 1), self.w_o.flatten(0, 1))
        return found

    def reached(self, x: torch.Tensor, summed: torch.Tensor) -> torch.Tensor:
        """[..., N, P, D] the residual in the middle of the layer, of x [N, P, D] that enters it and of `summed`."""
        return summed if self.norm_attn_out is None else x + self.added(summed)

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
    embed_scale: torch.Tensor | float | None = None  # [] what tokens' embeddings are multiplied by
    logit_factor: float | None = None  # what logits are multiplied by
    logit_cap: float | None = None  # c of logits that then are c tanh(logit / c)

    @property
    def n_heads(self) -> int:
        return self.blocks[0].n_heads

    @property
    def mixes_heads(self) -> bool:
        """Whether a norm stands behind the attention, so that heads' writes do not add up in the residual stream."""
        return any(block.norm_attn_out is not None for block in self.blocks)

    @property
    def mlp_flops(self) -> int:
        """Multiply-adds of one MLP at one position."""
        return self.blocks[0].mlp.flops

    def embed_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """[N, S, D] of tokens [N, S], without their positions."""
        x = self.w_e[tokens]
        return x if self.embed_scale is None else x * self.embed_scale

    def embed(self, tokens: torch.Tensor, start: int = 0) -> torch.Tensor:
        """What enters the first layer, [N, S, D], of tokens [N, S], the first at position ``start``."""
        x = self.embed_tokens(tokens)
        return x if self.w_pos is None else x + self.w_pos[start : start + tokens.shape[1]]

    def unembed(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [..., d_vocab] of final residuals [..., D]; at least float32."""
        return self.shown(unembedded(self.norm_final(x), self.w_u, self.b_u))

    def shown(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits of any shape as the model gives them: multiplied and capped."""
        logits = logits if self.logit_factor is None else logits * self.logit_factor
        return logits if self.logit_cap is None else self.logit_cap * torch.tanh(logits / self.logit_cap)

    def logit_diff(self, x: torch.Tensor, answer: torch.Tensor, incorrect: torch.Tensor) -> torch.Tensor:
        """The one column difference that the metric needs, [..., N], of final residuals [..., N, D]; at least float32.

        The only expression for logit differences of one token, whichever other metrics are asked for beside it. Of
        capped logits it takes the two columns one by one.
        """
        w, b, normed = self.w_u, self.b_u, at_least_float32(self.norm_final(x))
        if self.logit_cap is not None:
            of_answer, of_incorrect = (self.shown(unembedded_at(normed, ids, w, b)) for ids in (answer, incorrect))
            return of_answer - of_incorrect
        direction = at_least_float32(w[answer]) - at_least_float32(w[incorrect])
        out = (normed * direction).sum(-1)
        out = out if b is None else out + (at_least_float32(b[answer]) - at_least_float32(b[incorrect]))
        return self.shown(out)


def chosen(w: torch.Tensor, heads: list[int] | None, dim: int) -> torch.Tensor:
    """w, whose axis ``dim`` is [heads of a part], at these heads (None: all); no copy where they are all of them."""
    if heads is None or len(heads) == w.shape[dim]:
        return w
    return w.index_select(dim, numbers(tuple(heads), w.device))


@lru_cache(maxsize=4096)
def numbers(heads: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """[heads] these numbers on a device, kept there: to send them each time makes a GPU wait."""
    return torch.tensor(heads, dtype=torch.long, device=device)
