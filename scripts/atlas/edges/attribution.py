"""Edge attribution patching: every edge scored by gradients, in one backward pass or a few (methods: edges).

The score of an edge s -> r is (ablated - clean write of s) . g(r), summed over positions, g(r) being the gradient of
the logit difference with respect to what r reads, before its norm. It estimates M(without the edge) - M(full) to first
order: positive means that ablating the edge raises the metric. `eap` takes g from the clean run (Syed et al. 2023).
`eap_ig` averages g over m runs whose embeddings lie between the ablated and the clean ones, at k = (i - 1/2) / m for
i = 1..m (Hanna et al. 2024 give the idea; midpoints are this project's choice), and leaves the writes those of the
clean run. `relp` takes g from the clean run as `eap` does, of a model that computes the same and whose gradient is that
of relevance patching (`model.frozen`); edges into queries and keys, which are constants there, score 0. All runs are of
the whole, unablated model.

Where a norm stands behind the attention, what a head's edge carries enters that norm: to first order its receiver reads
of the difference what the norm's derivative makes of it, taken where the gradient is, so that the score is the
derivative of what ablates the edge.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch

from atlas.core.graph import EMBED, LOGITS, Edge
from atlas.edges.engine import EdgeAblator
from atlas.edges.frame import Differences
from atlas.edges.inputs import entered, joint
from atlas.edges.passes import Pass
from atlas.edges.run import EdgeRun
from atlas.model import memory
from atlas.model.block import Block
from atlas.model.engine import Engine
from atlas.model.frozen import FrozenWeights, frozen
from atlas.model.logits import at_least_float32
from atlas.model.models import slices


def scores(ablator: EdgeAblator, points: int | None = None, relevance: bool = False) -> dict[Edge, torch.Tensor]:
    """Edge -> score per prompt [N], for every edge; ``points``: m of `eap_ig`, or None for `eap`; ``relevance``:
    whether gradients are those of relevance patching."""
    found, engine = [], Engine(frozen(ablator.engine.weights)) if relevance else ablator.engine
    per_prompt = bytes_per_prompt(ablator) + relevance * bytes_when_frozen(ablator)
    for rows in slices(len(ablator.prompts), max(1, ablator.budget // 8 // per_prompt)):
        run = ablator.run_of(rows, 0, Differences(), engine)
        found.append(of_batch(run, ablator.answer[rows], ablator.incorrect[rows], points))
        memory.give_back()
    return dict(zip(ablator.graph.edges, torch.cat(found, dim=1), strict=True))


def bytes_per_prompt(ablator: EdgeAblator) -> int:
    """What a prompt takes: a write of each sender, and what the clean pass holds of each layer; for the way back each
    layer's residual, its norms, q, k, v, z, and the MLP's inner values before and after the activation; of the heads of
    one layer gradients by their inputs."""
    graph, weights, d_model = ablator.graph, ablator.engine.weights, ablator.model.d_model
    per_token = (len(graph.senders) + 4 * graph.n_layers + 4 * graph.n_heads) * d_model
    per_token += graph.n_layers * (9 * d_model + weights.mlp_flops // d_model)
    if weights.mixes_heads:  # differences before and behind these norms
        per_token += (len(graph.senders) + 3 * graph.n_heads + 2 * graph.n_layers) * d_model
    return ablator.prompts.tokens.shape[1] * per_token * weights.w_u.element_size()


def bytes_when_frozen(ablator: EdgeAblator) -> int:
    """What a prompt takes beside that where patterns and ratios of MLPs are constants, tensors of their own."""
    weights, s = ablator.engine.weights, ablator.prompts.tokens.shape[1]
    per_token = ablator.graph.n_heads * s + weights.mlp_flops // ablator.model.d_model
    return ablator.graph.n_layers * s * per_token * weights.w_u.element_size()


def of_batch(run: EdgeRun, answer: torch.Tensor, incorrect: torch.Tensor, points: int | None) -> torch.Tensor:
    """[edges, n] scores on the CPU, in logits, of the prompts of a run; their sign is that of the module's first lines.

    ``answer``, ``incorrect`` [n]: token ids; ``points``: see `scores`.
    """
    graph, differences = run.graph, carried(run)  # as they enter the norms behind the attention, where there are any
    shares = [1.0] if points is None else [(i - 0.5) / points for i in range(1, points + 1)]
    found = at_least_float32(differences.new_zeros(len(graph.edges), len(run.tokens)))
    ends = list(accumulate(len(graph.senders_of(receiver)) for receiver in graph.receivers))
    for share in shares:
        way = way_back(run, answer, incorrect, share)
        read = behind_norms(run, differences, way.mixtures) if run.mixes else differences
        for first, gradient in gradients(run, way):
            count = len(graph.senders_of(graph.receivers[first]))
            # what an ablated edge would add to the receiver's input is minus the difference that it carries
            values = torch.bmm(read[:, :count], gradient.flatten(2).permute(1, 2, 0))  # [n, count, receivers]
            for i, own in enumerate(values.unbind(2), start=first):
                found[ends[i] - count : ends[i]] -= own.T
    return (found / len(shares)).cpu()


def carried(run: EdgeRun) -> torch.Tensor:
    """[N, senders, S x D]: clean minus ablated write of every sender, in the order of the graph."""
    every = (1 << len(run.graph.senders)) - 1
    with torch.no_grad():
        clean = Pass(run, run.graph.all_edges.rows, wide=every)
        clean.final()
        return clean.carried(every, True)[1].transpose(0, 1).flatten(2)


def behind_norms(run: EdgeRun, differences: torch.Tensor, mixtures: list[torch.Tensor]) -> torch.Tensor:
    """`carried` [N, senders, S x D] with those of heads as receivers read them to first order: through the derivative
    of the norm behind their layer's attention at what enters it, ``mixtures`` [layers of N, S, D]."""
    read, n_heads = differences.clone(), run.graph.n_heads
    for layer, (block, mixture) in enumerate(zip(run.engine.blocks, mixtures, strict=True)):
        first = run.graph.first(layer)
        own = differences[:, first : first + n_heads].unflatten(2, mixture.shape[1:])
        at = mixture[:, None].expand_as(own).contiguous()
        read[:, first : first + n_heads] = torch.func.jvp(block.added, (at,), (own,))[1].flatten(2)
    return read


@dataclass(frozen=True)
class WayBack:
    """Gradients of the summed logit difference, and where they were taken.

    by_read: by what `layer_with_reads` notes, and by the final residual, without what is a constant. entered: what
    enters each layer [N, S, D]; mixtures: what the heads and b_O of each layer give before the norm behind them
    [N, S, D].
    """

    by_read: dict[Any, torch.Tensor]
    entered: list[torch.Tensor]
    mixtures: list[torch.Tensor]


def way_back(run: EdgeRun, answer: torch.Tensor, incorrect: torch.Tensor, share: float) -> WayBack:
    """One pass of the whole model and back; embeddings ``share`` of the way from the ablated to the clean ones."""
    engine = run.engine
    read: dict[Any, torch.Tensor] = {}
    with torch.no_grad():
        clean, ablated = engine.weights.embed(run.tokens), run.ablated(EMBED)
        start = ablated + share * (clean - ablated)
    with torch.enable_grad():
        x = start.requires_grad_(True)
        entered: list[torch.Tensor] = []
        mixtures: list[torch.Tensor] = []
        for layer, block in enumerate(engine.blocks):
            entered.append(x.detach())
            x, writes = layer_with_reads(layer, block, x, read)
            if run.mixes:
                mixtures.append(writes.detach() + block.b_o)
        read[LOGITS] = x
        metric = engine.weights.logit_diff(run.positions.take(x)[:, 0], answer, incorrect).sum()
        names = list(read)
        constants = isinstance(engine.weights, FrozenWeights)  # queries and keys
        found = torch.autograd.grad(metric, [read[name] for name in names], allow_unused=constants)
        by_read = {name: gradient for name, gradient in zip(names, found, strict=True) if gradient is not None}
    return WayBack(by_read, entered, mixtures)


def gradients(run: EdgeRun, way: WayBack) -> Iterator[tuple[int, torch.Tensor]]:
    """(number of a receiver, gradients of the summed logit difference by the inputs before the norm of this receiver
    and those behind it, [receivers, n, S, D]); in the end all but constants, a few at a time because together they are
    large.

    Takes them out of ``way``.
    """
    graph, by_read = run.graph, way.by_read
    for layer, block in enumerate(run.engine.blocks):
        for part in (part for part in "qkv" if (layer, part) in by_read):
            yield graph.row(layer, part), by_input_of_heads(block, part, way.entered[layer], by_read.pop((layer, part)))
        yield graph.row(layer, "m"), by_read.pop(f"m{layer}")[None]
    yield len(graph.receivers) - 1, by_read.pop(LOGITS)[None]  # zero but at the position of the score


def layer_with_reads(
    layer: int, block: Block, x: torch.Tensor, read: dict[Any, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The output [N, S, D] of one layer of the whole model, of the residual x [N, S, D] that enters it; and what its
    heads write together.

    Notes in ``read`` queries, keys and values [N, h, S, d_head] under (layer, part), as `Inputs` gives them, and the
    MLP's own reading of the residual [N, S, D] under its name.
    """
    y = block.norm1(x)
    for part in "qkv":
        read[layer, part] = block.entering(part, y) if joint(block, part) else block.project(part, y)
    q, k, v = (read[layer, part] for part in "qkv")
    z = block.attend(entered(block, "q", q), entered(block, "k", k), v)
    writes = block.head_writes(z)
    after = block.after_attention(x, writes)
    read[f"m{layer}"] = own = block.mlp_reads(x, after).clone()  # a branch: what the MLP alone makes of it
    return after + block.mlp_out(own), writes


def by_input_of_heads(block: Block, part: str, x: torch.Tensor, by_part: torch.Tensor) -> torch.Tensor:
    """[h, N, S, D] gradient by the residual x [N, S, D] that each head reads before the norm.

    Carried back from that by its queries, keys or values, ``by_part`` [N, h, S, d_head].
    """
    if joint(block, part):
        return torch.cat([by_input_of_one(block, part, head, x, own) for head, own in enumerate(by_part.unbind(1))])
    weight = block.linear(part)[0].permute(1, 2, 0)  # [h, d_head, D]
    by_normed = torch.bmm(by_part.transpose(0, 1).flatten(1, 2), weight).view(-1, *x.shape)
    with torch.enable_grad():
        copies = x.expand(by_normed.shape).detach().requires_grad_(True)
        (by_input,) = torch.autograd.grad(block.norm1(copies), copies, by_normed)
    found: torch.Tensor = by_input
    return found


def by_input_of_one(block: Block, part: str, head: int, x: torch.Tensor, by_part: torch.Tensor) -> torch.Tensor:
    """[1, N, S, D] the same of one head, ``by_part`` [N, S, d_head], whose norm is of what all heads make of x."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        (found,) = torch.autograd.grad(block.entering(part, block.norm1(x), heads=[head])[:, 0], x, by_part)
    return found[None]
