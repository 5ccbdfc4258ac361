"""Learned gates: which components a model can do without, learned for all of them at once by gradients.

Each component has a gate g between 0 and 1; what it gives is g times its own output plus 1 - g times what replaces it
when it is ablated. Gates are drawn from hard concrete distributions (Louizos et al. 2018), which are exactly 0 or 1
with a chance of their own, so that gates learn to be shut or open. What is minimised is the KL divergence from the full
model's prediction plus ``penalty`` times the expected number of gates that are not shut.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from atlas.circuit.ablation import Ablator
from atlas.circuit.concrete import Learner, Pace
from atlas.circuit.search import Percents, Rule, Step
from atlas.core.components import AnyCircuit, Component
from atlas.core.errors import StudyError
from atlas.model.attention import Positions
from atlas.model.engine import Engine, Substitute, replacing
from atlas.model.models import slices

log = logging.getLogger("atlas")

PENALTIES = tuple(10.0 ** (k / 2 - 3) for k in range(7))  # nats a component, one after the other, each from the last
PACE = Pace()
POINTS = 5  # between everything shut and everything open, where gradients say how gates begin
FIRST, LAST = 0.0, 3.0  # log alpha at the beginning, from the least to the most important


class Gated:
    """The model of an ablator with a gate for every component, [L, H + 1], the MLP last; differentiable by gates."""

    def __init__(self, ablator: Ablator) -> None:
        model = ablator.model
        if model.weights is None:
            raise StudyError("search.orders: gates need an architecture with a live engine; leave them out")
        if ablator.targets is not None:
            raise StudyError("search.orders: gates are learned on answers of one token alone; leave them out")
        self.ablator, self.engine, self.rows = ablator, Engine(model.weights), ablator.rows
        at = torch.full((len(self.rows), 1), self.rows.tokens.shape[1] - 1)
        self.at = (at if ablator.at is None else ablator.at).to(model.device)
        self.device = self.at.device
        held = len(self.engine.blocks) * self.engine.bytes_per_row(self.rows.tokens.shape[1], logits=1)
        self.fit = max(1, min(model.batch_size, int(model.memory_mb * 2**20) // held))
        self.shape = len(self.engine.blocks), self.engine.weights.n_heads + 1
        everything = torch.ones(self.shape, device=model.device)
        with torch.no_grad():
            parts = [self.log_p(self.final(everything, rows)) for rows in self.parts(range(len(self.rows)))]
        self.clean = torch.cat(parts)

    def parts(self, rows: Sequence[int]) -> list[torch.Tensor]:
        """Numbers of rows, as many at a time as fit."""
        index = torch.as_tensor(list(rows), device=self.device)
        return [index[part] for part in slices(len(index), self.fit)]

    def final(self, gates: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """[n, D] final residuals of these rows; gates [L, H + 1] or, of each row its own, [n, L, H + 1]."""
        gates = gates if gates.dim() == 3 else gates[None]
        heads, substitute = list(range(self.shape[1] - 1)), self.substitute(rows)
        x = self.engine.weights.embed(self.rows.tokens.to(rows.device)[rows])
        for layer, block in enumerate(self.engine.blocks):
            out = Positions(self.at[rows]) if layer == self.shape[0] - 1 else None
            own = gates[:, layer].to(x.dtype)
            z, resid = self.engine.mix(layer, x, heads, out), x if out is None else out.take(x)
            z = torch.lerp(replacing(substitute, "z", layer, out, x), z, own[:, None, :-1, None])
            after = block.after_kept(resid, z, block.b_o)
            written = block.mlp_out(block.mlp_reads(resid, after))
            x = after + torch.lerp(replacing(substitute, "mlp_out", layer, out, x), written, own[:, -1:, None])
        return x[:, 0]

    def substitute(self, rows: torch.Tensor) -> Substitute:
        """As `Replacement.reader`, of rows by their numbers."""
        values, of = self.ablator.substitute, self.ablator.substitute.rows[rows]

        def read(name: str, layer: int) -> torch.Tensor:
            found: torch.Tensor = getattr(values, name)[layer]
            return found if len(found) == 1 else found[of]

        return read

    def log_p(self, x: torch.Tensor) -> torch.Tensor:
        """[n, d_vocab] log-probabilities of final residuals [n, D]."""
        return self.engine.weights.unembed(x).log_softmax(-1)

    def kl(self, gates: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """[n] KL from the full model's prediction to that with these gates (as `final`), in nats."""
        clean = self.clean[rows]
        return (clean.exp() * (clean - self.log_p(self.final(gates, rows)))).sum(-1)

    def attributions(self) -> torch.Tensor:
        """[L, H + 1] by how much the mean logit difference grows with each gate, the others moving with it: gradients
        averaged over POINTS between all shut and all open."""
        total, by = torch.zeros(self.shape), self.ablator
        for point in range(POINTS):
            gates = torch.full(self.shape, (point + 0.5) / POINTS, device=self.device, requires_grad=True)
            for rows in self.parts(range(len(self.rows))):
                x = self.final(gates, rows)
                found = self.engine.weights.logit_diff(x, by.answer[rows], by.incorrect[rows]).sum()
                total += torch.autograd.grad(found, gates)[0].cpu() / (POINTS * len(self.rows))
        return total


@dataclass(frozen=True)
class Learned:
    """What gates learned at a penalty: components that may be shut, the most open first, and how many are open."""

    penalty: float
    ranked: list[Component]
    n_open: int


class Gates:
    """Gates of one ablator's prompts, learned penalty by penalty as far as they are asked for, and then remembered.

    Begins from `Gated.attributions`: log alpha from FIRST to LAST by their ranks. The draws of ``seed`` are the only
    chance in it. What ``rule`` never tests or visits has no gate.
    """

    def __init__(self, ablator: Ablator, rule: Rule, seed: int) -> None:
        self.gated = Gated(ablator)
        kinds = {kind for visited in rule.visit.values() for kind in visited}
        everything = sorted(c for c in ablator.everything if isinstance(c, Component))
        self.movable = [c for c in everything if rule.tests(c) and ("mlp" if c.is_mlp else "head") in kinds]
        has_gate = torch.zeros(self.gated.shape, dtype=torch.bool)
        for c in self.movable:
            has_gate[c.layer, c.head] = True  # that of an MLP is -1, the last
        ranks = self.gated.attributions().abs().flatten().argsort().argsort().view(self.gated.shape)
        log_alpha = FIRST + (LAST - FIRST) * ranks / max(1, ranks.numel() - 1)
        self.learner = Learner(self.gated, len(self.gated.rows), log_alpha, has_gate, seed, 1.0, PACE)
        self.learned: list[Learned] = []

    def path(self) -> Iterator[Learned]:
        """What was learned at each of PENALTIES, in order."""
        for number, penalty in enumerate(PENALTIES):
            if number == len(self.learned):
                self.learned.append(self.learn(penalty))
            yield self.learned[number]

    def learn(self, penalty: float) -> Learned:
        """Go on from where the gates are, with another penalty."""
        n_open, steps = self.learner.learn(penalty)
        log_alpha = self.learner.log_alpha
        ranked = sorted(self.movable, key=lambda c: (-float(log_alpha[c.layer, c.head]), c))
        log.info("gates at penalty %.3g: %d of %d open after %d steps", penalty, n_open, len(ranked), steps)
        return Learned(penalty, ranked, n_open)


def gates_search(everything: AnyCircuit, rule: Rule, percents: Percents, gates: Gates) -> Iterator[Step]:
    """Yield every evaluation; a step's ``left`` is the smallest circuit so far above the floor, the last one's the
    result, found at its ``penalty``.

    At each penalty the circuit of the open gates is scored. Where it is above the floor, its least open gates are shut
    one after another until it would no longer be; else further gates are opened until it is, or is no longer smaller
    than what was found. Penalties rise until the open gates alone fall to the floor. Nothing else is searched.
    """
    fixed, best, highest = everything - frozenset(gates.movable), everything, 100.0
    found_at: float | None = None
    down: bool | None
    for sweep, learned in enumerate(gates.path(), start=1):
        count, down = learned.n_open, None
        while 0 <= count <= len(learned.ranked):
            circuit = fixed | frozenset(learned.ranked[:count])
            (percent,) = percents([circuit])
            passes = 100 - percent < rule.threshold
            if passes and (len(circuit), -percent) < (len(best), -highest):
                best, highest, found_at = circuit, percent, learned.penalty
            shut = tuple(sorted(everything - circuit))
            yield Step(sweep, "gates", shut, percent, passes, best, rule.is_close(percent, percent), (), found_at)
            down = passes if down is None else down
            if passes != down or (not down and len(circuit) + 1 >= len(best)):
                break
            count += -1 if down else 1
        if not down:
            return
