"""Edges of a model in a half: scores by gradients and by ablation are numbers that tables can hold, near those in
float32."""

import numpy as np
import pytest
import torch

from atlas.circuit.replacement import Replacement
from atlas.edges import attribution, searches
from atlas.edges.engine import EdgeAblator, engine_of, graph_of, with_embeddings
from atlas.model import models
from random_models import random_prompts, save, substitute


@pytest.fixture(scope="module", params=["gpt2", "llama", "gemma3", "olmo2"])
def ablators(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("random")
    save(request.param, folder)
    prompts, found = random_prompts(), {}
    for dtype in ("float32", "float16", "bfloat16"):
        model = models.load(folder, device="cpu", dtype=dtype, batch_size=2)
        values = substitute(torch.zeros(len(prompts), dtype=torch.long))
        values = Replacement(values.z.float(), values.mlp_out.float(), values.rows)
        graph = graph_of(engine_of(model).weights)
        found[dtype] = EdgeAblator(model, graph, prompts, with_embeddings(values, "mean", model, prompts))
    return found


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("points", [None, 2])
def test_gradients_in_a_half_give_scores_that_a_table_can_hold(ablators, dtype, points):
    """Within 2 % of the size of all scores; in bfloat16, which rounds eight times as coarsely, within 15 %."""
    found, expected = (
        np.stack([np.asarray(x) for x in attribution.scores(ablators[each], points).values()])
        for each in (dtype, "float32")
    )
    assert found.dtype == np.float32
    allowed = {"float16": 0.02, "bfloat16": 0.15}[dtype]
    assert np.linalg.norm(found - expected) <= allowed * np.linalg.norm(expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_path_patching_in_a_half_is_near_that_in_float32(ablators, dtype):
    edges = ablators[dtype].graph.edges[::37]
    found, expected = (
        np.stack([effect for _, effect in searches.path_patching(ablators[each], edges)]) for each in (dtype, "float32")
    )
    allowed = {"float16": 0.02, "bfloat16": 0.15}[dtype]
    assert np.linalg.norm(found - expected) <= allowed * np.linalg.norm(expected)
