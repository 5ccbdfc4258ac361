"""Components at some positions only: names, and circuits of planted models.

That ablation at positions is computed correctly is shown in test_engine.py.
"""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.circuit.evaluation import Patching, position_effects
from atlas.circuit.orders import run
from atlas.circuit.search import Rule, by_layers, node_search
from atlas.core import components
from atlas.core.components import Component, Site, sites
from atlas.core.positions import ROLES
from atlas.core.statistics import Bootstrap
from atlas.proof import certify, exact, fixtures
from atlas.store.memo import name
from head_prompts import layout_of


@given(st.integers(0, 99), st.integers(-1, 99), st.sampled_from(ROLES))
def test_names_come_back(layer, head, role):
    site = Site(layer, head, role)
    assert Site.parse(str(site)) == components.parse(str(site)) == site
    assert str(site) == f"{Component(layer, head)}@{role}"
    assert components.parse(str(site.component)) == site.component != site
    for wrong in (str(site), "9.1@last@last"):
        with pytest.raises(ValueError):
            Component.parse(wrong)
    with pytest.raises(ValueError):
        Site.parse(str(site.component))


def test_a_mixed_circuit_survives_json_and_has_a_name_of_its_own():
    mixed = frozenset({Component(1, 2), Site(1, 3, "last"), Site(0, -1, "members"), Component(2)})
    assert components.from_json(json.loads(json.dumps(components.to_json(mixed)))) == mixed
    assert name(mixed) != name(frozenset(c if isinstance(c, Component) else c.component for c in mixed))


# ---- planted models ------------------------------------------------------------------------------------------
def ablators_of(fixture, folder):
    """Ablators whose prompts know their roles."""
    return certify.make_ablators(fixture.build(folder), fixture.prompts().with_roles(layout_of(fixture).roles))


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    root = tmp_path_factory.mktemp("planted")
    made = {}
    for family in ("gpt2", "llama"):
        for build in (exact.position, exact.induction):
            fixture = build(family)
            made[fixture.name, family] = ablators_of(fixture, root / fixture.id)
    return made


def site_circuit(names: str):
    return frozenset(map(Site.parse, names.split()))


# `position`: 1.1 and 2.2 act at the answer's position; where 0.3 tells positions, only those of members matter.
TRUTH = {
    "mean": site_circuit("1.1@last 2.2@last"),
    "resample": site_circuit("1.1@last 2.2@last"),
    "zero": site_circuit("0.3@members 1.1@last 2.2@last"),
}


@pytest.mark.parametrize("kind", fixtures.KINDS)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_positions_of_a_planted_circuit_are_found(planted, family, kind):
    """From the circuit's components, and from all components; backward, speculative and in a random order."""
    ablator = planted["position", family][kind]
    own = {"mean": "1.1 2.2", "resample": "1.1 2.2", "zero": "0.3 1.1 2.2"}[kind]
    rule = Rule(threshold=20)
    for start in (fixtures.circuit(own), ablator.everything):
        everything = sites(start, ROLES)
        assert ablator.percent_of_full(everything) == pytest.approx(100, abs=1e-3)
        for batch in (1, 8):
            steps = node_search(everything, rule, by_layers(rule), ablator.percents_of_full, batch)
            assert list(steps)[-1].left == TRUTH[kind]
    (*_, last) = run("random_0", 0, rule, sites(fixtures.circuit(own), ROLES), ablator.percents_of_full, {})
    assert last.left == TRUTH[kind]


@pytest.mark.parametrize("kind", fixtures.KINDS)
def test_effects_at_positions_are_those_of_the_truth(planted, kind):
    ablator = planted["position", "gpt2"][kind]
    rows = list(position_effects(ablator, ablator.everything, TRUTH[kind], Bootstrap(20)))
    assert len(rows) == len(ablator.everything) * len(ROLES)
    for row in rows:
        site = Site(row["layer"], row["head"], row["role"])
        assert row["component"] == str(site.component) and row["kept"] == (site in TRUTH[kind])
        assert row["value"] == pytest.approx(100 if site in TRUTH[kind] else 0, abs=1e-3), str(site)


def test_a_site_carries_what_its_component_carries(planted):
    """Noising and denoising at the answer's position do what the whole head does, elsewhere nothing."""
    shared = planted["position", "gpt2"]["resample"]
    patching, bootstrap = Patching(shared.model, shared.prompts), Bootstrap(20)
    for role, expected in (("last", [0, 1]), ("members", [1, 0])):
        found = patching.rows(frozenset({Site(1, 1, role)}), bootstrap)
        assert [row["value"] for row in found] == pytest.approx(2 * expected, abs=1e-5), "and so for its heads alone"


@pytest.mark.parametrize("never_test", [frozenset({Component(1)}), sites({Component(1)}, ROLES)])
def test_components_that_are_never_tested_stay_at_every_role(planted, never_test):
    ablator = planted["position", "gpt2"]["mean"]
    rule = Rule(threshold=20, never_test=never_test)
    steps = node_search(sites(ablator.everything, ROLES), rule, by_layers(rule), ablator.percents_of_full)
    assert list(steps)[-1].left == TRUTH["mean"] | sites({Component(1)}, ROLES)
