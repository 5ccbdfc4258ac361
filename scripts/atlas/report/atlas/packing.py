"""Numbers and components as the atlas page's JSON holds them: rounded, numbered, without names."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from atlas.core.components import Circuit, Component, all_components

if TYPE_CHECKING:
    import pandas as pd

DIGITS = 4  # significant ones; an interval's ends are as wide apart as the tables say to a thousandth of their size
Number = float | int | None
MEAN = {"value": "value", "low": "ci_low", "high": "ci_high"}  # key of the page -> column of a table


def rounded(value: Any) -> Number:
    """A number with four significant digits; None where there is none."""
    number = float(value)
    if not math.isfinite(number):
        return None
    short = float(f"{number:.{DIGITS}g}")
    return int(short) if short == int(short) else short


def numbers(values: Iterable[Any]) -> list[Number]:
    """`rounded`, of each."""
    return [rounded(value) for value in values]


def mean(row: Mapping[str, Any]) -> list[Number]:
    """[value, low, high] of a row with an interval."""
    return [rounded(row[column]) for column in MEAN.values()]


@dataclass(frozen=True)
class Numbering:
    """Components by number: layer x (H + 1) + head, the MLP of a layer being head H."""

    n_layers: int
    n_heads: int

    @cached_property
    def components(self) -> list[Component]:
        """All of them, in order."""
        return all_components(self.n_layers, self.n_heads)

    @cached_property
    def of_name(self) -> dict[str, int]:
        """Name (`3.1`, `m3`) -> number."""
        return {str(component): i for i, component in enumerate(self.components)}

    @cached_property
    def place(self) -> dict[tuple[int, int], int]:
        """(layer, head) as tables have them, -1 for an MLP -> number."""
        return {(component.layer, component.head): i for i, component in enumerate(self.components)}

    def __len__(self) -> int:
        return len(self.components)

    def circuit(self, circuit: Circuit) -> list[int]:
        """The numbers of its members, ascending."""
        return sorted(self.place[c.layer, c.head] for c in circuit)

    def spread(self, table: pd.DataFrame, column: str, text: bool = False) -> list[Any]:
        """A column of a table with one row a component at most, by number; None where a component has no row."""
        out: list[Any] = [None] * len(self)
        for layer, head, value in zip(table["layer"], table["head"], table[column], strict=True):
            out[self.place[int(layer), int(head)]] = str(value) if text else rounded(value)
        return out

    def intervals(self, table: pd.DataFrame) -> dict[str, list[Any]]:
        """``value``, ``low`` and ``high`` of the same."""
        return {key: self.spread(table, column) for key, column in MEAN.items()}


def text(data: Any) -> str:
    """JSON without spaces, which a page may hold within a script: no `</` can stand in it, nor `<!--`."""
    written = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return written.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
