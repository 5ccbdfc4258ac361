"""Metrics: one value per prompt. Aggregates come later, with their intervals.

Answers of several tokens are teacher-forced: the model runs once on each prompt with its answer and once with its
incorrect answer, and an answer scores the sum of the log-probabilities of its tokens, each given all before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

METRICS = ("logit_diff", "prob_diff", "kl", "top1", "answer_rank", "log_prob")
PAD = -1  # in place of a token where an answer has fewer than another


def passes(
    logits: torch.Tensor, answer: torch.Tensor, incorrect: torch.Tensor, probability_ratio: float
) -> torch.Tensor:
    """[N] bool: the answer has the highest logit, and p(answer) > probability_ratio x p(incorrect).

    Of several tokens (see `per_prompt`) each has the highest logit, and p is of the whole answer.
    """
    import torch

    if answer.dim() == 2:
        first = of_several_tokens(("top1",), logits, answer, incorrect)["top1"].bool()
        right, wrong = log_probs(logits, paired(answer, incorrect)).view(-1, 2).unbind(1)
        ratio = torch.tensor(
            probability_ratio, dtype=right.dtype
        )  # as logarithms, since p may be smaller than any float
        return first & (right - wrong > ratio.log().to(right.device))
    rows, p = torch.arange(len(logits), device=logits.device), logits.softmax(-1)
    return (logits.argmax(-1) == answer) & (p[rows, answer] > probability_ratio * p[rows, incorrect])


def per_prompt(
    names: Sequence[str],
    logits: torch.Tensor,
    answer: torch.Tensor,
    incorrect: torch.Tensor,
    clean_logits: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """The named metrics of logits at the answer position.

    Args:
        logits: [N, d_vocab], float32 or better.
        answer, incorrect: [N] token ids.
        clean_logits: [N, d_vocab] of the unablated model, for ``kl``.

    Answers of several tokens are ``answer``, ``incorrect`` [N, K], padded with `PAD` on the right. Logits are then
    [2 N, K, d_vocab], at the position before each token: row 2 i of prompt i with its answer, row 2 i + 1 with its
    incorrect answer (see `of_several_tokens`).

    Returns name -> [N]: ``logit_diff`` = logit(answer) - logit(incorrect); ``prob_diff`` the same of
    probabilities; ``kl`` = sum over the vocabulary of p_clean log(p_clean / p), in nats; ``top1`` 1 where the answer
    has the highest logit; ``answer_rank`` 0 = first (ties with a lower id rank before); ``log_prob`` of the answer, in
    nats.
    """
    import torch

    if answer.dim() == 2:
        return of_several_tokens(names, logits, answer, incorrect, clean_logits)
    rows = torch.arange(len(logits), device=logits.device)
    of_answer, of_incorrect = logits[rows, answer], logits[rows, incorrect]
    out: dict[str, torch.Tensor] = {}
    for name in names:
        match name:
            case "logit_diff":
                value = of_answer - of_incorrect
            case "prob_diff":
                p = logits.softmax(-1)
                value = p[rows, answer] - p[rows, incorrect]
            case "kl":
                assert clean_logits is not None
                log_p, log_clean = logits.log_softmax(-1), clean_logits.log_softmax(-1)
                value = (log_clean.exp() * (log_clean - log_p)).sum(-1)
            case "top1":
                value = (logits.argmax(-1) == answer).float()
            case "answer_rank":
                ids = torch.arange(logits.shape[1], device=logits.device)
                before = (logits == of_answer[:, None]) & (ids < answer[:, None])
                value = ((logits > of_answer[:, None]) | before).sum(-1).float()
            case "log_prob":
                value = logits.log_softmax(-1)[rows, answer]
            case _:
                raise ValueError(f"unknown metric {name!r}; one of {', '.join(METRICS)}")
        out[name] = value
    return out


# ---- answers of several tokens -------------------------------------------------------------------------------
def paired(answer: torch.Tensor, incorrect: torch.Tensor) -> torch.Tensor:
    """[2 N, K] of [N, K] and [N, K]: the answer of each prompt, and after it the incorrect one."""
    import torch

    return torch.stack((answer, incorrect), 1).flatten(0, 1)


def log_probs(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """[R] log-probability of each row's whole answer, in nats: the sum over its tokens.

    logits [R, K, d_vocab] at the position before each of the ``targets`` [R, K], in which `PAD` stands for no token.
    """
    of_target = logits.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return (of_target - logits.logsumexp(-1)).where(targets != PAD, 0).sum(-1)


def of_several_tokens(
    names: Sequence[str],
    logits: torch.Tensor,
    answer: torch.Tensor,
    incorrect: torch.Tensor,
    clean_logits: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """`per_prompt` of answers of several tokens; of one token each metric is what it is there.

    ``logit_diff`` and ``prob_diff`` are differences of the log-probability and of the probability of the whole answers
    (for one token the difference of logits is that of log-probabilities), ``log_prob`` is that of the answer. Over the
    answer's tokens ``top1`` is 1 where each has the highest logit, ``answer_rank`` is the worst, and ``kl`` is summed.
    """
    right, wrong = log_probs(logits, paired(answer, incorrect)).view(-1, 2).unbind(1)
    real, tokens = answer != PAD, answer.clamp(min=0).flatten()
    each = [name for name in names if name in ("kl", "top1", "answer_rank")]
    clean = clean_logits[::2].flatten(0, 1) if clean_logits is not None and "kl" in each else None
    by_token = per_prompt(each, logits[::2].flatten(0, 1), tokens, tokens, clean) if each else {}
    by_token = {name: values.view_as(real) for name, values in by_token.items()}
    out: dict[str, torch.Tensor] = {}
    for name in names:
        match name:
            case "logit_diff":
                value = right - wrong
            case "prob_diff":
                value = right.exp() - wrong.exp()
            case "kl":
                value = by_token[name].where(real, 0).sum(-1)
            case "top1":
                value = by_token[name].where(real, 1).amin(-1)
            case "answer_rank":
                value = by_token[name].where(real, 0).amax(-1)
            case "log_prob":
                value = right
            case _:
                raise ValueError(f"unknown metric {name!r}; one of {', '.join(METRICS)}")
        out[name] = value
    return out
