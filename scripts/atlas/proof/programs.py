"""What trained plants compute: for each a program over the members of a prompt, one variable for each planted node.

A program says which logits a model must give when planted nodes take the activations that they have in another prompt.
Training holds the model to it, and the certificate measures how far it is from it on prompts not seen in training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from atlas.core.components import Circuit, Component
from atlas.proof.fixtures import FILLER, SERIES, circuit
from atlas.proof.planted import BOS, FILLERS, LOGIT, MEMBERS, VOCABULARY, M

FIRST_MEMBER, FIRST_FILLER = VOCABULARY.index(MEMBERS[0]), VOCABULARY.index(FILLERS[0])
Swapped = Mapping[Any, torch.Tensor]  # node -> [n] bool: does it take what it is in the other prompt?


def scores(member: torch.Tensor) -> torch.Tensor:
    """[n, d_vocab] target logits: ``LOGIT`` for each row's member, 0 for all else."""
    out = torch.zeros(len(member), len(VOCABULARY))
    out[torch.arange(len(member)), FIRST_MEMBER + member % M] = LOGIT
    return out


@dataclass(frozen=True)
class Program:
    """The logits of a prompt as a function of its members and of those of another prompt.

    slots: as of a `Fixture`. nodes: the planted ones. moves: sets of nodes that are exchanged together in training and
    in the certificate. logits(own [n, slots], other [n, slots], swapped): what the model must give, [n, d_vocab].
    """

    slots: tuple[Any, ...]
    nodes: Circuit
    moves: tuple[Circuit, ...]
    logits: Callable[[torch.Tensor, torch.Tensor, Swapped], torch.Tensor]

    def draw(self, rng: np.random.Generator, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens [n, S] of random prompts, BOS first, and the members [n, slots] of their slots (unused at fillers)."""
        shape = n, len(self.slots)
        members, fillers = rng.integers(M, size=shape), rng.integers(len(FILLERS), size=shape)
        is_filler = np.array([slot == FILLER for slot in self.slots])
        tokens = np.where(is_filler, FIRST_FILLER + fillers, FIRST_MEMBER + members)
        bos = np.full((n, 1), VOCABULARY.index(BOS))
        return torch.tensor(np.hstack([bos, tokens])), torch.tensor(members)

    def target(self, own: torch.Tensor, other: torch.Tensor, move: Circuit) -> torch.Tensor:
        """[n, d_vocab] the logits when all of ``move`` is exchanged, in every row."""
        return self.logits(own, other, {node: torch.full((len(own),), node in move) for node in sorted(self.nodes)})


LAST = max(i for i, slot in enumerate(SERIES) if slot != FILLER)  # the slot of the last member
FIND, WRITE = Component(0, 1), Component(1, -1)


def _successor(own: torch.Tensor, other: torch.Tensor, swapped: Swapped) -> torch.Tensor:
    """0.1 finds the last member, m1 writes the successor of what is found."""
    found = torch.where(swapped[FIND], other[:, LAST], own[:, LAST])
    return scores(torch.where(swapped[WRITE], other[:, LAST], found) + 1)


NODES = circuit("0.1 m1")
SUCCESSOR = Program(SERIES, NODES, tuple(frozenset([node]) for node in sorted(NODES)), _successor)
