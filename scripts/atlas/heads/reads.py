"""Which earlier tokens a head looks at, by clauses: shares of its attention from the answer position and from members.

A key is told apart by what it is to the query (core/positions.py), and finer than there where it is no member:

- `self`; `previous member`, the last one shown before the query; `earlier members`, all before that;
- `first token`, where it is no member; `same slot`, in an earlier clause;
- `delimiters`, what follows a member in its clause, of earlier clauses; `own clause`, all else in the query's clause;
- `elsewhere`: what stands before the members of earlier clauses, and what belongs to none.

From each query the shares of all keys sum to 1. Shares of several queries are their mean.

`type from last`, `type from members`: attention that members attract by being members. The weight on all members before
the query, in order or with members shuffled (the smaller), less that on the same positions when they hold words that
are no members. A head that goes by position has 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from atlas.core.positions import Layout
from atlas.heads.random_heads import Turn, turned
from atlas.model.attention import Positions, attention_weights

if TYPE_CHECKING:
    from atlas.model.block import Block

KEYS = ("self", "previous member", "earlier members", "first token", "same slot", "delimiters", "own clause")
ELSEWHERE = "elsewhere"
OF_MEMBERS = {"last member": "previous member", "first member": "earlier members", "other members": "earlier members"}
QUERIES = ("last", "member")
IN_ORDER, VARIANTS = "in order", ("shuffled", "words")  # the prompts themselves, and beside them
TYPES = {"last": "type from last", "member": "type from members"}


def keys_of(layout: Layout, query: int) -> list[str]:
    """What each key 0 .. ``query`` is to the query, of `KEYS` or `ELSEWHERE`."""
    here, found = layout.slots[query], []
    for role, there in zip(layout.relative(query), layout.slots, strict=False):
        if role != "separators":
            found.append(OF_MEMBERS.get(role, role))
        elif here is not None and there is not None and there.clause == here.clause:
            found.append("own clause")
        else:
            found.append("delimiters" if there is not None and there.offset > 0 else ELSEWHERE)
    return found


def queries_of(layout: Layout) -> dict[str, list[int]]:
    """Positions that are looked from: `last`, the answer position, and `member`, the last token of each member but the
    first, none where fewer than two are shown."""
    later = sorted({last for _, last in layout.members})[1:]
    return {"last": [layout.answer_position]} | ({"member": later} if later else {})


@dataclass(frozen=True)
class Sums:
    """Shares as sums of attention weights: T of them, named, from the Q positions ``at``."""

    names: tuple[str, ...]
    at: tuple[int, ...]
    mask: torch.Tensor  # [T, Q, S] what each weight counts: 1 / how many queries the share is a mean of, or 0

    def __call__(self, weights: torch.Tensor) -> torch.Tensor:
        """[N, H, T] of attention weights [N, H, Q, S]."""
        return torch.einsum("nhqs,tqs->nht", weights.float(), self.mask.to(weights.device))


def sums(layout: Layout, members_alone: bool = False) -> Sums:
    """`<query> to <key>` for each query and each key that it has; or ``members_alone``, `last` and `member`, of all
    members before them."""
    queries = queries_of(layout)
    at = tuple(dict.fromkeys(position for positions in queries.values() for position in positions))
    names, masks = [], []
    for query, positions in queries.items():
        kinds = {position: keys_of(layout, position) for position in positions}
        groups = {key: {key} for key in KEYS} if not members_alone else {"": {"previous member", "earlier members"}}
        for key, wanted in groups.items():
            mask = torch.zeros(len(at), layout.tokens)
            for position, keys in kinds.items():
                mask[at.index(position), : position + 1] = torch.tensor([float(name in wanted) for name in keys])
            if mask.any():
                names.append(f"{query} to {key}" if key else query)
                masks.append(mask / len(positions))
    return Sums(tuple(names), at, torch.stack(masks) if masks else torch.zeros(0, len(at), layout.tokens))


def rows(block: Block, normed: torch.Tensor, at: Positions, turn: Turn | None = None) -> torch.Tensor:
    """Attention weights [N, H, Q, S] of a layer's heads at the positions ``at``, of what its norm gives [N, S, D].

    Those of `Block.pattern`; with a ``turn`` those of random heads.
    """
    q = block.queries(turned(at.take(normed), turn, "q"), at)
    k = block.entering("k", turned(normed, turn, "k"))
    return attention_weights(q, k, at.mask(k.shape[2], block.window), block.scale, block.cap)


def shares(
    block: Block, normed: Mapping[str, torch.Tensor], layout: Layout, turn: Turn | None = None
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """(name -> [N, H] shares of a layer's heads, weights [N, H, Q, S] on the prompts themselves).

    ``normed``: variant -> what the layer's norm gives [N, S, D], `in order` and those of `VARIANTS` that can be made.
    Weights on all members are named `<query>, <variant>`; `attracted` makes scores of them.
    """
    all_keys, of_members = sums(layout), sums(layout, members_alone=True)
    at = Positions(torch.tensor(all_keys.at, device=normed[IN_ORDER].device))
    weights = rows(block, normed[IN_ORDER], at, turn)
    found = dict(zip(all_keys.names, all_keys(weights).unbind(-1), strict=True))
    if of_members.names and all(variant in normed for variant in VARIANTS):
        for variant in (IN_ORDER, *VARIANTS):
            own = weights if variant == IN_ORDER else rows(block, normed[variant], at, turn)
            parts = zip(of_members.names, of_members(own).unbind(-1), strict=True)
            found |= {f"{name}, {variant}": x for name, x in parts}
    return found, weights


def attracted(found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The scores in ``found`` (`shares`, of all prompts, [N, ...] each), with those of `TYPES` made of weights on all
    members: whether members in order or shuffled weigh less is said by the means over prompts."""
    scores = {name: x for name, x in found.items() if "," not in name}
    for query, name in TYPES.items():
        if f"{query}, {IN_ORDER}" in found:
            ordered, shuffled, words = (found[f"{query}, {variant}"] for variant in (IN_ORDER, *VARIANTS))
            scores[name] = np.where(ordered.mean(0) <= shuffled.mean(0), ordered, shuffled) - words
    return scores
