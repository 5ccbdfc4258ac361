"""Steering: does adding one vector, or another prompt's head outputs, turn one sequence into another?

*Difference of means.* The vector of a layer is the mean residual after it, at the answer position, of the target's
prompts less that of the matched source prompts, both of the search side. It is added, times a coefficient, at that
position of source prompts. No prompt is ever steered by a vector that was fitted on its own members, which would put
these into it: held-out prompts, on which results are reported, have other sequences of members, and search prompts, on
which layer and coefficient are chosen, are steered by the vector of all search prompts but those of their own sequence.
Beside it: random directions of the same norm; *shuffled classes*, a
difference of means of the same norm whose two sides are each half source and half target; the same vector at other
layers; and the whole residual of the matched target prompt in place of the source's (`residual swap`).

*Circuit swap.* The outputs (z) at the answer position of the heads of the source's and the target's circuits are taken
from the matched target prompt; beside as many random heads in every layer, and beside all heads.

Success (`top1`): the target's next member has the highest logit of the whole vocabulary; ties count against it.
Sources: difference of means, arXiv 2308.10248 and 2312.06681; swaps between prompts, arXiv 2202.05262.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from atlas.circuit.controls import matched_sets
from atlas.core.multiple import corrected
from atlas.core.statistics import Bootstrap, column_means
from atlas.geometry.last_position import Edit, Recorded
from atlas.geometry.sequences import HELD_OUT, SEARCH, Matched
from atlas.store.job import progress

if TYPE_CHECKING:
    from atlas.core.components import Circuit
    from atlas.model.models import Model

SHUFFLED = 20  # shuffled directions, at most
METRICS = ("top1", "class_top1", "member", "source_top1", "logit_diff")
TESTED = ("top1", "class_top1", "member", "logit_diff")  # more of it is more success
UNSTEERED, TARGET, MEANS, OTHERS = "unsteered", "target prompts", "difference of means", "other layers"
RESIDUAL, CIRCUIT, ALL_HEADS = "residual swap", "circuit swap", "all heads swap"
KEYS = ["source", "target", "method", "layer", "coefficient", "split", "chosen", "heads", "metric"]
CONTROLS = ["draws", "random_mean", "random_hi", "p", "shuffled_mean", "shuffled_hi", "p_shuffled"]
COLUMNS = [*KEYS, "value", "ci_low", "ci_high", "prompts", *CONTROLS]

log = logging.getLogger("atlas")


@dataclass(frozen=True)
class Settings:
    """Of `geometry.steering`: prompts a side at most, number of layers tried, coefficients, random directions and sets
    of heads; seed of all that is random."""

    prompts: int = 32
    layers: int = 6
    coefficients: tuple[float, ...] = (0.5, 1, 2, 4)
    random: int = 100
    seed: int = 0


def layers_of(n_layers: int, wanted: int) -> list[int]:
    """At most ``wanted`` layers, evenly spread; all of them where there are no more."""
    n = min(wanted, n_layers)
    return [int((i + 0.5) * n_layers / n) for i in range(n)]


# ---- what is read of logits ----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Question:
    """Of N prompts: ids of the source's and the target's next members [N], and of all members of the target."""

    source_next: torch.Tensor
    target_next: torch.Tensor
    target_ids: torch.Tensor

    @classmethod
    def of(cls, matched: Matched, rows: Sequence[int]) -> Question:
        """Of the prompts of these numbers."""
        source, target = (torch.tensor([ids[i] for i in rows]) for ids in (matched.source_next, matched.target_next))
        return cls(source, target, torch.tensor(matched.target_ids))

    def scores(self, logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """[n, `METRICS`] of logits [n, d_vocab] of the prompts of numbers ``rows`` [n]."""
        source, target = self.source_next[rows][:, None], self.target_next[rows][:, None]
        of_source, of_target = logits.gather(1, source), logits.gather(1, target)
        in_class = logits.index_select(1, self.target_ids)
        outside = logits.index_fill(1, self.target_ids, -torch.inf).amax(1, keepdim=True)
        best = logits.topk(2).values
        leads = best[:, :1] > best[:, 1:]  # alone on top
        rivals = in_class.masked_fill(self.target_ids[None] == target, -torch.inf).amax(1, keepdim=True)
        found = [(of_target == best[:, :1]) & leads, in_class.amax(1, keepdim=True) > outside, of_target > rivals]
        found += [(of_source == best[:, :1]) & leads, of_target - of_source]
        return torch.cat([x.double() for x in found], 1)


# ---- directions ----------------------------------------------------------------------------------------------
def random_directions(vector: torch.Tensor, draws: int, seed: int) -> Iterator[torch.Tensor]:
    """``draws`` random directions [D], as long as ``vector`` [D]."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(draws):
        drawn = torch.randn(len(vector), generator=generator, dtype=torch.float64).to(vector.dtype)
        yield drawn * (vector.norm() / drawn.norm())


def shuffled_directions(
    source: torch.Tensor, target: torch.Tensor, vector: torch.Tensor, draws: int, seed: int
) -> Iterator[torch.Tensor]:
    """Differences of means [D] of residuals [N, D] with their classes shuffled, as long as ``vector``.

    Of each matched pair of prompts one stands on either side, and on either side half are of the source: so what
    distinguishes the classes cancels, and what distinguishes prompts is left. An odd one of N is left out.
    """
    rng, n = np.random.default_rng(seed), len(source) // 2 * 2
    for _ in range(draws):
        order = torch.tensor(rng.permutation(len(source))[:n])
        sign = torch.tensor([1.0, -1.0], dtype=source.dtype).repeat_interleave(n // 2)
        drawn = ((target - source)[order] * sign[:, None]).mean(0) if n else torch.zeros_like(vector)
        size = drawn.norm()
        nothing = size <= 1e-6 * vector.norm()  # the prompts differ by rounding alone
        yield torch.zeros_like(drawn) if nothing else drawn * (vector.norm() / size)


# ---- one pair ------------------------------------------------------------------------------------------------
@dataclass
class Steered:
    """A pair of sequences in a model: what was recorded, the vectors [L, D], and the cell that was chosen."""

    matched: Matched
    source: dict[str, Recorded]  # by side
    resid: dict[tuple[str, str], torch.Tensor]  # [N, L, D], by `source` or `target` and side
    target_z: torch.Tensor  # [N, L, H, d_head] of the held-out target prompts
    target_logits: torch.Tensor  # [N, d_vocab] of them
    question: dict[str, Question]
    layer: int = -1
    coefficient: float = 0.0

    @classmethod
    def of(cls, model: Model, matched: Matched, use_engine: bool = True) -> Steered:
        """Both sequences read."""
        rows = {side: matched.rows(side) for side in (SEARCH, HELD_OUT)}
        source = {s: Recorded(model, [matched.source_tokens[i] for i in own], use_engine) for s, own in rows.items()}
        resid = {("source", side): found.gathered("resid") for side, found in source.items()}
        for side, own in rows.items():
            target = Recorded(model, [matched.target_tokens[i] for i in own], use_engine)
            resid["target", side] = target.gathered("resid")
        z, logits = target.gathered("z"), target.gathered("logits")  # of the side that came last, the held-out one
        return cls(matched, source, resid, z, logits, {side: Question.of(matched, own) for side, own in rows.items()})

    def vector(self, layer: int) -> torch.Tensor:
        """[D] mean of target prompts less mean of source prompts after a layer, on search prompts; in float64."""
        target, source = (self.resid[of, SEARCH][:, layer].double().mean(0) for of in ("target", "source"))
        return target - source

    @property
    def added(self) -> torch.Tensor:
        """[D] what is added in the chosen cell."""
        return self.coefficient * self.vector(self.layer)

    def vectors_without(self, layer: int) -> torch.Tensor:
        """[N, D] for each search prompt the same of those search prompts that have another sequence of members."""
        difference = (self.resid["target", SEARCH] - self.resid["source", SEARCH])[:, layer].double()
        of = [self.matched.sequence[i] for i in self.matched.rows(SEARCH)]
        same = torch.tensor([[one == other for other in of] for one in of])
        other = (~same).double()
        return other @ difference / other.sum(1, keepdim=True)

    def scores(self, edit: Edit, side: str = HELD_OUT) -> np.ndarray:
        """[N, `METRICS`] of the edited source prompts of a side."""
        return self.scores_of([edit], side)[0]

    def scores_of(self, edits: Sequence[Edit], side: str = HELD_OUT) -> list[np.ndarray]:
        """The same of several edits after one layer."""
        return list(self.source[side].each_of(edits, self.question[side].scores).numpy()) if edits else []

    def choose(self, swept: Mapping[tuple[int, float], np.ndarray]) -> None:
        """The cell of most success on search prompts, from (layer, coefficient) -> scores.

        Success counts where it is more often than one token, whatever is read, could be right. Of equal cells that with
        the target's class on top most often is taken, then the smallest coefficient, then the largest logit difference;
        where there is no other class, the largest logit difference.
        """
        right = self.question[SEARCH].target_next
        constant = float(right.unique(return_counts=True)[1].max()) / len(right)

        def worth(cell: tuple[int, float]) -> tuple[float, ...]:
            mean = dict(zip(METRICS, swept[cell].mean(0), strict=True))
            success = mean["top1"] if mean["top1"] > constant + 1e-9 else 0.0
            if self.matched.pair.same_members:
                return success, mean["logit_diff"]
            return success, mean["class_top1"], -cell[1], mean["logit_diff"]

        self.layer, self.coefficient = max(swept, key=worth)


def swept(
    steered: Steered, layers: Sequence[int], coefficients: Sequence[float], side: str
) -> dict[tuple[int, float], np.ndarray]:
    """(layer, coefficient) -> scores [N, `METRICS`] of the prompts of a side."""
    vector = steered.vectors_without if side == SEARCH else steered.vector
    found: dict[tuple[int, float], np.ndarray] = {}
    for layer in progress(layers, f"{steered.matched.pair.name}, {side}"):
        of_layer = vector(layer)
        scores = steered.scores_of([Edit(layer, c * of_layer) for c in coefficients], side)
        found |= {(layer, float(c)): values for c, values in zip(coefficients, scores, strict=True)}
    return found


def against(values: np.ndarray, drawn: Sequence[np.ndarray]) -> dict[str, Any]:
    """Metric -> (mean, largest, p) of ``drawn``, scores [N, `METRICS`] each, beside ``values``; p is (1 + k) / (1 + n)
    of the k of n draws whose mean is at least as large."""
    if not drawn:
        return {}
    own, means = values.mean(0), np.stack([scores.mean(0) for scores in drawn])
    p = (1 + (means >= own - 1e-12).sum(0)) / (1 + len(means))
    return {m: (means[:, i].mean(), means[:, i].max(), p[i]) for i, m in enumerate(METRICS) if m in TESTED}


def mask_of(heads: Circuit, model: Model) -> torch.Tensor:
    """[L, H] which heads these are."""
    mask = torch.zeros(model.n_layers, model.n_heads, dtype=torch.bool)
    for head in heads:
        mask[head.layer, head.head] = True
    return mask


def circuit_of(matched: Matched, circuits: Mapping[str, Circuit]) -> Circuit:
    """The heads of the circuits of the source and of the target, of those that have one; of all circuits where neither
    has."""
    own = [circuits[of.name] for of in (matched.pair.source, matched.pair.target) if of.name in circuits]
    found = frozenset().union(*(own or circuits.values()))
    return frozenset(c for c in found if c.head >= 0)


# ---- tables --------------------------------------------------------------------------------------------------
class Rows:
    """Rows of `steering.parquet` of a pair, in the making."""

    def __init__(self, steered: Steered, bootstrap: Bootstrap) -> None:
        self.steered, self.bootstrap = steered, bootstrap
        self.rows: list[dict[str, Any]] = []

    def add(
        self,
        method: str,
        values: np.ndarray,
        cell: tuple[int, float] = (-1, 0.0),
        side: str = HELD_OUT,
        heads: int = 0,
        random: Sequence[np.ndarray] = (),
        shuffled: Sequence[np.ndarray] = (),
    ) -> None:
        """One row a metric, of scores [N, `METRICS`] and of those of controls."""
        pair, (layer, coefficient) = self.steered.matched.pair, cell
        chosen = method == MEANS and cell == (self.steered.layer, self.steered.coefficient)
        key = {"source": pair.source.name, "target": pair.target.name, "method": method, "layer": layer}
        key |= {"coefficient": coefficient, "split": side, "chosen": chosen, "heads": heads, "prompts": len(values)}
        means = column_means(self.bootstrap, values)
        of_random, of_shuffled = against(values, random), against(values, shuffled)
        for i, metric in enumerate(METRICS):
            if metric == "class_top1" and pair.same_members:
                continue
            row = key | {"metric": metric} | {name: column[i] for name, column in means.items()}
            none = (np.nan, np.nan, np.nan)
            controls = [*of_random.get(metric, none), *of_shuffled.get(metric, none)]
            row |= dict(zip(CONTROLS[1:], controls, strict=True)) | {"draws": len(random) if metric in of_random else 0}
            self.rows.append(row)


def rows_of(
    model: Model, steered: Steered, heads: Circuit, settings: Settings, bootstrap: Bootstrap
) -> list[dict[str, Any]]:
    """All rows of a pair; chooses its cell."""
    layers = layers_of(model.n_layers, settings.layers)
    on = {side: swept(steered, layers, settings.coefficients, side) for side in (SEARCH, HELD_OUT)}
    steered.choose(on[SEARCH])
    best, rows, run = (steered.layer, steered.coefficient), Rows(steered, bootstrap), steered.scores
    question, held_out = steered.question[HELD_OUT], torch.arange(len(steered.target_logits))
    unsteered = steered.source[HELD_OUT].gathered("logits")
    rows.add(UNSTEERED, question.scores(unsteered, held_out).numpy())
    rows.add(TARGET, question.scores(steered.target_logits, held_out).numpy())
    source, target = (steered.resid[of, SEARCH][:, best[0]].double() for of in ("source", "target"))
    few = min(settings.random, SHUFFLED)
    random, shuffled = (
        steered.scores_of([Edit(best[0], each) for each in directions])
        for directions in (
            random_directions(steered.added, settings.random, settings.seed),
            shuffled_directions(source, target, steered.added, few, settings.seed),
        )
    )
    for side, of_side in on.items():
        for cell, values in of_side.items():
            tested = (cell, side) == (best, HELD_OUT)
            rows.add(MEANS, values, cell, side, random=random if tested else (), shuffled=shuffled if tested else ())
    for layer in layers:
        if layer != best[0]:
            rows.add(OTHERS, run(Edit(layer, steered.added)), (layer, best[1]))
    whole = steered.resid["target", HELD_OUT][:, best[0]] - steered.resid["source", HELD_OUT][:, best[0]]
    rows.add(RESIDUAL, run(Edit(best[0], whole)), (best[0], 1.0))
    add_swaps(rows, model, heads, settings)
    return rows.rows


def add_swaps(rows: Rows, model: Model, heads: Circuit, settings: Settings) -> None:
    """Outputs of heads from the matched target prompt: the circuits', random ones beside them, and all."""
    z, run = rows.steered.target_z, rows.steered.scores

    def swap(mask: torch.Tensor) -> np.ndarray:
        return run(Edit(z=z, heads=mask))

    if heads:
        sets, _ = matched_sets(heads, model.n_layers, model.n_heads, settings.random, settings.seed, outside=False)
        random = rows.steered.scores_of([Edit(z=z, heads=mask_of(each, model)) for each in sets])
        rows.add(CIRCUIT, swap(mask_of(heads, model)), heads=len(heads), random=random)
    everything = torch.ones(model.n_layers, model.n_heads, dtype=torch.bool)
    rows.add(ALL_HEADS, swap(everything), heads=everything.numel())


def table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """`steering.parquet` less its model: p corrected over the pairs of a method and metric (Holm)."""
    found = pd.DataFrame(rows, columns=COLUMNS)
    claim = (found["method"] + ": " + found["metric"]).where(found["p"].notna(), "")
    return corrected(found, claim)


def steer(
    model: Model,
    pairs: Sequence[Matched],
    circuits: Mapping[str, Circuit],
    settings: Settings,
    bootstrap: Bootstrap,
    then: Callable[[Steered], None] | None = None,
) -> pd.DataFrame:
    """`steering.parquet` less its model; ``then`` is called with each pair once its cell is chosen."""
    rows: list[dict[str, Any]] = []
    for matched in pairs:
        steered = Steered.of(model, matched)
        own = rows_of(model, steered, circuit_of(matched, circuits), settings, bootstrap)
        log.info("%s: layer %d, coefficient %g", matched.pair.name, steered.layer, steered.coefficient)
        rows += own
        if then:
            then(steered)
    return table(rows)
