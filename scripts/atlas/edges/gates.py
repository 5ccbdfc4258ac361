"""Learned gates of edges: which edges a model can do without, learned for all of them at once by gradients.

Each edge has a gate g between 0 and 1; what its receiver reads of its sender is g times the actual write plus 1 - g
times the ablated one, so that gates that are all 0 or 1 are an edge circuit (`edges.run`). How gates are drawn, and
what is minimised, `circuit.concrete` says; here they begin by the ranks of EAP-IG, and an edge circuit is made of them.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from atlas.circuit.concrete import Learner, Pace
from atlas.circuit.search import Percents, Rule, Step
from atlas.core.graph import EMBED, Edge, EdgeCircuit, EdgeMask
from atlas.edges import attribution
from atlas.edges.engine import EdgeAblator
from atlas.edges.frame import Frame
from atlas.edges.inputs import entered, joint, placed_each, projected_each
from atlas.model import memory
from atlas.model.engine import Substitute
from atlas.model.models import slices

log = logging.getLogger("atlas")

PENALTIES = tuple(
    10.0**k for k in (-3.5, -3, -2.5, -2, -1.5, -1)
)  # nats an edge, one after the other, each from the last
PACE = Pace(rows=8, steps=40, settled=20, rate=0.3)
FIRST, LAST = -1.0, 2.0  # log alpha at the beginning, from the least to the most important


class GatedEdges:
    """The model of an ablator with a gate for every edge, in the order of the graph; differentiable by gates.

    fit: prompts at a time, for which all that the way back needs fits where the ablator has room for one batch.
    """

    def __init__(self, ablator: EdgeAblator) -> None:
        self.ablator, self.graph, self.engine = ablator, ablator.graph, ablator.engine
        self.device = ablator.answer.device
        self.tokens = ablator.rows.tokens.to(self.device)
        at = torch.full((len(self.tokens), 1), self.tokens.shape[1] - 1, device=self.device)
        self.at = at if ablator.at is None else ablator.at
        self.fit = max(1, min(ablator.model.batch_size, ablator.budget // self.bytes_per_prompt()))
        self.places = self.receivers_together()
        everything = torch.ones(len(self.graph.edges), device=self.device)
        with torch.no_grad():
            index = torch.arange(len(self.tokens), device=self.device)
            parts = [self.log_p(self.final(everything, index[part])) for part in slices(len(index), self.fit)]
        self.clean = torch.cat(parts)

    def receivers_together(self) -> dict[int, tuple[int, int]]:
        """Number of the first of the receivers of one kind in one layer -> how many they are, and gates they have."""
        graph, found = self.graph, {}
        for layer in range(graph.n_layers):
            for part, count in (("q", graph.n_heads), ("k", graph.n_kv_heads), ("v", graph.n_kv_heads), ("m", 1)):
                row = graph.row(layer, part)
                found[row] = (count, count * len(graph.senders_of(graph.receivers[row])))
        return found | {len(graph.receivers) - 1: (1, len(graph.senders))}

    def bytes_per_prompt(self) -> int:
        """What a prompt takes: of each token the writes of all senders and their gradients; of each layer what its
        receivers read, before and behind the norm and on the way to their weights, and what a plain layer holds; where
        a norm mixes heads also what it is given and gives for each receiver and lower layer. All logits, and gates."""
        graph, weights, s = self.graph, self.engine.weights, self.tokens.shape[1]
        read = graph.n_heads + 2 * graph.n_kv_heads + 1
        held = 2 * len(graph.senders) + 5 * graph.n_layers * read
        if weights.mixes_heads:
            held += 3 * read * graph.n_layers * (graph.n_layers + 1) // 2
        size = s * self.ablator.model.d_model * weights.w_u.element_size()
        plain = graph.n_layers * self.engine.bytes_per_row(s, logits=0) + 2 * self.engine.bytes_of_logits(1)
        return held * size + plain + 8 * 4 * len(graph.edges)

    def final(self, gates: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """[n, D] final residuals at the position of the score, of prompts by their numbers [n]; gates [edges] or, of
        each prompt its own, [n, edges]."""
        made = GatedPass(self, gates if gates.dim() == 2 else gates.expand(len(rows), -1), rows)
        for layer in range(self.graph.n_layers):
            made.layer(layer)
        return made.reads(2 * self.graph.n_layers, len(self.graph.receivers) - 1)[:, 0, 0]

    def substitute(self, rows: torch.Tensor) -> Substitute:
        """As `EdgeReplacement.reader`, of prompts by their numbers."""
        values = self.ablator.substitute
        groups = values.rows[rows]

        def read(name: str, layer: int = 0) -> torch.Tensor:
            found: torch.Tensor = values.embed if name == EMBED else getattr(values, name)[layer]
            return found if len(found) == 1 else found[rows if name == EMBED else groups]

        return read

    def log_p(self, x: torch.Tensor) -> torch.Tensor:
        """[n, d_vocab] log-probabilities of final residuals [n, D]."""
        return self.engine.weights.unembed(x).log_softmax(-1)

    def kl(self, gates: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """[n] KL from the full model's prediction to that with these gates (as `final`), in nats."""
        clean = self.clean[rows]
        return (clean.exp() * (clean - self.log_p(self.final(gates, rows)))).sum(-1)


class GatedPass:
    """Some prompts on their way through the model, with gates [n, edges].

    carried: what the edges of senders carry, their writes less their ablated writes, [n, senders, P, D]: of the
    embeddings, then of each layer its heads and its MLP. P: all positions; from the last layer's queries on, those of
    the score, since nothing reads others there.
    """

    def __init__(self, gated: GatedEdges, gates: torch.Tensor, rows: torch.Tensor) -> None:
        self.graph, tokens = gated.graph, gated.tokens[rows]
        with torch.no_grad():
            self.frame = Frame(gated.engine, gated.graph, tokens, gated.substitute(rows), gated.at[rows])
            embeddings = gated.engine.weights.embed(tokens) - self.frame.ablated(EMBED)
        self.carried, self.is_narrow = [embeddings[:, None]], False
        parts = gates.to(embeddings.dtype).split([edges for _, edges in gated.places.values()], dim=1)
        counts = [count for count, _ in gated.places.values()]
        self.gates = {
            first: part.unflatten(1, (count, -1))
            for first, count, part in zip(gated.places, counts, parts, strict=True)
        }

    def layer(self, layer: int) -> None:
        """Add what the edges of a layer's heads and of its MLP carry."""
        block, graph, frame = self.frame.blocks[layer], self.graph, self.frame
        k, v = entered(block, "k", self.projected(layer, "k")), self.projected(layer, "v")
        if layer == graph.n_layers - 1:
            self.is_narrow = True
            self.carried = [self.taken(x.transpose(1, 2)).transpose(1, 2) for x in self.carried]
        at = frame.positions if self.is_narrow else None
        z = block.attend(entered(block, "q", self.projected(layer, "q"), at), k, v, at)
        heads = torch.einsum("nphd,hdm->nhpm", z - self.taken(frame.ablated("z", layer)), block.w_o)
        if not graph.parallel:
            self.carried.append(heads)
        read = self.reads(2 * layer + (not graph.parallel), graph.row(layer, "m"))[:, 0]
        if graph.parallel:
            self.carried.append(heads)
        self.carried.append((block.mlp_out(read) - self.taken(frame.ablated("mlp_out", layer)))[:, None])

    def taken(self, x: torch.Tensor) -> torch.Tensor:
        """x [1 or n, S, ...], everywhere or at the positions of the score."""
        return self.frame.positions.take(x) if self.is_narrow else x

    def projected(self, layer: int, part: str) -> torch.Tensor:
        """Queries, keys or values [n, h, P, d_head] of a layer, as `Inputs.projected` gives them."""
        block, x = self.frame.blocks[layer], self.reads(2 * layer, self.graph.row(layer, part)).transpose(0, 1)
        normed, owners = block.norm1(x), list(range(len(x)))
        found = projected_each(block, part, normed, owners)
        at = self.frame.positions if self.is_narrow else None
        return placed_each(block, part, found, normed, owners, at) if joint(block, part) else found

    def reads(self, level: int, receiver: int) -> torch.Tensor:
        """[n, receivers, P, D] what the receivers of one kind in one layer read, ``receiver`` the first of them."""
        gates, base = self.gates[receiver], self.taken(self.frame.bases[level])
        x = base.flatten(1)[:, None].expand(*gates.shape[:2], -1)
        parts = gates.split([carried.shape[1] for carried in self.carried], dim=2)
        for number, (own, carried) in enumerate(zip(parts, self.carried, strict=True)):
            layer, adds = divmod(number - 1, 2)  # embeddings and MLPs add, and heads where no norm mixes them
            if adds or not self.frame.mixes:
                x = torch.baddbmm(x, own, carried.flatten(2))
            else:
                x = x + self.change(layer, own, carried)
        return x.view(*gates.shape[:2], *base.shape[1:])

    def change(self, layer: int, gates: torch.Tensor, carried: torch.Tensor) -> torch.Tensor:
        """[n, receivers, P D] by what the attention of a layer gives more than where all its heads are ablated, to
        receivers with these gates [n, receivers, heads], where a norm stands behind it."""
        mixture, bases = self.taken(self.frame.mixtures[layer]), self.frame.bases
        x = mixture.flatten(1)[:, None].expand(*gates.shape[:2], -1)
        x = torch.baddbmm(x, gates, carried.flatten(2)).view(*gates.shape[:2], *mixture.shape[1:])
        ablated = self.taken(bases[2 * layer + 1]) - self.taken(bases[2 * layer])
        return (self.frame.blocks[layer].added(x) - ablated[:, None]).flatten(2)


@dataclass(frozen=True)
class Learned:
    """What gates learned at a penalty: the edges that may be shut, the most open first, and how many are open."""

    penalty: float
    ranked: list[Edge]
    n_open: int


class EdgeGates:
    """Gates of the edges of ``start``, learned penalty by penalty as far as they are asked for; all others are shut.

    Begins from EAP-IG by ``points`` gradients: log alpha from FIRST to LAST by ranks of the sizes of its mean scores.
    The draws of ``seed`` are the only chance in it.
    """

    def __init__(self, ablator: EdgeAblator, start: EdgeCircuit, points: int, seed: int) -> None:
        scores = attribution.scores(ablator, points)
        self.edges = [edge for edge in scores if edge in start]
        has_gate = torch.tensor([edge in start for edge in scores])
        log_alpha = torch.full((len(scores),), FIRST)
        if self.edges:
            sizes = torch.stack([scores[edge].double().mean().abs() for edge in self.edges])
            ranks = sizes.argsort(stable=True).argsort()
            log_alpha[has_gate] = FIRST + (LAST - FIRST) * ranks / max(1, len(ranks) - 1)
        self.learner = Learner(GatedEdges(ablator), len(ablator.prompts), log_alpha, has_gate, seed, 0.0, PACE)

    def path(self) -> Iterator[Learned]:
        """What is learned at each of PENALTIES, in order."""
        for penalty in PENALTIES:
            n_open, steps = self.learner.learn(penalty)
            memory.give_back()
            order = self.learner.log_alpha[self.learner.has_gate].argsort(descending=True, stable=True)
            log.info("gates at penalty %.3g: %d of %d edges open after %d steps", penalty, n_open, len(order), steps)
            yield Learned(penalty, [self.edges[i] for i in order.tolist()], n_open)


def gates_search(
    start: EdgeCircuit,
    threshold: float,
    percents: Percents,
    cut: Callable[[EdgeCircuit], EdgeMask],
    path: Iterator[Learned],
) -> Iterator[Step]:
    """Yield every evaluation; a step's ``left`` is the smallest circuit so far that keeps more than 100 - threshold
    percent of full, the last one's the result, found at its ``penalty``; its ``components`` are the edges that are shut
    beyond those of the last such circuit of this penalty, the most open first.

    cut: what of a circuit is scored and counted. At each penalty the circuit of the open gates is scored, then of the
    edges by how open they are the smallest number is sought, by halving, that keep enough; scores need not fall with
    the number, so it is one that does while one edge less does not. The path ends where open gates alone keep too
    little and nothing smaller is found, or where they are those of the penalty before.
    """
    rule, best, found_at = Rule(threshold), cut(start), None
    before: frozenset[Edge] | None = None
    for sweep, learned in enumerate(path, start=1):
        low, high = 0, len(learned.ranked)  # fewer than `low` keep too little, as far as was tried; `high` keep enough
        is_open, count = frozenset(learned.ranked[: learned.n_open]), min(learned.n_open, high - 1)
        alone, smaller = None, False
        while low < high:
            circuit = cut(frozenset(learned.ranked[:count]))
            (percent,) = percents([circuit])
            passes = rule.allows(percent, percent)
            alone = passes if alone is None else alone
            if passes and len(circuit) < len(best):
                best, found_at, smaller = circuit, learned.penalty, True
            shut, close = tuple(learned.ranked[count:high]), rule.is_close(percent, percent)
            yield Step(sweep, "gates", shut, percent, passes, best, close, penalty=found_at)
            low, high = (low, count) if passes else (count + 1, high)
            count = (low + high) // 2
        if not (alone or smaller) or is_open == before:
            return
        before = is_open
