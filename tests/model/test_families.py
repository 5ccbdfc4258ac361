"""Every family of model/families/, by every pass, against its own model in transformers and hooks on its modules.

Families are found by their files; tests/families.py has what a tiny model of each is built from, and the options that
`block` has a place for. Weights and sums are in float64, but norms that round to float32 do so on both sides.
"""

import json
from dataclasses import dataclass

import pytest
import torch

import families as tiny
from atlas.core.components import Component, all_components
from atlas.edges import attribution
from atlas.edges.engine import graph_of
from atlas.edges.run import EdgeRun
from atlas.generate.decoding import Cache, Removal, forward
from atlas.heads.patching import EnginePatcher, Patch, hook_name
from atlas.model import families, models
from atlas.model.engine import Engine
from atlas.model.live import LiveRun

TOLERANCE = 1e-5  # of the largest logit
TYPES = {name.replace("-", "_"): name for name in tiny.FAMILIES}  # file -> model_type
CASES = [(name, options) for name in families.names() for options in ({}, *tiny.HONOURED.get(TYPES.get(name), ()))]
HEAD, MLP = Component(0, 1), Component(0)


@dataclass
class Case:
    original: torch.nn.Module
    model: models.Model
    tokens: torch.Tensor  # [N, S]
    logits: torch.Tensor  # [N, S, d_vocab] of the original

    def close(self, found: torch.Tensor, expected: torch.Tensor) -> bool:
        assert found.shape == expected.shape
        return bool((found - expected).abs().max() <= TOLERANCE * self.logits.abs().max())

    @property
    def weights(self):
        return self.model.weights

    def nothing(self, name: str, layer: int) -> torch.Tensor:
        """Zeros in place of what is ablated, heads, MLPs or embeddings."""
        s, block = self.tokens.shape[1], self.weights.blocks[0]
        own = (block.n_heads, block.w_q.shape[2]) if name == "z" else (self.model.d_model,)
        return torch.zeros(1, s, *own, dtype=self.model.dtype)

    def edge_run(self) -> EdgeRun:
        return EdgeRun(Engine(self.weights), graph_of(self.weights), self.tokens, self.nothing)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]} {json.dumps(case[1])}")
def case(request, tmp_path_factory):
    name, options = request.param
    folder = tmp_path_factory.mktemp("family") / "model"
    original = tiny.build(TYPES[name], folder, **options).double()
    model = models.load(folder, device="cpu", dtype="float64")
    assert model.weights, "its options have a place in `block`"
    tokens = torch.randint(3, tiny.WORDS, (3, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return Case(original, model, tokens, original(tokens).logits)


def test_every_family_has_test_data():
    assert set(families.names()) <= set(TYPES), "tests/families.py says how to build a tiny model of each family"
    assert set(tiny.HONOURED) <= set(map(TYPES.get, families.names()))


def test_logits_at_every_position(case):
    every = torch.arange(case.tokens.shape[1]).expand(len(case.tokens), -1)
    assert case.close(case.model.run(case.tokens, position=every), case.logits)


def without(case, component: Component):
    """Edits of the plain pass that set a component to zero."""
    if component.is_mlp:
        return [(models.mlp_hook(component.layer), lambda x, hook: torch.zeros_like(x))]

    def hook(z, hook):
        z = z.clone()
        z[:, :, component.head] = 0
        return z

    return [(models.z_hook(component.layer), hook)]


@pytest.mark.parametrize("component", [HEAD, MLP], ids=str)
def test_a_head_and_an_mlp_are_ablated_as_by_hooks_on_the_modules_themselves(case, component):
    """By the plain pass, by the live engine, and by the edges out of them."""
    expected = tiny.zeroed(case.original, case.tokens, component)
    assert not case.close(case.logits[:, -1], expected), "the component matters"
    assert case.close(case.model.run(case.tokens, without(case, component)), expected)
    circuit = frozenset(all_components(case.model.n_layers, case.model.n_heads)) - {component}
    x = LiveRun(Engine(case.weights), case.tokens).final_residual(circuit, case.nothing)
    assert case.close(case.weights.unembed(x)[:, 0], expected)
    run = case.edge_run()
    kept = run.graph.live(edge for edge in run.graph.edges if edge.sender != str(component))
    assert case.close(case.weights.unembed(run.final_residual(kept))[:, 0], expected)


def test_all_components_and_all_edges_are_the_model(case):
    circuit = frozenset(all_components(case.model.n_layers, case.model.n_heads))
    x = LiveRun(Engine(case.weights), case.tokens).final_residual(circuit, case.nothing)
    assert case.close(case.weights.unembed(x)[:, 0], case.logits[:, -1])
    run = case.edge_run()
    assert case.close(case.weights.unembed(run.final_residual(run.graph.all_edges))[:, 0], case.logits[:, -1])


def test_a_difference_of_logits_is_that_of_two_columns(case):
    rows, answer, incorrect = torch.arange(3), torch.tensor([5, 6, 7]), torch.tensor([9, 8, 20])
    x = EnginePatcher(case.weights).record(case.tokens)[-1].resid_post[:, -1]
    last = case.logits[:, -1]
    assert case.close(case.weights.logit_diff(x, answer, incorrect), last[rows, answer] - last[rows, incorrect])


def test_generation_reads_on_from_its_cache(case):
    nothing, cache = Removal.of([frozenset()] * 3, case.model.n_layers, case.model.n_heads), Cache(9)
    with torch.no_grad():
        for piece in case.tokens.split([4, 1, 3, 1], dim=1):
            found = forward(case.weights, piece, nothing, cache)
            assert case.close(found, case.logits[:, cache.length - 1])


@pytest.mark.parametrize("site", ["resid_pre", "attn_out", "mlp_out", "z", "v", "pattern"])
def test_a_patch_is_an_edit_of_the_plain_pass(case, site):
    """The plain pass with one activation of the other run put in its place, at either layer."""
    patcher, other = EnginePatcher(case.weights), case.tokens.flip(0)
    base, source = patcher.record(case.tokens), patcher.record(other)
    for layer in range(case.model.n_layers):
        head = case.model.n_kv_heads - 1 if site == "v" else 1
        patch = Patch(site, layer, head) if site in ("z", "v", "pattern") else Patch(site, layer, position=5)
        seen = {}
        case.model.run(other, [(hook_name(site, layer), lambda x, hook, seen=seen: seen.update(x=x))])
        every = slice(None)
        place = {"pattern": (every, head), "z": (every, every, head), "v": (every, every, head)}.get(site, (every, 5))

        def put(x, hook, seen=seen, place=place):
            x = x.clone()
            x[place] = seen["x"][place]
            return x

        expected = case.model.run(case.tokens, [(hook_name(site, layer), put)])
        assert case.close(case.weights.unembed(patcher.patched(base, source, patch)), expected)


def test_gradients_by_all_that_reads_the_embedding_are_its_own(case):
    """Every receiver reads the embedding, so their gradients sum to the one that transformers' model has by it."""
    answer, incorrect, seen = torch.tensor([5, 6, 7]), torch.tensor([9, 8, 20]), {}

    def keep(module, arguments, options):
        x = arguments[0] if arguments else options["hidden_states"]
        seen["x"] = x.detach().requires_grad_(True)
        if arguments:
            return (seen["x"], *arguments[1:]), options
        return arguments, options | {"hidden_states": seen["x"]}

    handle = tiny.first_layer(case.original).register_forward_pre_hook(keep, with_kwargs=True)
    logits = case.original(case.tokens).logits[:, -1]
    handle.remove()
    rows = torch.arange(3)
    (expected,) = torch.autograd.grad((logits[rows, answer] - logits[rows, incorrect]).sum(), seen["x"])
    run = case.edge_run()
    way = attribution.way_back(run, answer, incorrect, 1.0)
    found = sum(part.sum(0) for _, part in attribution.gradients(run, way))
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()
