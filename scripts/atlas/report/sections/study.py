"""What the sections of a summary share: what they are written from, and which rows they report."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from atlas.report.wording import number

ALPHA = 0.05  # p-values below it are called more than chance


@dataclass(frozen=True)
class Study:
    """What the summary of one model is written from.

    ``tables`` holds the tables of that name (``clean`` is clean_summary.parquet, ``cross`` cross.parquet, and so on).
    ``info``, ``circuits`` and ``searched`` are prompts.json, edge_circuits.json and circuits.json by task; ``model`` is
    model.json; ``left_out`` is that of analyses.json, and what it names has no table: analysis -> reason, or None.
    ``settings`` has ``title``, ``tasks``, ``main_tasks``, ``threshold``, ``order``, ``labels`` and whatever else is to
    be shown.

    In a study without edges, ``edge_areas`` is missing and the sections about them are left out; likewise
    ``generation`` and ``published``, and ``roles`` with all other tables of what heads do where every main task has
    answers of several tokens.
    """

    tables: dict[str, pd.DataFrame]
    info: dict[str, dict[str, Any]]
    circuits: dict[str, dict[str, Any]]
    model: dict[str, Any]
    left_out: dict[str, str | None]
    settings: dict[str, Any]
    provenance: dict[str, Any]
    searched: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def tasks(self) -> list[str]:
        """Main tasks first."""
        return list(self.settings["tasks"])

    @property
    def main(self) -> list[str]:
        """The tasks that were searched."""
        return list(self.settings["main_tasks"])

    @property
    def explained(self) -> set[str]:
        """Tasks whose heads are explained."""
        return set(self.tables["roles"]["task"]) if "roles" in self.tables else set()

    @property
    def all_mlps(self) -> int:
        return int(self.model["n_layers"])

    @property
    def all_heads(self) -> int:
        return int(self.model["n_layers"] * self.model["n_heads"])


def led(sentences: Sequence[str]) -> dict[str, Any]:
    """Sentences as fields of a `Section`: the first for the short version, the others below."""
    return {"first": sentences[0], "sentences": sentences[1:]} if sentences else {}


def reported(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of held-out prompts; of the prompts searched on where none were held out."""
    held_out = table[table["split"] == "held_out"]
    return held_out if len(held_out) else table


def cell(table: pd.DataFrame, **where: object) -> pd.Series | None:
    """The one row with these values, or None."""
    for key, value in where.items():
        table = table[table[key] == value]
    return table.iloc[0] if len(table) else None


def span(values: Sequence[float], digits: int = 2) -> str:
    """`0.61 to 0.72`, or one number where both print alike."""
    low, high = number(min(values), digits), number(max(values), digits)
    return low if low == high else f"{low} to {high}"
