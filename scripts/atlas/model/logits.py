"""The product with W_U, of all tokens or of some, in float32 at least whatever the model's dtype."""

import torch

WIDENED = 2**24  # numbers of W_U that are held in float32 at a time, where the model's dtype is a half


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


def unembedded_at(x: torch.Tensor, ids: torch.Tensor, w_u: torch.Tensor, b_u: torch.Tensor | None) -> torch.Tensor:
    """[..., N] the logit of one token each, ``ids`` [N], of normed residuals x [..., N, D] in float32 at least."""
    logits = (x * at_least_float32(w_u[ids])).sum(-1)
    return logits if b_u is None else logits + at_least_float32(b_u[ids])


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """x, of any shape, in float32 where its dtype is narrower; else as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
