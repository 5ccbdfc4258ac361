"""The rest of a model at the answer position: what becomes of a score when a part of one component changes there.

A part of a component (a direction of what a head or an MLP writes, some neurons of an MLP) is ablated at the answer
position alone, where the answer is written; all earlier positions run as in the clean prompt. So each change costs one
position and not S: keys and values of earlier positions are remembered, and the run goes on from the layer that
changes. Everything downstream at the answer position is recomputed. Needs the live engine; hooks are the oracle.

Memory: of N prompts 2 L N S G d_head numbers of keys and values (55 MB for 48 prompts of 25 tokens in a model of 30
layers with 3 such heads of 64 numbers), and `ROWS` changed rows on their way through a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from atlas.circuit.task_data import TaskData
from atlas.core.errors import StudyError
from atlas.model.attention import Positions, attention_weights
from atlas.model.models import slices
from atlas.prompts import layouts
from atlas.prompts.batch import Prompts

if TYPE_CHECKING:
    import pandas as pd

    from atlas.core.components import Component
    from atlas.model.block import Block, Weights
    from atlas.model.models import Model

ROWS = 1024  # changed prompts that run together


def weights_of(model: Model, analysis: str) -> Weights:
    """The weights of a model; raises StudyError where its architecture has no live engine."""
    if model.weights is None:
        raise StudyError(
            f"geometry.analyses: {analysis} reads the weights of a model, and its architecture has no live engine here "
            "(docs/architectures.md); leave it out"
        )
    return model.weights


@dataclass(frozen=True)
class Tail:
    """N prompts of one length, run clean, with what a run from any layer on needs at their last position.

    ``before`` [L] the residual [N, 1, D] that enters each layer there; ``keys``, ``values`` [L] of all positions, [N,
    G, S, d_head]; ``z`` [L] [N, 1, H, d_head]; ``answer``, ``incorrect`` [N].
    """

    weights: Weights
    before: list[torch.Tensor]
    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    z: list[torch.Tensor]
    answer: torch.Tensor
    incorrect: torch.Tensor

    @classmethod
    def of(cls, model: Model, prompts: Prompts, analysis: str) -> Tail:
        """Of prompts of one length with answers of one token (ValueError on others). Raises as `weights_of`."""
        if prompts.position is not None or prompts.several_tokens:
            raise ValueError("the rest of a model runs at the last token of prompts of one length")
        weights = weights_of(model, analysis)
        found: list[list[list[torch.Tensor]]] = [[[], [], [], []] for _ in weights.blocks]
        with torch.no_grad():
            for batch in model.batches(len(prompts)):
                x = weights.embed(prompts.tokens[batch].to(model.device))
                for layer, block in enumerate(weights.blocks):
                    q, k, v = block.all_three(block.norm1(x))
                    z = block.attend(q, k, v)
                    for kept, part in zip(found[layer], (x[:, -1:], k, v, z[:, -1:]), strict=True):
                        kept.append(part.clone())  # a view would keep all positions
                    x = block.after_mlp(x, block.after_attention(x, block.head_writes(z)))
        parts = [[torch.cat(pieces) for pieces in layer] for layer in found]
        before, keys, values, zs = ([layer[i] for layer in parts] for i in range(4))
        answer, incorrect = (x.to(model.device) for x in (prompts.answer, prompts.incorrect))
        return cls(weights, before, keys, values, zs, answer, incorrect)

    def __len__(self) -> int:
        return len(self.answer)

    # ---- what a component gives --------------------------------------------------------------------------
    def middle(self, layer: int, z: torch.Tensor | None = None) -> torch.Tensor:
        """[N, C, D] the residual in the middle of a layer, of z [N, C, H, d_head] (None: the clean one, C = 1)."""
        block, z = self.weights.blocks[layer], self.z[layer] if z is None else z
        return block.after_attention(self.before[layer].expand(-1, z.shape[1], -1), block.head_writes(z))

    def hidden(self, layer: int) -> torch.Tensor:
        """[N, d_mlp] what stands between the maps of a layer's MLP."""
        with torch.no_grad():
            return hidden_of(self.weights.blocks[layer], self.before[layer], self.middle(layer))[:, 0]

    def mlp_out(self, layer: int, hidden: torch.Tensor | None = None) -> torch.Tensor:
        """[R, D] what an MLP adds to the residual stream, of ``hidden`` [R, d_mlp] (None: the clean one)."""
        return out_of(self.weights.blocks[layer], self.hidden(layer) if hidden is None else hidden)

    # ---- the rest ----------------------------------------------------------------------------------------
    def clean(self) -> torch.Tensor:
        """[N] logit differences."""
        layer = len(self.before) - 1
        with torch.no_grad():
            return self.with_mlp(layer, self.mlp_out(layer)[:, None])[0]

    def with_z(self, layer: int, z: torch.Tensor) -> torch.Tensor:
        """[C, N] logit differences with z [N, C, H, d_head] of a layer at the last position."""
        before = self.before[layer].expand(-1, z.shape[1], -1)
        return self.finish(layer, self.weights.blocks[layer].after_mlp(before, self.middle(layer, z)))

    def with_mlp(self, layer: int, out: torch.Tensor) -> torch.Tensor:
        """[C, N] logit differences where a layer's MLP adds ``out`` [N, C, D] there."""
        return self.finish(layer, self.middle(layer) + out)

    def with_hidden(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        """[C, N] logit differences with ``hidden`` [N, C, d_mlp] between the maps of a layer's MLP."""
        return self.with_mlp(layer, self.mlp_out(layer, hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2]))

    def finish(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        """[C, N] logit differences of the residual x [N, C, D] after a layer.

        The C changes of a prompt are so many queries at its last position: each sees the clean keys before it and, of
        the keys there, its own.
        """
        c, s = x.shape[1], self.keys[0].shape[2]
        at = Positions(torch.full((c,), s - 1, device=x.device))
        own = torch.eye(c, dtype=torch.bool, device=x.device)
        for i in range(layer + 1, len(self.weights.blocks)):
            block = self.weights.blocks[i]
            normed = block.norm1(x)
            q, new = block.queries(normed, at), block.keys_values(normed, at)
            earlier = self.keys[i][:, :, :-1], self.values[i][:, :, :-1]
            k, v = (torch.cat(pair, 2) for pair in zip(earlier, new, strict=True))
            seen = at.mask(s, block.window)
            before = own.new_ones(c, s - 1) if seen is None else seen[0, 0, :, :-1]
            pattern = attention_weights(q, k, torch.cat((before, own), 1)[None, None], block.scale, block.cap)
            x = block.after_mlp(x, block.after_attention(x, block.head_writes(block.mix(pattern, v))))
        return self.weights.logit_diff(x.transpose(0, 1), self.answer, self.incorrect)

    def in_parts(self, n: int, run: Callable[[slice], torch.Tensor]) -> torch.Tensor:
        """[n, N] on the CPU, in float64: ``run`` [c, N] of n changes, as many at a time as `ROWS` rows hold."""
        with torch.no_grad():
            size = max(1, ROWS // len(self))
            return torch.cat([run(part).double().cpu() for part in slices(n, size)])

    def gradient(
        self, run: Callable[[torch.Tensor], torch.Tensor], clean: torch.Tensor, ablated: torch.Tensor, points: int
    ) -> torch.Tensor:
        """[N, ...] gradient of each prompt's logit difference by what is ablated, in the mean over ``points`` between
        ``ablated`` and ``clean`` [N, ...], at (i - 1/2) / points of the way for i = 1..points.

        ``run`` [C, N] of [N, C, ...]. Times (clean - ablated) and summed it is what ablating all of it costs, but for
        the rest of the sum over points (integrated gradients, arXiv 1703.01365).
        """
        share = (torch.arange(points, device=clean.device) + 0.5).to(clean) / points
        share = share.view(1, -1, *[1] * (clean.dim() - 1))
        with torch.enable_grad():
            start = (ablated[:, None] + share * (clean - ablated)[:, None]).detach().requires_grad_(True)
            found = torch.autograd.grad(run(start).sum(), start)[0]
        return found.mean(1)


def hidden_of(block: Block, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """[R, P, d_mlp] between the maps of an MLP, of the residual before a layer and in its middle, [R, P, D] each."""
    normed = block.norm2(block.mlp_reads(before, after))
    return block.mlp.whole(normed.flatten(0, 1)).view(*normed.shape[:2], -1)


def out_of(block: Block, hidden: torch.Tensor) -> torch.Tensor:
    """[R, D] what an MLP adds to the residual stream, of what stands between its maps [R, d_mlp]."""
    w, b = block.mlp.down
    out = torch.addmm(b, hidden, w)
    return out if block.norm_mlp_out is None else block.norm_mlp_out(out)


# ---- the prompts of a task -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Split:
    """Some prompts of a task, run clean, and what the study's ablation puts at their last position: ``z`` [L, 1 or N,
    H, d_head], ``mlp_out`` [L, 1 or N, D]. ``frame``: their rows of `prompts.parquet`."""

    tail: Tail
    z: torch.Tensor
    mlp: torch.Tensor
    frame: pd.DataFrame

    @classmethod
    def of(cls, data: TaskData, split: str, at_most: int, analysis: str) -> Split:
        """Prompts of a split that have the most common layout, at most so many, spread over members and templates."""
        frame = layouts.spread(layouts.of_one(data.frame(split)), at_most)
        prompts = Prompts.from_frame(frame, data.means["groups"])
        tail = Tail.of(data.model, prompts, analysis)
        read = data.replacing(prompts).to(data.model.device).reader(slice(None))
        layers = range(data.model.n_layers)
        z, mlp = (torch.stack([read(name, i)[:, -1] for i in layers]) for name in ("z", "mlp_out"))
        return cls(tail, z.to(tail.z[0].dtype), mlp.to(tail.z[0].dtype), frame)

    def ablated(self, component: Component) -> torch.Tensor:
        """[N] logit differences, on the CPU, with a whole component ablated at the last position."""
        layer, n = component.layer, len(self.tail)
        if component.is_mlp:
            return self.tail.in_parts(1, lambda _: self.tail.with_mlp(layer, self.mlp[layer].expand(n, -1)[:, None]))[0]
        z = self.tail.z[layer][:, 0].clone()
        z[:, component.head] = self.z[layer][:, component.head]
        return self.tail.in_parts(1, lambda _: self.tail.with_z(layer, z[:, None]))[0]

    def losses(self, components: list[Component]) -> torch.Tensor:
        """[components, N] logits that ablating each at the last position costs."""
        clean = self.tail.clean().double().cpu()
        return torch.stack([clean - self.ablated(c) for c in components])


def strongest(splits: dict[str, Split], components: list[Component], n: int) -> list[Component]:
    """The n components whose ablation at the answer position costs most, in shares of the logit difference, in the mean
    over tasks; first the costliest, ties in their order."""
    if not components or not n:
        return []
    full = [split.tail.clean().double().mean().abs().cpu() for split in splits.values()]
    lost = [split.losses(components).mean(1) for split in splits.values()]
    share = torch.stack([loss / whole for loss, whole in zip(lost, full, strict=True)])
    order = share.mean(0).sort(descending=True, stable=True).indices
    return [components[i] for i in order[:n].tolist()]


def data_of(files: Mapping[str, Sequence[str] | str], tasks: Sequence[str], given: Mapping[str, Any]) -> list[TaskData]:
    """What the tasks compute from, with one model between them.

    ``files``: `model`, and of each task `prompts`, `clean` and `means`, in the order of ``tasks``; ``given``: ``name``
    of the model, and ``how``, the other arguments of `TaskData`. Raises StudyError where there is no task.
    """
    if not tasks:
        raise StudyError(
            "geometry.analyses: directions and neurons are ablated where an answer of one token is written, and no "
            "task of study.tasks has such; add one, or leave both out"
        )
    found: list[TaskData] = []
    for i, task in enumerate(tasks):
        paths = {"model": files["model"]} | {name: files[name][i] for name in ("prompts", "clean", "means")}
        data = TaskData(paths, {"model": str(given["name"]), "task": task}, **given["how"])
        if found:
            data.model = found[0].model  # loaded once
        found.append(data)
    return found
