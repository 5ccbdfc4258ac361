"""Hard concrete gates (Louizos et al. 2018), and how they learn: shared by gates of components and of edges.

A gate is drawn between 0 and 1, and is exactly 0 or 1 with a chance of its own. What is minimised is what a model with
gates costs, plus ``penalty`` times the expected number of gates that are not shut (methods: learned gates).
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch

from atlas.model.models import slices
from atlas.store.job import progress

BETA, LOW, HIGH = 2 / 3, -0.1, 1.1  # temperature and stretch of the distribution, as published


class Costly(Protocol):
    """A model with gates. fit: prompts at a time; device: where gates must lie."""

    fit: int
    device: torch.device

    def kl(self, gates: torch.Tensor, rows: torch.Tensor) -> torch.Tensor: ...


@dataclass(frozen=True)
class Pace:
    """How gates learn at one penalty. rows: prompts of a step; steps: at most; settled: without a change of the open
    gates, after which it ends; rate: of Adam."""

    rows: int = 48
    steps: int = 200
    settled: int = 60
    rate: float = 0.1


def open_chance(log_alpha: torch.Tensor) -> torch.Tensor:
    """The chance that a gate is not shut, of a hard concrete distribution."""
    return torch.sigmoid(log_alpha - BETA * math.log(-LOW / HIGH))


def drawn(log_alpha: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Gates [n, ...] of hard concrete distributions [...], by numbers [n, ...] drawn between 0 and 1."""
    s = torch.sigmoid((uniform.log() - (-uniform).log1p() + log_alpha) / BETA)
    return (s * (HIGH - LOW) + LOW).clamp(0, 1)


class Learner:
    """Gates of one model that learn at one penalty after another, each from where the last ended.

    log_alpha [...]: of each gate, on the CPU. has_gate [...]: those that learn; the others stay at ``others``. n:
    prompts that the model has. The draws of ``seed`` are the only chance in it.
    """

    def __init__(
        self,
        model: Costly,
        n: int,
        log_alpha: torch.Tensor,
        has_gate: torch.Tensor,
        seed: int,
        others: float,
        pace: Pace,
    ) -> None:
        self.model, self.n, self.log_alpha, self.has_gate = model, n, log_alpha, has_gate
        self.others, self.pace, self.rng = others, pace, torch.Generator().manual_seed(seed)

    def learn(self, penalty: float) -> tuple[int, int]:
        """Go on at a penalty, in nats a gate; how many gates are open then, and how many steps that took."""
        log_alpha = self.log_alpha.clone().requires_grad_(True)
        adam, changed = torch.optim.Adam([log_alpha], self.pace.rate), 0
        is_open = self.is_open(log_alpha)
        for step in progress(range(self.pace.steps), f"gates at penalty {penalty:.3g}"):
            adam.zero_grad()
            self.gradient(log_alpha, penalty)
            adam.step()
            before, is_open = is_open, self.is_open(log_alpha)
            changed = changed if torch.equal(before, is_open) else step
            if step - changed >= self.pace.settled:
                break
        self.log_alpha = log_alpha.detach()
        return int(is_open.sum()), step + 1

    def is_open(self, log_alpha: torch.Tensor) -> torch.Tensor:
        """[...]: gates that are more likely open than shut."""
        return (open_chance(log_alpha.detach()) > 0.5) & self.has_gate

    def gradient(self, log_alpha: torch.Tensor, penalty: float) -> None:
        """Add to `log_alpha.grad` that of the cost on some prompts, each with gates of its own."""
        some = torch.randperm(self.n, generator=self.rng)[: self.pace.rows]
        uniform = torch.rand(len(some), *log_alpha.shape, generator=self.rng).clamp(1e-6, 1 - 1e-6)
        (penalty * open_chance(log_alpha)[self.has_gate].sum()).backward()
        for part in slices(len(some), self.model.fit):
            gates = torch.where(self.has_gate, drawn(log_alpha, uniform[part]), self.others).to(self.model.device)
            (self.model.kl(gates, some[part].to(self.model.device)).sum() / len(some)).backward()
