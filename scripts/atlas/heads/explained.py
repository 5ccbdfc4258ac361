"""What is explained: a model on the prompts of one task."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from atlas.prompts import layouts
from atlas.prompts.batch import Prompts
from atlas.prompts.tokens import load_tokenizer

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

    from atlas.circuit.task_data import TaskData
    from atlas.core.positions import Layout
    from atlas.core.statistics import Bootstrap
    from atlas.model.models import Model


@dataclass(frozen=True)
class Explained:
    """A model on the prompts of a task that have its most common layout, on which heads are explained."""

    task: str
    model: Model
    tokenizer: PreTrainedTokenizerBase
    frame: pd.DataFrame  # of `prompts.parquet`, all of one layout
    layout: Layout
    bootstrap: Bootstrap
    groups: list[str] | None = None  # of means, where heads are ablated
    left_out: int = 0  # prompts of other layouts

    @classmethod
    def of(cls, data: TaskData, layout: Layout, bootstrap: Bootstrap) -> Explained:
        """The prompts that results are reported on; ``layout``: the most common one."""
        given = data.frame(data.report_split)
        frame = layouts.of_one(given)
        groups = data.means["groups"] if "means" in data.paths else None
        tokenizer = load_tokenizer(str(data.folder))
        return cls(data.task, data.model, tokenizer, frame, layout, bootstrap, groups, len(given) - len(frame))

    @cached_property
    def prompts(self) -> Prompts:
        return Prompts.from_frame(self.frame, self.groups)
