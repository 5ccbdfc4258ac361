"""Which features of a sparse autoencoder fire on which members: a member's own feature, and features of an index.

A feature *fires* where its activity is above 0; activities are times the norm of the direction, as it adds to
the residual. Members are tokens, wherever they stand in the text.

*Own feature* of a member: the one whose mean activity on the member exceeds that on the other members of the class by
most, chosen on the tokens that the autoencoder was trained on and measured on those held out: mean activity there,
precision (of all tokens on which it fires, how many are the member), recall (on how many of the member's tokens it
fires) and their harmonic mean F1. Its label says what at least half of the tokens are on which it fires: the `member`,
members of the `class`, or neither (`mixed`). Null: which member a token is, shuffled among the tokens of its class in
both parts, and the choice made again; a class's p is the share of shuffles whose mean F1 over members is as large.

*Feature of an index*: how much more active a feature is, of its largest mean activity on any member, on the members of
one index modulo ``period`` than on the others of their class; the mean over classes of the best residue. Members of
every class are permuted within it for the null, and a feature's p is against the largest of all features under each
permutation, which corrects it for their number (Westfall and Young's max-T). The index of a numeral is the number
itself, that of other members their place from 1: so `3`, `three`, `third` and `March` are 3, and `13` with modulus 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from atlas.core.multiple import ALPHA, corrected
from atlas.store.job import progress

if TYPE_CHECKING:
    from atlas.geometry.autoencoder import Autoencoder
    from atlas.geometry.classes import Members

BATCH = 2048  # tokens encoded at a time: 4 F numbers each
PERIODS = (10, 5, 2)
HALF = 0.5
MEMBER, CLASS, MIXED, NONE = "member", "class", "mixed", "none"  # labels of own features
MEMBER_COLUMNS = ["class", "member", "index", "feature", "activity", "others", "precision", "recall", "f1", "tokens"]
MEMBER_COLUMNS += ["class_share", "label"]
ACTIVITY_COLUMNS = ["class", "member", "own_of", "feature", "value"]
TEST_COLUMNS = ["test", "class", "features", "value", "null_mean", "null_high", "draws", "p", "tests", "p_holm"]
INDEX_COLUMNS = ["period", "feature", "residue", "value", "null_high", "classes", "members", "draws", "p_max"]


def indices_of(members: Members) -> np.ndarray:
    """[P] the index of each member: of a numeral its number, else its place from 1."""
    return np.array([int(w) if w.isdecimal() else p + 1 for w, p in zip(members.words, members.places, strict=True)])


# ---- activities ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Fired:
    """What features do on the tokens of one part of the text; U tokens that are members."""

    ids: torch.Tensor  # [U] token ids, rising
    unit: torch.Tensor  # [M] which of them each token of a member is
    activity: torch.Tensor  # [M, F] on these tokens, times the norms of the directions
    firing: torch.Tensor  # [F] on how many tokens of all it fires

    @classmethod
    def of(cls, sae: Autoencoder, x: torch.Tensor, token: torch.Tensor, ids: Sequence[int]) -> Fired:
        """Of activations x [T, D] of ``token`` [T]; members are the tokens ``ids``. 4 M F bytes."""
        own = torch.tensor(sorted(set(ids)))
        is_member, kept, firing = torch.isin(token, own), [], torch.zeros(sae.size, dtype=torch.long)
        for start in range(0, len(x), BATCH):
            part = slice(start, start + BATCH)
            activity = sae.encode(x[part]) * sae.norms
            firing += (activity > 0).sum(0)
            kept.append(activity[is_member[part]])
        return cls(own, torch.searchsorted(own, token[is_member]), torch.cat(kept), firing)

    def mean(self) -> torch.Tensor:
        """[U, F] mean activity on each token that is a member; 0 where it does not occur."""
        count = torch.bincount(self.unit, minlength=len(self.ids)).clamp(min=1)
        zeros = torch.zeros(len(self.ids), self.activity.shape[1])
        return zeros.index_add(0, self.unit, self.activity) / count[:, None]

    def rows(self, members: Members) -> torch.Tensor:
        """[P] number of each member of a class among ``ids``."""
        return torch.searchsorted(self.ids, torch.tensor(members.ids))


# ---- own features ----------------------------------------------------------------------------------------------
def own_features(mean: torch.Tensor) -> torch.Tensor:
    """[P] the feature that each member of a class has for itself, of mean activities [P, F]; -1 where none is more
    active on it than on the others."""
    others = (mean.sum(0) - mean) / max(len(mean) - 1, 1)
    lead, at = (mean - others).max(1)
    return torch.where(lead > 0, at, -1)


def f1_of(hits: torch.Tensor, firing: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """(precision, recall, F1), each [P], 0 where nothing fires, of how often a feature fires on a member, and at all,
    and of how many tokens the member has."""
    precision, recall = hits / firing.clamp(min=1), hits / tokens.clamp(min=1)
    return precision, recall, 2 * hits / (firing + tokens).clamp(min=1)


def of_class(members: Members, trained: Fired, held_out: Fired) -> pd.DataFrame:
    """`MEMBER_COLUMNS` of the members of a class."""
    at = trained.rows(members)
    own, mean = own_features(trained.mean()[at]), held_out.mean()[at]
    known = own.clamp(min=0)
    tokens = torch.bincount(held_out.unit, minlength=len(held_out.ids))[at]
    fires, firing = held_out.activity[:, known] > 0, held_out.firing[known]
    activity = mean[torch.arange(len(own)), known]
    others = (mean.sum(0)[known] - activity) / max(len(own) - 1, 1)
    hits = (fires & (held_out.unit[:, None] == at)).sum(0)
    share = (fires & torch.isin(held_out.unit, at)[:, None]).sum(0) / firing.clamp(min=1)
    numbers = (activity, others, *f1_of(hits, firing, tokens), share)
    found = [np.where(own >= 0, x, 0.0) for x in numbers]
    table = pd.DataFrame({"class": members.name, "member": members.words, "index": indices_of(members)})
    table["feature"] = own.numpy()
    table[["activity", "others", "precision", "recall", "f1", "class_share"]] = np.stack(found, axis=1)
    table["tokens"] = tokens.numpy()
    table["label"] = [label_of(*row) for row in zip(own.tolist(), table["precision"], found[-1].tolist(), strict=True)]
    return table[MEMBER_COLUMNS]


def on_members(members: Members, trained: Fired, held_out: Fired) -> pd.DataFrame:
    """`ACTIVITY_COLUMNS`: the mean activity of each member's own feature on each member of the class, held out, of its
    largest; where a feature fires on none of them 0."""
    at = trained.rows(members)
    own = own_features(trained.mean()[at])
    of = (own >= 0).nonzero()[:, 0].tolist()
    values = held_out.mean()[at][:, own[of]]
    shares = (values / values.amax(0).clamp(min=torch.finfo(values.dtype).tiny)).numpy()
    rows = [
        (members.name, members.words[i], members.words[j], int(own[j]), float(shares[i, n]))
        for n, j in enumerate(of)
        for i in range(len(members))
    ]
    return pd.DataFrame(rows, columns=ACTIVITY_COLUMNS)


def label_of(feature: int, precision: float, class_share: float) -> str:
    """What a member's own feature is called, by at least half of the tokens on which it fires."""
    if feature < 0:
        return NONE
    return MEMBER if precision >= HALF else CLASS if class_share >= HALF else MIXED


def member_test(
    members: Members, trained: Fired, held_out: Fired, value: float, draws: int, seed: int
) -> dict[str, Any]:
    """Row of `TEST_COLUMNS` less the correction: the mean F1 of a class's own features, ``value``, beside shuffled
    members."""
    at, rng, parts = trained.rows(members), torch.Generator().manual_seed(seed), []
    for part in (trained, held_out):
        which = torch.full((len(part.ids),), -1)
        which[at] = torch.arange(len(at))
        own = which[part.unit]
        parts.append((part.activity[own >= 0], own[own >= 0]))
    alive = (parts[0][0] > 0).any(0)
    first, second = (activity[:, alive] for activity, _ in parts)
    fires, firing, p = (second > 0).float(), held_out.firing[alive], len(members)
    tokens, null = torch.bincount(parts[1][1], minlength=p), []
    for _ in range(draws):
        labels = [own[torch.randperm(len(own), generator=rng)] for _, own in parts]
        sums = torch.zeros(p, first.shape[1]).index_add(0, labels[0], first)
        chosen = own_features(sums / torch.bincount(labels[0], minlength=p).clamp(min=1)[:, None])
        hits = torch.zeros(p, first.shape[1]).index_add(0, labels[1], fires)[torch.arange(p), chosen.clamp(min=0)]
        f1 = f1_of(hits, firing[chosen.clamp(min=0)], tokens)[2]
        null.append(float(torch.where(chosen >= 0, f1, 0.0).mean()))
    return {"test": "own feature", "class": members.name, "features": p, "value": value} | against(value, null)


def against(value: float, null: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """Columns of a null: its mean, its 95th percentile, draws, and p = (1 + as large) / (1 + draws)."""
    drawn = np.asarray(null, dtype=float)
    p = (1 + int((drawn >= value - 1e-12).sum())) / (1 + len(drawn))
    return {"null_mean": drawn.mean(), "null_high": np.percentile(drawn, 95), "draws": len(drawn), "p": p}


# ---- features of an index --------------------------------------------------------------------------------------
def leads(mean: torch.Tensor, share: list[torch.Tensor], sizes: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """(value, residue), each [F]: of mean activities [P of all classes, F], scaled to a largest of 1.

    share: of each class [period, P], a row the mean over a residue's members less that over all others; zeros where
    there is none of either."""
    total = torch.stack([own @ part for own, part in zip(share, mean.split(sizes), strict=True)])
    classes = torch.stack([own.abs().sum(1) > 0 for own in share]).sum(0).clamp(min=1)
    value, residue = (total.sum(0) / classes[:, None]).max(0)
    return value, residue


def contrasts(index: np.ndarray, period: int) -> torch.Tensor:
    """[period, P]: a row gives the mean over the members of a residue less that over the others."""
    on = torch.tensor(index % period)[None] == torch.arange(period)[:, None]
    n, rest = on.sum(1, keepdim=True), (~on).sum(1, keepdim=True)
    known = (n > 0) & (rest > 0)
    return torch.where(known, on / n.clamp(min=1) - (~on) / rest.clamp(min=1), 0.0).float()


def index_features(
    classes: Sequence[Members], trained: Fired, draws: int, seed: int
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """(`INDEX_COLUMNS` of features with p below 0.05, strongest first; a row of `TEST_COLUMNS` for each period).

    A test's ``value`` is the strongest feature's; ``features`` says how many have p below 0.05.
    """
    sizes = [len(own) for own in classes]
    mean = trained.mean()[torch.cat([trained.rows(own) for own in classes])]
    alive = (mean > 0).any(0).nonzero()[:, 0]
    mean = mean[:, alive] / mean[:, alive].amax(0)
    rng, tables, tests = torch.Generator().manual_seed(seed), [], []
    for period in PERIODS:
        share = [contrasts(indices_of(own), period) for own in classes]
        value, residue = leads(mean, share, sizes)
        null = []
        for _ in range(draws):
            turned = [own[:, torch.randperm(own.shape[1], generator=rng)] for own in share]
            null.append(float(leads(mean, turned, sizes)[0].max()))
        drawn = np.sort(np.array(null))
        p = (1 + len(drawn) - np.searchsorted(drawn, value.numpy() - 1e-9)) / (1 + len(drawn))
        order = np.lexsort((alive.numpy(), -value.numpy()))
        for i in order[p[order] < ALPHA]:
            r = int(residue[i])
            parts = zip(mean[:, i].split(sizes), classes, strict=True)
            fired = [
                (
                    own,
                    [
                        w
                        for w, a, n in zip(own.words, part, indices_of(own), strict=True)
                        if a > 0.5 and n % period == r
                    ],
                )
                for part, own in parts
            ]
            hold = [own.name for own, words in fired if words]
            shown = ", ".join(word for _, words in fired for word in words)
            tables.append(
                {
                    "period": period,
                    "feature": int(alive[i]),
                    "residue": r,
                    "value": float(value[i]),
                    "null_high": float(np.percentile(drawn, 95)),
                    "classes": ", ".join(hold),
                    "members": shown,
                    "draws": draws,
                    "p_max": float(p[i]),
                }
            )
        test = {"test": f"index modulo {period}", "class": "all", "features": int((p < ALPHA).sum())}
        tests.append(test | {"value": float(value.max())} | against(float(value.max()), null))
    return pd.DataFrame(tables, columns=INDEX_COLUMNS), tests


# ---- all of it -------------------------------------------------------------------------------------------------
def find(classes: Sequence[Members], trained: Fired, held_out: Fired, draws: int, seed: int) -> dict[str, pd.DataFrame]:
    """Tables `feature_members`, `feature_activity`, `feature_indices` and `feature_tests`."""
    tables, tests = [], []
    for i, members in enumerate(progress(list(classes), "features of members")):
        table = of_class(members, trained, held_out)
        tables.append(table)
        tests.append(member_test(members, trained, held_out, float(table["f1"].mean()), draws, seed + i))
    found, of_index = index_features(classes, trained, draws, seed)
    families = pd.Series(["own feature"] * len(tests) + ["index"] * len(of_index))
    named = corrected(pd.DataFrame(tests + of_index), families)
    return {
        "feature_members": pd.concat(tables, ignore_index=True),
        "feature_activity": pd.concat([on_members(own, trained, held_out) for own in classes], ignore_index=True),
        "feature_indices": found,
        "feature_tests": named[TEST_COLUMNS],
    }
