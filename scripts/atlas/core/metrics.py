"""Metrics: one value per prompt. Aggregates come later, with their intervals.

Answers of several tokens are teacher-forced: the model runs once on each prompt with its answer and once with its
incorrect answer, and an answer scores the sum of the log-probabilities of its tokens, each given all before it.

METRICS holds one record for each metric; schemas, figures and everything that scores read it. Parsed by Snakemake in
every job: torch is imported where it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PAD = -1  # in place of a token where an answer has fewer than another


@dataclass(frozen=True)
class OneToken:
    """What a metric reads of answers of one token: logits [N, d_vocab] at the answer position, token ids [N]."""

    logits: torch.Tensor
    answer: torch.Tensor
    incorrect: torch.Tensor
    clean_logits: torch.Tensor | None  # [N, d_vocab] of the unablated model

    def of(self, values: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """[N]: the entry of each row of values [N, d_vocab] at its token."""
        import torch

        return values[torch.arange(len(values), device=values.device), ids]


@dataclass(frozen=True)
class Metric:
    """``of_one`` gives the values [N] on answers of one token; see `per_prompt` for what they mean.

    On answers of several tokens one of two gives them: ``of_answers`` from the log-probabilities [N] of the whole
    answer and of the incorrect one, or ``over_tokens`` from the values [N, K] that the answer's tokens have by
    themselves, and where [N, K] there is a token and not its padding.
    """

    name: str
    title: str
    of_one: Callable[[OneToken], torch.Tensor]
    of_answers: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    over_tokens: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None


def _kl(x: OneToken) -> torch.Tensor:
    assert x.clean_logits is not None
    log_p, log_clean = x.logits.log_softmax(-1), x.clean_logits.log_softmax(-1)
    return (log_clean.exp() * (log_clean - log_p)).sum(-1)


def _prob_diff(x: OneToken) -> torch.Tensor:
    p = x.logits.softmax(-1)
    return x.of(p, x.answer) - x.of(p, x.incorrect)


def _answer_rank(x: OneToken) -> torch.Tensor:
    import torch

    own = x.of(x.logits, x.answer)[:, None]
    ids = torch.arange(x.logits.shape[1], device=x.logits.device)
    before = (x.logits == own) & (ids < x.answer[:, None])
    return ((x.logits > own) | before).sum(-1).float()


_ALL = (
    Metric(
        "logit_diff",
        "logit difference",
        of_one=lambda x: x.of(x.logits, x.answer) - x.of(x.logits, x.incorrect),
        of_answers=lambda right, wrong: right - wrong,
    ),
    Metric(
        "prob_diff",
        "probability difference",
        of_one=_prob_diff,
        of_answers=lambda right, wrong: right.exp() - wrong.exp(),
    ),
    Metric(
        "kl",
        "KL divergence (nats)",
        of_one=_kl,
        over_tokens=lambda values, real: values.where(real, 0).sum(-1),
    ),
    Metric(
        "top1",
        "answer is first choice",
        of_one=lambda x: (x.logits.argmax(-1) == x.answer).float(),
        over_tokens=lambda values, real: values.where(real, 1).amin(-1),
    ),
    Metric(
        "answer_rank",
        "rank of the answer",
        of_one=_answer_rank,
        over_tokens=lambda values, real: values.where(real, 0).amax(-1),
    ),
    Metric(
        "log_prob",
        "log-probability of the answer (nats)",
        of_one=lambda x: x.of(x.logits.log_softmax(-1), x.answer),
        of_answers=lambda right, wrong: right,
    ),
)
METRICS = {metric.name: metric for metric in _ALL}


def known(names: Sequence[str]) -> list[Metric]:
    """The metrics of these names; raises ValueError on another."""
    unknown = next((name for name in names if name not in METRICS), None)
    if unknown is not None:
        raise ValueError(f"unknown metric {unknown!r}; one of {', '.join(METRICS)}")
    return [METRICS[name] for name in names]


# ---- what is asked of logits ---------------------------------------------------------------------------------
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
    if answer.dim() == 2:
        return of_several_tokens(names, logits, answer, incorrect, clean_logits)
    read = OneToken(logits, answer, incorrect, clean_logits)
    return {metric.name: metric.of_one(read) for metric in known(names)}


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
    """`per_prompt` of answers of several tokens, name -> [N]; of one token each metric is what it is there.

    logits, clean_logits [2 N, K, d_vocab], answer, incorrect [N, K].

    ``logit_diff`` and ``prob_diff`` are differences of the log-probability and of the probability of the whole answers
    (for one token the difference of logits is that of log-probabilities), ``log_prob`` is that of the answer. Over the
    answer's tokens ``top1`` is 1 where each has the highest logit, ``answer_rank`` is the worst, and ``kl`` is summed.
    """
    metrics = known(names)
    right, wrong = log_probs(logits, paired(answer, incorrect)).view(-1, 2).unbind(1)
    if any(metric.over_tokens for metric in metrics):
        real, tokens = answer != PAD, answer.clamp(min=0).flatten()
        clean = None if clean_logits is None else clean_logits[::2].flatten(0, 1)
        each = OneToken(logits[::2].flatten(0, 1), tokens, tokens, clean)
    out: dict[str, torch.Tensor] = {}
    for metric in metrics:
        if metric.over_tokens:
            out[metric.name] = metric.over_tokens(metric.of_one(each).view_as(real), real)
        else:
            assert metric.of_answers
            out[metric.name] = metric.of_answers(right, wrong)
    return out
