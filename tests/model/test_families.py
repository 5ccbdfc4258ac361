"""Every family of model/families/, by every pass, against its own model in transformers and hooks on its modules.

Families are found by their files; tests/families.py has what a tiny model of each is built from, and the options that
`block` has a place for. Weights and sums are in float64, but norms that round to float32 do so on both sides.
"""

import json
from dataclasses import dataclass

import pytest
import torch

import families as tiny
from atlas.circuit.hooks import edits
from atlas.circuit.replacement import Replacement
from atlas.core.components import Component, all_components
from atlas.edges import attribution
from atlas.edges.engine import graph_of
from atlas.edges.run import EdgeRun
from atlas.generate.decoding import Cache, Generator, Removal, forward
from atlas.heads.patching import EnginePatcher, Patch, hook_name
from atlas.model import families, models
from atlas.model.engine import Engine
from atlas.model.live import LiveRun

TOLERANCE = 1e-5  # of the largest logit
TYPES = {name.replace("-", "_"): name for name in tiny.FAMILIES}  # file -> model_type
CASES = [(name, options) for name in families.names() for options in ({}, *tiny.HONOURED.get(TYPES.get(name), ()))]
LONG_ROPE = tiny.ROPE | {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
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
    """By the plain pass and by the live engine."""
    expected = tiny.zeroed(case.original, case.tokens, component)
    assert not case.close(case.logits[:, -1], expected), "the component matters"
    assert case.close(case.model.run(case.tokens, without(case, component)), expected)
    circuit = frozenset(all_components(case.model.n_layers, case.model.n_heads)) - {component}
    x = LiveRun(Engine(case.weights), case.tokens).final_residual(circuit, case.nothing)
    assert case.close(case.weights.unembed(x)[:, 0], expected)


def replaced_on_modules(case, circuit, z, mlp_out):
    """Last logits of the Hugging Face model with all that a circuit leaves out put in by hooks on its own modules.

    z [L, 1 or N, S, H, d_head] before the layer's output map; mlp_out [L, 1 or N, S, D] behind the last module of the
    MLP's side: the norm behind it, where there is one. Granite multiplies behind that.
    """
    names = (tiny.WRITE[kind],) if (kind := case.original.config.model_type) in tiny.WRITE else tiny.MLP
    written = mlp_out.expand(-1, *case.tokens.shape, -1) / getattr(case.original.config, "residual_multiplier", 1)
    lists = (m for m in case.original.modules() if isinstance(m, torch.nn.ModuleList))
    layers = next(m for m in lists if len(m) == tiny.LAYERS)
    handles = []
    for index, layer in enumerate(layers):
        gone = [h for h in range(case.model.n_heads) if Component(index, h) not in circuit]

        def put(module, inputs, index=index, gone=gone):
            own = inputs[0].unflatten(-1, z.shape[-2:]).clone()
            own[:, :, gone] = z[index][:, :, gone]
            return (own.flatten(2), *inputs[1:])

        output = tiny.submodule(tiny.submodule(layer, tiny.ATTENTION), tiny.OUTPUT)
        handles.append(output.register_forward_pre_hook(put))
        if Component(index) not in circuit:
            last = getattr(layer, "post_feedforward_layernorm", None) or tiny.submodule(layer, names)
            own = written[index].clone()  # to which Falcon adds in place
            handles.append(last.register_forward_hook(lambda m, i, out, own=own: own.view(out.shape)))
    with torch.no_grad():
        found = case.original(case.tokens).logits[:, -1]
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("rows", [1, 3], ids=["mean", "resample"])
def test_any_circuit_is_what_hooks_on_the_modules_make_of_it(case, rows):
    """One row in place of all prompts, or each its own; alone, in a batch of one layer, and by the plain pass."""
    model, rng = case.model, torch.Generator().manual_seed(3)
    z = torch.randn(model.n_layers, rows, 9, model.n_heads, model.d_head, generator=rng, dtype=torch.float64)
    mlp_out = torch.randn(model.n_layers, rows, 9, model.d_model, generator=rng, dtype=torch.float64)
    components = all_components(model.n_layers, model.n_heads)
    kept = [c for c, draw in zip(components, torch.rand(len(components), generator=rng), strict=True) if draw < 0.6]
    variants = [frozenset(kept) ^ {c} for c in (HEAD, MLP)] + [frozenset(kept)]
    run = LiveRun(Engine(case.weights), case.tokens)
    together = run.final_residuals(variants, lambda name, layer: {"z": z, "mlp_out": mlp_out}[name][layer])
    substitute = Replacement(z, mlp_out, torch.arange(3) % rows)
    for circuit, x in zip(variants, together, strict=True):
        expected = replaced_on_modules(case, circuit, z, mlp_out)
        assert case.close(case.weights.unembed(x)[:, 0], expected)
        alone = run.final_residual(circuit, substitute.reader(slice(None)))
        assert case.close(case.weights.unembed(alone)[:, 0], expected)
        assert case.close(model.run(case.tokens, list(edits(model, circuit, substitute))), expected)


@pytest.mark.parametrize("component", [HEAD, MLP], ids=str)
def test_without_the_edges_out_of_it_a_component_is_ablated(case, component):
    run, expected = case.edge_run(), tiny.zeroed(case.original, case.tokens, component)
    kept = run.graph.live(edge for edge in run.graph.edges if edge.sender != str(component))
    assert case.close(case.weights.unembed(run.final_residual(kept))[:, 0], expected)


def test_all_components_are_the_model(case):
    circuit = frozenset(all_components(case.model.n_layers, case.model.n_heads))
    x = LiveRun(Engine(case.weights), case.tokens).final_residual(circuit, case.nothing)
    assert case.close(case.weights.unembed(x)[:, 0], case.logits[:, -1])


def test_all_edges_are_the_model(case):
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


@pytest.mark.parametrize("part", ["q", "k"])
def test_a_patch_of_queries_or_keys_is_one_behind_their_norm(case, part):
    """By a hook on the norm's own module: one head's numbers, whatever the order of axes."""
    if case.weights.blocks[0].head_norm(part) is None:
        pytest.skip("it does not norm them")
    patcher, other = EnginePatcher(case.weights), case.tokens.flip(0)
    base, source = patcher.record(case.tokens), patcher.record(other)
    number = case.model.n_kv_heads if part == "k" else case.model.n_heads
    for layer in range(case.model.n_layers):
        module, seen = getattr(case.original.model.layers[layer].self_attn, f"{part}_norm"), {}

        def by_head(x, number=number):
            return (
                x.view(*x.shape[:2], number, -1) if x.dim() == 3 else x if x.shape[2] == number else x.transpose(1, 2)
            )

        def put(module, inputs, x, seen=seen, by_head=by_head):
            if not seen:
                seen["x"] = by_head(x).clone()
                return x
            x = x.clone()
            by_head(x)[:, :, -1] = seen["x"][:, :, -1]
            return x

        handle = module.register_forward_hook(put)
        with torch.no_grad():
            case.original(other)
            expected = case.original(case.tokens).logits[:, -1]
        handle.remove()
        found = patcher.patched(base, source, Patch(part, layer, number - 1))
        assert case.close(case.weights.unembed(found), expected)


def test_generation_is_that_of_transformers(case):
    nothing, options = [frozenset()] * 3, {"do_sample": False, "pad_token_id": 0, "eos_token_id": tiny.WORDS + 9}
    tokens = case.tokens[:, :3]
    expected = case.original.generate(tokens, max_new_tokens=9, attention_mask=torch.ones_like(tokens), **options)
    assert Generator(case.model).generate(tokens, 9, nothing).equal(expected[:, 3:])


def test_gradients_by_all_that_reads_the_embedding_are_its_own(case):
    """Every receiver reads the embedding, so their gradients sum to the one that transformers' model has by it."""
    answer, incorrect = torch.tensor([5, 6, 7]), torch.tensor([9, 8, 20])
    expected = tiny.gradient_by_embedding(case.original, case.tokens, answer, incorrect)
    run = case.edge_run()
    way = attribution.way_back(run, answer, incorrect, 1.0)
    found = sum(part.sum(0) for _, part in attribution.gradients(run, way))
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("falcon", {"alibi": True}),
        ("gptj", {"activation_function": "prelu"}),
        ("opt", {"do_layer_norm_before": False}),
        ("opt", {"layer_norm_elementwise_affine": False}),
        ("opt", {"word_embed_proj_dim": 16}),
        ("phi3", {"rope_parameters": LONG_ROPE}),
        ("qwen2", {"rope_parameters": tiny.ROPE | {"rope_type": "dynamic", "factor": 4.0}}),
        ("stablelm", {"qk_layernorm": True}),
    ],
    ids=str,
)
def test_an_option_without_a_place_is_left_to_hooks(tmp_path, family, options):
    tiny.build(family, tmp_path, **options)
    assert families.weights_of(tmp_path) is None
