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
from atlas.proof.exact import PAIRS
from atlas.proof.fixtures import FILLER, SERIES, circuit
from atlas.proof.planted import BOS, FILLERS, LOGIT, MEMBERS, VOCABULARY, M

FIRST_MEMBER, FIRST_FILLER = VOCABULARY.index(MEMBERS[0]), VOCABULARY.index(FILLERS[0])
Swapped = Mapping[Any, torch.Tensor]  # node -> [n] bool: does it take what it is in the other prompt?


def scores(member: torch.Tensor, where: torch.Tensor | None = None) -> torch.Tensor:
    """[n, d_vocab] target logits: ``LOGIT`` for each row's member, 0 for all else; 0 throughout where not ``where``."""
    out = torch.zeros(len(member), len(VOCABULARY))
    out[torch.arange(len(member)), FIRST_MEMBER + member % M] = LOGIT
    return out if where is None else out * where[:, None]


@dataclass(frozen=True)
class Program:
    """The logits of a prompt as a function of its members and of those of another prompt.

    slots: as of a `Fixture`. nodes: the planted ones. moves: sets of nodes that are exchanged together in training and
    in the certificate. logits(own [n, slots], other [n, slots], swapped): what the model must give, [n, d_vocab].
    Replaced by a mean or zero, each set of ``spare`` changes nothing, and each of ``silent`` leaves all logits at 0.
    hints(own): where nodes are told to attend at the beginning of training, as (head, positions [n] of queries,
    positions [n] of keys); two heads that are of use only together are hardly found without.
    """

    slots: tuple[Any, ...]
    nodes: Circuit
    moves: tuple[Circuit, ...]
    logits: Callable[[torch.Tensor, torch.Tensor, Swapped], torch.Tensor]
    spare: tuple[Circuit, ...] = ()
    silent: tuple[Circuit, ...] = ()
    hints: Callable[[torch.Tensor], list[tuple[Component, torch.Tensor, torch.Tensor]]] | None = None

    def members(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """[n, slots] the members of n random prompts (of no use at fillers)."""
        return rng.integers(M, size=(n, len(self.slots)))

    def partners(self, rng: np.random.Generator, n: int) -> torch.Tensor:
        """[n] the row that each row takes activations of."""
        return torch.tensor(rng.permutation(n))

    def draw(self, rng: np.random.Generator, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens [n, S] of random prompts, BOS first, and their `members`."""
        members = self.members(rng, n)
        fillers = rng.integers(len(FILLERS), size=members.shape)
        is_filler = np.array([slot == FILLER for slot in self.slots])
        tokens = np.where(is_filler, FIRST_FILLER + fillers, FIRST_MEMBER + members)
        bos = np.full((n, 1), VOCABULARY.index(BOS))
        return torch.tensor(np.hstack([bos, tokens])), torch.tensor(members)

    def target(self, own: torch.Tensor, other: torch.Tensor, move: Circuit) -> torch.Tensor:
        """[n, d_vocab] the logits when all of ``move`` is exchanged, in every row."""
        return self.logits(own, other, {node: torch.full((len(own),), node in move) for node in sorted(self.nodes)})


@dataclass(frozen=True)
class PairsProgram(Program):
    """A program over prompts `a b ... c d ... a` and `a b ... c d ... c` of four members (n must be even).

    Row i + n/2 has a and c of row i the other way round, and is its partner in half of the rows: among random rows the
    member that is asked about seldom stands at another place.
    """

    def members(self, rng: np.random.Generator, n: int) -> np.ndarray:
        drawn = rng.permuted(np.tile(np.arange(M), (n // 2, 1)), axis=1)
        four = np.concatenate([drawn[:, [0, 1, 2, 3]], drawn[:, [2, 4, 0, 5]]])
        out = np.zeros((n, len(self.slots)), dtype=int)
        out[:, [A, B, C, D]] = four
        out[:, ASKED] = np.where(rng.random(n) < 0.5, out[:, A], out[:, C])
        return out

    def partners(self, rng: np.random.Generator, n: int) -> torch.Tensor:
        mirrored = (np.arange(n) + n // 2) % n
        return torch.tensor(np.where(rng.random(n) < 0.5, mirrored, rng.permutation(n)))


# ---- the programs --------------------------------------------------------------------------------------------
LAST = max(i for i, slot in enumerate(SERIES) if slot != FILLER)  # the slot of the last member
FIND, WRITE, BACKUP = Component(0, 1), Component(1, -1), Component(1, 2)


def _successor(own: torch.Tensor, other: torch.Tensor, swapped: Swapped) -> torch.Tensor:
    """0.1 finds the last member, m1 writes the successor of what is found."""
    found = torch.where(swapped[FIND], other[:, LAST], own[:, LAST])
    return scores(torch.where(swapped[WRITE], other[:, LAST], found) + 1)


def _backup(own: torch.Tensor, other: torch.Tensor, swapped: Swapped) -> torch.Tensor:
    """0.1 and 1.2 both find the last member, m1 writes the successor of whatever either finds, once."""
    each = [scores(torch.where(swapped[head], other[:, LAST], own[:, LAST]) + 1) for head in (FIND, BACKUP)]
    return torch.where(swapped[WRITE][:, None], scores(other[:, LAST] + 1), torch.maximum(*each))


A, B, C, D, ASKED = 1, 2, 4, 5, 7  # slots of `PAIRS`: a b ... c d ... a -> b; of random prompts also c -> d
PREVIOUS, MATCH = Component(0, 2), Component(1, 1)


def _induction(own: torch.Tensor, other: torch.Tensor, swapped: Swapped) -> torch.Tensor:
    """0.2 tells b and d what stands before them, 1.1 copies the one that is told the member asked about, if any."""
    before = {to: torch.where(swapped[PREVIOUS], other[:, at], own[:, at]) for at, to in ((A, B), (C, D))}
    found = torch.zeros(len(own), len(VOCABULARY))
    for to, noted in before.items():
        found = found + scores(own[:, to], noted == own[:, ASKED])
    theirs = torch.where(other[:, ASKED] == other[:, A], other[:, B], other[:, D])
    return torch.where(swapped[MATCH][:, None], scores(theirs), found)


def _attend(own: torch.Tensor) -> list[tuple[Component, torch.Tensor, torch.Tensor]]:
    """0.2 from b and d to what stands before them, 1.1 from the end to what it copies; BOS is position 0."""
    b, d, asked = (torch.full((len(own),), slot + 1) for slot in (B, D, ASKED))
    return [(PREVIOUS, b, b - 1), (PREVIOUS, d, d - 1), (MATCH, asked, torch.where(own[:, ASKED] == own[:, A], b, d))]


def _each(nodes: Circuit) -> tuple[Circuit, ...]:
    return tuple(frozenset([node]) for node in sorted(nodes))


SUCCESSOR = Program(SERIES, circuit("0.1 m1"), _each(circuit("0.1 m1")), _successor)
PAIR = circuit("0.1 1.2")  # either of them can be spared, and not both
MOVES = (*_each(circuit("0.1 1.2 m1")), PAIR)
BACKUPS = Program(SERIES, circuit("0.1 1.2 m1"), MOVES, _backup, spare=_each(PAIR), silent=(PAIR,))
LOOK = circuit("0.2 1.1")
INDUCTION = PairsProgram(PAIRS, LOOK, _each(LOOK), _induction, silent=_each(circuit("0.2")), hints=_attend)
