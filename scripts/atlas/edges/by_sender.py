"""EAP-IG over activations: edges by gradients taken while their sender alone moves (methods: edges).

The score of s -> r is (ablated - clean write of s) . g(r), g(r) being the gradient of the logit difference by what r
reads, averaged over m runs of the whole model in which s writes what lies a share k of the way from its ablated to its
clean write, for all that read it, and all behind it is computed anew; k = (i - 1/2) / m for i = 1..m. With many points
the scores of the edges out of s add up to M(without s) - M(full), the exact effect of ablating s. For the embeddings
this is `eap_ig`.

m passes forward and back for every sender, of the layers from its own on. A single sender's write is taken forward, by
the derivative of what its receivers make of it, where `edges.attribution` takes many receivers' gradients back.
"""

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import torch

from atlas.core.graph import EMBED, LOGITS, Edge
from atlas.edges.attribution import bytes_per_prompt, carried, layer_with_reads
from atlas.edges.engine import EdgeAblator
from atlas.edges.frame import Differences
from atlas.edges.inputs import joint
from atlas.edges.run import EdgeRun
from atlas.model import memory
from atlas.model.block import Block
from atlas.model.logits import at_least_float32
from atlas.model.models import slices
from atlas.store.job import progress


def scores(ablator: EdgeAblator, points: int) -> dict[Edge, torch.Tensor]:
    """Edge -> score per prompt [N], in logits, for every edge; ``points``: m."""
    found, fit = [], max(1, ablator.budget // 8 // bytes_per_prompt(ablator))
    for rows in slices(len(ablator.prompts), fit):
        run = ablator.run_of(rows, 0, Differences())
        at_once = max(1, fit // len(run.tokens))
        found.append(of_batch(run, ablator.answer[rows], ablator.incorrect[rows], points, at_once))
        memory.give_back()
    return dict(zip(ablator.graph.edges, torch.cat(found, dim=1), strict=True))


def of_batch(
    run: EdgeRun, answer: torch.Tensor, incorrect: torch.Tensor, points: int, at_once: int = 1
) -> torch.Tensor:
    """[edges, n] scores on the CPU of the prompts of a run; ``answer``, ``incorrect`` [n]: token ids; ``at_once``:
    points that run as one batch."""
    graph, clean, differences = run.graph, Clean(run), carried(run)
    found = at_least_float32(differences.new_zeros(len(graph.edges), len(run.tokens)))
    counts = [len(graph.senders_of(receiver)) for receiver in graph.receivers]
    starts = [end - count for end, count in zip(accumulate(counts), counts, strict=True)]
    shares = differences.new_tensor([(i - 0.5) / points for i in range(1, points + 1)])
    for sender in progress(range(len(graph.senders)), "eap_ig_activations"):
        own = differences[:, sender].unflatten(1, clean.entered[0].shape[1:])
        for some in shares.split(at_once):
            moved = Moved(clean, sender, own, some)
            for first, values in moved.values(answer, incorrect):
                for receiver, each in enumerate(values.sum(0).unbind(1), start=first):
                    found[starts[receiver] + sender] -= each / points
    return found.cpu()


class Clean:
    """The whole model on the prompts of a run: what enters each layer, and last the logits, and what its heads write,
    [N, S, D] each."""

    def __init__(self, run: EdgeRun) -> None:
        self.run = run
        self.writes: list[torch.Tensor] = []
        with torch.no_grad():
            self.entered = [run.engine.weights.embed(run.tokens)]
            for layer, block in enumerate(run.blocks):
                x, writes = layer_with_reads(layer, block, self.entered[-1], {})
                self.entered.append(x)
                self.writes.append(writes)


class Moved:
    """Runs in which one sender writes ``shares`` [C] of the way from its ablated to its clean write, as one batch.

    ``own`` [N, S, D]: its clean less its ablated write; of a head before a norm behind the attention.
    """

    def __init__(self, clean: Clean, sender: int, own: torch.Tensor, shares: torch.Tensor) -> None:
        self.run, self.copies = clean.run, len(shares)
        name, change = clean.run.graph.senders[sender], ((shares - 1).view(-1, 1, 1, 1) * own).flatten(0, 1)
        self.layer = clean.run.graph.layer_of(name)  # -1 for the embeddings
        self.is_head = name != EMBED and name[0] != "m"
        self.carries = self.copied(own)  # what receivers read of the sender, to first order: clean less ablated
        self.own_layer: torch.Tensor | None = None  # what enters the layer of a head
        if not self.is_head:
            self.start = (self.copied(clean.entered[self.layer + 1]) + change).requires_grad_(True)
            return
        block, writes = self.run.blocks[self.layer], self.copied(clean.writes[self.layer]) + change
        self.own_layer = self.copied(clean.entered[self.layer])
        with torch.no_grad():
            self.start = block.after_attention(self.own_layer, writes)
        self.start.requires_grad_(True)
        if block.norm_attn_out is not None:
            self.carries = torch.func.jvp(block.added, (writes + block.b_o,), (self.carries,))[1]

    def copied(self, x: torch.Tensor) -> torch.Tensor:
        """[C N, ...] of x [N, ...]."""
        return x.repeat(self.copies, *[1] * (x.dim() - 1))

    def values(self, answer: torch.Tensor, incorrect: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """(number of a receiver, gradient . what is read of the sender by it and those behind it [C, N, receivers])."""
        read: dict[Any, torch.Tensor] = {}
        entered: dict[int, torch.Tensor] = {}
        run, graph = self.run, self.run.graph
        with torch.enable_grad():
            x = self.behind_own_mlp(read) if self.is_head else self.start
            for layer in range(self.layer + 1, len(run.blocks)):
                entered[layer] = x.detach()
                x, _ = layer_with_reads(layer, run.blocks[layer], x, read)
            read[LOGITS] = x
            last = run.positions.repeat(self.copies).take(x)[:, 0]
            metric = run.engine.weights.logit_diff(last, self.copied(answer), self.copied(incorrect)).sum()
            by_read = dict(zip(read, torch.autograd.grad(metric, list(read.values())), strict=True))
        for name, gradient in by_read.items():
            if isinstance(name, str):  # an MLP, or the logits
                row = len(graph.receivers) - 1 if name == LOGITS else graph.row(graph.layer_of(name), "m")
                yield row, self.by_copy((gradient * self.carries).flatten(1).sum(1, keepdim=True))
        for layer, x in entered.items():
            for part, made in self.projected(run.blocks[layer], x).items():
                yield graph.row(layer, part), self.by_copy((by_read[layer, part] * made).sum((2, 3)))

    def by_copy(self, x: torch.Tensor) -> torch.Tensor:
        """[C, N, ...] of x [C N, ...]."""
        found: torch.Tensor = x.unflatten(0, (self.copies, -1))
        return found

    def behind_own_mlp(self, read: dict[Any, torch.Tensor]) -> torch.Tensor:
        """The output [C N, S, D] of the layer of a head; in a parallel block its MLP reads nothing of the head."""
        block, x = self.run.blocks[self.layer], self.start
        if block.parallel:
            assert self.own_layer is not None
            return x + block.mlp_out(self.own_layer)
        read[f"m{self.layer}"] = own = x.clone()  # a branch: what the MLP alone makes of it
        return x + block.mlp_out(own)

    def projected(self, block: Block, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Part -> [C N, h, S, d_head] what the queries, keys or values that `layer_with_reads` notes change by to first
        order, where x [C N, S, D] enters the layer, if all heads read what the sender carries in addition."""

        def parts(x: torch.Tensor) -> dict[str, torch.Tensor]:
            y = block.norm1(x)
            return {part: block.entering(part, y) if joint(block, part) else block.project(part, y) for part in "qkv"}

        found: dict[str, torch.Tensor] = torch.func.jvp(parts, (x,), (self.carries,))[1]
        return found
