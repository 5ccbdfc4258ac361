"""What a planted fixture is: a model with prompts, its true circuit, known effects, and what each method must return.

And the parts that fixtures share: the series of slots, heads that find and succeed, sets of edges.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from atlas.core.components import Circuit, Component
from atlas.core.graph import Edge, EdgeCircuit, Graph
from atlas.edges.methods import EDGE_GATES, METHODS
from atlas.proof.building import build
from atlas.proof.planted import (
    BOS,
    FILLERS,
    MEMBERS,
    RECENT_MEMBER,
    SELF,
    VOCABULARY,
    Head,
    M,
    Plan,
    Write,
)

if TYPE_CHECKING:
    from atlas.prompts.batch import Prompts

KINDS = ("mean", "zero", "resample")
ASCENDING = ("ascending_effect", "ascending_atp", "ascending_relp", "ascending_ig")
GATES = "gates"  # a node search of the fixtures and kind below, whose effects have slopes (docs/fixtures.md)
GATED, GATED_KIND = ("two_heads", "head_and_mlp", "leak"), "mean"
OPTIMAL = "optimal"  # of nodes alone; what it must give is what `mean` gives (docs/fixtures.md)
NODE_METHODS = ("layers", *ASCENDING, "random", "bisect", "speculative", "annealed")
THRESHOLD = 20.0
ROUNDS = 2  # rows per first member, with different fillers
FILLER = "filler"
# Four successive members. Corrupted: no slot keeps its member, the last two are not successive, the answer (4) is
# absent, and neither the successor of the last (7) nor of the first (6) is the answer or an incorrect answer.
SERIES = (FILLER, (0, 5), FILLER, (1, 0), FILLER, (2, 1), FILLER, (3, 6), FILLER)


def circuit(names: str) -> Circuit:
    """The circuit of component names with spaces between: `0.1 m2`."""
    return frozenset(Component.parse(name) for name in names.split())


def edges(names: str) -> EdgeCircuit:
    """Keys and values are named after the planned query head; `Fixture.named` names their key/value head."""
    return frozenset(Edge.parse(name) for name in names.split())


@dataclass(frozen=True)
class Effect:
    """With ``ablated`` ablated together the logit difference of every prompt is ``difference`` (exact)."""

    ablated: Circuit
    difference: float
    kinds: tuple[str, ...] = KINDS


@dataclass(frozen=True)
class Expected:
    """A method returns one of ``circuits``: by ``methods`` (empty: all), ``kinds`` and at ``threshold``."""

    circuits: tuple[Circuit, ...]
    methods: tuple[str, ...] = ()
    kinds: tuple[str, ...] = KINDS
    threshold: float = THRESHOLD


@dataclass(frozen=True, kw_only=True)
class Fixture:
    """A planted model and everything that is known about it.

    nodes: kind -> true components. edges: kind -> true edges. full: D x LOGIT of the whole model.
    expected: the first entry that applies says what a node search returns.
    edges_expected: method -> kind -> the sets of which the method returns one; a missing entry is not fixed by design.
        (acdc: tau 1, signed; methods that score: all edges whose score is not 0.)
    attributed: method that scores components -> kind -> all whose score is not 0, likewise.
    slots: the tokens of a prompt after BOS, `filler` or a (clean, corrupted) pair of offsets.
    """

    name: str
    family: str
    shows: str
    plan: Plan
    slots: tuple[Any, ...] = SERIES
    answer: int = 4
    incorrect: int = 3
    nodes: Mapping[str, Circuit]
    edges: Mapping[str, EdgeCircuit]
    full: float
    effects: tuple[Effect, ...]
    expected: tuple[Expected, ...]
    edges_expected: Mapping[str, Mapping[str, tuple[EdgeCircuit, ...]]] = field(default_factory=dict)
    attributed: Mapping[str, Mapping[str, Circuit]] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.name}-{self.family}"

    @property
    def thresholds(self) -> tuple[float, ...]:
        return tuple(dict.fromkeys(e.threshold for e in self.expected))

    def gated(self, kind: str) -> tuple[str, ...]:
        """The methods beside NODE_METHODS that are certified under a kind."""
        return (GATES,) if self.name in GATED and kind == GATED_KIND else ()

    def edge_methods(self, kind: str) -> tuple[str, ...]:
        """The edge methods that are certified under a kind."""
        gated = bool(self.gated(kind))
        return tuple(name for name in METHODS if gated or name != EDGE_GATES.name)

    def returns(self, method: str, kind: str, threshold: float = THRESHOLD) -> tuple[Circuit, ...]:
        """The circuits of which a node search must return one."""
        like = "mean" if kind == OPTIMAL else kind
        for e in self.expected:
            if threshold == e.threshold and like in e.kinds and (not e.methods or method in e.methods):
                return e.circuits
        raise KeyError(f"{self.id}: nothing is expected of {method} under {kind} at {threshold}")

    def named(self, found: EdgeCircuit, graph: Graph) -> EdgeCircuit:
        """Edges of this fixture under the names of a model's graph: shared keys and values by their key/value head."""

        def port(receiver: str) -> str:
            if receiver[-1] not in "qkv":
                return receiver
            layer, head, part = receiver.split(".")
            return graph.port(int(layer), int(head), part)

        return frozenset(Edge(e.sender, port(e.receiver)) for e in found)

    def build(self, folder: Path | str) -> Path:
        """Write the checkpoint and its tokenizer to a folder; return its path."""
        return build(self.plan, self.family, folder)

    def rows(self) -> list[dict[str, Any]]:
        """Prompts as rows of `prompts.parquet` (the columns that scoring needs): M x ROUNDS, aligned, answer last."""
        rows = []
        for number in range(M * ROUNDS):
            start = number % M
            rng = np.random.default_rng([self.plan.seed, number])
            fillers = [FILLERS[i] for i in rng.permutation(len(FILLERS))]
            texts: list[list[str]] = [[BOS], [BOS]]
            for slot in self.slots:
                filler = fillers.pop() if slot == FILLER else None
                for run in (0, 1):
                    texts[run].append(filler or member(start + slot[run]))
            row: dict[str, Any] = {"prompt": number, "template": "planted", "split": "search", "start": start}
            row |= {"text": " ".join(texts[0]), "corrupted_text": " ".join(texts[1])}
            row |= {"answer": member(start + self.answer), "incorrect": member(start + self.incorrect)}
            row |= {"tokens": ids(texts[0]), "corrupted_tokens": ids(texts[1])}
            rows.append(row | {f"{key}_token": ids([row[key]])[0] for key in ("answer", "incorrect")})
        return rows

    def prompts(self) -> Prompts:
        """The same as tensors."""
        from atlas.prompts.batch import Prompts

        rows = self.rows()
        columns: dict[str, Any] = {
            name: torch.tensor([row[name] for row in rows]) for name in ("tokens", "corrupted_tokens")
        }
        answers: dict[str, Any] = {
            name: torch.tensor([row[f"{name}_token"] for row in rows]) for name in ("answer", "incorrect")
        }
        group = torch.zeros(len(rows), dtype=torch.long)
        return Prompts(**columns, **answers, prompt=[row["prompt"] for row in rows], group=group)


def member(i: int) -> str:
    """The i-th of MEMBERS; after the last comes the first."""
    return MEMBERS[i % M]


def ids(words: Iterable[str]) -> list[int]:
    """Token ids of words of the vocabulary; raises ValueError on any other."""
    return [VOCABULARY.index(word) for word in words]


# ---- what fixtures share -------------------------------------------------------------------------------------
def finder(layer: int, head: int) -> Head:
    """A head that copies the last member to `found`."""
    return Head(layer, head, RECENT_MEMBER, "token", (Write("found"),))


FIND = finder(0, 1)


def successor(layer: int, head: int, gain: float = 1.0, read: str = "found") -> Head:
    """A head that stays at its own position and adds ``gain`` to `next` at the successor of what it reads."""
    return Head(layer, head, SELF, read, (Write("next", gain, 1),))


def every_kind(value: Any) -> dict[str, Any]:
    """Kind of ablation -> the same ``value`` for each."""
    return dict.fromkeys(KINDS, value)


def with_zero(always: str, zero: str) -> dict[str, Any]:
    """True edges: ``always``, and under `zero` also those whose content is the same in every prompt."""
    return every_kind(edges(always)) | {"zero": edges(f"{always} {zero}")}


def attention(names: str) -> str:
    """The q and k edges from `embed` of heads that find their place by position, flags and the constant 1."""
    return " ".join(f"embed->{name}.{part}" for name in names.split() for part in "qk")


def all_of(*sets: dict[str, Any]) -> dict[str, Any]:
    """kind -> what one of ``sets`` (each kind -> edges) holds."""
    return {kind: tuple(s[kind] for s in sets) for kind in KINDS}


def less(found: dict[str, Any], names: str) -> dict[str, Any]:
    """Kind -> what ``found`` has for it, without the edges of ``names`` (see `edges`)."""
    return {kind: found[kind] - edges(names) for kind in KINDS}


def solved(truth: dict[str, Any], eap: dict[str, Any]) -> dict[str, Any]:
    """Every method that measures effects finds the truth; gradients find ``eap``.

    Gradients do not see what a sharp softmax attends to: its slope is below 1e-13. (Other attribution: `attributed`.)
    """
    return {m: all_of(truth) for m in ("path_patching", "acdc", "iterative_edges")} | {"eap": all_of(eap)}
