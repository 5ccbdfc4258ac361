"""Metrics: one value per prompt. Aggregates come later, with their intervals."""

METRICS = ("logit_diff", "prob_diff", "kl", "top1", "answer_rank", "log_prob")


def passes(logits, answer, incorrect, probability_ratio: float):
    """[N] bool: the answer has the highest logit, and p(answer) > probability_ratio x p(incorrect)."""
    import torch

    rows, p = torch.arange(len(logits), device=logits.device), logits.softmax(-1)
    return (logits.argmax(-1) == answer) & (p[rows, answer] > probability_ratio * p[rows, incorrect])


def per_prompt(names, logits, answer, incorrect, clean_logits=None) -> dict:
    """The named metrics of logits at the answer position.

    Args:
        logits: [N, d_vocab], float32 or better.
        answer, incorrect: [N] token ids.
        clean_logits: [N, d_vocab] of the unablated model, for ``kl``.

    Returns name -> [N]: ``logit_diff`` = logit(answer) - logit(incorrect); ``prob_diff`` the same of
    probabilities; ``kl`` = sum over the vocabulary of p_clean log(p_clean / p), in nats; ``top1`` 1 where the answer
    has the highest logit; ``answer_rank`` 0 = first (ties with a lower id rank before); ``log_prob`` of the answer, in
    nats.
    """
    import torch

    rows = torch.arange(len(logits), device=logits.device)
    of_answer, of_incorrect = logits[rows, answer], logits[rows, incorrect]
    out = {}
    for name in names:
        match name:
            case "logit_diff":
                value = of_answer - of_incorrect
            case "prob_diff":
                p = logits.softmax(-1)
                value = p[rows, answer] - p[rows, incorrect]
            case "kl":
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
