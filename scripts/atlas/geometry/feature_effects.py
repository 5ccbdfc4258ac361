"""What a member's own feature does for the model's answers: ablated or swapped at the last member of a task's prompts.

The activation at the last member shown is replaced by its reconstruction, by that without the member's own feature, by
that without a random one (`feature_heads`: equal norm, nearest activity), or by one with the own feature of another
member in its place. All else of the run follows from it. Values are differences of logits, answer less incorrect, per
prompt: what the reconstruction loses beside the clean run, and what ablation loses beside the reconstruction. A swap's
is what the member after the swapped-in one gains on the answer. Whether the own feature loses more than random ones is
tested by flipping the signs of the prompts' differences, since each prompt has its own random features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from atlas.core.multiple import corrected
from atlas.core.statistics import Bootstrap, interval_columns
from atlas.geometry.feature_heads import POOL
from atlas.store.job import progress

if TYPE_CHECKING:
    from atlas.geometry.classes import Members
    from atlas.geometry.feature_heads import Features
    from atlas.geometry.feature_text import Place
    from atlas.model.models import Model

RANDOM = 4  # random features for each prompt
FLIPS = 9999  # of the test
COLUMNS = ["task", "edit", "value", "ci_low", "ci_high", "full", "share", "moved", "prompts", "draws", "p", "tests"]
COLUMNS += ["p_holm"]


@dataclass(frozen=True)
class Examined:
    """Prompts of a task whose last member has an own feature and a next one."""

    task: str
    tokens: torch.Tensor  # [N, S]
    position: int  # of the last member
    answer: torch.Tensor  # [N]
    incorrect: torch.Tensor  # [N]
    own: torch.Tensor  # [N] feature of the last member
    other: torch.Tensor  # [N] feature of another member of its class
    strength: torch.Tensor  # [N] what a swap puts in of it
    target: torch.Tensor  # [N] token of the member after that one
    ids: list[int]  # of the class

    @classmethod
    def of(
        cls, task: str, frame: pd.DataFrame, position: int, classes: Sequence[Members], features: Features, most: int
    ) -> Examined | None:
        """The first ``most`` prompts of one layout; None where no class holds their last members.

        The other member stands half the class further, among those with an own feature and a next member.
        """
        last = [int(tokens[position]) for tokens in frame["tokens"]]
        members = max(classes, key=lambda own: sum(token in own.ids for token in last), default=None)
        if members is None:
            return None
        after = {members.ids[i]: members.ids[j] for i, j in members.steps().items() if members.ids[i] in features.own}
        known = list(after)
        rows = [i for i, token in enumerate(last) if token in after][:most]
        if len(known) < 3 or len(rows) < 2:
            return None
        others = [known[(known.index(last[i]) + len(known) // 2) % len(known)] for i in rows]
        part = frame.iloc[rows]
        columns = {name: torch.tensor(part[f"{name}_token"].to_list()) for name in ("answer", "incorrect")}
        return cls(
            task,
            torch.tensor(np.stack(part["tokens"].to_list())),
            position,
            **columns,
            own=torch.tensor([features.own[last[i]] for i in rows]),
            other=torch.tensor([features.own[token] for token in others]),
            strength=torch.tensor([features.strength[token] for token in others]),
            target=torch.tensor([after[token] for token in others]),
            ids=list(members.ids),
        )


def edit_of(
    features: Features, own: torch.Tensor, random: torch.Tensor | None, put: tuple[torch.Tensor, torch.Tensor] | None
) -> Callable[[torch.Tensor], torch.Tensor]:
    """What makes of activations [n, D] their reconstruction without a feature.

    ``own`` [n]: the one whose activity says how much is taken, of itself or of ``random`` [n]; ``put``: what is put in
    its place, feature [n] and how much [n].
    """
    sae = features.sae

    def edit(x: torch.Tensor) -> torch.Tensor:
        activity = sae.encode(x.float())
        size = activity.gather(1, own[:, None]) * sae.norms[own][:, None]
        found = sae.decode(activity) - size * features.directions[own if random is None else random]
        return found if put is None else found + put[1][:, None] * features.directions[put[0]]

    return edit


def run(
    model: Model, examined: Examined, hook: str, edit: Callable[[torch.Tensor, slice], torch.Tensor] | None
) -> torch.Tensor:
    """[N, P + 3] logits at the last token, of answer, incorrect, the swap's target and the class; with the activation
    at the member replaced by what ``edit`` makes of it and its rows."""
    found = []
    for batch in model.batches(len(examined.tokens)):

        def replace(x: torch.Tensor, hook: object, batch: slice = batch) -> torch.Tensor:
            assert edit is not None
            changed = x.clone()
            changed[:, examined.position] = edit(x[:, examined.position].cpu(), batch).to(x)
            return changed

        logits = model.run(examined.tokens[batch], [] if edit is None else [(hook, replace)]).cpu()
        named = torch.stack([x[batch] for x in (examined.answer, examined.incorrect, examined.target)], 1)
        found.append(torch.cat((logits.gather(1, named), logits[:, examined.ids]), 1))
    return torch.cat(found).double()


def flipped(difference: np.ndarray, seed: int) -> float:
    """One-sided p of a mean difference [N] above 0, by flips of the signs of prompts."""
    rng = np.random.default_rng(seed)
    signs = rng.integers(0, 2, (FLIPS, len(difference))) * 2 - 1
    return float((1 + (signs @ difference >= difference.sum() - 1e-9).sum()) / (1 + FLIPS))


def of_task(
    model: Model, examined: Examined, features: Features, place: Place, bootstrap: Bootstrap
) -> list[dict[str, Any]]:
    """Rows of `COLUMNS` less the correction."""
    generator = torch.Generator().manual_seed(bootstrap.seed)
    own, n = examined.own, len(examined.own)

    def edited(
        random: torch.Tensor | None = None, put: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> torch.Tensor:
        def edit(x: torch.Tensor, part: slice) -> torch.Tensor:
            given = None if put is None else (put[0][part], put[1][part])
            return edit_of(features, own[part], None if random is None else random[part], given)(x)

        return run(model, examined, place.hook, edit)

    def drawn(stand_for: torch.Tensor) -> torch.Tensor:
        return features.pools[stand_for, torch.randint(POOL, (n,), generator=generator)]

    def answers(x: torch.Tensor) -> np.ndarray:
        found: np.ndarray = (x[:, 0] - x[:, 1]).numpy()
        return found

    def target_leads(x: torch.Tensor) -> np.ndarray:
        found: np.ndarray = (x[:, 2] - x[:, 0]).numpy()
        return found

    whole = run(model, examined, place.hook, lambda x, part: features.sae.reconstruct(x))
    clean, plain = answers(run(model, examined, place.hook, None)), answers(whole)
    ablated = plain - answers(edited())
    random = np.mean([plain - answers(edited(drawn(own))) for _ in range(RANDOM)], axis=0)
    swap, swap_random = (edited(put=(which, examined.strength)) for which in (examined.other, drawn(examined.other)))
    base = target_leads(whole)
    gained = {"swap": target_leads(swap) - base, "swap random": target_leads(swap_random) - base}
    values = {"reconstruction": clean - plain, "own feature": ablated, "random features": random}
    values |= {"beyond random": ablated - random} | gained
    values |= {"swap beyond random": gained["swap"] - gained["swap random"]}
    on_top = {"swap": top_is_target(swap, examined), "swap random": top_is_target(swap_random, examined)}
    rows = []
    for edit, value in values.items():
        tested = edit in ("beyond random", "swap beyond random")
        row = {"task": examined.task, "edit": edit} | interval_columns(bootstrap.mean(value))
        row |= {"full": clean.mean(), "share": value.mean() / clean.mean(), "moved": on_top.get(edit, np.nan)}
        row |= {"prompts": n, "draws": RANDOM if "random" in edit else 0}
        rows.append(row | {"p": flipped(value, bootstrap.seed) if tested else np.nan})
    return rows


def top_is_target(logits: torch.Tensor, examined: Examined) -> float:
    """The share of prompts whose largest logit of the class is the swap's target."""
    top = torch.tensor(examined.ids)[logits[:, 3:].argmax(1)]
    return float((top == examined.target).double().mean())


def find(
    model: Model, prompts: Iterable[Examined], features: Features, place: Place, bootstrap: Bootstrap
) -> pd.DataFrame:
    """Table `feature_effects`. Tests are corrected over the tasks. Runs the model 5 + `RANDOM` times on each prompt."""
    rows: list[dict[str, Any]] = []
    for examined in progress(list(prompts), "features in the model"):
        rows += of_task(model, examined, features, place, bootstrap)
    if not rows:
        return pd.DataFrame(columns=COLUMNS)
    table = pd.DataFrame(rows)
    return corrected(table, table["edit"])[COLUMNS]
