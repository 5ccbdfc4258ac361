"""What MLPs write at the answer position: for which answers, how much of the logit difference, and which tokens.

By direct attribution (`attribution.py`): an MLP's output through the final norm, with the scale of the prompt's own
run, and W_U; of capped logits, before the cap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from atlas.core.components import Component
from atlas.heads.attribution import Attributor, Readout, read_stream
from atlas.store.job import progress

if TYPE_CHECKING:
    from atlas.heads.explained import Explained

ANSWERS = ["component", "layer", "answer", "prompts", "value", "ci_low", "ci_high", "share", "share_low", "share_high"]
TOKENS = ["component", "layer", "end", "place", "token", "token_id", "logit"]


def tables(of: Explained, k: int) -> dict[str, pd.DataFrame]:
    """`mlp_answers` and `mlp_tokens`, less model and task.

    `mlp_answers`: rows of `ANSWERS`. ``value``: what the MLP adds to the logit difference, in logits, in the mean over
    all prompts (``answer`` is empty) or over those of one answer; ``share`` of the mean logit difference of the same
    prompts, of which numerator and denominator are resampled together. `mlp_tokens`: rows of `TOKENS`, the ``k`` tokens
    that its mean output raises (``end`` is `top`) and lowers (`bottom`) most, in logits less their mean over tokens.
    """
    values, full, written = read(of)
    w_u = Readout.of(of.model).w_u
    logits = (written @ w_u).cpu()
    logits -= logits.mean(-1, keepdim=True)
    answers, tokens = [], []
    words = of.frame["answer"].to_numpy()
    groups = {None: np.full(len(words), True)} | {word: words == word for word in dict.fromkeys(words)}
    for layer in range(of.model.n_layers):
        name = {"component": str(Component(layer)), "layer": layer}
        for answer, rows in groups.items():
            own, whole = values[layer, rows], full[rows]
            means = of.bootstrap.mean(own)
            shares = of.bootstrap.statistic(lambda m, f: m / f, own, whole)
            answers.append([*name.values(), answer, int(rows.sum()), *means, *shares])
        for end, sign in (("top", 1), ("bottom", -1)):
            ids = (sign * logits[layer]).topk(min(k, logits.shape[-1])).indices.tolist()
            tokens += [
                [*name.values(), end, place, of.tokenizer.decode([token]), token, float(logits[layer, token])]
                for place, token in enumerate(ids, 1)
            ]
    return {"mlp_answers": pd.DataFrame(answers, columns=ANSWERS), "mlp_tokens": pd.DataFrame(tokens, columns=TOKENS)}


def read(of: Explained) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    """(attribution of each MLP per prompt [L, N], logit difference before any cap [N], mean output of each MLP as the
    final norm passes it on [L, D])."""
    model, prompts, readout = of.model, of.prompts, Readout.of(of.model)
    parts: list[tuple[Any, Any]] = []
    total = torch.zeros(model.n_layers, model.d_model, dtype=torch.float64)
    for batch in progress(model.batches(len(prompts)), "what MLPs write"):
        stream = read_stream(model, prompts.tokens[batch])
        answer, incorrect = (x[batch].to(model.device) for x in (prompts.answer, prompts.incorrect))
        attributor = Attributor.of(readout, stream.resid_post, answer, incorrect)
        full = attributor(stream.resid_post) + attributor.norm_bias + attributor.unembedding_bias
        parts.append((attributor(stream.mlp_out).double().cpu().numpy(), full.double().cpu().numpy()))
        passed = readout.centre(stream.mlp_out) / readout.scale(stream.resid_post) * readout.weight
        total += passed.sum(1).double().cpu()
    mean = (total / len(prompts)).to(readout.w_u)
    return np.concatenate([x for x, _ in parts], axis=1), np.concatenate([x for _, x in parts]), mean
