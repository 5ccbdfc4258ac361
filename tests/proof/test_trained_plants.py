"""A trained plant: ordinary norms, and a circuit that training put where it is said to be.

600 of the default 1000 steps leave about 0.6 % of the effect outside the planted nodes; the seed is fixed.
"""

import pytest
import torch

from atlas.core.components import all_components
from atlas.core.errors import StudyError
from atlas.proof import certify, trained_plants
from atlas.proof.fixtures import KINDS, NODE_METHODS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fixture():
    return trained_plants.trained(steps=600)


@pytest.fixture(scope="module")
def folder(fixture, tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums depend on how they are divided
    built = fixture.build(tmp_path_factory.mktemp("planted") / fixture.id)
    torch.set_num_threads(threads)
    return built


@pytest.fixture(scope="module")
def ablators(fixture, folder):
    return certify.make_ablators(folder, fixture.prompts())


def test_less_than_one_percent_of_the_effect_lies_outside_the_planted_nodes(fixture, folder):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert model.config.layer_norm_epsilon == 1e-5 and model.config.tie_word_embeddings
    found = trained_plants.certificate(model, fixture.nodes["resample"])
    assert all(found[kind][sets] < trained_plants.SHARE_ALLOWED for kind in KINDS for sets in ("outside", "worst"))
    assert found["resample"]["weakest"] > 0.9, "each planted node carries the answer"
    with_hooks_gone = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    assert with_hooks_gone == 0


def test_a_model_with_too_much_outside_its_nodes_is_refused(fixture, folder, monkeypatch):
    assert trained_plants.certified(fixture, folder)["resample"]["outside"] < trained_plants.SHARE_ALLOWED
    monkeypatch.setattr(trained_plants, "certificate", lambda model, nodes: {"resample": {"outside": 0.02}})
    with pytest.raises(StudyError, match=r"trained-gpt2: 2.00% of the effect lies outside the planted nodes"):
        trained_plants.certified(fixture, folder)


@pytest.mark.parametrize("kind", KINDS)
def test_the_planted_nodes_alone_do_the_task(fixture, ablators, kind):
    ablator, nodes = ablators[kind], fixture.nodes[kind]
    assert ablator.percent_of_full(nodes) == pytest.approx(100, abs=2)
    assert ablator.percent_of_full(ablator.everything - nodes) < 20
    everything = all_components(trained_plants.N_LAYERS, trained_plants.N_HEADS)
    for component in set(everything) - nodes:
        assert ablator.percent_of_full(ablator.everything - {component}) == pytest.approx(100, abs=2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", NODE_METHODS)
def test_every_node_search_finds_the_planted_nodes(fixture, ablators, method, kind):
    found, _ = certify.search(method, ablators[kind], 20.0)
    assert (found,) == fixture.returns(method, kind), certify.names(found)
