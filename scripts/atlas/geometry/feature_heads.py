"""Features that feed successor heads: a member's own feature is taken out of what a head reads, or another's put in.

A head reads the residual of a member behind the autoencoder's layer through its own layer's norm, W_V and b_V, and
writes by W_O (arXiv 2312.09230 reads heads so); what it writes is read as logits through the final norm, whose scale is
that of the untouched write, so that an edit is not scaled away, and W_U. The *advantage* of the next member is its
logit less the mean logit of the other members of its class. b_O belongs to no head and is left out.

*Ablate*: from the autoencoder's reconstruction the member's own feature is taken, with the activity that it has there;
the effect is the advantage that is lost beside the whole reconstruction, so that the error of the reconstruction, which
stands beside it, is no part of it. *Swap*: the own feature of another member, at its mean activity, is put in its
place; the effect is what the logit of that one's next member gains on the logit of the own next member. Null of both: a
feature drawn among those whose mean activity where they fire is nearest, in place of the own feature, with equal norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from atlas.core.multiple import corrected
from atlas.core.statistics import Bootstrap, interval_columns
from atlas.geometry.feature_members import against, own_features
from atlas.heads.attribution import Readout
from atlas.heads.ov import written
from atlas.store.job import progress

if TYPE_CHECKING:
    from atlas.geometry.autoencoder import Autoencoder
    from atlas.geometry.classes import Members
    from atlas.geometry.feature_members import Fired
    from atlas.geometry.feature_text import Sample
    from atlas.model.models import Model

CONTEXTS = 2  # tokens of each member, held out, at most
POOL = 50  # features that a random one is drawn from
CHUNK = 20000  # residuals that are edited at a time
SHIFT = 2  # members on: whose feature is put in by a swap
ABLATE, SWAP = "ablate", "swap"
COLUMNS = ["layer", "head", "in_circuit", "class", "edit", "members", "score", "chance", "untouched", "reconstruction"]
COLUMNS += [
    "value",
    "ci_low",
    "ci_high",
    "random",
    "random_low",
    "random_high",
    "draws",
    "p",
    "tests",
    "p_holm",
    "moved",
]


# ---- features ------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Features:
    """What edits need to know of an autoencoder's features, from the tokens that it was trained on."""

    sae: Autoencoder
    own: dict[int, int]  # token id of a member -> its own feature
    strength: dict[int, float]  # token id -> the mean activity of that feature on it, times its direction's norm
    directions: torch.Tensor  # [F, D] to unit norm
    pools: torch.Tensor  # [F, POOL] features whose mean activity where they fire is nearest, not itself; alive ones

    @classmethod
    def of(cls, sae: Autoencoder, classes: Sequence[Members], trained: Fired) -> Features:
        """Own features as in `feature_members`; a token of several classes has that of the first."""
        mean, own, strength = trained.mean(), {}, {}
        for members in classes:
            at = trained.rows(members)
            for token, row, feature in zip(members.ids, at.tolist(), own_features(mean[at]).tolist(), strict=True):
                if feature >= 0 and token not in own:
                    own[token], strength[token] = feature, float(mean[row, feature])
        directions = torch.nn.functional.normalize(sae.w_dec, dim=-1)
        return cls(sae, own, strength, directions, pools(trained.activity))


def pools(activity: torch.Tensor) -> torch.Tensor:
    """[F, POOL] of activities on members [M, F]: of the features that fire on some, those of nearest mean activity.

    Where fewer fire than that, all of them, some twice. A feature is in no pool of its own.
    """
    firing = activity > 0
    level = activity.sum(0) / firing.sum(0).clamp(min=1)
    alive = firing.any(0).nonzero()[:, 0]
    distance = (level[:, None] - level[alive]).abs()
    distance[torch.arange(len(level))[:, None] == alive] = torch.inf
    order = alive[distance.argsort(dim=1, stable=True)]
    usable = order[:, : max(len(alive) - 1, 1)]
    return usable[:, torch.arange(POOL) % usable.shape[1]]


# ---- heads -----------------------------------------------------------------------------------------------------
def values(model: Model, layer: int, x: torch.Tensor) -> torch.Tensor:
    """v [R, H, d_head] of a layer's heads, W_V and b_V applied, from residuals x [R, D] before that layer.

    Under grouped attention a query head has its group's. From the weights, or of a model without an engine from a run
    in which x stands before the layer.
    """
    if model.weights:
        block = model.weights.blocks[layer]
        v = block.project("v", block.norm1(x.to(model.device, model.dtype)[None]))[0].transpose(0, 1)
        return v.repeat_interleave(model.n_heads // v.shape[1], dim=1)
    kept: list[torch.Tensor] = []

    def read(v: torch.Tensor, hook: object) -> torch.Tensor:
        kept.append(v[:, 0].repeat_interleave(model.n_heads // v.shape[2], dim=1))
        return v

    def put(before: torch.Tensor, hook: object) -> torch.Tensor:
        return x.to(before)[:, None]

    edits = [(f"blocks.{layer}.hook_resid_pre", put), (f"blocks.{layer}.attn.hook_v", read)]
    model.run(torch.zeros(len(x), 1, dtype=torch.long), edits)
    return kept[0]


@dataclass(frozen=True)
class Reader:
    """What one head makes of residuals for the members of a class, in logits."""

    model: Model
    layer: int
    head: int
    w_o: torch.Tensor  # [d_head, D]
    readout: Readout
    ids: list[int]  # [P]

    @classmethod
    def of(cls, model: Model, readout: Readout, layer: int, head: int, ids: Sequence[int]) -> Reader:
        return cls(model, layer, head, written(model, layer)[head].to(readout.w_u), readout, list(ids))

    def z(self, x: torch.Tensor) -> torch.Tensor:
        """[R, d_head] of residuals [R, D]."""
        return values(self.model, self.layer, x)[:, self.head].to(self.readout.w_u)

    def scale(self, z: torch.Tensor) -> torch.Tensor:
        """[R, 1] what the final norm divides the write of z [R, d_head] by."""
        return self.readout.scale(z @ self.w_o)

    def logits(self, z: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """[R, P] logits of the class from z [R, d_head], less what the final norm's bias and b_U add to every write."""
        through = self.readout.centre(self.w_o) * self.readout.weight @ self.readout.w_u[:, self.ids]
        return (z / scale) @ through


def advantage(logits: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """[..., R] of logits [..., R, P]: that of ``at`` [R] less the mean of all others."""
    own = at_number(logits, at)
    return own - (logits.sum(-1) - own) / (logits.shape[-1] - 1)


def at_number(logits: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """[..., R] of logits [..., R, P]: those of ``at`` [R]."""
    return logits.gather(-1, at[:, None].expand(*logits.shape[:-1], 1))[..., 0]


# ---- members of a class ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Rows:
    """Held-out tokens of the members of a class that have a next one and an own feature."""

    member: torch.Tensor  # [R] number in the class
    next: torch.Tensor  # [R] number of the next member
    other: torch.Tensor  # [R] number of the member whose feature a swap puts in
    other_next: torch.Tensor  # [R]
    x: torch.Tensor  # [R, D] activation at the hook
    rest: torch.Tensor | float  # [R, D] what else the residual holds

    @classmethod
    def of(cls, members: Members, features: Features, held_out: Sample) -> Rows | None:
        """None where fewer than three members can be used."""
        steps = members.steps()
        token_rows = {i: (held_out.token == members.ids[i]).nonzero()[:CONTEXTS, 0].tolist() for i in steps}
        usable = [i for i in steps if members.ids[i] in features.own and token_rows[i]]
        if len(usable) < 3:
            return None
        of = {i: usable[(n + SHIFT) % len(usable)] for n, i in enumerate(usable)}
        numbers = [(i, row) for i in usable for row in token_rows[i]]
        at = torch.tensor([row for _, row in numbers])
        return cls(
            member=torch.tensor([i for i, _ in numbers]),
            next=torch.tensor([steps[i] for i, _ in numbers]),
            other=torch.tensor([of[i] for i, _ in numbers]),
            other_next=torch.tensor([steps[of[i]] for i, _ in numbers]),
            x=held_out.x[at],
            rest=0.0 if held_out.rest is None else held_out.rest[at],
        )


@dataclass(frozen=True)
class Edits:
    """The reconstructions of rows, and what edits take from them and put in."""

    plain: torch.Tensor  # [R, D] reconstruction with the rest of the residual
    own: torch.Tensor  # [R] feature
    removed: torch.Tensor  # [R] norm of what ablation takes
    other: torch.Tensor  # [R] feature of the other member
    put: torch.Tensor  # [R] norm of what a swap puts in

    @classmethod
    def of(cls, features: Features, members: Members, rows: Rows) -> Edits:
        sae, ids = features.sae, torch.tensor(members.ids)
        activity = sae.encode(rows.x)
        own, other = (torch.tensor([features.own[int(t)] for t in ids[which]]) for which in (rows.member, rows.other))
        removed = activity.gather(1, own[:, None])[:, 0] * sae.norms[own]
        put = torch.tensor([features.strength[int(t)] for t in ids[rows.other]])
        return cls(sae.decode(activity) + rows.rest, own, removed, other, put)

    def ablated(self, features: Features, chosen: torch.Tensor | None = None) -> torch.Tensor:
        """[..., R, D] without the own feature, or without as much of ``chosen`` [..., R] ones."""
        feature = self.own if chosen is None else chosen
        return self.plain - self.removed[:, None] * features.directions[feature]

    def swapped(self, features: Features, chosen: torch.Tensor | None = None) -> torch.Tensor:
        """[..., R, D] with the other's feature, or as much of ``chosen`` ones, in place of the own one."""
        feature = self.other if chosen is None else chosen
        return self.ablated(features) + self.put[:, None] * features.directions[feature]

    def random(self, features: Features, edit: str, draws: int, generator: torch.Generator) -> torch.Tensor:
        """[draws, R, D] of an edit with features drawn from the pools of those that they stand for."""
        stand_for = self.own if edit == ABLATE else self.other
        drawn = torch.randint(POOL, (draws, len(stand_for)), generator=generator)
        chosen = features.pools[stand_for, drawn]
        return (self.ablated if edit == ABLATE else self.swapped)(features, chosen)


# ---- scores ----------------------------------------------------------------------------------------------------
def successor_scores(
    model: Model, readout: Readout, classes: dict[str, tuple[Members, Rows]], layers: range
) -> pd.DataFrame:
    """Columns layer, head, class, score: the share of a class's members whose next one has the largest logit of its
    class in what the head makes of the untouched residual."""
    found = []
    for layer in progress(list(layers), "successor heads"):
        for name, (members, rows) in classes.items():
            z = values(model, layer, rows.x + rows.rest).to(readout.w_u)
            for head in range(model.n_heads):
                reader = Reader.of(model, readout, layer, head, members.ids)
                logits = reader.logits(z[:, head], reader.scale(z[:, head]))
                hit = (logits.argmax(1).cpu() == rows.next).double()
                score = float(by_member(rows, hit).mean())
                found.append({"layer": layer, "head": head, "class": name, "score": score})
    return pd.DataFrame(found)


def by_member(rows: Rows, x: torch.Tensor) -> np.ndarray:
    """[..., members] means of x [..., R] over the tokens of each member."""
    number = rows.member.unique(return_inverse=True)[1]
    share = torch.nn.functional.one_hot(number).double()
    return (x.double().cpu() @ (share / share.sum(0))).numpy()


@dataclass(frozen=True)
class Measures:
    """What edits do to one head's logits of a class."""

    reader: Reader
    rows: Rows
    scale: torch.Tensor  # [R, 1] of the untouched write
    plain: torch.Tensor  # [R, P] logits from the reconstruction

    @classmethod
    def of(cls, reader: Reader, rows: Rows, reconstruction: torch.Tensor) -> Measures:
        scale = reader.scale(reader.z(rows.x + rows.rest))
        return cls(reader, rows, scale, reader.logits(reader.z(reconstruction), scale).cpu())

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """[..., R, P] from residuals [..., R, D]."""
        z = self.reader.z(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)
        return self.reader.logits(z, self.scale).cpu()

    def of_edit(self, edit: str, x: torch.Tensor) -> np.ndarray:
        """[..., members]: the advantage that is lost beside the reconstruction; of a swap, what the next member of the
        other gains on the own next one."""
        logits, own, other = self.logits(x), self.rows.next, self.rows.other_next
        if edit == ABLATE:
            return by_member(self.rows, advantage(self.plain, own) - advantage(logits, own))
        lead = at_number(logits, other) - at_number(logits, own)
        return by_member(self.rows, lead - (at_number(self.plain, other) - at_number(self.plain, own)))


def effects(
    reader: Reader, features: Features, members: Members, rows: Rows, draws: int, seed: int, bootstrap: Bootstrap
) -> list[dict[str, Any]]:
    """The rows of one head and class: both edits, less what is known of the head."""
    edits, generator = Edits.of(features, members, rows), torch.Generator().manual_seed(seed)
    measures = Measures.of(reader, rows, edits.plain)
    untouched = measures.logits(rows.x + rows.rest)
    moved = (measures.logits(edits.swapped(features)).argmax(1) == rows.other_next).double()
    about = {
        "members": len(rows.member.unique()),
        "untouched": float(by_member(rows, advantage(untouched, rows.next)).mean()),
        "reconstruction": float(by_member(rows, advantage(measures.plain, rows.next)).mean()),
    }
    found, at_once = [], max(1, CHUNK // len(rows.member))
    for edit, edited in ((ABLATE, edits.ablated(features)), (SWAP, edits.swapped(features))):
        own, null = measures.of_edit(edit, edited), np.empty(draws)
        for start in range(0, draws, at_once):
            part = slice(start, min(start + at_once, draws))
            drawn = edits.random(features, edit, part.stop - start, generator)
            null[part] = measures.of_edit(edit, drawn).mean(-1)
        test = against(float(own.mean()), null)
        low, high = np.percentile(null, [2.5, 97.5])
        random = {"random": test["null_mean"], "random_low": low, "random_high": high, "draws": draws, "p": test["p"]}
        row = {"class": members.name, "edit": edit} | about | interval_columns(bootstrap.mean(own)) | random
        found.append(row | {"moved": float(by_member(rows, moved).mean()) if edit == SWAP else np.nan})
    return found


def find(
    model: Model,
    features: Features,
    classes: Sequence[Members],
    held_out: Sample,
    first: int,
    circuits: set[tuple[int, int]],
    n_heads: int,
    draws: int,
    bootstrap: Bootstrap,
) -> pd.DataFrame:
    """Table `feature_heads` of the ``n_heads`` best successor heads of the layers from ``first`` on.

    Best: by the score less chance, mean over classes. ``circuits``: (layer, head) of those in a circuit. Tests of an
    edit are corrected together. Takes some 20 `CHUNK` D bytes at a time.
    """
    made = {own.name: (own, Rows.of(own, features, held_out)) for own in classes}
    usable = {name: (own, rows) for name, (own, rows) in made.items() if rows is not None}
    if not usable or first >= model.n_layers:  # no head reads what the last layer leaves
        return pd.DataFrame(columns=COLUMNS)
    readout = Readout.of(model)
    scores = successor_scores(model, readout, usable, range(first, model.n_layers))
    scores["chance"] = scores["class"].map({name: 1 / len(own) for name, (own, _) in usable.items()})
    lead = (scores["score"] - scores["chance"]).groupby([scores["layer"], scores["head"]]).mean()
    best = lead.sort_values(ascending=False, kind="stable").index[:n_heads].tolist()
    found = []
    for layer, head in progress(best, "features that heads read"):
        for i, (name, (own, rows)) in enumerate(usable.items()):
            reader = Reader.of(model, readout, layer, head, own.ids)
            at = (scores["layer"] == layer) & (scores["head"] == head) & (scores["class"] == name)
            about = {"layer": layer, "head": head, "in_circuit": (layer, head) in circuits}
            about |= scores.loc[at, ["score", "chance"]].iloc[0].to_dict()
            found += [about | row for row in effects(reader, features, own, rows, draws, bootstrap.seed + i, bootstrap)]
    table = pd.DataFrame(found)
    return corrected(table, table["edit"])[COLUMNS].sort_values(
        ["layer", "head", "edit"], kind="stable", ignore_index=True
    )
