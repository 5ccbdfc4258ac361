"""Ablate parts of edges alone: a sender at one role of positions, for a receiver at one role (methods: edges by roles).

Exact, one part at a time, in the whole model: everything behind the receiver is computed anew. The effects of an edge's
parts need not sum to that of the edge. They do where everything between is linear in what the edge carries; a softmax,
a gate and a norm are not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from atlas.core.graph import LOGITS
from atlas.edges.attribution import carried
from atlas.edges.by_roles import Masks, RoleEdge, kind_of, masks_of
from atlas.edges.engine import EdgeAblator
from atlas.edges.frame import Differences
from atlas.edges.run import EdgeRun
from atlas.model import memory
from atlas.store.job import progress


def effects(ablator: EdgeAblator, parts: Sequence[RoleEdge]) -> dict[RoleEdge, np.ndarray]:
    """Part of an edge -> M(without it) - M(full) of the logit difference, per prompt [N]; negative: it helps.

    ``ablator``: of prompts with roles (`by_roles.masks_of`). Raises ValueError on an edge that the model lacks.
    """
    ablator.graph.circuit({part.edge for part in parts})
    found = []
    for rows in ablator.batches:
        masks = masks_of(ablator, rows)
        whole = Whole(ablator.run_of(rows, 0, Differences()), ablator.answer[rows], ablator.incorrect[rows])
        own = [whole.without(part, masks) - whole.full for part in progress(parts, "parts of edges")]
        found.append(np.stack(own) if own else np.zeros((0, len(whole.full))))
        memory.give_back()
    return dict(zip(parts, np.concatenate(found, axis=1), strict=True))


class Whole:
    """The whole model on some prompts, from which parts of edges are taken.

    full [n]: its logit difference. entered, after, writes, z: of each layer what enters it, the residual that its MLP
    follows, what its heads write together, and what they mix.
    """

    def __init__(self, run: EdgeRun, answer: torch.Tensor, incorrect: torch.Tensor) -> None:
        self.run, self.answer, self.incorrect = run, answer, incorrect
        self.carried = carried(run).unflatten(2, (run.tokens.shape[1], -1))  # [n, senders, S, D]
        self.numbers = {name: i for i, name in enumerate(run.graph.senders)}
        self.entered: list[torch.Tensor] = []
        self.after: list[torch.Tensor] = []
        self.writes: list[torch.Tensor] = []
        self.z: list[torch.Tensor] = []
        with torch.no_grad():
            x = run.engine.weights.embed(run.tokens)
            for block in run.engine.blocks:
                self.entered.append(x)
                z = block.attend(*block.all_three(block.norm1(x)))
                self.z.append(z)
                self.writes.append(block.head_writes(z))
                self.after.append(block.after_attention(x, self.writes[-1]))
                x = block.after_mlp(x, self.after[-1])
            self.final = x
            self.full = self.measured(x)

    def measured(self, x: torch.Tensor) -> np.ndarray:
        """[n] logit differences of final residuals [n, S, D]."""
        last = self.run.positions.take(x)[:, 0]
        found: np.ndarray = self.run.engine.weights.logit_diff(last, self.answer, self.incorrect).double().cpu().numpy()
        return found

    def change(self, part: RoleEdge, masks: Masks) -> torch.Tensor:
        """[n, S, D] what the receiver of an edge reads more where the part of its sender is ablated."""
        sender = part.edge.sender
        lost: torch.Tensor = self.carried[:, self.numbers[sender]] * masks[part.start][..., None]
        if not self.run.mixes or "." not in sender:
            return -lost
        block, layer = self.run.engine.blocks[self.run.graph.layer_of(sender)], self.run.graph.layer_of(sender)
        mixture = self.writes[layer] + block.b_o
        change: torch.Tensor = block.added(mixture - lost) - block.added(mixture)
        return change

    def without(self, part: RoleEdge, masks: Masks) -> np.ndarray:
        """[n] logit differences of the whole model without one part of an edge."""
        receiver, kind = part.edge.receiver, kind_of(part.edge.receiver)
        with torch.no_grad():
            if kind == LOGITS:
                return self.measured(self.final + self.change(part, masks))
            layer = self.run.graph.layer_of(receiver)
            block, x, after = self.run.engine.blocks[layer], self.entered[layer], self.after[layer]
            if kind == "m":
                x = after + block.mlp_out(block.mlp_reads(x, after) + self.change(part, masks))
            else:
                written = self.written(layer, receiver, x + self.change(part, masks), masks[part.end])
                x = block.after_mlp(x, block.after_attention(x, self.writes[layer] + written))
            for block in self.run.engine.blocks[layer + 1 :]:
                z = block.attend(*block.all_three(block.norm1(x)))
                x = block.after_mlp(x, block.after_attention(x, block.head_writes(z)))
            return self.measured(x)

    def written(self, layer: int, receiver: str, read: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        """[n, S, D] by how much the heads of a layer write something else where one input of one of them, or of a group
        with shared keys, is made of ``read`` [n, S, D]; at the positions ``ends`` [1 or n, S] alone."""
        block, part = self.run.engine.blocks[layer], receiver[-1]
        owner = int(receiver.split(".")[1].removeprefix("kv"))
        heads = [owner] if part == "q" else [h for h in range(block.n_heads) if block.owners[h] == owner]
        group = [block.owners[heads[0]]]
        own, other = block.norm1(self.entered[layer]), block.norm1(read)
        q = block.queries(other if part == "q" else own, heads=heads)
        k = block.entering("k", other if part == "k" else own, heads=group)
        v = block.project("v", other if part == "v" else own, group)
        z = block.attend(q, k, v, owners=[0] * len(heads)) - self.z[layer][:, :, heads]
        return block.head_writes(z * ends[..., None, None], heads)
