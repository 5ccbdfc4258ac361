"""Does the model use a shape? What a prompt's answer does when its members are moved within the shape alone.

All members of a task's prompt are moved by the same number of steps, so that March, April, May go to July, August,
September, and the answer with them. At a point of the residual stream, where the members stand, the residual is moved
by the difference of the two members' mean residuals (contexts of `residuals.py`):

- ``whole``: all of that difference; ``fitted``: its part in the subspace of the shape, spanned by the coefficients of
  least squares of the members' residuals on the shape's columns (line: one dimension, circle: a plane, helix: eight);
- beside it, of as many dimensions: ``permuted``, the same subspace of a random order of the members; ``random``, drawn
  among the members' differences; ``pca``, their first principal components.

The value is the share of what the *tokens* of the moved members do, all else being equal: the rise of the moved
answer's logit over the old one's, of that when the tokens themselves are exchanged. ``variance``: share of the squared
differences that lies in the subspace, which alone lets it obtain more.

The point is chosen on every other prompt: of the points where ``whole`` obtains at least `ENOUGH` of the most that it
obtains at any, that where the shape's statistic in the contexts to fit is largest. Values are of the other prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from atlas.core.statistics import Bootstrap, interval_columns
from atlas.geometry.classes import Members
from atlas.geometry.residuals import Residuals, point_hook
from atlas.geometry.shapes import CIRCLE, HELIX, HELIX_FROM, LINE, basis, p_value

if TYPE_CHECKING:
    from atlas.model.models import Model

WHOLE, FITTED, PERMUTED, RANDOM, PCA = "whole", "fitted", "permuted", "random", "pca"
ENOUGH, LEAST = 0.5, 4  # of the most that is obtained; prompts that tell something
RANDOM_DRAWS = 5
OF = ["task", "class", "shape", "point", "chosen", "patched"]
COLUMNS = [*OF, "dimensions", "value", "ci_low", "ci_high", "draws", "draws_low", "draws_high", "p", "variance"]
COLUMNS += ["prompts", "clean", "exchanged"]


# ---- prompts -------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Moved:
    """Prompts of one layout whose members and answer are moved along their class.

    ``tokens``, ``moved`` [N, S]; ``at`` [M] positions of members; ``old``, ``new`` [N, M] which members; ``answer``,
    ``moved_answer`` [N] token ids.
    """

    tokens: torch.Tensor
    moved: torch.Tensor
    at: tuple[int, ...]
    old: np.ndarray
    new: np.ndarray
    answer: torch.Tensor
    moved_answer: torch.Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, rows: slice) -> Moved:
        """Some of the prompts."""
        tokens, moved, answer, moved_answer = (
            of[rows] for of in (self.tokens, self.moved, self.answer, self.moved_answer)
        )
        return Moved(tokens, moved, self.at, self.old[rows], self.new[rows], answer, moved_answer)


def moved(frame: pd.DataFrame, at: Sequence[int], members: Members, number: int, seed: int) -> Moved | None:
    """Of ``number`` prompts at most, spread over ``frame`` (rows of `prompts.parquet`, all of one layout with members
    at the positions ``at``); None where fewer than `LEAST` have members and an answer of the class that can be moved.

    How far is drawn, for each prompt, among the steps that keep all of them in the class and move the answer.
    """
    rng, which = np.random.default_rng([seed, 2]), {token: i for i, token in enumerate(members.ids)}
    place_of, at_place = dict(enumerate(members.places)), {place: i for i, place in enumerate(members.places)}
    wrap: Callable[[int], int] = (lambda place: place % members.size) if members.cyclic else (lambda place: place)
    found: list[tuple[np.ndarray, list[int], list[int]]] = []
    for row in frame.itertuples():
        ids = np.asarray(row.tokens)
        own = [which.get(int(token)) for token in (*ids[list(at)], row.answer_token)]
        if not at or any(i is None for i in own):
            continue
        places = [place_of[i] for i in own if i is not None]
        steps = [
            by
            for by in range(-members.size + 1, members.size)
            if by % members.size and all(wrap(place + by) in at_place for place in places)
        ]
        if steps:
            by = steps[int(rng.integers(len(steps)))]
            found.append((ids, [i for i in own if i is not None], [at_place[wrap(place + by)] for place in places]))
    if len(found) < LEAST:
        return None
    rows = sorted({int((i + 0.5) * len(found) / number) for i in range(number)}) if len(found) > number else None
    found = found if rows is None else [found[i] for i in rows]
    tokens = torch.tensor(np.stack([ids for ids, _, _ in found]))
    old, new = np.array([own for _, own, _ in found]), np.array([to for _, _, to in found])
    ids_of, changed = torch.tensor(members.ids), tokens.clone()
    changed[:, list(at)] = ids_of[new[:, :-1]]
    return Moved(tokens, changed, tuple(at), old[:, :-1], new[:, :-1], ids_of[old[:, -1]], ids_of[new[:, -1]])


# ---- subspaces -----------------------------------------------------------------------------------------------
def orthonormal(spanning: np.ndarray) -> np.ndarray:
    """[D, K] orthonormal basis of what the columns of [D, K'] span, K <= K'."""
    u, s, _ = np.linalg.svd(spanning, full_matrices=False)
    found: np.ndarray = u[:, s > 1e-9 * max(s.max(initial=0), 1e-300)]
    return found


def subspace(x: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """[D, K] of a shape: of the coefficients of least squares of residuals x [P, D] on ``columns`` [P, K]."""
    return orthonormal(np.linalg.lstsq(columns - columns.mean(0), x - x.mean(0), rcond=None)[0].T)


def random_subspace(x: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """[D, k], uniform among the subspaces of what the members' differences span."""
    span = orthonormal((x - x.mean(0)).T)
    return orthonormal(span @ rng.standard_normal((span.shape[1], min(k, span.shape[1]))))


def shapes_of(members: Members) -> list[str]:
    """The shapes whose use is tested: circles of cyclic classes; of others lines, and helices where they are fitted."""
    if members.cyclic:
        return [CIRCLE]
    return [LINE, HELIX] if len(members) >= HELIX_FROM else [LINE]


# ---- patches -------------------------------------------------------------------------------------------------
def differences(model: Model, of: Moved, tokens: torch.Tensor, edit: Any = None) -> np.ndarray:
    """[N] logit of the moved answer less that of the old one; ``edit``: (point, [N, M, D] added at the members)."""
    found = np.empty(len(of))
    for batch in model.batches(len(of)):
        hooks = []
        if edit is not None:
            point, by = edit

            def add(x: torch.Tensor, hook: object, by: np.ndarray = by[batch]) -> torch.Tensor:
                x = x.clone()
                x[:, list(of.at)] += torch.as_tensor(by).to(x.device, x.dtype)
                return x

            hooks = [(point_hook(point), add)]
        logits = model.run(tokens[batch], hooks).double().cpu()
        rows = torch.arange(len(logits))
        found[batch] = (logits[rows, of.moved_answer[batch]] - logits[rows, of.answer[batch]]).numpy()
    return found


@dataclass(frozen=True)
class Patches:
    """A class's patches on the prompts of one task: what runs there are, and the shares that they obtain."""

    model: Model
    of: Residuals
    prompts: Moved
    bootstrap: Bootstrap
    clean: np.ndarray  # [N] logit differences of the prompts as they are
    exchanged: np.ndarray  # [N] with the moved members' tokens

    @classmethod
    def start(cls, model: Model, of: Residuals, prompts: Moved, bootstrap: Bootstrap) -> Patches:
        """With the two runs that every share is of."""
        runs = (differences(model, prompts, tokens) for tokens in (prompts.tokens, prompts.moved))
        return cls(model, of, prompts, bootstrap, *runs)

    def run(self, place: int, within: np.ndarray | None, rows: slice) -> np.ndarray:
        """[n] logit differences of some prompts, moved at a point within a subspace [D, K]; None: by the whole."""
        mean, few = self.of.mean[place], self.prompts.take(rows)
        by = mean[few.new] - mean[few.old]
        by = by if within is None else (by @ within) @ within.T
        return differences(self.model, few, few.tokens, (self.of.points[place], by))

    def share(self, values: np.ndarray, rows: slice) -> float:
        """Of the rise that the tokens make, on the same prompts."""
        clean = self.clean[rows].mean()
        return float((values.mean() - clean) / (self.exchanged[rows].mean() - clean))

    def row(self, place: int, patched: str, runs: Sequence[np.ndarray], within: np.ndarray | None) -> dict[str, Any]:
        """A row of the table; of several ``runs``, draws of one control, mean and range."""
        rows, x = HELD_OUT, self.of.mean[place] - self.of.mean[place].mean(0)
        mean = np.mean(runs, axis=0)
        found = interval_columns(self.bootstrap.faithfulness(mean, self.exchanged[rows], self.clean[rows]))
        shares = [self.share(run, rows) for run in runs]
        found |= {"patched": patched, "point": self.of.points[place], "draws": len(runs), "p": np.nan}
        found |= {"draws_low": min(shares), "draws_high": max(shares), "prompts": len(self.clean[rows])}
        found |= {"dimensions": x.shape[1] if within is None else within.shape[1], "variance": 1.0}
        if within is not None:
            found["variance"] = float(((x @ within) ** 2).sum() / max((x**2).sum(), 1e-300))
        return found | {"clean": self.clean[rows].mean(), "exchanged": self.exchanged[rows].mean()}


CHOOSING, HELD_OUT = slice(0, None, 2), slice(1, None, 2)


def reached(shares: Sequence[float]) -> list[int]:
    """The points where the whole obtains `ENOUGH` of the most; where it obtains nothing anywhere, the best one."""
    most = max(shares)
    return [i for i, share in enumerate(shares) if share >= (ENOUGH * most if most > 0 else most)]


def of_shape(
    of: Patches, shape: str, whole: list[np.ndarray], value_fit: np.ndarray, draws: int, seed: int
) -> pd.DataFrame:
    """Rows of `COLUMNS` less task, of one shape; ``whole`` [points] the runs of all prompts moved by the whole,
    ``value_fit`` [points] the shape's statistic in the contexts to fit."""
    members, rng = of.of.members, np.random.default_rng([seed, 3])
    columns, places = basis(shape, members), range(len(of.of.points))
    rows = []
    chosen_by = [of.share(run[CHOOSING], CHOOSING) for run in whole]
    chosen = max(reached(chosen_by), key=lambda i: (value_fit[i], -i))
    for place in places:
        within = subspace(of.of.mean[place], columns)
        rows.append(of.row(place, WHOLE, [whole[place][HELD_OUT]], None))
        rows.append(of.row(place, FITTED, [of.run(place, within, HELD_OUT)], within))
    x = of.of.mean[chosen]
    k = subspace(x, columns).shape[1]
    axes = np.linalg.svd(x - x.mean(0), full_matrices=False)[2][:k].T
    drawn = {
        PERMUTED: [subspace(x, columns[rng.permutation(len(columns))]) for _ in range(draws)],
        RANDOM: [random_subspace(x, k, rng) for _ in range(RANDOM_DRAWS)],
        PCA: [axes],
    }
    for patched, subspaces in drawn.items():
        runs = [of.run(chosen, within, HELD_OUT) for within in subspaces]
        row = of.row(chosen, patched, runs, subspaces[0])
        row["variance"] = float(np.mean([of.row(chosen, patched, runs[:1], w)["variance"] for w in subspaces]))
        rows.append(row)
        if patched == PERMUTED:
            fitted = next(r for r in rows if r["patched"] == FITTED and r["point"] == of.of.points[chosen])
            fitted["p"] = p_value(fitted["value"], np.array([of.share(run, HELD_OUT) for run in runs]))
    found = pd.DataFrame(rows)
    return found.assign(chosen=found["point"] == of.of.points[chosen], shape=shape, **{"class": members.name})


def table(
    model: Model,
    of: Residuals,
    prompts: Moved,
    shapes: pd.DataFrame,
    draws: int,
    bootstrap: Bootstrap,
) -> pd.DataFrame:
    """Rows of `COLUMNS` less task; none where the exchange of the tokens does not raise the moved answer.

    ``shapes``: rows of `shapes.table` of the class at its members.
    """
    patches = Patches.start(model, of, prompts, bootstrap)
    empty = pd.DataFrame(columns=[name for name in COLUMNS if name != "task"])
    if any(patches.exchanged[rows].mean() <= patches.clean[rows].mean() for rows in (CHOOSING, HELD_OUT)):
        return empty
    made, whole = [], [patches.run(place, None, slice(None)) for place in range(len(of.points))]
    for shape in shapes_of(of.members):
        own = shapes[shapes["shape"] == shape].drop_duplicates("point").set_index("point")
        value_fit = own["value_fit"].reindex(list(of.points)).to_numpy()
        made.append(of_shape(patches, shape, whole, value_fit, draws, bootstrap.seed))
    return pd.concat(made, ignore_index=True)[list(empty.columns)]
