"""Edges of a model in a half: scores by gradients and by ablation are numbers that tables can hold, near those in
float32."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import families as tiny
from atlas.circuit.replacement import Replacement
from atlas.edges import attribution, searches
from atlas.edges.engine import EdgeAblator, engine_of, graph_of, with_embeddings
from atlas.edges.frame import Differences
from atlas.model import models
from random_models import S, random_prompts

DTYPES = ("float32", "float16", "bfloat16")
FAMILIES = {
    "gpt2": {},
    "llama": {},
    "gemma": {},
    "gemma3_text": {},
    "gptj": {},
    "falcon": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "granite": tiny.MULTIPLIERS,
    "olmo2": {},
    "mistral": {"sliding_window": 4},
    "opt": {},
    "phi3": {},
    "qwen3": {},
    "smollm3": {"no_rope_layers": [1, 0]},
    "stablelm": {"use_parallel_residual": True},
}


def ablator(model) -> EdgeAblator:
    """With random values, whose size is that of what the model writes, in place of ablated writes."""
    prompts, block, rng = random_prompts(), model.weights.blocks[0], torch.Generator().manual_seed(2)
    z = torch.randn(model.n_layers, 1, S, block.n_heads, model.d_head, generator=rng)
    mlp_out = torch.randn(model.n_layers, 1, S, model.d_model, generator=rng)
    values = Replacement(z, mlp_out, torch.zeros(len(prompts), dtype=torch.long))
    graph = graph_of(engine_of(model).weights)
    return EdgeAblator(model, graph, prompts, with_embeddings(values, "mean", model, prompts))


QUICK = ("gpt2", "llama")
CASES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES if name not in QUICK)]


@pytest.fixture(scope="module", params=CASES)
def ablators(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("random")
    tiny.build(request.param, folder, **FAMILIES[request.param])
    loaded = (models.load(folder, device="cpu", dtype=dtype, batch_size=2) for dtype in DTYPES)
    return {dtype: ablator(model) for dtype, model in zip(DTYPES, loaded, strict=True)}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("points", [None, 2])
def test_gradients_in_a_half_give_scores_that_a_table_can_hold(ablators, dtype, points):
    """Within 3 % of the size of all scores; in bfloat16, which rounds eight times as coarsely, within 25 %.

    Measured: up to 1.8 % and 18.7 %. These models' weights are so large that what heads attend to hangs on a few bits;
    the next test says that transformers' own gradients are as far off.
    """
    found, expected = (
        np.stack([np.asarray(x) for x in attribution.scores(ablators[each], points).values()])
        for each in (dtype, "float32")
    )
    assert found.dtype == np.float32
    allowed = {"float16": 0.03, "bfloat16": 0.25}[dtype]
    assert np.linalg.norm(found - expected) <= allowed * np.linalg.norm(expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_gradients_in_a_half_are_as_near_to_float32_as_those_of_transformers(ablators, dtype):
    """By the embedding, which every receiver reads, so that their gradients sum to its own. In root mean squares
    transformers' are off by 0.4 to 1.5 % in float16 and by 2 to 22 % in bfloat16 (with plain attention), ours, of which
    every receiver's is rounded, by 0.54 to 1.55 times as much."""
    model, tokens = ablators[dtype].model, ablators[dtype].prompts.tokens
    answer, incorrect = ablators[dtype].answer, ablators[dtype].incorrect
    found, expected = [], []
    for each in (dtype, "float32"):
        how = {"dtype": getattr(torch, each), "attn_implementation": "eager"}
        run = ablators[each].run_of(slice(0, len(tokens)), 0, Differences())
        parts = attribution.gradients(run, attribution.way_back(run, answer, incorrect, 1.0))
        found.append(sum(part.double().sum(0) for _, part in parts))
        network = AutoModelForCausalLM.from_pretrained(model.folder, **how).eval()
        expected.append(tiny.gradient_by_embedding(network, tokens, answer, incorrect).double())
    ours, theirs = ((half - wide).pow(2).mean().sqrt() for half, wide in (found, expected))
    assert ours <= 2 * theirs


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_path_patching_in_a_half_is_near_that_in_float32(ablators, dtype):
    """Within 2 % and 15 % of the size of all effects; measured: up to 0.9 % and 9.2 %."""
    edges = ablators[dtype].graph.edges[::37]
    found, expected = (
        np.stack([effect for _, effect in searches.path_patching(ablators[each], edges)]) for each in (dtype, "float32")
    )
    allowed = {"float16": 0.02, "bfloat16": 0.15}[dtype]
    assert np.linalg.norm(found - expected) <= allowed * np.linalg.norm(expected)
