"""Run a model with any set of its edges ablated (methods: edges).

An edge s -> r is ablated by letting r read the ablated write of s in place of the actual one; what other receivers read
of s stays. So an edge carries a difference, d(s) = write of s - ablated write of s, and a receiver reads

    base + sum of d(s) over the kept edges s -> r,

the base being all biases and all ablated writes before it. Ablating every edge out of a component is ablating the
component; the embedding is a sender like others.

Where a norm stands behind the attention (Gemma 2 and 3, OLMo 2), heads' writes do not add up in the residual stream.
There an edge out of a head carries its write as it enters that norm, and of a layer's attention a receiver reads the
norm of the mixture that it gets: b_O and all heads' writes, actual or ablated. What is said of edges above holds there,
too; only the sum runs over the mixtures of lower layers.

What is saved is exact. Only nodes with a path to the logits run, and at the last position alone where nothing reads
more of them. What a node writes depends on the kept edges upstream of it and on nothing else, so a circuit that differs
little from one that was just run runs again only what reads a change (passes.py). A receiver that misses few of the
live senders reads the whole stream less these, so that a model with nearly all edges costs little more than a plain
one; what the receivers of a layer read is one matrix product of senders' differences. Which of these ways is taken
depends on the circuit alone. Circuits that lack one edge each, into receivers of one kind and layer, share all that
lies below it, and run as one batch from there on (variants.py).
"""

from collections.abc import Iterable
from typing import Any

import torch

from atlas.core.graph import EdgeMask, Graph
from atlas.edges.frame import Differences, Frame
from atlas.edges.passes import Pass
from atlas.model import engine, memory
from atlas.model.engine import Engine, Substitute

EACH = 32  # passes after which freed memory goes back to the system
KEPT = 2  # passes that are remembered: the one that a search removes from, and the one before


class EdgeRun(Frame):
    """Final residuals of edge circuits on fixed tokens [N, S]; ``budget``: bytes that remembered passes may take."""

    def __init__(
        self,
        engine: Engine,
        graph: Graph,
        tokens: torch.Tensor,
        substitute: Substitute,
        positions: torch.Tensor | None = None,
        budget: int = 2**29,
        differences: Differences | None = None,
    ) -> None:
        super().__init__(engine, graph, tokens, substitute, positions, differences)
        self.budget = budget
        self.passes: list[Pass] = []  # the one used last at the end
        self.reference: Any = None  # what `variants` keeps of the whole model
        self.count = 0  # passes that were made

    def final_residual(self, circuit: EdgeMask) -> torch.Tensor:
        """[N, K, D] at the positions of the score, with only these edges kept; all must have a path to the logits."""
        with torch.no_grad():
            parent = max(self.passes, key=lambda known: known.agrees_with(circuit.rows), default=None)
            made = Pass(self, circuit.rows, parent)
            x = made.final()
            self.keep(made, parent)
        return x

    def keep(self, made: Pass, parent: Pass | None) -> None:
        """Remember a pass and the one that it was made from; less of them, or none, where they take too much."""
        self.passes = [known for known in (parent, made) if known is not None][-KEPT:]
        if bytes_of(self.passes) > self.budget:
            for known in self.passes:
                known.forget_reads()
        while bytes_of(self.passes) > self.budget:
            self.passes.pop(0)
        self.count += 1
        if self.count % EACH == 0:
            memory.give_back()

    def clear(self) -> None:
        """Forget what was run."""
        self.passes, self.reference = [], None


def bytes_of(passes: Iterable[Pass]) -> int:
    """Memory of passes, which share what did not change."""
    tensors = {id(x): x for known in passes for x in known.tensors()}
    return sum(map(engine.bytes_of, tensors.values()))
