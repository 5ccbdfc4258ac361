"""The parts of the leaderboard, each measured by a job of its own. Parsed by Snakemake: imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PLANTED = ("planted-gpt2", "planted-llama", "trained")  # exact fixtures of a family; trained plants


@dataclass(frozen=True)
class Tried:
    """A task of a model whose circuit nobody knows: name of the model and the task in a configuration, the default one
    with a ``preset`` over it; ``prompts``: keys of `prompts` that are others here."""

    model: str
    task: str
    preset: str | None = None
    prompts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the part."""
        return f"{self.model}.{self.task}"


FEWER = {"per_template": 32}  # a third of the default study's, so that what runs the model once an edge takes minutes
SHIPPED = tuple(Tried("ladder-6x8", task, prompts=FEWER) for task in ("numerals", "number_words", "months"))
REAL = tuple(Tried("smollm2", task, preset="presets/smollm2.yaml") for task in ("numerals", "number_words"))


def models_of(real: bool) -> dict[str, Tried]:
    """Name of a part -> its model and task; those of a real model where ``real`` asks for them."""
    return {tried.name: tried for tried in (*SHIPPED, *(REAL if real else ()))}
