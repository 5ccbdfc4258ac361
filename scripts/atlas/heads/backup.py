"""Backup heads: ablate one head at the answer position (the last) only, and see what the other heads then write.

A head is a backup of another one if its direct attribution rises when the other is gone. Heads of the same layer read
what they read before, so they only change through the final norm, whose scale the ablation also changes; the ratio of
the scales is reported, and attributions are each run's own (after / before = the ratio's inverse where nothing else
changes).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from atlas.circuit.replacement import Replacement
from atlas.core.components import Component
from atlas.core.metrics import per_prompt
from atlas.core.multiple import TOGETHER, corrected, interval_p
from atlas.core.statistics import Bootstrap, column_means
from atlas.heads.attention import head_rows
from atlas.heads.attribution import Attributor, Readout, head_attribution, read_stream
from atlas.model.models import Hook, Model, z_hook
from atlas.prompts.batch import Prompts
from atlas.store.job import progress


@dataclass(frozen=True)
class Run:
    """Of one run, per prompt: direct attribution of every head [N, L, H] and logit difference [N], in logits; and the
    scale that the final norm divides by [N], all at the last position."""

    heads: np.ndarray
    logit_diff: np.ndarray
    scale: np.ndarray


def run(model: Model, readout: Readout, prompts: Prompts, batch: slice, edits: Iterable[Hook] = ()) -> Run:
    """A batch of prompts under ``edits``, with attributions by the run's own scale."""
    answer, incorrect = (x[batch].to(model.device) for x in (prompts.answer, prompts.incorrect))
    stream = read_stream(model, prompts.tokens[batch], edits)
    by_head = head_attribution(model, stream.z, Attributor.of(readout, stream.resid_post, answer, incorrect))
    difference = per_prompt(["logit_diff"], stream.logits, answer, incorrect)["logit_diff"]
    scale = readout.scale(stream.resid_post)[:, 0]
    return Run(*(x.double().cpu().numpy() for x in (by_head.permute(2, 0, 1), difference, scale)))


def ablation(head: Component, substitute: Replacement, batch: slice) -> Hook:
    """(hook name, function) that replaces one head's z at the last position alone."""
    values = substitute.reader(batch)("z", head.layer)[:, -1, head.head]  # [1 or n, d_head]

    def hook(z: torch.Tensor, hook: object) -> torch.Tensor:
        z = z.clone()
        z[:, -1, head.head] = values.to(z.dtype)
        return z

    return z_hook(head.layer), hook


def before_and_after(
    model: Model, prompts: Prompts, substitute: Replacement, heads: Sequence[Component]
) -> tuple[Run, dict[Component, Run]]:
    """The intact run, and for each of ``heads`` one with that head ablated at the last position only."""
    if prompts.position is not None:
        raise ValueError("backup heads read prompts at their last token; give prompts without padding")
    readout, substitute = Readout.of(model), substitute.to(model.device)
    before: list[Run] = []
    after: dict[Component, list[Run]] = {head: [] for head in heads}
    for batch in progress(model.batches(len(prompts)), "backup heads"):
        before.append(run(model, readout, prompts, batch))
        for head in heads:
            after[head].append(run(model, readout, prompts, batch, [ablation(head, substitute, batch)]))
    return joined(before), {head: joined(parts) for head, parts in after.items()}


def joined(runs: list[Run]) -> Run:
    """Runs of consecutive batches as one run of all their prompts."""
    return Run(*(np.concatenate([getattr(r, name) for r in runs]) for name in ("heads", "logit_diff", "scale")))


ATTRIBUTIONS = [f"{name}{end}" for name in ("before", "after", "change") for end in ("", "_ci_low", "_ci_high")]
COLUMNS = ["ablated", "layer", "head", *ATTRIBUTIONS, "scale_ratio", "logit_diff_change", "p", *TOGETHER]


def table(before: Run, after: dict[Component, Run], bootstrap: Bootstrap) -> pd.DataFrame:
    """Rows ablated, layer, head; before, after and change, each with its interval (`before_ci_low` ...); scale_ratio.

    Attributions are in logits, ``change`` = after - before. ``scale_ratio``: mean over prompts of the final norm's
    scale after / before. ``logit_diff_change``: mean change of the logit difference by this ablation, the same in all
    rows of ``ablated``. ``p``: of no change, by its interval, of all heads but the ablated one; and corrected.
    """
    pieces, (n, n_layers, n_heads) = [], before.heads.shape
    rows = head_rows(n_layers, n_heads)
    for head, own in after.items():
        columns = {"ablated": str(head)} | {name: rows[name] for name in rows}
        for name, x in {"before": before.heads, "after": own.heads, "change": own.heads - before.heads}.items():
            found = column_means(bootstrap, x.reshape(n, -1))
            columns |= {name if c == "value" else f"{name}_{c}": v for c, v in found.items()}
        ratio, change = (own.scale / before.scale).mean(), (own.logit_diff - before.logit_diff).mean()
        pieces.append(pd.DataFrame(columns | {"scale_ratio": ratio, "logit_diff_change": change}))
    if not pieces:
        return pd.DataFrame(columns=COLUMNS)  # a circuit of MLPs alone
    found = pd.concat(pieces, ignore_index=True)
    others = found["layer"].astype(str) + "." + found["head"].astype(str) != found["ablated"]
    p = interval_p(*(found[f"change{end}"] for end in ("", "_ci_low", "_ci_high")))
    return corrected(found.assign(p=np.where(others, p, np.nan)), "backup")
