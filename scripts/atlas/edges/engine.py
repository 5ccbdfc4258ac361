"""Score circuits of edges as circuits of components are scored; what stands in for the embeddings (methods: edges)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from atlas.circuit.ablation import Ablator
from atlas.circuit.replacement import Replacement, embeddings
from atlas.core.errors import StudyError
from atlas.core.graph import EMBED, Edge, EdgeCircuit, EdgeMask, Graph
from atlas.edges import variants
from atlas.edges.frame import Differences
from atlas.edges.run import EdgeRun
from atlas.model import families
from atlas.model.block import Weights
from atlas.model.engine import Engine, Substitute
from atlas.model.models import Model, slices
from atlas.prompts.batch import Prompts

if TYPE_CHECKING:
    from atlas.store.memo import Memo


HELD = 256  # edges whose final residuals are held at a time
TOKENS = 1024  # of all copies of the prompts in a batch; on a CPU more bring nothing


@dataclass(frozen=True)
class EdgeReplacement(Replacement):
    """A Replacement with what stands in for the embeddings: [1 or N, S, D], row i for prompt i."""

    embed: torch.Tensor

    def to(self, device: str) -> EdgeReplacement:
        return EdgeReplacement(*(x.to(device) for x in (self.z, self.mlp_out, self.rows, self.embed)))

    def reader(self, batch: slice) -> Substitute:
        read_components = super().reader(batch)

        def read(name: str, layer: int = 0) -> torch.Tensor:
            if name != EMBED:
                return read_components(name, layer)
            return self.embed if len(self.embed) == 1 else self.embed[batch]

        return read


def with_embeddings(
    substitute: Replacement, kind: str, model: Model, prompts: Prompts, reference: Prompts | None = None
) -> EdgeReplacement:
    """Add the ablated embeddings of a kind of ablation to a replacement of components.

    ``reference``: the prompts of the search split, which means run over (default: ``prompts`` themselves).
    """
    engine_of(model)  # refuses where there is none
    values = embeddings(kind, model, prompts.rows(), (reference or prompts).rows(), substitute)
    return EdgeReplacement(substitute.z, substitute.mlp_out, substitute.rows, values)


def engine_of(model: Model) -> Engine:
    """The live engine of a model; raises StudyError where its architecture has none."""
    if model.weights is None:
        name = type(getattr(model.bridge, "original_model", None)).__name__
        raise StudyError(
            f"edges: {name} has no live engine, which edges need (that have {', '.join(families.names())}); "
            "set edges.methods: [] to leave edges out"
        )
    return Engine(model.weights)


def graph_of(weights: Weights) -> Graph:
    """The graph of an engine's weights."""
    block = weights.blocks[0]
    return Graph(len(weights.blocks), block.n_heads, block.n_kv_heads, block.parallel)


class EdgeAblator(Ablator):
    """Scores edge circuits (sets of kept edges) as `Ablator` scores sets of components.

    ``everything`` is the set of all edges. Edges without a path to the logits change nothing and are dropped before a
    circuit is scored and remembered. Of a circuit nothing is kept but its digest and its scores.
    """

    engine: Engine
    live: list[EdgeRun]
    substitute: EdgeReplacement
    everything: EdgeMask

    def __init__(
        self,
        model: Model,
        graph: Graph,
        prompts: Prompts,
        substitute: EdgeReplacement,
        metrics: Iterable[str] = ("logit_diff",),
        memo: Memo | None = None,
    ) -> None:
        engine_of(model)  # refuses where there is none
        if prompts.several_tokens:
            raise StudyError("edges: edge circuits are scored on answers of one token alone; set edges.methods: []")
        self.graph = graph
        super().__init__(model, prompts, substitute, metrics, memo=memo)
        self.everything = graph.all_edges

    def rows_that_fit(self) -> int:
        """Prompts for which a layer on its way, what the edges of all senders carry, and what all heads of a layer read
        before and after its norm, fit; where a norm mixes heads, also the mixtures that they read of one lower layer,
        as they are made, and what is mixed where all are ablated."""
        per_row = self.engine.bytes_per_row(self.prompts.tokens.shape[1], logits=0)
        size = self.prompts.tokens.shape[1] * self.model.d_model * self.engine.weights.w_u.element_size()
        held = len(self.graph.senders) + 2 * (self.graph.n_heads + 2 * self.graph.n_kv_heads)
        if self.engine.weights.mixes_heads:
            held += 3 * self.graph.n_heads + self.graph.n_layers
        return max(1, self.budget // (per_row + held * size))

    def split(self, batch_size: int) -> None:
        super().split(batch_size)
        budget, differences = self.budget // len(self.batches), Differences()  # of one batch at a time
        self.live = [self.run_of(batch, budget, differences) for batch in self.batches]

    def run_of(self, batch: slice, budget: int, differences: Differences, engine: Engine | None = None) -> EdgeRun:
        """Runs of some prompts; ``budget``: bytes of passes that it may remember. ``engine``: another of the model."""
        tokens, at = self.prompts.tokens[batch].to(self.model.device), None if self.at is None else self.at[batch]
        engine = engine or self.engine
        return EdgeRun(engine, self.graph, tokens, self.substitute.reader(batch), at, budget, differences)

    def key(self, circuit: EdgeCircuit) -> bytes:
        return self.graph.circuit(circuit).digest

    def scores_of(self, circuits: Sequence[EdgeCircuit]) -> list[dict[str, Any]]:
        """Scores of circuits that may differ in any edge; raises ValueError on an edge that the model does not have."""
        return super().scores_of([self.graph.live(circuit) for circuit in circuits])

    def residuals(self, circuits: Sequence[EdgeCircuit]) -> torch.Tensor:
        """Final residuals [C, N, 1, D] at the position of the score."""

        def run(i: int, circuit: EdgeCircuit) -> torch.Tensor:
            return self.live[i].final_residual(self.graph.circuit(circuit))

        self.evaluations += len(circuits)
        return torch.stack([torch.cat(self.each_batch(partial(run, circuit=c))) for c in circuits])

    def without_each(self, edges: Iterable[Edge]) -> Iterator[tuple[Edge, dict[str, Any]]]:
        """(edge, scores) of the whole model without one edge alone, in the order of the graph.

        Edges into receivers of one kind and layer run together, as many at a time as pay and fit. Which do, and so the
        last digits, depends on the edges and settings alone, and never on what was known before.
        """
        per_edge = len(self.prompts) * self.model.d_model * self.engine.weights.w_u.element_size()
        held = min(HELD, max(1, self.budget // (8 * per_edge)))
        for place, group in variants.groups(self.graph, edges):
            for part in slices(len(group), held):
                circuits = [self.graph.live(self.everything - {edge}) for edge in group[part]]
                if not all([self.remembered(circuit) for circuit in circuits]):
                    self.score_variants(place, group[part], circuits)
                for edge, circuit in zip(group[part], circuits, strict=True):
                    yield edge, self._memory[self.key(circuit)]

    def score_variants(self, place: variants.Place, edges: list[Edge], circuits: list[EdgeMask]) -> None:
        """Score and remember ``circuits``, the whole model without each of ``edges`` alone, which end in ``place``."""

        def run(i: int) -> torch.Tensor:
            return variants.without_each(self.live[i], place, edges, self.edges_at_once(i)).transpose(0, 1)

        self.evaluations += len(circuits)
        found = torch.cat(self.each_batch(run)).transpose(0, 1)
        for circuit, x, direct in zip(circuits, found, self.differences(found), strict=True):
            self.remember(circuit, self.measured(circuit, x, direct))

    def edges_at_once(self, batch: int) -> int:
        """Edges that run together: on a CPU as many as keep its matrix products busy, elsewhere as many as fit."""
        rows, tokens = len(self.live[batch].tokens), self.prompts.tokens.shape[1]
        fit = self.budget // (2 * rows * self.engine.bytes_per_row(tokens, logits=0))
        return max(1, min(fit, TOKENS // (rows * tokens)) if self.model.device == "cpu" else fit)
