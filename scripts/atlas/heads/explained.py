"""What is explained: a model on the prompts of one task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from atlas.prompts.batch import Prompts

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

    from atlas.core.positions import Layout
    from atlas.core.statistics import Bootstrap
    from atlas.model.models import Model


@dataclass(frozen=True)
class Explained:
    """A model on the prompts of a task that have its most common layout, on which heads are explained."""

    names: dict[str, str]  # of model and task, as tables have them
    model: Model
    tokenizer: PreTrainedTokenizerBase
    frame: pd.DataFrame  # of `prompts.parquet`, all of one layout
    layout: Layout
    bootstrap: Bootstrap
    groups: list[str] | None = None  # of means, where heads are ablated

    @property
    def prompts(self) -> Prompts:
        return Prompts.from_frame(self.frame, self.groups)

    def named(self, tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
        """Tables with columns model and task before their own."""
        for table in tables.values():
            for place, column in enumerate(("model", "task")):
                table.insert(place, column, self.names[column])
        return tables
