"""Optimal ablation: for each component the constant that costs least in its place (arXiv 2409.09951).

The cost is the KL divergence from the full model's prediction at the position of the score to that of the model with
this component alone replaced, in nats, in the mean over the prompts searched on. A constant is one vector for each
position (and group of means), the same for all prompts. It is fitted component by component, by L-BFGS, from the
cheapest of the corrupted mean, the clean mean and zero: so on the prompts it was fitted on it costs no more than any of
these. On others nothing promises that. Nor is the cost convex, so a still better constant may exist.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from atlas.circuit.kinds import KINDS
from atlas.core.errors import StudyError
from atlas.model.attention import Positions
from atlas.model.engine import Engine
from atlas.model.logits import at_least_float32
from atlas.model.models import Model, slices
from atlas.prompts.batch import Prompts
from atlas.store.job import progress

log = logging.getLogger("atlas")

STARTS = ("mean", "mean_clean", "zero")  # of equal costs the first
STEPS = 20  # of L-BFGS, each with a line search

Put = Callable[[int, torch.Tensor], torch.Tensor]  # (batch, its constant [n, S, ...]) -> the residual that follows


class Costs:
    """KL from the full model's prediction at the position of the score, where a constant replaces something.

    Raises StudyError where the model has no engine, or answers have several tokens.
    """

    def __init__(self, model: Model, prompts: Prompts) -> None:
        if model.weights is None:
            raise StudyError("ablation kind optimal: this architecture has no live engine; leave the kind out")
        if prompts.several_tokens:
            raise StudyError("ablation kind optimal: constants are fitted on answers of one token alone; leave it out")
        self.engine, rows, device = Engine(model.weights), prompts.rows(), model.device
        self.tokens, self.group = rows.tokens.to(device), rows.group.to(device)
        at = torch.full((len(rows), 1), self.tokens.shape[1] - 1) if rows.position is None else rows.position
        held = len(self.engine.blocks) * self.engine.bytes_per_row(self.tokens.shape[1], logits=1)  # for a gradient
        fit = max(1, int(model.memory_mb * 2**20) // held)
        self.batches = slices(len(rows), min(model.batch_size, fit))
        self.at = [Positions(at[batch].to(device)) for batch in self.batches]
        with torch.no_grad():
            self.entering = [model.weights.embed(self.tokens[batch]) for batch in self.batches]
            self.clean = [self.log_p(self.through(0, x, b)) for b, x in enumerate(self.entering)]

    def out(self, layer: int, batch: int) -> Positions | None:
        """Where the output of a layer is needed; None: everywhere."""
        return self.at[batch] if layer == len(self.engine.blocks) - 1 else None

    def through(self, layer: int, x: torch.Tensor, batch: int) -> torch.Tensor:
        """[n, 1, D] the final residual from x [n, S, D] that enters ``layer``."""
        for index, block in enumerate(self.engine.blocks[layer:], start=layer):
            x = block.after_mlp(*self.attended(index, x, self.out(index, batch)))
        return x

    def attended(
        self, layer: int, x: torch.Tensor, out: Positions | None, z: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The residual entering a layer, and with what its attention gives; ``z``: of its heads, where it is known."""
        block, resid = self.engine.blocks[layer], x if out is None else out.take(x)
        z = self.mixed(layer, x, out) if z is None else z
        return resid, block.after_kept(resid, z, block.b_o)

    def mixed(self, layer: int, x: torch.Tensor, out: Positions | None) -> torch.Tensor:
        """z [n, S or 1, H, d_head] of all heads."""
        return self.engine.mix(layer, x, list(range(self.engine.weights.n_heads)), out)

    def log_p(self, x: torch.Tensor) -> torch.Tensor:
        """[n, d_vocab] log-probabilities of final residuals [n, 1, D]."""
        return self.engine.weights.unembed(x[:, 0]).log_softmax(-1)

    def of(self, put: Put, after: int, constant: torch.Tensor) -> torch.Tensor:
        """The mean cost, where ``put`` gives the residual that enters the layer ``after``; with its gradient by
        ``constant`` [R, S, ...] in `constant.grad`, where that is wanted."""
        total = constant.new_zeros((), dtype=torch.float64)
        for b, batch in enumerate(self.batches):
            log_p = self.log_p(self.through(after, put(b, constant[self.group[batch]]), b))
            cost = (self.clean[b].exp() * (self.clean[b] - log_p)).sum() / len(self.tokens)
            if constant.requires_grad:
                cost.backward()
            total += cost.detach().double()
        return total

    # ---- what can be replaced ----------------------------------------------------------------------------
    def embeddings(self) -> Put:
        """Replaces all that the first layer and the residual stream get from the embeddings."""
        return lambda b, values: values.to(self.entering[b].dtype)

    def components(self, layer: int) -> Iterator[tuple[str, int, Put]]:
        """(`z` or `mlp_out`, head or -1, what replaces it) of a layer, whose input is `entering`."""
        last = [self.out(layer, b) for b in range(len(self.batches))]
        with torch.no_grad():
            mixed = [self.mixed(layer, x, at) for x, at in zip(self.entering, last, strict=True)]
            below = [self.attended(layer, *both) for both in zip(self.entering, last, mixed, strict=True)]
        block = self.engine.blocks[layer]

        def taken(b: int, values: torch.Tensor) -> torch.Tensor:
            at, values = last[b], values.to(self.entering[b].dtype)
            return values if at is None else at.take(values)

        def of_head(head: int) -> Put:
            index = torch.tensor([head], device=self.tokens.device)

            def put(b: int, values: torch.Tensor) -> torch.Tensor:
                z = mixed[b].index_copy(2, index, taken(b, values)[:, :, None])
                return block.after_mlp(*self.attended(layer, self.entering[b], last[b], z))

            return put

        for head in range(self.engine.weights.n_heads):
            yield "z", head, of_head(head)
        yield "mlp_out", -1, lambda b, values: below[b][1] + taken(b, values)

    def advance(self, layer: int) -> None:
        """Go on to the next layer: `entering` becomes what enters it."""
        with torch.no_grad():
            self.entering = [self.engine.blocks[layer].after_mlp(*self.attended(layer, x, None)) for x in self.entering]


def fitted(model: Model, prompts: Prompts, means: dict[str, Any]) -> dict[str, Any]:
    """The constants of every component, and of the embeddings, fitted on these prompts.

    means: `corrupted` and `clean` -> means ``z`` [L, R, S, H, d_head] and ``mlp_out`` [L, R, S, D] of these prompts'
    groups. Returns the same of constants, ``embed`` [R, S, D], and ``costs``: `optimal` and each of STARTS -> nats
    [L, H + 1], the MLP last, and those of the embeddings [1] under ``embed_costs``. Float32, on the CPU.
    """
    costs, n_heads = Costs(model, prompts), model.n_heads
    s = costs.tokens.shape[1]
    starts = {name: [means[run][name][:, :, :s] for run in ("corrupted", "clean")] for name in ("z", "mlp_out")}
    found = {name: both[0].clone() for name, both in starts.items()}
    table = torch.zeros(model.n_layers, n_heads + 1, 1 + len(STARTS), dtype=torch.float64)
    embed, of_embed = cheapest(costs, costs.embeddings(), 0, embedded(costs, prompts))
    for layer in progress(range(model.n_layers), "optimal constants"):
        for name, head, put in costs.components(layer):
            own = [x[layer] if head < 0 else x[layer, :, :, head] for x in starts[name]]
            best, table[layer, head] = cheapest(costs, put, layer + 1, [*own, torch.zeros_like(own[0])])
            place = found[name][layer] if head < 0 else found[name][layer, :, :, head]
            place.copy_(best)
        if layer < model.n_layers - 1:
            costs.advance(layer)
    said = "optimal constants: median cost %.3g nats, that of the corrupted means %.3g"
    log.info(said, table[..., 0].median(), table[..., 1].median())
    names = ("optimal", *STARTS)
    return found | {
        "embed": embed,
        "costs": dict(zip(names, table.unbind(-1), strict=True)),
        "embed_costs": dict(zip(names, of_embed[:, None], strict=True)),
    }


def with_constants(kind: str, model: Model, prompts: Prompts, means: dict[str, Any]) -> dict[str, Any]:
    """The means, with the constants that a kind of ablation fits from them under its name, where it fits any."""
    return means | ({kind: fitted(model, prompts, means)} if KINDS[kind].fitted else {})


def embedded(costs: Costs, prompts: Prompts) -> list[torch.Tensor]:
    """STARTS of the embeddings, [R, S, D] each."""
    rows, found = prompts.rows(), []
    sizes = torch.bincount(rows.group).view(-1, 1, 1)
    for tokens in (rows.corrupted_tokens, rows.tokens):
        written = at_least_float32(costs.engine.weights.embed(tokens.to(costs.tokens.device))).cpu().double()
        sums = written.new_zeros(len(sizes), *written.shape[1:]).index_add_(0, rows.group, written)
        found.append((sums / sizes).float())
    return [*found, torch.zeros_like(found[0])]


def cheapest(costs: Costs, put: Put, after: int, starts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """(the cheapest constant [R, S, ...] that was seen, on the CPU; its cost and that of each start [1 + starts])."""
    with torch.no_grad():
        tried = [start.to(costs.tokens.device) for start in starts]
        at_starts = torch.stack([costs.of(put, after, start) for start in tried])
    first = int(at_starts.argmin())
    best, lowest = tried[first], at_starts[first]
    x = best.clone().requires_grad_(True)
    search = torch.optim.LBFGS([x], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        nonlocal best, lowest
        x.grad = None
        cost = costs.of(put, after, x)
        if cost < lowest:
            best, lowest = x.detach().clone(), cost
        return cost

    search.step(closure)
    return best.cpu(), torch.stack([lowest, *at_starts]).cpu()
