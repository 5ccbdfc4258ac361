"""Where heads attend: mean weights between positions, on a task's prompts and on variants of them.

Keys are told apart by name and by what they are to the query (core/positions.py). Four variants take apart what a head
may go by:

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
from atlas.core.positions import RELATIVE, Layout
from atlas.core.statistics import Bootstrap, column_means
from atlas.model.models import Model
from atlas.store.job import progress

ROLE_COLUMNS = ["layer", "head", "query_role", "key_role", "value", "ci_low", "ci_high"]
STATISTIC_COLUMNS = ["layer", "head", "statistic", "value", "ci_low", "ci_high"]
VARIANTS = ("in order", "shuffled", "interleaved", "words")


def pattern_hook(layer: int) -> str:
    """Name of the hook at a layer's attention weights [N, H, S, S], queries before keys."""
    return f"blocks.{layer}.attn.hook_pattern"


# ---- variants of prompts -------------------------------------------------------------------------------------
def shuffled(tokens: torch.Tensor, layout: Layout, seed: int) -> torch.Tensor:
    """Tokens [N, S] with the shown members, two or more, in a random order that is not the shown one."""
    k = len(layout.members)
    if k < 2:
        raise ValueError("fewer than two members have no other order")
    rng, out, places = np.random.default_rng(seed), tokens.clone(), torch.tensor(layout.places)
    for row in range(len(tokens)):
        order = rng.permutation(k)
        while (order == np.arange(k)).all():
            order = rng.permutation(k)
        out[row, places] = tokens[row, places[torch.tensor(order)]]
    return out


def interleaved(tokens: torch.Tensor, other: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Tokens [N, S] whose members 2, 4, ... come from the row-aligned prompts ``other`` [N, S] of the same layout."""
    out, places = tokens.clone(), layout.places[1::2]
    out[:, places] = other[:, places]
    return out


def partner(
    frame: pd.DataFrame, layout: Layout, others: dict[str, pd.DataFrame]
) -> tuple[str, torch.Tensor, torch.Tensor] | None:
    """(name, rows [n], tokens [n, S]) of the first other task to interleave prompts of ``frame`` with, or None.

    ``others``: name -> frame. It must have the same tokens outside the members' positions (the same layout and fillers)
    in at least half of the prompts, ``rows`` of ``frame``, and share no member with it.
    """
    places, tokens = layout.places, np.stack(frame.tokens.to_list())
    outside = np.setdiff1d(np.arange(layout.tokens), places)
    for name, other in others.items():
        by_prompt = dict(zip(other.prompt, other.tokens, strict=True))
        rows = [i for i, p in enumerate(frame.prompt) if len(by_prompt.get(p, ())) == layout.tokens]
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
    rng, out, places = np.random.default_rng(seed), tokens.clone(), layout.places
    candidates = np.asarray(candidates)
    by_place = np.broadcast_to(candidates, (len(tokens), len(places), candidates.shape[-1]))
    for row in range(len(tokens)):
        chosen = rng.choice(by_place.shape[-1], size=len(places), replace=False)
        out[row, places] = torch.tensor(by_place[row, range(len(places)), chosen])
    return out


# ---- weights -------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Weights:
    """Attention weights of every head from the Q positions that we look from (`Layout.queries`), per prompt.

    K counts the names of keys here (`names_of_keys`), R their relative roles (`RELATIVE`).
    ``named`` [N, L, H, Q, K]: sum over the keys of a name, with the query's own position apart, as `self`.
    ``relative`` [N, L, H, Q, R]: sum over the keys of each role of `RELATIVE`. Either sums to 1, and is 0 where a query
    sees no such key. ``maximum`` [N, L, H, Q]: position of the row's largest weight (of equal ones the first).
    """

    named: np.ndarray
    relative: np.ndarray
    maximum: np.ndarray
    layout: Layout

    @property
    def names(self) -> list[str]:
        return names_of_keys(self.layout)


def names_of_keys(layout: Layout) -> list[str]:
    """[K] what keys are called: members by number, other text, BOS, and `self`."""
    order = [*(f"member {number}" for number in range(1, len(layout.members) + 1)), "separators", "bos"]
    return [*(name for name in order if name in layout.names), "self"]


def seen(layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """[Q, S, K] and [Q, S, R]: is this key, as this query sees it, of this name, and of this relative role?"""
    names, queries = names_of_keys(layout), list(layout.queries.values())
    named = np.zeros((len(queries), layout.tokens, len(names)), dtype=bool)
    relative = np.zeros((len(queries), layout.tokens, len(RELATIVE)), dtype=bool)
    for q, query in enumerate(queries):
        for key, role in enumerate(layout.relative(query)):
            named[q, key, names.index("self" if key == query else layout.names[key])] = True
            relative[q, key, RELATIVE.index(role)] = True
    return named, relative


def weights(model: Model, tokens: torch.Tensor, layout: Layout) -> Weights:
    """Attention of every head on tokens [N, S], from TransformerLens's `hook_pattern`."""
    kinds = [torch.tensor(kind, dtype=torch.float32) for kind in seen(layout)]
    at = torch.tensor(list(layout.queries.values()))
    shape = (len(tokens), model.n_layers, model.n_heads, len(at))
    found, maximum = [np.zeros((*shape, kind.shape[-1])) for kind in kinds], np.zeros(shape, dtype=int)

    def reader(layer: int, batch: slice) -> Callable[..., torch.Tensor]:
        def hook(pattern: torch.Tensor, hook: object) -> torch.Tensor:
            rows = pattern[:, :, at.to(pattern.device)].detach().to("cpu", torch.float32)  # [n, H, Q, S]
            maximum[batch, layer] = rows.argmax(-1).numpy()
            for out, kind in zip(found, kinds, strict=True):
                out[batch, layer] = torch.einsum("nhqs,qsk->nhqk", rows, kind).numpy()
            return pattern

        return hook

    for batch in progress(model.batches(len(tokens)), "attention"):
        model.run(tokens[batch], [(pattern_hook(layer), reader(layer, batch)) for layer in range(model.n_layers)])
    return Weights(found[0], found[1], maximum, layout)


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
    """Rows of `ROLE_COLUMNS`: mean weight by the names of query and key, for keys that the query sees."""
    n, n_layers, n_heads = found.named.shape[:3]
    pieces, heads, present = [], head_rows(n_layers, n_heads), seen(found.layout)[0].max(1)
    for q, query in enumerate(found.layout.queries):
        for k, key in enumerate(found.names):
            if present[q, k]:
                columns = column_means(bootstrap, found.named[:, :, :, q, k].reshape(n, -1))
                pieces.append(heads.assign(query_role=query, key_role=key, **columns))
    return pd.concat(pieces, ignore_index=True)[ROLE_COLUMNS]


def statistics(found: Weights, interleaved: bool = False) -> dict[str, np.ndarray]:
    """What is said of a head's attention to members: statistic -> per-prompt values [N, L, H].

    `previous member weight`: from member k to member k - 1, mean over k > 1. `previous member is the maximum`: share of
    those k where it is the largest weight of the whole row. `member to members`: from member k to all earlier ones,
    mean over k > 1. `last to members`, `last member is the maximum`: the same of the answer position. On interleaved
    members: `member to own type`, `member to other type`: from member k to the earlier members of its own and of the
    other task, mean over k > 2 (the first two have no earlier one of their own).

    And by relative role (core/positions.py): `last to <role>`, and `member to <role>`, mean over k > 1, for each role
    that some key has there. The roles of a query sum to 1. `member to last member` is `previous member weight`.
    """
    layout, named = found.layout, found.named
    positions, queries = layout.places, list(layout.queries.values())
    if len(set(positions)) < 2:
        return {}
    row = [queries.index(position) for position in positions]  # of each member as a query
    column = {p: found.names.index(name) for p, name in enumerate(layout.names) if name in found.names}

    def between(k: int, earlier: Iterable[int]) -> np.ndarray:
        keys = [column[positions[j - 1]] for j in earlier if positions[j - 1] in column]
        total: np.ndarray = named[:, :, :, row[k - 1]][..., keys].sum(-1)
        return total

    after_first = range(2, len(positions) + 1)
    shown = [position for position in positions if position < layout.answer_position]
    out = {
        "previous member weight": np.mean([between(k, [k - 1]) for k in after_first], axis=0),
        "previous member is the maximum": np.mean(
            [found.maximum[..., row[k - 1]] == positions[k - 2] for k in after_first], axis=0, dtype=float
        ),
        "member to members": np.mean([between(k, range(1, k)) for k in after_first], axis=0),
        "last to members": named[:, :, :, -1][..., [column[position] for position in shown]].sum(-1),
        "last member is the maximum": (found.maximum[..., -1] == shown[-1]).astype(float),
    }
    if interleaved and len(positions) > 2:
        later = range(3, len(positions) + 1)
        out["member to own type"] = np.mean([between(k, range(k - 2, 0, -2)) for k in later], axis=0)
        out["member to other type"] = np.mean([between(k, range(k - 1, 0, -2)) for k in later], axis=0)
    present = seen(layout)[1].max(1)
    for query, rows in (("last", [-1]), ("member", [row[k - 1] for k in after_first])):
        for r, role in enumerate(RELATIVE):
            if present[rows, r].any():
                out[f"{query} to {role}"] = found.relative[:, :, :, rows, r].mean(-1)
    return out


def statistic_table(found: Weights, bootstrap: Bootstrap, interleaved: bool = False) -> pd.DataFrame:
    """Rows of `STATISTIC_COLUMNS`; none where prompts show fewer than two members."""
    n, n_layers, n_heads = found.named.shape[:3]
    pieces, heads = [], head_rows(n_layers, n_heads)
    for name, values in statistics(found, interleaved).items():
        pieces.append(heads.assign(statistic=name, **column_means(bootstrap, values.reshape(n, -1))))
    return pd.concat(pieces, ignore_index=True) if pieces else pd.DataFrame(columns=STATISTIC_COLUMNS)
