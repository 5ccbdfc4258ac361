"""What edges need beside the data of a task: the ablated embeddings, and the ablator of edges."""

from collections.abc import Iterable, Sequence

from atlas.circuit.task_data import TaskData
from atlas.core.graph import Graph
from atlas.edges.engine import EdgeAblator, with_embeddings


def edge_ablator(
    data: TaskData,
    split: str,
    metrics: Iterable[str] = ("logit_diff",),
    roles: Sequence[dict[str, list[int]]] | None = None,
) -> EdgeAblator:
    """A new ablator of edges on a split; the means of its embeddings run over the prompts searched on.

    ``roles`` of each layout (`layouts.roles_of`) where parts of edges are asked for (`by_roles`).
    """
    prompts = data.prompts(split)
    if roles:
        prompts = prompts.with_roles_of(roles, data.frame(split).layout.to_list())
    substitute = with_embeddings(data.substitute(split), data.kind, data.model, prompts, data.prompts("search"))
    memo = data.memo(prompts, substitute, metrics)
    return EdgeAblator(data.model, Graph.of(data.description), prompts, substitute, metrics, memo)
