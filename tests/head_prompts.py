"""Prompts on which heads are looked at: those of the study's tasks, and those of planted models."""

import numpy as np
import pandas as pd
import torch

from atlas.core.positions import Layout
from atlas.prompts.tasks import Task, make_prompts
from atlas.prompts.tokens import encode_prompts
from atlas.proof import fixtures
from atlas.study.settings import task_block
from conftest import load_tokenizer


def study_task(config, task, per_template=16):
    """(frame, layout) as `make_prompts` writes them."""
    block = task_block(config, task) | {"per_template": per_template, "held_out_share": 0}
    encoded = encode_prompts(make_prompts(Task.from_config(task, block)), load_tokenizer("shipped"), False, task)
    return pd.DataFrame(encoded.rows), Layout.of(encoded.layout)


def layout_of(fixture) -> Layout:
    """Of a planted model's prompts."""
    places = [i for i, slot in enumerate(fixture.slots, start=1) if slot != fixtures.FILLER]
    return Layout(len(fixture.slots) + 1, tuple((p, p) for p in places), len(fixture.slots), bos=True)


def tokens_of(frame) -> torch.Tensor:
    return torch.tensor(np.stack(frame.tokens.to_list()))
