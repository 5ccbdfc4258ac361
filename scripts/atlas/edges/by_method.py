"""What each method of `edges.methods` does: the function of its name.

A method that scores gives edge -> score per prompt [N]; one that searches gives, for each of its settings, the setting
and the steps of the search. All take the ablator of the prompts searched on, the edges that removals start from, and
the settings. A search with `drop_without_path` scores every circuit without its edges on no path from the embeddings to
the logits: so the circuit that it ends at, less these, has the score that it was accepted by.
"""

from collections.abc import Callable, Iterator
from typing import Any

from atlas.circuit.search import Step
from atlas.core.graph import Edge, EdgeCircuit
from atlas.edges import attribution, by_sender, gates, searches
from atlas.edges.engine import EdgeAblator
from atlas.edges.methods import EdgeSettings
from atlas.store.job import progress

Scores = dict[Edge, Any]  # arrays or tensors
Searches = Iterator[tuple[float, Iterator[Step]]]


def path_patching(ablator: EdgeAblator, start: EdgeCircuit, settings: EdgeSettings) -> Scores:
    """M(without the edge) - M(full) in logits, for all edges or, by ``settings.path_patching``, those of ``start``."""
    tried = [edge for edge in ablator.graph.edges if settings.path_patching == "full" or edge in start]
    return dict(progress(searches.path_patching(ablator, tried), "path_patching"))


def eap(ablator: EdgeAblator, start: EdgeCircuit, settings: EdgeSettings) -> Scores:
    """M(without the edge) - M(full) in logits to first order, by one gradient (Syed et al. 2023), for all edges."""
    return dict(attribution.scores(ablator))


def eap_ig(ablator: EdgeAblator, start: EdgeCircuit, settings: EdgeSettings) -> Scores:
    """The same by ``settings.points`` gradients, between ablated and clean embeddings (Hanna et al. 2024)."""
    return dict(attribution.scores(ablator, settings.points))


def eap_ig_activations(ablator: EdgeAblator, start: EdgeCircuit, settings: EdgeSettings) -> Scores:
    """The same between the ablated and the clean write of each edge's sender, which alone moves."""
    return dict(by_sender.scores(ablator, settings.points))


def relp(ablator: EdgeAblator, start: EdgeCircuit, settings: EdgeSettings) -> Scores:
    """As `eap`, by the gradient of relevance patching (arXiv 2508.21258)."""
    return dict(attribution.scores(ablator, relevance=True))


def acdc(ablator: EdgeAblator, start: EdgeCircuit, settings: EdgeSettings) -> Searches:
    """One search from ``start`` for each tau, in percentage points of full (Conmy et al. 2023)."""
    percents = searches.percents(ablator, settings.drop_without_path)
    for tau in settings.taus:
        yield tau, searches.acdc(ablator.graph, start, tau, percents, settings.change)


def iterative_edges(ablator: EdgeAblator, start: EdgeCircuit, settings: EdgeSettings) -> Searches:
    """One search from ``start`` down to 100 - T percent of full, T the threshold of ``settings``."""
    percents = searches.percents(ablator, settings.drop_without_path)
    yield settings.threshold, searches.iterative(ablator.graph, start, settings.threshold, percents)


def edge_gates(ablator: EdgeAblator, start: EdgeCircuit, settings: EdgeSettings) -> Searches:
    """One search, of gates of the edges of ``start``, down to 100 - T percent of full, T the threshold of ``settings``
    (`edges.gates`)."""
    path = gates.EdgeGates(ablator, start, settings.points, settings.seed).path()
    cut = ablator.graph.on_paths if settings.drop_without_path else ablator.graph.circuit
    yield settings.threshold, gates.gates_search(start, settings.threshold, ablator.percents_of_full, cut, path)


def function_of(name: str) -> Callable[[EdgeAblator, EdgeCircuit, EdgeSettings], Any]:
    """The function of a method of METHODS."""
    found: Callable[[EdgeAblator, EdgeCircuit, EdgeSettings], Any] = globals()[name]
    return found
