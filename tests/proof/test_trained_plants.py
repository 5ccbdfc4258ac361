"""Trained plants: ordinary norms and attention, and circuits that training put where they are said to be.

Seeds are fixed. Bounds are those of `trained_plants`, beyond which a build fails: 1 % of the effect outside the planted
nodes, and nodes 5 % off from what their program says.
"""

import itertools

import numpy as np
import pytest
import torch

from atlas.core.components import all_components
from atlas.core.errors import StudyError
from atlas.proof import certify, trained_plants
from atlas.proof.fixtures import KINDS, NODE_METHODS
from atlas.proof.planted import BOS, LOGIT, MEMBERS, VOCABULARY, M

PLANTS = {plant.id: plant for plant in trained_plants.all_trained()}


# ---- programs ------------------------------------------------------------------------------------------------
def successors(member):
    """Logits of a member's successor, written out."""
    return [LOGIT if token == MEMBERS[(member + 1) % M] else 0.0 for token in VOCABULARY]


def by_hand(own, other, swapped):
    """The logits of one prompt, from the lists of its members and of another's, and the names of nodes exchanged."""
    if "m1" in swapped:
        return successors(other[7])
    return successors((other if "0.1" in swapped else own)[7])


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
def test_a_program_says_what_a_loop_over_rows_says(plant):
    program, rng = plant.program, np.random.default_rng(3)
    tokens, own = program.draw(rng, 40)
    other = own[rng.permutation(40)]
    nodes = sorted(program.nodes)
    for swapped in itertools.chain(*(itertools.combinations(nodes, n) for n in range(len(nodes) + 1))):
        found = program.target(own, other, frozenset(swapped))
        named = [str(node) for node in swapped]
        expected = [by_hand(o, p, named) for o, p in zip(own.tolist(), other.tolist(), strict=True)]
        assert torch.equal(found, torch.tensor(expected)), named
    words = [[VOCABULARY[i] for i in row] for row in tokens.tolist()]
    assert all(row[0] == BOS for row in words)
    for i, slot in enumerate(program.slots):
        for row, members in zip(words, own.tolist(), strict=True):
            assert (row[i + 1] in MEMBERS) == (slot != "filler")
            assert slot == "filler" or row[i + 1] == MEMBERS[members[i]]


# ---- what training leaves (slow) -----------------------------------------------------------------------------
@pytest.fixture(scope="module", params=PLANTS.values(), ids=PLANTS)
def fixture(request):
    return request.param


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


@pytest.mark.slow
def test_less_than_one_percent_of_the_effect_lies_outside_and_the_nodes_do_what_they_must(fixture, folder):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    epsilon = model.config.layer_norm_epsilon if fixture.family == "gpt2" else model.config.rms_norm_eps
    assert epsilon < 1e-4, "an ordinary norm"
    found = trained_plants.certificate(model, fixture.program)
    assert all(found[kind][sets] < trained_plants.SHARE_ALLOWED for kind in KINDS for sets in ("outside", "worst"))
    assert found["resample"]["program"] < trained_plants.OFF_ALLOWED
    assert found["resample"]["weakest"] > 0.9, "each planted node carries the answer"
    with_hooks_gone = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    assert with_hooks_gone == 0


def test_a_model_with_too_much_outside_its_nodes_or_off_its_program_is_refused(monkeypatch, tmp_path):
    plant = trained_plants.trained()
    model = trained_plants.new_model(0, "gpt2", 10)
    model.save_pretrained(tmp_path)
    outcome = {"resample": {"outside": 0.02, "program": 0.0}}
    monkeypatch.setattr(trained_plants, "certificate", lambda model, program: outcome)
    with pytest.raises(StudyError, match=r"trained-gpt2: 2.00% of the effect lies outside the planted nodes"):
        trained_plants.certified(plant, tmp_path)
    outcome = {"resample": {"outside": 0.001, "program": 0.06}}
    with pytest.raises(StudyError, match=r"trained-gpt2: its nodes are 6.00% off from what they must do"):
        trained_plants.certified(plant, tmp_path)


def test_an_untrained_model_of_either_family_is_far_from_any_program():
    """Exchange works in both: all nodes of all layers exchanged give the other prompt's logits."""
    for plant in (trained_plants.trained(), trained_plants.trained_llama()):
        model = trained_plants.new_model(0, plant.family, len(plant.slots) + 1).eval()
        found = trained_plants.certificate(model, plant.program, rows=32)
        assert found["resample"]["outside"] > 0.5 and found["resample"]["program"] > 0.5
        exchange = trained_plants.Exchange(model)
        tokens, _ = plant.program.draw(np.random.default_rng(0), 4)
        tokens[:, -1] = tokens[0, -1]  # the last token's own embedding is not exchanged
        with torch.no_grad():
            clean = model(tokens).logits[:, -1]
            recorded = {name: dict(layers) for name, layers in exchange.recorded.items()}
            every = trained_plants.mask_of(all_components(trained_plants.N_LAYERS, trained_plants.N_HEADS))
            partner = torch.tensor([1, 2, 3, 0])
            exchange.put = trained_plants.sources(recorded, partner, "resample"), every.expand(4, -1, -1)
            exchanged = model(tokens).logits[:, -1]
        exchange.remove()
        assert (exchanged - clean[partner]).abs().max() < 1e-5, "float32"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_planted_nodes_alone_do_the_task(fixture, ablators, kind):
    ablator, nodes = ablators[kind], fixture.nodes[kind]
    assert ablator.percent_of_full(nodes) == pytest.approx(100, abs=2)
    assert ablator.percent_of_full(ablator.everything - nodes) < 20
    everything = all_components(trained_plants.N_LAYERS, trained_plants.N_HEADS)
    for component in set(everything) - nodes:
        assert ablator.percent_of_full(ablator.everything - {component}) == pytest.approx(100, abs=2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", NODE_METHODS)
def test_every_node_search_finds_the_planted_nodes(fixture, ablators, method, kind):
    found, _ = certify.search(method, ablators[kind], 20.0, kind)
    assert found in fixture.returns(method, kind), certify.names(found)
