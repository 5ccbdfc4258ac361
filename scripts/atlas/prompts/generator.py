"""Generators: where the prompts of a task come from. Each is one module of `generators/`, and is found by its name.

A task's block names it (``generator: NAME``); without it, prompts come from the block's ``file``, else from its
``members``. A module there holds ``GENERATOR``, a record of the class below, and reads nothing heavy when imported:
Snakemake imports the modules that a study uses whenever it parses its rules, in every job.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.prompts import generators

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Made:
    """The prompts of a task as text (see `prompt`), before they are aligned.

    ``dropped``: by kind, the fillers that were left out. ``min_layout``: the fewest prompts that make a layout of their
    own (layouts.py); None where all prompts must have one layout.
    """

    rows: list[dict[str, Any]]
    dropped: dict[str, list[str]] = field(default_factory=dict)
    min_layout: int | None = None


@dataclass(frozen=True)
class Generator:
    """Where prompts come from.

    ``make``: a task's name, its block (over the defaults of `prompts`), the model's tokenizer and the folder that paths
    start from -> its prompts. ``check``: refuses with StudyError, before any job runs, a block that makes none.
    ``keys``: of a task's block, beside those that every task has (schemas/config.schema.yaml): key -> JSON schema, with
    a `description` for the reference page; ``required``: those that must be given.
    ``varies``: what of `stability` can be made anew with it: `seeds`, `templates`, `corruptions`.
    ``unread``: keys of every task that it does not read, refused in the blocks of its tasks.
    ``shorter``: what to do about prompts that are longer than the model takes.
    """

    make: Callable[[str, dict[str, Any], PreTrainedTokenizerBase, Path | str | None], Made]
    check: Callable[[str, dict[str, Any]], None] = lambda name, block: None
    keys: Mapping[str, Any] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    varies: tuple[str, ...] = ("seeds",)
    unread: tuple[str, ...] = ()
    shorter: str = "make shorter ones"


def names() -> list[str]:
    """Every generator, by the name of its module."""
    return sorted(module.name for module in pkgutil.iter_modules(generators.__path__))


def name_of(block: Mapping[str, Any]) -> str:
    """The name of the generator of a task's block."""
    return str(block.get("generator", "file" if "file" in block else "members"))


def of(block: Mapping[str, Any]) -> Generator:
    """The generator of a task's block."""
    found: Generator = importlib.import_module(f"{generators.__name__}.{name_of(block)}").GENERATOR
    return found


def source_of(block: Mapping[str, Any]) -> Path:
    """The module's file: part of what a job that makes prompts is made of, though no import statement names it."""
    return Path(generators.__file__).with_name(f"{name_of(block)}.py")


# ---- prompts -------------------------------------------------------------------------------------------------
def prompt(
    number: int,
    *,
    texts: tuple[str, str],
    answers: tuple[str, str],
    template: str,
    row: int,
    join: str = " ",
    start: int = -1,
    members: tuple[Sequence[str], Sequence[str]] = ((), ()),
    fillers: Sequence[str] = (),
    answer_in_corrupted: bool | None = None,
) -> dict[str, Any]:
    """One prompt, as later stages know it.

    ``number``: of the prompt in its task, from 0. ``texts``: clean and corrupted; ``answers``: the right and the
    incorrect one; ``join``: what stands between a text and an answer. ``template``: the wording, within which the
    prompts are numbered by ``row``. ``start``: number of the first member, -1 where there is none. ``members``: those
    shown, clean and corrupted. ``answer_in_corrupted``: by default, whether the answer stands there as a word.

    Where members are known, add ``spans`` and ``corrupted_spans``, the characters [first, last) of each in its text.
    """
    if answer_in_corrupted is None:
        answer_in_corrupted = holds(texts[1], answers[0].strip())
    return {
        "prompt": number,
        "template": template,
        "row": row,
        "start": start,
        "text": texts[0],
        "corrupted_text": texts[1],
        "join": join,
        "answer": answers[0],
        "incorrect": answers[1],
        "members": list(members[0]),
        "corrupted_members": list(members[1]),
        "fillers": list(fillers),
        "answer_in_corrupted": answer_in_corrupted,
    }


def holds(text: str, words: str) -> bool:
    """Whether words stand in a text by themselves, not within longer ones."""
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text) is not None
