"""Metrics by hand."""

import math

import pytest
import torch

from atlas.core.metrics import METRICS, known, per_prompt


def test_every_metric_by_hand():
    logits = torch.tensor([[1.0, 3.0, 0.0], [2.0, 0.0, 2.0]])
    clean = torch.tensor([[0.0, 5.0, 0.0], [2.0, 0.0, 2.0]])
    answer, incorrect = torch.tensor([1, 2]), torch.tensor([0, 1])
    out = per_prompt(METRICS, logits, answer, incorrect, clean)

    def p(row):
        total = sum(math.exp(x) for x in row)
        return [math.exp(x) / total for x in row]

    first, second = p([1, 3, 0]), p([2, 0, 2])
    assert out["logit_diff"].tolist() == [2, 2]
    assert out["prob_diff"].tolist() == pytest.approx([first[1] - first[0], second[2] - second[1]], abs=1e-6)
    assert out["log_prob"].tolist() == pytest.approx([math.log(first[1]), math.log(second[2])], abs=1e-6)
    assert out["top1"].tolist() == [1, 0], "of two equal logits the lower id is the top"
    assert out["answer_rank"].tolist() == [0, 1]
    kl = sum(a * math.log(a / b) for a, b in zip(p([0, 5, 0]), first, strict=True))
    assert out["kl"].tolist() == pytest.approx([kl, 0], abs=1e-6)


def test_kl_is_the_sum_over_the_vocabulary():
    """Not divided by its size, as some tools do: doubling every token's share leaves it unchanged."""
    clean, other = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    twice_clean, twice_other = clean.repeat_interleave(2, 1), other.repeat_interleave(2, 1)
    zero = torch.tensor([0])
    one = per_prompt(["kl"], other, zero, zero, clean)["kl"]
    two = per_prompt(["kl"], twice_other, zero, zero, twice_clean)["kl"]
    assert torch.allclose(one, two, atol=1e-6)


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="unknown metric"):
        per_prompt(["accuracy"], torch.zeros(1, 2), torch.tensor([0]), torch.tensor([1]))


def test_a_metric_is_one_record_with_its_functions():
    """Of one token, and of several: from the whole answers, or from the metric of each token."""
    for name, metric in METRICS.items():
        assert metric.name == name and metric.title
        assert (metric.of_answers is None) != (metric.over_tokens is None), name
    assert [metric.name for metric in known(["kl", "top1"])] == ["kl", "top1"]


def test_metrics_of_tokens_come_together_over_an_answer():
    """The first answer has two tokens, the second one and its padding, which counts for nothing."""
    values, real = torch.tensor([[1.0, 3.0], [2.0, 9.0]]), torch.tensor([[True, True], [True, False]])
    found = {n: m.over_tokens(values, real).tolist() for n, m in METRICS.items() if m.over_tokens}
    assert found == {"kl": [4, 2], "top1": [1, 1], "answer_rank": [3, 2]}
