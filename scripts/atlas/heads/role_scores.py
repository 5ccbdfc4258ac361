"""Scores of every head of a model that roles are read from, each beside its null: random heads, and shuffled members.

One row is one score of one head on one task. ``p``: how often a random head (`random_heads.py`) reaches it, that is,
heads of the model whose weights are turned at random; scores of the logit difference, whose size depends on a head's
size, are compared in units of what the head's own random versions spread. ``null_low``, ``null_high``: 95 % of the
random heads of all layers, and for these scores of the head's own versions. ``shuffled_low``, ``shuffled_high``: 95 %
of the same score of the same head with members shuffled, for what it writes; where it looks, members are shuffled in
the prompts themselves (`reads.py`).

Scores are means over all prompts that results are reported on; random heads see some of them, which makes their scores
spread a little wider, and the test a little strict.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from atlas.core.metrics import per_prompt
from atlas.core.statistics import column_means
from atlas.heads import attention, random_heads, reads, writes
from atlas.heads.attribution import Readout
from atlas.heads.random_heads import Turn
from atlas.model.attention import Positions, shared_out
from atlas.prompts import layouts, words
from atlas.store.job import progress

if TYPE_CHECKING:
    from atlas.heads.explained import Explained
    from atlas.model.models import Model

log = logging.getLogger("atlas")
COLUMNS = ["score", "layer", "head", "value", "ci_low", "ci_high", "null_low", "null_high", "p"]
COLUMNS += ["shuffled_low", "shuffled_high"]
OF_LOGITS = ("attribution", "suppression")  # in logits; tabled as shares of the logit difference
AGAINST = "against"  # minus the attribution
BATCH = 32  # prompts whose residuals at every layer are held at a time


@dataclass(frozen=True)
class Settings:
    """Of the configuration: ``draws`` of random heads, and how many ``prompts`` they see."""

    draws: int
    prompts: int
    seed: int


# ---- what heads read -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Inputs:
    """What the heads of each layer read on N prompts, as their norm gives it."""

    normed: list[dict[str, torch.Tensor]]  # layer -> variant -> [N, S, D]
    early: list[torch.Tensor]  # layer -> [N, P, D] of the residual after block 0 at the shown members
    scale: torch.Tensor  # [N, 1] what the final norm divides by at the answer position
    behind: list[torch.Tensor | None]  # layer -> [N, 1] what a norm behind the attention multiplies by there


def inputs(
    model: Model, readout: Readout, variants: dict[str, torch.Tensor], places: list[int], at: int, last: Collection[str]
) -> Inputs:
    """Of variants of prompts, name -> tokens [N, S]; ``places`` of members, ``at``: the answer position.

    ``last``: which of `ov` and `attribution` are wanted.
    """
    assert model.weights is not None
    blocks = model.weights.blocks
    streams = {name: random_heads.residuals(model, tokens) for name, tokens in variants.items()}
    stream = streams[reads.IN_ORDER]
    normed = [{name: block.norm1(x[layer]) for name, x in streams.items()} for layer, block in enumerate(blocks)]
    early = [block.norm1(stream[1][:, places]) for block in blocks] if "ov" in last and places else []
    behind: list[torch.Tensor | None] = [None] * len(blocks)
    if model.weights.mixes_heads:
        for layer, block in enumerate(blocks):
            x = normed[layer][reads.IN_ORDER]
            z = block.attend(*block.all_three(x))[:, at]
            behind[layer] = writes.scale_behind(model, layer, z)
    final = stream[-1][:, at]
    return Inputs(normed, early, readout.scale(final.to(readout.w_u.dtype)), behind)


# ---- scores of one layer -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Layer:
    """What one layer's heads do on n prompts: ``shares`` as `reads.shares` gives them; ``logits`` [n, H, M] added to
    members at the answer position, and the winners ``won`` [n, H] there and ``early`` [n, P, H] from members alone."""

    shares: dict[str, np.ndarray]
    logits: np.ndarray | None
    won: np.ndarray | None
    early: np.ndarray | None


@dataclass(frozen=True)
class Task:
    """What is fixed of a task."""

    model: Model
    readout: Readout
    layout: Any
    members: writes.Members
    wanted: frozenset[str]  # of `attention`, `ov`, `attribution`

    def look(self, found: Inputs, layer: int, turn: Turn | None = None) -> Layer:
        """The heads of a layer; with a ``turn`` random ones, which write from where the heads themselves look."""
        assert self.model.weights is not None
        block, normed = self.model.weights.blocks[layer], found.normed[layer]
        shares: dict[str, torch.Tensor] = {}
        if "attention" in self.wanted:
            shares, _ = reads.shares(block, normed, self.layout, turn)
        logits = won = early = None
        read = writes.columns(self.readout, block, self.members)
        if self.wanted & {"ov", "attribution"}:
            at = Positions(torch.tensor([self.layout.answer_position], device=read.device))
            x = normed[reads.IN_ORDER]
            z = block.mix(reads.rows(block, x, at), writes.values(block, x, turn))
            logits = writes.of_members(z, block, read, turn)[:, 0] / found.scale[..., None]
            behind = found.behind[layer]
            logits = logits if behind is None else logits * behind[..., None]
            won = writes.winners(logits)
        if found.early:
            v = writes.values(block, found.early[layer], turn)
            z = shared_out(v, block.n_heads).transpose(1, 2)
            early = writes.winners(writes.of_members(z, block, read, turn))
        host = [None if x is None else x.cpu().numpy() for x in (logits, won, early)]
        return Layer({name: x.cpu().numpy() for name, x in shares.items()}, *host)

    def scores(self, found: Layer, members: writes.Members) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
        """Score -> (values [n, ...], number of instances [n] where they are counts of these), of the prompts of
        ``members``."""
        out: dict[str, tuple[np.ndarray, np.ndarray | None]] = {
            name: (x, None) for name, x in reads.attracted(found.shares).items()
        }
        if found.logits is not None and found.won is not None:
            written = writes.in_place(found.logits, found.won, members)
            kept = [name for name in written if ("attribution" if name in OF_LOGITS else "ov") in self.wanted]
            out |= {name: (written[name], None) for name in kept}
        return out | (writes.from_members(found.early, members) if found.early is not None else {})


def joined(parts: list[Layer]) -> Layer:
    """The same of several batches of prompts."""

    def together(arrays: list[np.ndarray | None]) -> np.ndarray | None:
        return None if arrays[0] is None else np.concatenate([x for x in arrays if x is not None])

    shares = {name: np.concatenate([part.shares[name] for part in parts]) for name in parts[0].shares}
    return Layer(shares, *(together([getattr(part, name) for part in parts]) for name in ("logits", "won", "early")))


# ---- the table -----------------------------------------------------------------------------------------------
def variants(of: Explained, random_words: Iterable[str], seed: int) -> dict[str, torch.Tensor]:
    """Variant -> tokens [N, S]: the prompts, and those of `reads.VARIANTS` if both can be made."""
    shown, layout = of.prompts.tokens, of.layout
    made = {reads.IN_ORDER: shown}
    if len(set(layout.members)) < 2 or any(first != last for first, last in layout.members):
        return made
    ids = words.words_in_place(of.tokenizer, of.frame, layout.places, random_words)
    if ids.shape[-1] < len(layout.members):
        return made
    both = attention.shuffled(shown, layout, seed), attention.words(shown, ids, layout, seed)
    return made | dict(zip(reads.VARIANTS, both, strict=True))


def table(of: Explained, made: dict[str, torch.Tensor], wanted: Collection[str], settings: Settings) -> pd.DataFrame:
    """Rows of `COLUMNS`: those scores that rest on the ``wanted`` analyses, of every head; ``made``: `variants`.

    None where the architecture has no live engine, whose norms and weights have known places.
    """
    of_task = frozenset(wanted) & {"attention", "ov", "attribution"}
    if of.model.weights is None:
        log.info("no roles are tested: random heads need an architecture with a live engine")
    if of.model.weights is None or not of_task:
        return pd.DataFrame(columns=COLUMNS)
    members = writes.Members.of(of.frame, of.layout)
    task = Task(of.model, Readout.of(of.model), of.layout, members, of_task)
    own = real_heads(task, made)
    some = layouts.spread(of.frame.assign(row=range(len(of.frame))), settings.prompts)["row"].to_list()
    drawn = drawn_heads(task, {name: x[some] for name, x in made.items()}, some, settings)
    difference = abs(float(logit_differences(of).mean()))
    pieces = []
    found = [task.scores(layer, members) for layer in own]
    nulls = shuffled(task, own, settings.seed)
    for name in found[0]:
        values = np.stack([of_layer[name][0] for of_layer in found], axis=1)  # [N, L, H]
        counts = found[0][name][1]
        for score, sign in ((name, 1.0), (AGAINST, -1.0)) if name == "attribution" else ((name, 1.0),):
            factor = sign / difference if name in OF_LOGITS else 1.0
            null = None if name not in nulls else np.sort(factor * nulls[name], axis=0)
            piece = tabled(of, factor * values, counts, factor * drawn[name], null, name in OF_LOGITS)
            pieces.append(piece.assign(score=score))
    return pd.concat(pieces, ignore_index=True)[COLUMNS]


def logit_differences(of: Explained) -> np.ndarray:
    """[N] of the model as it is, before any cap."""
    found = []
    for batch in of.model.batches(len(of.prompts)):
        logits = of.model.run(of.prompts.tokens[batch])
        answer, incorrect = (x[batch].to(logits.device) for x in (of.prompts.answer, of.prompts.incorrect))
        found.append(per_prompt(["logit_diff"], logits, answer, incorrect)["logit_diff"].cpu().numpy())
    return np.concatenate(found)


def places_of(task: Task) -> list[int]:
    """Positions of the shown members that `writes.Members` tells apart."""
    shown = [first for first, _ in task.layout.members if first <= task.layout.answer_position]
    return shown if task.members.known else []


def real_heads(task: Task, made: dict[str, torch.Tensor]) -> list[Layer]:
    """The heads of each layer on all prompts."""
    parts: dict[int, list[Layer]] = defaultdict(list)
    n, at = len(made[reads.IN_ORDER]), task.layout.answer_position
    with torch.no_grad():
        for start in progress(range(0, n, BATCH), "roles"):
            batch = {name: x[start : start + BATCH] for name, x in made.items()}
            found = inputs(task.model, task.readout, batch, places_of(task), at, task.wanted)
            for layer in range(task.model.n_layers):
                parts[layer].append(task.look(found, layer))
    return [joined(parts[layer]) for layer in range(task.model.n_layers)]


def drawn_heads(
    task: Task, made: dict[str, torch.Tensor], rows: list[int], settings: Settings
) -> dict[str, np.ndarray]:
    """Score -> [draws, L, H] means of random heads over the prompts ``rows``, whose variants are ``made``."""
    members, out = task.members.at(np.array(rows)), defaultdict(list)
    model, at = task.model, task.layout.answer_position
    with torch.no_grad():
        found = inputs(model, task.readout, made, places_of(task), at, task.wanted)
        turns = random_heads.turns(model.d_model, settings.draws, settings.seed, model.device)
        for turn in progress(turns, "random heads"):
            layers = [task.scores(task.look(found, layer, turn), members) for layer in range(model.n_layers)]
            for name, (_, counts) in layers[0].items():
                total = np.stack([of_layer[name][0].sum(0) for of_layer in layers])
                instances = len(rows) if counts is None else counts.sum()
                out[name].append(total / instances if instances else np.full_like(total, np.nan))
    return {name: np.stack(means) for name, means in out.items()}


def shuffled(task: Task, own: list[Layer], seed: int) -> dict[str, np.ndarray]:
    """Score -> [2, L, H] the 2.5th and 97.5th percentile of the model's heads with members shuffled."""
    out: dict[str, list[np.ndarray]] = defaultdict(list)
    for layer in own:
        found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        if layer.logits is not None and layer.won is not None:
            found |= writes.shuffled_in_place(layer.logits, layer.won, task.members, seed)
        if layer.early is not None:
            found |= writes.shuffled_from_members(layer.early, task.members, seed)
        for name, ends in found.items():
            out[name].append(np.stack(ends))
    return {name: np.stack(ends, axis=1) for name, ends in out.items()}


def tabled(
    of: Explained,
    values: np.ndarray,
    counts: np.ndarray | None,
    drawn: np.ndarray,
    null: np.ndarray | None,
    by_size: bool,
) -> pd.DataFrame:
    """Rows of one score, of values [N, L, H] and random heads' means [draws, L, H].

    ``by_size``: in units of each head's own random versions.
    """
    n, n_layers, n_heads = values.shape
    instances = None if counts is None else np.repeat(counts[:, None], n_layers * n_heads, axis=1)
    columns = column_means(of.bootstrap, values.reshape(n, -1), instances)
    means = columns["value"].reshape(n_layers, n_heads)
    compared = random_heads.standardised(means, drawn) if by_size else (means, drawn)
    ends = np.nanpercentile(drawn, [2.5, 97.5], axis=0 if by_size else None)
    out = attention.head_rows(n_layers, n_heads).assign(**columns, p=random_heads.p_values(*compared).ravel())
    for i, end in enumerate(("low", "high")):
        out[f"null_{end}"] = np.broadcast_to(ends[i], means.shape).ravel()
        out[f"shuffled_{end}"] = np.nan if null is None else null[i].ravel()
    return out
