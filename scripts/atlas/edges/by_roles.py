"""Edges between roles of positions: which part of an edge is carried at which positions (methods: edges by roles).

An edge s -> r carries what r reads of s, at every position. A *role edge* is the part of it that starts at positions of
one role, where s writes, and is of use at positions of one role, where r works:

- an MLP, the logits and the query input of a head work where they read, so both roles are the same;
- a key or value input is read at the position of the key, by queries at their own positions: the part from role a to
  role b is what keys (values) at positions of a hold of s as queries at positions of b see them.

Each of these parts can be ablated alone (`role_patching`), and each has its share of the gradient: with d the ablated
less the clean write of s, the score of (s -> r, a -> b) is the sum over positions of a of d times the gradient of the
logit difference by what r reads there, only as far as it passes through what r's heads give at positions of b. Roles
divide the positions, and a gradient is a sum over the ways it passes, so the scores of all parts of an edge sum to that
of the edge (`attribution`). Follows Haklay et al. 2025 (arXiv 2502.04577); roles are those of the prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from atlas.core.errors import StudyError
from atlas.core.graph import EMBED, LOGITS, Edge, Graph
from atlas.edges.attribution import behind_norms, bytes_per_prompt, carried, layer_with_reads
from atlas.edges.engine import EdgeAblator
from atlas.edges.frame import Differences
from atlas.edges.inputs import entered, joint
from atlas.edges.run import EdgeRun
from atlas.model import memory
from atlas.model.block import Block
from atlas.model.logits import at_least_float32
from atlas.model.models import slices

Masks = dict[str, torch.Tensor]  # role -> [1 or N, S], where its positions are


class RoleEdge(NamedTuple):
    """The part of an edge from positions of role ``start``, where its sender writes, to those of role ``end``, where
    what reads it works."""

    edge: Edge
    start: str
    end: str

    def __str__(self) -> str:
        return f"{self.edge} ({self.start} to {self.end})"


def masks_of(ablator: EdgeAblator, rows: slice) -> Masks:
    """The roles of some prompts; raises StudyError where the prompts were given none, or roles share a position."""
    roles = ablator.prompts.roles
    if not roles:
        raise StudyError("edges.roles: these prompts have no roles of positions; make them with roles")
    found = {name: m if len(m) == 1 else m[rows] for name, m in roles.items()}
    if bool((torch.stack([m.expand(max(map(len, found.values())), -1) for m in found.values()]).sum(0) > 1).any()):
        raise StudyError(f"edges.roles: {', '.join(found)} share positions; give each position one role")
    return {name: m.to(ablator.model.device) for name, m in found.items()}


def pairs(ablator: EdgeAblator) -> dict[str, list[tuple[str, str]]]:
    """Kind of input (`q`, `k`, `v`, `m`, `logits`) -> the (start, end) of its role edges that can carry anything.

    A key or value is seen by queries at its position and after it. The logits are read at the position of the score.
    """
    masks, s = masks_of(ablator, slice(None)), ablator.prompts.tokens.shape[1]
    position = torch.arange(s, device=ablator.model.device)
    first = {role: m.float().argmax(1) for role, m in masks.items()}  # of a role that a prompt has
    last = {role: (m * position).amax(1) for role, m in masks.items()}

    def meets(a: str, b: str) -> bool:
        both = masks[a].any(1) & masks[b].any(1)
        return bool((both & (first[a] <= last[b])).any())

    own = [(role, role) for role, m in masks.items() if bool(m.any())]
    across = [(a, b) for a, _ in own for b, _ in own if meets(a, b)]
    at = torch.full((1, 1), s - 1) if ablator.at is None else ablator.at.cpu()
    ends = [(role, role) for role, _ in own if bool(masks[role].cpu().expand(len(at), -1).gather(1, at).any())]
    return {"q": own, "k": across, "v": across, "m": own, LOGITS: ends}


def kind_of(receiver: str) -> str:
    """`q`, `k`, `v`, `m` or `logits`."""
    return receiver if receiver == LOGITS else "m" if receiver[0] == "m" else receiver[-1]


def role_edges(ablator: EdgeAblator, edges: Iterable[Edge]) -> list[RoleEdge]:
    """All parts of these edges that can carry anything, in the graph's order; raises ValueError on unknown ones."""
    possible = pairs(ablator)
    return [RoleEdge(e, a, b) for e in ablator.graph.circuit(edges) for a, b in possible[kind_of(e.receiver)]]


def scores(ablator: EdgeAblator, edges: Iterable[Edge], points: int | None = None) -> dict[RoleEdge, torch.Tensor]:
    """Role edge -> score per prompt [N], of every part of these edges; ``points``: m of `eap_ig`, or None for `eap`.

    Positive: ablating that part raises the logit difference, to first order. ``ablator``: of prompts with roles.
    """
    wanted = role_edges(ablator, edges)
    found = []
    for rows in slices(len(ablator.prompts), max(1, ablator.budget // 12 // bytes_per_prompt(ablator))):
        run, masks = ablator.run_of(rows, 0, Differences()), masks_of(ablator, rows)
        found.append(of_batch(run, ablator.answer[rows], ablator.incorrect[rows], masks, wanted, points))
        memory.give_back()
    return dict(zip(wanted, torch.cat(found, dim=1), strict=True))


def of_batch(
    run: EdgeRun,
    answer: torch.Tensor,
    incorrect: torch.Tensor,
    masks: Masks,
    wanted: Sequence[RoleEdge],
    points: int | None,
) -> torch.Tensor:
    """[role edges, n] scores on the CPU, in logits, of the prompts of a run."""
    differences, place = carried(run), {role_edge: i for i, role_edge in enumerate(wanted)}
    numbers = {name: i for i, name in enumerate(run.graph.senders)}
    by_receiver: dict[str, dict[str, None]] = {}
    for edge, _, _ in wanted:
        by_receiver.setdefault(edge.receiver, {})[edge.sender] = None
    shares = [1.0] if points is None else [(i - 0.5) / points for i in range(1, points + 1)]
    found = at_least_float32(differences.new_zeros(len(wanted), len(run.tokens)))
    for share in shares:
        passed = Passed.of(run, answer, incorrect, share)
        read = behind_norms(run, differences, passed.mixtures) if run.mixes else differences
        for receiver, senders in by_receiver.items():
            carries = read[:, [numbers[sender] for sender in senders]]  # [n, senders, S D]
            for end, gradient in passed.gradients(receiver, masks):
                at = torch.stack([gradient * mask[..., None] for mask in masks.values()])  # [roles, n, S, D]
                values = torch.bmm(carries, at.flatten(2).permute(1, 2, 0)).permute(2, 1, 0)  # [roles, senders, n]
                for start, own in zip(masks, values, strict=True):
                    for sender, value in zip(senders, own, strict=True):
                        part = RoleEdge(Edge(sender, receiver), start, start if end is None else end)
                        if part in place:
                            found[place[part]] -= value
    return (found / len(shares)).cpu()


class Passed:
    """One pass of the whole model and back: what is needed to take gradients by what any receiver reads.

    entered: what enters each layer [n, S, D]. mixtures: what its attention gives before the norm behind it, where there
    is one. read: what `layer_with_reads` notes, without its history. by_read: gradients by it. by_z [n, S, H, d_head]:
    gradients by what the heads of each layer mix.
    """

    def __init__(self, run: EdgeRun) -> None:
        self.run = run
        self.entered: list[torch.Tensor] = []
        self.mixtures: list[torch.Tensor] = []
        self.read: dict[Any, torch.Tensor] = {}
        self.by_read: dict[Any, torch.Tensor] = {}
        self.by_z: list[torch.Tensor] = []

    @classmethod
    def of(cls, run: EdgeRun, answer: torch.Tensor, incorrect: torch.Tensor, share: float) -> Passed:
        """With embeddings ``share`` of the way from the ablated to the clean ones; answer, incorrect [n] token ids."""
        made, weights = cls(run), run.engine.weights
        with torch.no_grad():
            clean, ablated = weights.embed(run.tokens), run.ablated(EMBED)
            start = ablated + share * (clean - ablated)
        read: dict[Any, torch.Tensor] = {}
        with torch.enable_grad():
            x, written = start.requires_grad_(True), []
            for layer, block in enumerate(run.engine.blocks):
                made.entered.append(x.detach())
                x, writes = layer_with_reads(layer, block, x, read)
                written.append(writes)
                if run.mixes:
                    made.mixtures.append(writes.detach() + block.b_o)
            read[LOGITS] = x
            metric = weights.logit_diff(run.positions.take(x)[:, 0], answer, incorrect).sum()
            got = torch.autograd.grad(metric, [*read.values(), *written])
        made.by_read = dict(zip(read, got, strict=False))
        made.read = {name: value.detach() for name, value in read.items()}
        for block, by_writes in zip(run.engine.blocks, got[len(read) :], strict=True):
            made.by_z.append(torch.einsum("nsm,hdm->nshd", by_writes, block.w_o))
        return made

    def gradients(self, receiver: str, masks: Masks) -> Iterator[tuple[str | None, torch.Tensor]]:
        """(end, gradient [n, S, D] by what a receiver reads, before its norm): of keys and values for each role that
        queries have; of others once, with no role, since they work where they read."""
        graph: Graph = self.run.graph
        if kind_of(receiver) in ("m", LOGITS):
            yield None, self.by_read[receiver]
            return
        layer, part = graph.layer_of(receiver), receiver[-1]
        name = receiver.split(".")[1]
        owner, block = int(name.removeprefix("kv")), self.run.engine.blocks[layer]
        if part == "q":
            yield None, by_input(block, part, owner, self.entered[layer], self.by_read[layer, part][:, owner])
            return
        for end, mask in masks.items():
            by_part = self.seen_from(layer, part, owner, mask)
            yield end, by_input(block, part, owner, self.entered[layer], by_part)

    def seen_from(self, layer: int, part: str, owner: int, queries: torch.Tensor) -> torch.Tensor:
        """[n, S, d_head] gradient by the keys or values of one key/value head, as far as it passes through what heads
        give at some positions, ``queries`` [1 or n, S]."""
        block = self.run.engine.blocks[layer]
        heads = [head for head in range(block.n_heads) if block.owners[head] == owner]
        q, k, v = (self.read[layer, name] for name in "qkv")
        with torch.enable_grad():
            own = {"k": k[:, [owner]], "v": v[:, [owner]]}
            leaf = own[part] = own[part].clone().requires_grad_(True)
            keys = own["k"] if joint(block, "k") else block.placed("k", own["k"], heads=[owner])
            z = block.attend(entered(block, "q", q)[:, heads], keys, own["v"], owners=[0] * len(heads))
            by_z = self.by_z[layer][:, :, heads] * queries[..., None, None]
            (found,) = torch.autograd.grad(z, leaf, by_z)
        return found[:, 0]


def by_input(block: Block, part: str, head: int, x: torch.Tensor, by_part: torch.Tensor) -> torch.Tensor:
    """[n, S, D] gradient by the residual x [n, S, D] that one head reads before the norm, carried back from that by its
    queries, keys or values, ``by_part`` [n, S, d_head]."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        normed = block.norm1(x)
        made = block.entering(part, normed, heads=[head]) if joint(block, part) else block.project(part, normed, [head])
        (found,) = torch.autograd.grad(made[:, 0], x, by_part)
    return found


def total(parts: Mapping[RoleEdge, Any]) -> dict[Edge, Any]:
    """Edge -> the sum over its parts."""
    found: dict[Edge, Any] = {}
    for (edge, _, _), value in parts.items():
        found[edge] = found[edge] + value if edge in found else value
    return found
