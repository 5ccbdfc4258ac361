"""Edge attribution patching: every edge scored by gradients, in one backward pass or a few (methods: edges).

The score of an edge s -> r is (ablated - clean write of s) . g(r), summed over positions, g(r) being the gradient of
the logit difference with respect to what r reads, before its norm. It estimates M(without the edge) - M(full) to first
order: positive means that ablating the edge raises the metric. `eap` takes g from the clean run (Syed et al. 2023).
`eap_ig` averages g over m runs whose embeddings lie between the ablated and the clean ones, at k = (i - 1/2) / m for
i = 1..m (Hanna et al. 2024 give the idea; midpoints are this project's choice), and leaves the writes those of the
clean run. All runs are of the whole, unablated model.
"""

from itertools import groupby
from typing import Any

import torch

from atlas.core.graph import EMBED, LOGITS, Edge
from atlas.edges.engine import EdgeAblator
from atlas.edges.run import EdgeRun, Pass
from atlas.model.block import Block, at_least_float32

RANKINGS = ("signed", "absolute")


def scores(ablator: EdgeAblator, points: int | None = None) -> dict[Edge, torch.Tensor]:
    """Edge -> score per prompt [N], for every edge; ``points``: m of `eap_ig`, or None for `eap`."""
    found = []
    for i, run in enumerate(ablator.live):
        batch = ablator.batches[i]
        found.append(of_batch(run, ablator.answer[batch], ablator.incorrect[batch], points))
    return {edge: torch.cat([part[edge] for part in found]) for edge in found[0]}


def of_batch(
    run: EdgeRun, answer: torch.Tensor, incorrect: torch.Tensor, points: int | None
) -> dict[Edge, torch.Tensor]:
    """Edge -> score [n] on the CPU, in logits, of one batch; its sign is that of the module's first lines.

    ``answer``, ``incorrect`` [n]: token ids; ``points``: see `scores`.
    """
    differences = carried(run)
    shares = [1.0] if points is None else [(i - 0.5) / points for i in range(1, points + 1)]
    total: dict[str, torch.Tensor] = {}
    for share in shares:
        for receiver, gradient in gradients(run, answer, incorrect, share).items():
            total[receiver] = total[receiver] + gradient if receiver in total else gradient
    out: dict[Edge, torch.Tensor] = {}
    for count, group in groupby(run.graph.receivers, lambda receiver: len(run.graph.senders_of(receiver))):
        receivers = list(group)
        by_input = torch.stack([total[receiver].flatten(1) for receiver in receivers], dim=2)  # [N, S D, receivers]
        # what an ablated edge would add to the receiver's input is minus the difference that it carries
        values = at_least_float32(-(differences[:, :count] @ by_input) / len(shares)).cpu()
        for i, sender in enumerate(run.graph.senders[:count]):
            out |= {Edge(sender, receiver): values[:, i, j] for j, receiver in enumerate(receivers)}
    return {edge: out[edge] for edge in run.graph.edges}


def carried(run: EdgeRun) -> torch.Tensor:
    """[N, senders, S x D]: clean minus ablated write of every sender, in the order of the graph."""
    incoming = {receiver: run.graph.senders_of(receiver) for receiver in run.graph.receivers}
    with torch.no_grad():
        clean = Pass(run, incoming, wide=set(run.graph.senders))
        clean.final()
        n = len(run.tokens)
        every = [clean.difference(s, True).expand(n, -1, -1).flatten(1) for s in run.graph.senders]
        return torch.stack(every, dim=1)


def gradients(run: EdgeRun, answer: torch.Tensor, incorrect: torch.Tensor, share: float) -> dict[str, torch.Tensor]:
    """Receiver -> gradient of the summed logit difference by its input before the norm, [N, S, D].

    The embeddings are ``share`` of the way from the ablated to the clean ones.
    """
    engine = run.engine
    read: dict[Any, torch.Tensor] = {}
    with torch.no_grad():
        clean, ablated = engine.weights.embed(run.tokens), run.ablated(EMBED)
        start = ablated + share * (clean - ablated)
    with torch.enable_grad():
        x = start.requires_grad_(True)
        normed: list[torch.Tensor] = []
        for layer, block in enumerate(engine.blocks):
            x = layer_with_reads(layer, block, x, read, normed)
        read[LOGITS] = x
        metric = engine.weights.logit_diff(run.positions.take(x)[:, 0], answer, incorrect).sum()
        names = list(read)
        by_read = dict(zip(names, torch.autograd.grad(metric, [read[name] for name in names]), strict=True))
    out = {LOGITS: by_read[LOGITS]}  # zero but at the position of the score
    for layer, block in enumerate(engine.blocks):
        out |= by_input_of_heads(run, layer, block, normed[layer], by_read)
        out[f"m{layer}"] = by_read[f"m{layer}"]
    return out


def layer_with_reads(
    layer: int, block: Block, x: torch.Tensor, read: dict[Any, torch.Tensor], normed: list[torch.Tensor]
) -> torch.Tensor:
    """The output [N, S, D] of one layer of the whole model, of the residual x [N, S, D] that enters it.

    Notes in ``read`` queries, keys and values [N, h, S, d_head] under (layer, part) and the MLP's own reading of the
    residual [N, S, D] under its name; appends x to ``normed``, as what the first norm reads.
    """
    normed.append(x.detach())
    y = block.norm1(x)
    for part in "qkv":
        read[layer, part] = block.project(part, y)
    q, k, v = (read[layer, part] for part in "qkv")
    z = block.attend(block.placed("q", q), block.placed("k", k), v)
    after = block.after_attention(x, block.head_writes(z))
    read[f"m{layer}"] = own = block.mlp_reads(x, after).clone()  # a branch: what the MLP alone makes of it
    return after + block.mlp_out(own)


def by_input_of_heads(
    run: EdgeRun, layer: int, block: Block, x: torch.Tensor, by_read: dict[Any, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Receiver of a layer's attention -> gradient by the residual that it reads, x, before the norm; [N, S, D] both.

    Carried back from those by queries, keys and values, ``by_read[layer, part]`` [N, h, S, d_head], which it takes out.
    """
    out = {}
    for part in "qkv":
        by_part = by_read.pop((layer, part))  # [N, h, S, d_head]
        for i, gradient in enumerate(by_part.unbind(1)):
            shared = part != "q" and by_part.shape[1] < run.graph.n_heads
            port = f"{layer}.{'kv' if shared else ''}{i}.{part}"
            out[port] = gradient @ block.linear(part)[0][:, i].T
    with torch.enable_grad():
        copies = x.expand(len(out), *x.shape).detach().requires_grad_(True)
        (by_input,) = torch.autograd.grad(block.norm1(copies), copies, torch.stack(list(out.values())))
    return dict(zip(out, by_input, strict=True))


def ranked(edge_scores: dict[Edge, float], ranking: str) -> list[Edge]:
    """Most important edges first.

    `signed`: those whose ablation lowers the metric most, that is, by minus the score; `absolute`: by its size. Equal
    scores keep the order of ``edge_scores``.
    """
    key = {"signed": lambda e: edge_scores[e], "absolute": lambda e: -abs(edge_scores[e])}[ranking]
    return sorted(edge_scores, key=key)
