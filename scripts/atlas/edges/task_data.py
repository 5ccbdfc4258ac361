"""What edges need beside the data of a task: the ablated embeddings, and the ablator of edges."""

from collections.abc import Iterable, Sequence

import numpy as np

from atlas.circuit.task_data import TaskData
from atlas.core.graph import Graph
from atlas.edges.engine import EdgeAblator, with_embeddings


def edge_ablator(
    data: TaskData,
    split: str,
    metrics: Iterable[str] = ("logit_diff",),
    roles: Sequence[dict[str, list[int]]] | None = None,
    most: int | None = None,
) -> EdgeAblator:
    """A new ablator of edges on a split, or on ``most`` of its prompts, spread evenly; the means of its embeddings run
    over the prompts searched on.

    ``roles`` of each layout (`layouts.roles_of`) where parts of edges are asked for (`by_roles`).
    """
    prompts, substitute = data.prompts(split), data.substitute(split)
    if roles:
        prompts = prompts.with_roles_of(roles, data.frame(split).layout.to_list())
    if most is not None and most < len(prompts):
        prompts = prompts.take(np.linspace(0, len(prompts) - 1, most).round().astype(int))
        substitute = data.replacing(prompts)
    substitute = with_embeddings(substitute, data.kind, data.model, prompts, data.prompts("search"))
    memo = data.memo(prompts, substitute, metrics)
    return EdgeAblator(data.model, Graph.of(data.description), prompts, substitute, metrics, memo)
