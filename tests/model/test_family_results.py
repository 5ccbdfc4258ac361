"""What a study makes of a model, in every family of model/families/: edges and attribution, against slow ways.

Edges are held against a pass that works out every receiver by itself from the sum of all writes, and gradients against
differences of that pass; sums of attribution against the logits of the model as transformers has it.
"""

import random

import numpy as np
import pytest
import torch

import families as tiny
from atlas.circuit.replacement import Replacement
from atlas.core.components import Component
from atlas.core.graph import Edge
from atlas.edges import attribution as edge_attribution
from atlas.edges import searches
from atlas.edges.engine import EdgeAblator, graph_of, with_embeddings
from atlas.heads.attribution import attribute
from atlas.model import families, models
from atlas.prompts.batch import Prompts

N, S = 3, 9
TOLERANCE = 1e-5  # of the largest logit: norms round to float32 in all these models
STEP = 0.001  # of a sender's write, one way and the other
BY_STEP = 0.001  # of the largest score: what curvature and the rounding of norms leave of such differences


class Case:
    """A tiny model of a family in float64, and transformers' own."""

    def __init__(self, folder, family: str, options: dict) -> None:
        self.original = tiny.build(family, folder, **options).double()
        self.model = models.load(folder, device="cpu", dtype="float64", batch_size=2)
        rng = torch.Generator().manual_seed(0)
        tokens, corrupted = (torch.randint(3, tiny.WORDS, (N, S), generator=rng) for _ in range(2))
        one_group = torch.zeros(N, dtype=torch.long)
        self.prompts = Prompts(tokens, corrupted, torch.arange(5, 8), torch.arange(9, 12), list(range(N)), one_group)
        with torch.no_grad():
            self.logits = self.original(tokens).logits[:, -1]
        self.allowed = TOLERANCE * float(self.logits.abs().max())

    def difference(self, logits: torch.Tensor) -> np.ndarray:
        rows = torch.arange(N)
        return (logits[rows, self.prompts.answer] - logits[rows, self.prompts.incorrect]).numpy()

    def edges(self) -> EdgeAblator:
        block, width = self.model.weights.blocks[0], self.model.d_model
        z = torch.zeros(tiny.LAYERS, 1, S, block.n_heads, block.w_q.shape[2], dtype=torch.float64)
        nothing = Replacement(z, z.new_zeros(tiny.LAYERS, 1, S, width), torch.zeros(N, dtype=torch.long))
        graph = graph_of(self.model.weights)
        return EdgeAblator(self.model, graph, self.prompts, with_embeddings(nothing, "zero", self.model, self.prompts))

    def naive(self, graph, edge: Edge, share: float) -> np.ndarray:
        """[N] logit differences where the receiver of an edge reads ``share`` of its sender's write."""
        weights = self.model.weights
        writes: list[dict[str, torch.Tensor]] = []  # of the heads of each layer whose attention is done
        added = {"embed": weights.embed(self.prompts.tokens)}  # of all others

        def read(receiver: str) -> torch.Tensor:
            def shares(some: dict[str, torch.Tensor]) -> torch.Tensor:
                return sum(
                    w * share if (name, receiver) == (edge.sender, edge.receiver) else w for name, w in some.items()
                )

            attended = [block.attn_out(shares(own)) for block, own in zip(weights.blocks, writes, strict=False)]
            return shares(added) + sum(attended)

        for layer, block in enumerate(weights.blocks):
            heads, mlp = {}, str(Component(layer))
            for head in range(block.n_heads):
                q, k, v = (block.norm1(read(port)) for port in graph.ports[f"{layer}.{head}"])
                (key, _), (_, value) = (block.keys_values(x, heads=[block.owners[head]]) for x in (k, v))
                mixed = block.attend(block.queries(q, heads=[head]), key, value)
                heads[f"{layer}.{head}"] = block.head_write(mixed[:, :, 0], head)
            before = block.mlp_out(read(mlp)) if block.parallel else None
            writes.append(heads)
            added[mlp] = block.mlp_out(read(mlp)) if before is None else before
        return self.difference(weights.unembed(read("logits")[:, -1]))


TYPES = {name.replace("-", "_"): name for name in tiny.FAMILIES}  # file -> model_type
STOCK = [(file, {}) for file in families.names()]
OPTIONS = [(file, options) for file in families.names() for options in tiny.HONOURED.get(TYPES[file], ())]
CASES = STOCK + [pytest.param(case, marks=pytest.mark.slow) for case in OPTIONS]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]} {case[1]}")
def case(request, tmp_path_factory):
    file, options = request.param
    return Case(tmp_path_factory.mktemp("family") / "model", TYPES[file], options)


def sampled(graph) -> list[Edge]:
    """An edge between components of two layers into each kind of receiver, and one into the logits."""
    rng, found = random.Random(0), []
    for kind in (".q", ".k", ".v", "m1", "logits"):
        found.append(rng.choice([e for e in graph.edges if e.receiver.endswith(kind) and e.sender != "embed"]))
    return found


def test_path_patching_equals_a_pass_over_every_receiver(case):
    ablator = case.edges()
    full = case.difference(case.logits)
    tried = sampled(ablator.graph)
    with torch.no_grad():
        assert np.abs(case.naive(ablator.graph, tried[0], 1.0) - full).max() < case.allowed, "that pass is the model"
        effects = dict(searches.path_patching(ablator, tried))
        for edge, effect in effects.items():
            expected = case.naive(ablator.graph, edge, 0.0) - full
            assert np.abs(effect - expected).max() < 2 * case.allowed, str(edge)
    assert all(np.abs(effect).max() > 10 * case.allowed for effect in effects.values()), "edges matter"


def test_attribution_of_edges_equals_differences(case):
    ablator = case.edges()
    scores = edge_attribution.scores(ablator)
    largest = max(float(np.abs(x).max()) for x in map(np.asarray, scores.values()))
    with torch.no_grad():
        for edge in sampled(ablator.graph):
            more, less = (case.naive(ablator.graph, edge, 1 + step) for step in (STEP, -STEP))
            expected = (less - more) / (2 * STEP)  # what ablating the edge takes away
            assert np.abs(np.asarray(scores[edge]) - expected).max() < BY_STEP * largest, str(edge)


def test_rows_of_attribution_sum_to_the_logit_difference(case):
    """Before any cap of the logits."""
    found, cap, logits = attribute(case.model, case.prompts), case.model.weights.logit_cap, case.logits
    logits = logits if cap is None else cap * torch.atanh(logits / cap)
    for part in ("write", "head"):
        total = sum(values for keys, values in found if keys["part"] == part)
        assert np.abs(total - case.difference(logits)).max() < TOLERANCE * logits.abs().max(), part
