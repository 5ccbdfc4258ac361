"""The edge circuit of a task on other data: the highest-scored edges, as many as are reported."""

from atlas.circuit.replacement import Replacement
from atlas.circuit.stability import EdgeSearch
from atlas.core.components import AnyCircuit, Circuit
from atlas.core.graph import Graph
from atlas.edges.by_method import function_of
from atlas.edges.engine import EdgeAblator, with_embeddings
from atlas.edges.methods import EdgeSettings
from atlas.edges.rankings import ranked
from atlas.edges.searches import top
from atlas.model.models import Model
from atlas.prompts.batch import Prompts


def highest_scored(
    method: str, ranking: str, count: int, graph: Graph, kind: str, settings: EdgeSettings
) -> EdgeSearch:
    """The search that `circuit.stability` runs on other data; what it finds does not depend on the node circuit.

    method: one that scores all edges. count: of the edges that it returns. kind: of ablation.
    """

    def search(model: Model, prompts: Prompts, substitute: Replacement, circuit: Circuit) -> AnyCircuit:
        ablator = EdgeAblator(model, graph, prompts, with_embeddings(substitute, kind, model, prompts))
        scores = function_of(method)(ablator, ablator.everything, settings)
        means = {edge: float(values.mean()) for edge, values in scores.items()}
        return top(ranked(means, ranking, graph), count)

    return search
