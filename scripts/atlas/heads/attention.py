"""Where heads attend: mean weights between token roles, on a task's prompts and on variants of them.

Roles of positions: `member 1` .. `member k`, `last` (the answer position), `bos` where one is prepended, `separator`
(everything else). Four variants take apart what a head may go by:

- `in order`: the prompts themselves.
- `shuffled`: the shown members in another order. What goes by the order of members changes.
- `interleaved`: members 2, 4, ... belong to another task with the same layout. A member query then has earlier members
  of its own type and of another; what goes by position does not tell them apart.
- `words`: every shown member replaced by a word that is no member. What goes by position stays, what goes by type does
  not.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from atlas.core.components import Component
from atlas.core.statistics import Bootstrap, column_means
from atlas.model.models import Model
from atlas.store.job import progress

ROLE_COLUMNS = ["layer", "head", "query_role", "key_role", "value", "ci_low", "ci_high"]
STATISTIC_COLUMNS = ["layer", "head", "statistic", "value", "ci_low", "ci_high"]
VARIANTS = ("in order", "shuffled", "interleaved", "words")


def pattern_hook(layer: int) -> str:
    return f"blocks.{layer}.attn.hook_pattern"


# ---- roles ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Layout:
    """Where the members of a prompt stand; ``bos``: is position 0 a BOS token?"""

    length: int
    members: tuple[int, ...]
    answer: int
    bos: bool = False

    @classmethod
    def of(cls, layout: dict[str, Any], bos: bool) -> "Layout":
        """From ``layout`` of `prompts.json`."""
        return cls(layout["tokens"], tuple(layout["member_positions"]), layout["answer_position"], bos)

    @property
    def queries(self) -> dict[str, int]:
        """Role -> position, of the positions that we look from. ``last`` may be a member's position as well."""
        return {f"member {k}": p for k, p in enumerate(self.members, 1)} | {"last": self.answer}

    @property
    def keys(self) -> dict[str, list[int]]:
        """Role -> positions; a query's own position is taken out of its role and becomes `self`."""
        out = {f"member {k}": [p] for k, p in enumerate(self.members, 1)}
        taken = {*self.members, *([0] if self.bos else [])}
        out["separator"] = [p for p in range(self.length) if p not in taken]
        return out | ({"bos": [0]} if self.bos and 0 not in self.members else {})


# ---- variants of prompts -------------------------------------------------------------------------------------
def shuffled(tokens: torch.Tensor, layout: Layout, seed: int) -> torch.Tensor | None:
    """Tokens [N, S] with the shown members in a random order that is not the shown one; None with one member."""
    k = len(layout.members)
    if k < 2:
        return None
    rng, out, places = np.random.default_rng(seed), tokens.clone(), torch.tensor(layout.members)
    for row in range(len(tokens)):
        order = rng.permutation(k)
        while (order == np.arange(k)).all():
            order = rng.permutation(k)
        out[row, places] = tokens[row, places[torch.tensor(order)]]
    return out


def interleaved(tokens: torch.Tensor, other: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Tokens [N, S] whose members 2, 4, ... come from the row-aligned prompts ``other`` [N, S] of the same layout."""
    out, places = tokens.clone(), list(layout.members[1::2])
    out[:, places] = other[:, places]
    return out


def partner(
    frame: pd.DataFrame, layout: Layout, others: dict[str, pd.DataFrame]
) -> tuple[str, torch.Tensor, torch.Tensor] | None:
    """(name, rows [n], tokens [n, S]) of the first other task to interleave prompts of ``frame`` with, or None.

    ``others``: name -> frame. It must have the same tokens outside the members' positions (the same layout and fillers)
    in at least half of the prompts, ``rows`` of ``frame``, and share no member with it.
    """
    places, tokens = list(layout.members), np.stack(frame.tokens.to_list())
    outside = np.setdiff1d(np.arange(layout.length), places)
    for name, other in others.items():
        by_prompt = dict(zip(other.prompt, other.tokens, strict=True))
        rows = [i for i, p in enumerate(frame.prompt) if len(by_prompt.get(p, ())) == layout.length]
        if 2 * len(rows) < len(frame):
            continue
        found = np.stack([by_prompt[p] for p in frame.prompt.iloc[rows]])
        aligned = (found[:, outside] == tokens[rows][:, outside]).all()
        if aligned and not np.isin(found[:, places], tokens[:, places]).any():
            return name, torch.tensor(rows), torch.tensor(found)
    return None


def words(tokens: torch.Tensor, candidates: Any, layout: Layout, seed: int) -> torch.Tensor:
    """Tokens [N, S] whose members are different random words.

    ``candidates``: ids of W words that are no members, [W], or [N, K, W] as they stand in each member's place.
    """
    rng, out, places = np.random.default_rng(seed), tokens.clone(), list(layout.members)
    candidates = np.asarray(candidates)
    by_place = np.broadcast_to(candidates, (len(tokens), len(places), candidates.shape[-1]))
    for row in range(len(tokens)):
        chosen = rng.choice(by_place.shape[-1], size=len(places), replace=False)
        out[row, places] = torch.tensor(by_place[row, range(len(places)), chosen])
    return out


# ---- weights -------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Weights:
    """Attention weights between roles, per prompt.

    ``weight`` [N, L, H, Q, K]: sum over the keys of a role, 0 for keys after the query; sums to 1 over K. ``maximum``
    [N, L, H, Q]: position of the largest weight of the query's row (of equal ones the first).
    """

    weight: np.ndarray
    maximum: np.ndarray
    queries: dict[str, int]
    keys: list[str]  # the last is `self`
    layout: Layout


def weights(model: Model, tokens: torch.Tensor, layout: Layout) -> Weights:
    """Attention of every head between roles on tokens [N, S], from TransformerLens's `hook_pattern`."""
    queries, groups = layout.queries, layout.keys
    at = torch.tensor(list(queries.values()))
    indicator = torch.zeros(layout.length, len(groups))
    for column, positions in enumerate(groups.values()):
        indicator[positions, column] = 1
    shape = (len(tokens), model.n_layers, model.n_heads, len(queries))
    weight, maximum = np.zeros((*shape, len(groups) + 1)), np.zeros(shape, dtype=int)

    def reader(layer: int, batch: slice) -> Callable[..., torch.Tensor]:
        def hook(pattern: torch.Tensor, hook: object) -> torch.Tensor:
            rows = pattern[:, :, at.to(pattern.device)].detach().to("cpu", torch.float32)  # [n, H, Q, S]
            maximum[batch, layer] = rows.argmax(-1).numpy()
            own = rows.gather(-1, at.view(1, 1, -1, 1).expand(*rows.shape[:3], 1))
            to_roles = rows @ indicator - own * indicator[at]
            weight[batch, layer] = torch.cat([to_roles, own], dim=-1).numpy()
            return pattern

        return hook

    for batch in progress(model.batches(len(tokens)), "attention"):
        model.run(tokens[batch], [(pattern_hook(layer), reader(layer, batch)) for layer in range(model.n_layers)])
    return Weights(weight, maximum, queries, [*groups, "self"], layout)


def patterns(model: Model, tokens: torch.Tensor, heads: Sequence[Component]) -> dict[str, torch.Tensor]:
    """Whole patterns of a few heads on a few prompts: name of the head -> [N, S, S]."""
    found = {}

    def reader(layer: int) -> Callable[..., torch.Tensor]:
        def hook(pattern: torch.Tensor, hook: object) -> torch.Tensor:
            found.update({str(h): pattern[:, h.head].detach().cpu() for h in heads if h.layer == layer})
            return pattern

        return hook

    model.run(tokens, [(pattern_hook(layer), reader(layer)) for layer in sorted({h.layer for h in heads})])
    return {str(h): found[str(h)] for h in heads}


# ---- tables --------------------------------------------------------------------------------------------------
def head_rows(n_layers: int, n_heads: int) -> pd.DataFrame:
    """Columns layer, head of every head, layer by layer."""
    return pd.DataFrame(
        [(layer, head) for layer in range(n_layers) for head in range(n_heads)], columns=["layer", "head"]
    )


def role_table(found: Weights, bootstrap: Bootstrap) -> pd.DataFrame:
    """Rows of `ROLE_COLUMNS`: mean weight, without keys after the query."""
    n, n_layers, n_heads = found.weight.shape[:3]
    first = {role: min(positions, default=0) for role, positions in found.layout.keys.items()}
    pieces, heads = [], head_rows(n_layers, n_heads)
    for q, (query, at) in enumerate(found.queries.items()):
        for k, key in enumerate(found.keys):
            if key != "self" and (first[key] > at or found.layout.keys[key] == [at]):
                continue
            columns = column_means(bootstrap, found.weight[:, :, :, q, k].reshape(n, -1))
            pieces.append(heads.assign(query_role=query, key_role=key, **columns))
    return pd.concat(pieces, ignore_index=True)[ROLE_COLUMNS]


def statistics(found: Weights, interleaved: bool = False) -> dict[str, np.ndarray]:
    """What is said of a head's attention to members: statistic -> per-prompt values [N, L, H].

    `previous member weight`: from member k to member k - 1, mean over k > 1. `previous member is the maximum`: share of
    those k where it is the largest weight of the whole row. `member to members`: from member k to all earlier ones,
    mean over k > 1. `last to members`, `last to last member`, `last member is the maximum`: the same of the answer
    position. On interleaved members: `member to own type`, `member to other type`: from member k to the earlier members
    of its own and of the other task, mean over k > 2 (the first two have no earlier one of their own).
    """
    members = len(found.layout.members)
    if members < 2:
        return {}
    at = list(found.layout.members)
    column = {key: k for k, key in enumerate(found.keys)}

    def weight(query: str, key: str) -> np.ndarray:
        return found.weight[:, :, :, list(found.queries).index(query), column[key]]

    def between(k: int, earlier: Iterable[int]) -> np.ndarray:
        return sum(weight(f"member {k}", f"member {j}") for j in earlier) + np.zeros_like(found.weight[..., 0, 0])

    after_first = range(2, members + 1)
    last_is_member = found.layout.answer in at
    shown = at.index(found.layout.answer) if last_is_member else members  # members that the answer position can look at
    out = {
        "previous member weight": np.mean([between(k, [k - 1]) for k in after_first], axis=0),
        "previous member is the maximum": np.mean(
            [found.maximum[..., k - 1] == at[k - 2] for k in after_first], axis=0, dtype=float
        ),
        "member to members": np.mean([between(k, range(1, k)) for k in after_first], axis=0),
        "last to members": sum(weight("last", f"member {k}") for k in range(1, shown + 1)),
        "last to last member": weight("last", f"member {shown}"),
        "last member is the maximum": (found.maximum[..., -1] == at[shown - 1]).astype(float),
    }
    if interleaved and members > 2:
        later = range(3, members + 1)
        out["member to own type"] = np.mean([between(k, range(k - 2, 0, -2)) for k in later], axis=0)
        out["member to other type"] = np.mean([between(k, range(k - 1, 0, -2)) for k in later], axis=0)
    return out


def statistic_table(found: Weights, bootstrap: Bootstrap, interleaved: bool = False) -> pd.DataFrame:
    """Rows of `STATISTIC_COLUMNS`; none where prompts show fewer than two members."""
    n, n_layers, n_heads = found.weight.shape[:3]
    pieces, heads = [], head_rows(n_layers, n_heads)
    for name, values in statistics(found, interleaved).items():
        pieces.append(heads.assign(statistic=name, **column_means(bootstrap, values.reshape(n, -1))))
    return pd.concat(pieces, ignore_index=True) if pieces else pd.DataFrame(columns=STATISTIC_COLUMNS)
