"""Ordered members in templates, for a block with ``members``: the next one is the answer, the last shown is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.core.errors import StudyError
from atlas.prompts import tasks, words
from atlas.prompts.generator import Generator, Made

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check(name: str, block: dict[str, Any]) -> None:
    """Raises StudyError where a block has no members, or some of which no prompt can be made."""
    if "members" not in block:
        raise StudyError(f"tasks.{name}: give `members`, or `file`")
    tasks.Task.from_config(name, block)


def make(name: str, block: dict[str, Any], tokenizer: PreTrainedTokenizerBase, root: Path | str | None) -> Made:
    """Fillers that are not one token are left out; members may be several with ``multi_token`` in the block."""
    usable = {kind: words.single_token_fillers(tokenizer, given) for kind, given in block["fillers"].items()}
    dropped = {kind: [w for w in given if w not in usable[kind]] for kind, given in block["fillers"].items()}
    refuse_few_fillers(name, block, usable, tokenizer)
    task = tasks.Task.from_config(name, block | {"fillers": usable})
    before = [text for pattern in task.templates for text in tasks.Template.parse(pattern).before_members]
    multi_token = block.get("multi_token", False)
    words.check_members(tokenizer, name, task.members, before, multi_token)
    if task.between is not None:
        words.check_members(tokenizer, name, task.between.words, before, key="between")
    if multi_token:
        task = replace(task, tokens=tuple(words.tokens_in_text(tokenizer, list(task.members), before[0])))
    return Made(tasks.make_prompts(task), dropped)


def refuse_few_fillers(
    name: str, block: dict[str, Any], usable: dict[str, list[str]], tokenizer: PreTrainedTokenizerBase
) -> None:
    """Raise StudyError where a template's kind of filler has too few words of one token; says how near others come."""
    kinds = dict.fromkeys(tasks.Template.parse(pattern).filler_kind for pattern in block["templates"])
    needed = tasks.Task.from_config(name, block).clauses
    for kind in kinds:
        given = block["fillers"].get(kind, []) if kind else []
        if kind is None or len(given) < needed or len(usable[kind]) >= needed:
            continue  # unknown, or too few for any tokenizer: refused with the task
        counts = words.tokens_in_text(tokenizer, given, "so ")
        near = ", ".join(f"{word!r} has {n}" for n, word in sorted(zip(counts, given, strict=True))[:3])
        raise StudyError(
            f"tasks.{name}: {len(usable[kind]) or 'none'} of the {len(given)} words of fillers.{kind} can be used as "
            f"one token in this model's tokenizer ({near}), and a prompt needs {needed}; give fillers.{kind} words of "
            f"one token, or templates without {{{kind}}}"
        )


GENERATOR = Generator(make, check, varies=("seeds", "templates", "corruptions"), shorter="show fewer members")
