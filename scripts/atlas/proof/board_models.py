"""Cases of the leaderboard on models whose circuit nobody knows: a task of a configuration, made and scored here.

There is no truth in them, so a ranking is judged by what its top keeps of the model, on held-out prompts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from atlas.circuit import clean
from atlas.circuit.ablation import Ablator
from atlas.circuit.replacement import replacement
from atlas.circuit.unablated import collected
from atlas.edges.engine import EdgeAblator, engine_of, graph_of, with_embeddings
from atlas.model import models, source
from atlas.prompts import clean_scores, making, tokens
from atlas.prompts.batch import Prompts
from atlas.proof.board import Case

KIND = "mean"  # of ablation


def cases_of_task(
    name: str, model_block: dict[str, Any], task: str, block: dict[str, Any], root: Path | str
) -> Iterator[Case]:
    """The cases of a model on a task, at both levels, under `mean`.

    model_block, block: of the configuration, the latter over the defaults of `prompts`; root: the folder that paths
    start from. Raises StudyError where the model is not there, or no circuit can be searched on the task.
    """
    folder = source.resolve(name, model_block, root)
    about = source.describe(name, folder)
    run = {key: model_block[key] for key in ("dtype", "batch_size", "memory_mb")} | {"device": "cpu"}
    model = models.load(folder, settings=about["settings"], **run)
    tokenizer, bos = tokens.load_tokenizer(str(folder)), model_block["prepend_bos"]
    encoded, _ = making.prompts_of(task, block, tokenizer, bos, about["max_tokens"], root)
    identity = {"model": name, "task": task}
    frame = pd.DataFrame([identity | row for row in encoded.rows])
    scores = clean.score(model, frame, block["filter"], by_template=False)
    search, groups = clean.search_prompts(frame, scores, "all", block["allow_negative_clean"])
    _, means = collected(model, search.rows(), "corrupted")
    whole = {"groups": groups, "corrupted": means} | search.rows().sizes_of_means()
    held_out = clean_scores.kept_prompts(frame, scores, clean_scores.report_split(frame, scores))
    yield from cases(model, search, Prompts.from_frame(held_out, groups), whole, identity)


def cases(
    model: models.Model, search: Prompts, reported: Prompts, means: dict[str, Any], identity: dict[str, str]
) -> Iterator[Case]:
    """The same from prompts that are made; means: as of `means.pt`, over the prompts searched on."""
    named = identity | {"fixture": f"{identity['model']}, {identity['task']}", "family": "", "kind": KIND}
    graph = graph_of(engine_of(model).weights)

    def nodes(prompts: Prompts) -> Ablator:
        return Ablator(model, prompts, replacement(KIND, model, prompts, means))

    def edges(prompts: Prompts) -> EdgeAblator:
        substitute = replacement(KIND, model, prompts, means)
        return EdgeAblator(model, graph, prompts, with_embeddings(substitute, KIND, model, prompts, search))

    yield Case("node", named, lambda: nodes(search), nodes(reported))
    yield Case("edge", named, lambda: edges(search), edges(reported))
