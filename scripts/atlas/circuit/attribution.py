"""Every head and MLP scored by gradients (methods: attribution).

The score of a component is (ablated - clean output) . g, summed over positions, g being the gradient of the logit
difference by the component's own output: z of a head, the write of an MLP as it reaches the residual stream. To first
order it is M(without the component) - M(full): positive means that ablating it raises the metric. It is the sum of the
scores of all edges out of the component (`edges.attribution`).

`atp` takes g from the clean run, `relp` too, by the gradient of relevance patching (`model.frozen`). `ig` averages g
over m runs whose embeddings lie between the ablated and the clean ones, at k = (i - 1/2) / m for i = 1..m; outputs stay
those of the clean run. Gradients are by one's own output and not by what an MLP reads: two MLPs that read alike do not
write alike.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from atlas.circuit.ablation import Ablator
from atlas.circuit.replacement import embeddings
from atlas.core.components import MLP, Component
from atlas.core.errors import StudyError
from atlas.core.metrics import log_probs
from atlas.model import memory
from atlas.model.attention import Positions
from atlas.model.block import Weights
from atlas.model.frozen import frozen
from atlas.model.models import slices

Scores = dict[Component, np.ndarray]


@dataclass(frozen=True)
class Settings:
    """kind: of the ablation that the ablator's replacement is of. points: m of `ig`."""

    kind: str = "mean"
    points: int = 5


def atp(ablator: Ablator, settings: Settings) -> Scores:
    """Component -> score per prompt [N] by one gradient (attribution patching, Syed et al. 2023)."""
    return scores(ablator)


def relp(ablator: Ablator, settings: Settings) -> Scores:
    """The same by the gradient of relevance patching (arXiv 2508.21258)."""
    return scores(ablator, relevance=True)


def ig(ablator: Ablator, settings: Settings) -> Scores:
    """The same by ``settings.points`` gradients, between ablated and clean embeddings."""
    ablated = embeddings(settings.kind, ablator.model, ablator.rows, substitute=ablator.substitute).to(
        ablator.model.device
    )
    return scores(ablator, ablated, settings.points)


def function_of(name: str) -> Callable[[Ablator, Settings], Scores]:
    """The function of a method of `node_methods.METHODS`."""
    found: Callable[[Ablator, Settings], Scores] = globals()[name]
    return found


def weights_of(ablator: Ablator) -> Weights:
    """The weights of an ablator's model; raises StudyError where its architecture has no live engine."""
    if ablator.engine is None:
        raise StudyError(
            "search.orders: attribution needs the live engine, which the model's architecture has not "
            "(docs/architectures.md); name ascending_effect instead"
        )
    return ablator.engine.weights


def scores(ablator: Ablator, ablated: torch.Tensor | None = None, points: int = 1, relevance: bool = False) -> Scores:
    """Component -> score per prompt [N], in the unit of the metric, on the CPU in float64.

    ablated: where given, embeddings [1 or R, S, D] between which and the clean ones gradients are averaged over
    ``points``. relevance: whether gradients are those of relevance patching. Which prompts run together changes
    rounding alone. Raises as `weights_of`.
    """
    weights, rows = weights_of(ablator), ablator.rows
    of_gradients = frozen(weights) if relevance else weights
    pair = 1 if rows.targets is None else 2  # rows of a prompt, which stay together
    size = max(1, min(ablator.batch_size, ablator.budget // 4 // bytes_per_row(ablator)) // pair) * pair
    found = []
    for batch in slices(len(rows), size):
        of_batch = Batch(ablator, of_gradients, batch)
        start = None if ablated is None else ablated if len(ablated) == 1 else ablated[batch]
        found.append(of_batch.scores(start, points))
        memory.give_back()
    values = torch.cat(found, dim=2).unflatten(2, (-1, pair)).sum(3).numpy()  # [L, H + 1, N]
    heads = [*range(weights.n_heads), MLP]
    return {
        Component(layer, head): values[layer, place]
        for layer in range(len(weights.blocks))
        for place, head in enumerate(heads)
    }


def bytes_per_row(ablator: Ablator) -> int:
    """What a row takes on its way forward and back: of each layer its residuals and norms, q, k, v, z, patterns, and
    what is before and after an activation, with ratios; beside the substitutes and the clean outputs."""
    weights, s, d_model = weights_of(ablator), ablator.rows.tokens.shape[1], ablator.model.d_model
    per_token = 16 * d_model + 2 * weights.n_heads * s + 2 * weights.mlp_flops // d_model
    return len(weights.blocks) * s * per_token * max(4, weights.w_u.element_size())


class Batch:
    """Some rows of an ablator, on their way through a model and back."""

    def __init__(self, ablator: Ablator, weights: Weights, batch: slice) -> None:
        self.weights, self.read = weights, ablator.substitute.reader(batch)
        self.tokens = ablator.rows.tokens[batch].to(ablator.model.device)
        last = torch.tensor([self.tokens.shape[1] - 1], device=self.tokens.device)
        self.positions = Positions(last if ablator.at is None else ablator.at[batch])
        self.targets = None if ablator.targets is None else ablator.targets[batch]
        if self.targets is None:
            self.answer, self.incorrect = ablator.answer[batch], ablator.incorrect[batch]

    def scores(self, ablated: torch.Tensor | None, points: int) -> torch.Tensor:
        """[L, H + 1, n] of heads and, last, the MLP of each layer; see the function of this name."""
        with torch.no_grad():
            clean = self.weights.embed(self.tokens)
            change = [self.change(i, *outputs) for i, outputs in enumerate(self.forward(clean)[1])]
        found = torch.zeros(len(change), self.weights.n_heads + 1, len(self.tokens), dtype=torch.float64)
        for i in range(1, points + 1):
            share = 1.0 if ablated is None else (i - 0.5) / points
            start = clean if ablated is None else ablated + share * (clean - ablated)
            with torch.enable_grad():
                x, outputs = self.forward(start.detach().requires_grad_(True))
                flat = [out for layer in outputs for out in layer]
                gradients = torch.autograd.grad(self.metric(x).sum(), flat)
            for layer, (of_z, of_mlp) in enumerate(change):
                by_z, by_mlp = gradients[2 * layer : 2 * layer + 2]
                found[layer, :-1] += (of_z * by_z).sum((1, 3), dtype=torch.float64).T.cpu() / points
                found[layer, -1] += (of_mlp * by_mlp).sum((1, 2), dtype=torch.float64).cpu() / points
        return found

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
        """The final residual [n, S, D], and of each layer z [n, S, H, d_head] and what the MLP writes [n, S, D]."""
        outputs = []
        for block in self.weights.blocks:
            z = block.attend(*block.all_three(block.norm1(x)))
            after = block.after_attention(x, block.head_writes(z))
            written = block.mlp_out(block.mlp_reads(x, after))
            outputs.append((z, written))
            x = after + written
        return x, outputs

    def change(self, layer: int, z: torch.Tensor, written: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Ablated less clean outputs of a layer."""
        return self.read("z", layer).to(z.dtype) - z, self.read("mlp_out", layer).to(z.dtype) - written

    def metric(self, x: torch.Tensor) -> torch.Tensor:
        """[n] whose sum is that of the logit differences of the prompts, of final residuals [n, S, D]."""
        x = self.positions.take(x)
        if self.targets is None:
            return self.weights.logit_diff(x[:, 0], self.answer, self.incorrect)
        signs = torch.tensor([1.0, -1.0], device=x.device).repeat(len(x) // 2)  # of the answer, of the incorrect one
        return signs * log_probs(self.weights.unembed(x), self.targets)
