"""What is found out about single heads on a task: where they attend, what they write, which ones back up which.

Tables come without their columns model and task.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from atlas.heads import attention, backup, ov
from atlas.prompts import layouts, words

if TYPE_CHECKING:
    from atlas.circuit.replacement import Replacement
    from atlas.core.components import Component
    from atlas.core.positions import Layout
    from atlas.heads.explained import Explained

log = logging.getLogger("atlas")
Notes = dict[str, str]  # what was left out -> why


@dataclass(frozen=True)
class Tasks:
    """All explained tasks of a study, this one included: other tasks lend their members."""

    prompts: dict[str, pd.DataFrame]
    layouts: dict[str, Layout]
    members: dict[str, list[str]]  # in order, of the tasks whose order the configuration tells

    @classmethod
    def of(
        cls, prompts: pd.DataFrame, layouts: dict[str, Layout], names: Iterable[str], members: dict[str, list[str]]
    ) -> Tasks:
        """``prompts``: of all tasks, with a column task."""
        return cls({n: prompts[prompts["task"] == n].reset_index(drop=True) for n in names}, layouts, members)


@dataclass(frozen=True)
class Settings:
    """Of the configuration: see `variants`, `examples` and `ov_table`."""

    random_words: Sequence[str]
    pattern_prompts: int
    k: Sequence[int]  # of OV scores
    norms: Sequence[str]
    seed: int


def explain(
    of: Explained,
    wanted: Collection[str],
    heads: Sequence[Component],
    tasks: Tasks,
    settings: Settings,
    substitute: Replacement | None = None,
) -> dict[str, Any]:
    """The ``wanted`` tables (`attention` with `attention_members`, `ov`, `backup`) and the page `patterns`.

    ``heads``: those whose whole patterns are shown, and that are ablated for `backup`, by what ``substitute`` says.
    The page holds ``heads``, ``notes`` and ``examples``.
    """
    found: dict[str, Any] = {}
    notes: Notes = {}
    shown: list[dict[str, Any]] = []
    if of.left_out:
        n = len(of.frame)
        notes["prompts"] = f"the {n} of {n + of.left_out} prompts that have the most common layout"
    if "attention" in wanted:
        made, said = variants(of, tasks, settings.random_words, settings.seed)
        notes |= said
        found = dict(attention_tables(of, made))
        shown = examples(of, heads, settings.pattern_prompts)
    if "ov" in wanted:
        found["ov"], said = ov_table(of, tasks, settings.k, settings.norms)
        notes |= said
    if "backup" in wanted and substitute is not None:
        found["backup"] = backup.table(*backup.before_and_after(of.model, of.prompts, substitute, heads), of.bootstrap)
    log.info("%s: %d prompts, %d heads of circuits; %s", of.task, len(of.frame), len(heads), notes)
    if "patterns" in wanted:
        found["patterns"] = {"heads": list(map(str, heads)), "notes": notes, "examples": shown}
    return found


# ---- where heads attend --------------------------------------------------------------------------------------
def variants(
    of: Explained, tasks: Tasks, random_words: Iterable[str], seed: int
) -> tuple[dict[str, torch.Tensor], Notes]:
    """Variant (`attention.VARIANTS`) -> tokens [n, S], of those that can be made.

    ``tasks``: another one gives the members of `interleaved`; ``random_words``: no members, for `words`.
    """
    frame, layout, shown = of.frame, of.layout, of.prompts.tokens
    if len(set(layout.members)) < 2:
        return {"in order": shown}, {"variants": "the places of two members or more are not known"}
    made, notes = {"in order": shown, "shuffled": attention.shuffled(shown, layout, seed)}, {}
    found = attention.partner(frame, layout, {n: t for n, t in tasks.prompts.items() if n != of.task})
    if found:
        other, rows, mixed_in = found
        notes["interleaved"] = f"with the members of {other}, on {len(rows)} of {len(frame)} prompts"
        made["interleaved"] = attention.interleaved(shown[rows], mixed_in, layout)
    else:
        notes["interleaved"] = "not made: no other task has the same layout and fillers and other members"
    ids = words.words_in_place(of.tokenizer, frame, layout.places, random_words)
    if ids.shape[-1] < len(layout.members):
        notes["words"] = f"not made: {ids.shape[-1]} of `random_words` are one token and no member"
    else:
        made["words"] = attention.words(shown, ids, layout, seed)
    return made, notes


def attention_tables(of: Explained, made: Mapping[str, torch.Tensor]) -> dict[str, pd.DataFrame]:
    """`attention` and `attention_members` of each variant in ``made`` (`variants`), name -> tokens [n, S]."""
    by_name, of_members = [], []
    for variant, changed in made.items():
        weights = attention.weights(of.model, changed, of.layout)
        by_name.append(attention.role_table(weights, of.bootstrap))
        of_members.append(attention.statistic_table(weights, of.bootstrap, variant == "interleaved"))
        for table in (by_name[-1], of_members[-1]):
            table.insert(0, "variant", variant)
    tables = {"attention": by_name, "attention_members": of_members}
    return {name: pd.concat(pieces, ignore_index=True) for name, pieces in tables.items()}


def examples(of: Explained, heads: Sequence[Component], at_most: int) -> list[dict[str, Any]]:
    """Whole patterns of ``heads`` on at most so many prompts: ``prompt``, ``tokens`` (texts), ``patterns`` (head ->
    rows, each of which ends at its own position)."""
    few = layouts.spread(of.frame, at_most)
    patterns = attention.patterns(of.model, torch.tensor(np.stack(few.tokens.to_list())), heads)

    def rounded(pattern: torch.Tensor) -> list[list[float]]:
        return [[round(x, 3) for x in line[: query + 1]] for query, line in enumerate(pattern.tolist())]

    return [
        {
            "prompt": int(row.prompt),
            "tokens": [of.tokenizer.decode([token]) for token in row.tokens],
            "patterns": {head: rounded(pattern[i]) for head, pattern in patterns.items()},
        }
        for i, row in enumerate(few.itertuples())
    ]


# ---- what they write -----------------------------------------------------------------------------------------
def ov_targets(task: str, tasks: Tasks) -> dict[str, ov.Target]:
    """Score -> what has to be written, also the members of other tasks (`cross:<task>`)."""
    prompts, layout_of, members = tasks.prompts, tasks.layouts, tasks.members
    known = ov.ids_of_words(prompts[task], layout_of[task])
    targets = ov.task_targets(ov.successors(prompts[task], layout_of[task]), known.values())
    if task not in members:
        return targets
    first = {tuple(names): other for other, names in reversed(members.items())}  # tasks may have the same members
    for names, other in reversed(first.items()):
        ids = ov.ids_of_words(prompts[other], layout_of[other])
        target = ov.cross_target(list(members[task]), known, list(names), ids)
        if target:
            targets[f"cross:{other}"] = target
    return targets


def ov_table(of: Explained, tasks: Tasks, ks: Sequence[int], norms: Iterable[str]) -> tuple[pd.DataFrame, Notes]:
    """`ov`: shares of targets (`ov_targets`) in the top ``ks``, through those of the ``norms`` that the model has."""
    if not of.layout.members:
        return pd.DataFrame(columns=ov.COLUMNS), {"ov": "not scored: the places of members are not known"}
    targets, pieces = ov_targets(of.task, tasks), []
    answers = of.frame["answer_token"].to_list()
    for norm in ov.norms_of(norms, of.model.n_layers):
        found = ov.scores(of.model, of.prompts.tokens, of.layout, targets, ks, norm, answers)
        pieces.append(ov.table(found, norm, of.bootstrap))
    full = [table for table in pieces if len(table)]
    return pd.concat(full or [pd.DataFrame(columns=ov.COLUMNS)], ignore_index=True), {}
