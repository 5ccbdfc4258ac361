"""Logit lens: what the model would answer if it stopped at a point of the residual stream.

Points are the residual before each layer, after its attention, and after the last layer, 0 .. 2 L, at the last position
of every prompt (methods: section 6). The lens `norm` applies the final norm, with the scale that the residual has at
that point, and the unembedding with its bias, once each and in float32; its last point is the model's own output. The
lens `raw` omits the norm, as the published increment statistic did.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from atlas.core.metrics import per_prompt
from atlas.core.statistics import Bootstrap, interval_columns
from atlas.heads.attribution import Readout, point_names, read_stream
from atlas.model.models import Model
from atlas.prompts.batch import Prompts
from atlas.store.job import progress

KINDS = ("norm", "raw")
COLUMNS = ["lens", "point", "name", "value", "ci_low", "ci_high", "top1", "rank"]
TOKEN_COLUMNS = ["prompt", "point", "name", "place", "token", "token_id", "logit", "answer_place"]
LEAD_COLUMNS = ["prompt", "leads", "leads_name", "stays", "stays_name"]
INCREMENT_COLUMNS = ["lens", "from_point", "to_point", "share", "ci_low", "ci_high", "prompts"]
NEVER = -1  # the point of what never happens


@dataclass(frozen=True)
class Lens:
    """One lens on N prompts at P points."""

    names: list[str]  # of the points
    logit_diff: np.ndarray  # [P, N]
    rank: np.ndarray  # [P, N] of the answer; 0 is first
    tokens: np.ndarray  # [P, N, k] ids of the top tokens, best first
    logits: np.ndarray  # [P, N, k]

    @property
    def top(self) -> np.ndarray:
        """[P, N] top-1 token ids."""
        return self.tokens[:, :, 0]

    @property
    def leads(self) -> np.ndarray:
        """[P, N] is the answer first?"""
        return np.asarray(self.rank == 0)


def read_lenses(model: Model, prompts: Prompts, k: int) -> dict[str, Lens]:
    """Both lenses on prompts, with the top ``k`` tokens."""
    if prompts.position is not None:
        raise ValueError("the lens reads prompts at their last token; give it prompts without padding")
    readout, names = Readout.of(model), point_names(model.n_layers)
    found: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    for batch in progress(model.batches(len(prompts)), "logit lens"):
        points = read_stream(model, prompts.tokens[batch]).points()
        answer, incorrect = (x[batch].to(model.device) for x in (prompts.answer, prompts.incorrect))
        for kind in KINDS:
            rows = [looked_at(readout, x, kind, answer, incorrect, k) for x in points]  # one point's logits at a time
            found[kind].append([np.stack(x) for x in zip(*rows, strict=True)])
    return {
        kind: Lens(names, *(np.concatenate(x, axis=1) for x in zip(*parts, strict=True)))
        for kind, parts in found.items()
    }


def looked_at(
    readout: Readout, x: torch.Tensor, kind: str, answer: torch.Tensor, incorrect: torch.Tensor, k: int
) -> list[np.ndarray]:
    """logit_diff [N], rank [N], top ids [N, k] and their logits [N, k] of residuals x [N, D]."""
    logits = readout.unembed(readout.norm(x) if kind == "norm" else x)
    scores = per_prompt(["logit_diff", "answer_rank"], logits, answer, incorrect)
    order = best(logits, k)
    out = (scores["logit_diff"].double(), scores["answer_rank"], order, logits.gather(1, order))
    return [x.cpu().numpy() for x in out]


def best(logits: torch.Tensor, k: int) -> torch.Tensor:
    """[N, k] ids of the largest of logits [N, d_vocab], best first, ties in order of ids, as ranks are.

    Of a large vocabulary most of the time would go into sorting it; those that reach the k-th are sorted alone.
    """
    reached = int((logits >= logits.topk(min(k, logits.shape[-1])).values[:, -1:]).sum(-1).max())
    ids = logits.topk(reached).indices.sort(dim=-1).values
    order = logits.gather(1, ids).argsort(dim=-1, descending=True, stable=True)[:, :k]
    return ids.gather(1, order)


# ---- tables --------------------------------------------------------------------------------------------------
def lens_rows(lenses: dict[str, Lens], bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """`lens.parquet` less model and task: mean logit difference, share of prompts led by the answer, median rank."""
    rows = []
    for kind, lens in lenses.items():
        for point, name in enumerate(lens.names):
            keys = {"lens": kind, "point": point, "name": name}
            keys |= interval_columns(bootstrap.mean(lens.logit_diff[point]))
            rows.append(keys | {"top1": float(lens.leads[point].mean()), "rank": float(np.median(lens.rank[point]))})
    return rows


def token_rows(lens: Lens, prompt: list[int], decode: Callable[[int], str]) -> list[dict[str, Any]]:
    """`lens_tokens.parquet` less model and task: the top tokens of every prompt at every point, place 1 first.

    ``decode``: token id -> text. ``answer_place`` is the answer's place, 1 where it leads.
    """
    text = {int(i): decode(int(i)) for i in np.unique(lens.tokens)}
    return [
        {
            "prompt": number,
            "point": point,
            "name": name,
            "place": place + 1,
            "token": text[int(token)],
            "token_id": int(token),
            "logit": float(lens.logits[point, i, place]),
            "answer_place": int(lens.rank[point, i]) + 1,
        }
        for i, number in enumerate(prompt)
        for point, name in enumerate(lens.names)
        for place, token in enumerate(lens.tokens[point, i])
    ]


def lead_rows(lens: Lens, prompt: list[int]) -> list[dict[str, Any]]:
    """`lens_lead.parquet` less model and task: the first point where the answer leads, and from which it leads to the
    end; -1 and "never" where there is none."""

    def named(key: str, point: int) -> dict[str, Any]:
        return {key: int(point), f"{key}_name": lens.names[point] if point != NEVER else "never"}

    rows = []
    for number, leads in zip(prompt, lens.leads.T, strict=True):
        lost = np.flatnonzero(~leads)
        stays = lost[-1] + 1 if len(lost) else 0
        first = named("leads", leads.argmax() if leads.any() else NEVER)
        rows.append({"prompt": number} | first | named("stays", stays if leads[-1] else NEVER))
    return rows


def earlier_members(prompts: Prompts, positions: list[int]) -> np.ndarray:
    """[N, members] ids of each prompt's shown members; where their positions are unknown, of the incorrect answer."""
    return (prompts.tokens[:, positions] if len(positions) else prompts.incorrect[:, None]).numpy()


def increment_rows(
    lenses: dict[str, Lens], answer: torch.Tensor, members: np.ndarray, bootstrap: Bootstrap
) -> list[dict[str, Any]]:
    """`lens_increments.parquet` less model and task.

    The share of prompts whose top-1 is an earlier member before a block and the answer after it, for every block:
    points 2 l and 2 l + 2. ``answer`` [N] and ``members`` [N, m] are token ids; an answer that was shown as a member
    (cyclic tasks) is no earlier member.
    """
    answers, rows = np.asarray(answer), []
    for kind, lens in lenses.items():
        for point in range(0, len(lens.names) - 1, 2):
            before, after = lens.top[point], lens.top[point + 2]
            was_member = (before[:, None] == members).any(1) & (before != answers)
            value, low, high = bootstrap.mean(was_member & (after == answers))
            keys = {"lens": kind, "from_point": point, "to_point": point + 2}
            rows.append(keys | {"share": value, "ci_low": low, "ci_high": high, "prompts": len(answers)})
    return rows
