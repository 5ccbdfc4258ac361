"""Parts of edges by roles of positions, against a forward pass in which every edge is written out.

On the random models of `test_edges` in float64: 1e-9 where nothing but rounding differs; 1e-5 where norms compute in
float32 whatever the dtype, on logits of order 1.
"""

import numpy as np
import pytest
import torch
from test_edges import SLOW, Case

from atlas.core.errors import StudyError
from atlas.core.graph import Edge
from atlas.core.statistics import Bootstrap
from atlas.edges import attribution, by_roles, role_patching, role_table, searches
from atlas.edges.by_roles import RoleEdge
from atlas.edges.engine import EdgeAblator
from atlas.proof import certify, exact
from atlas.proof.fixtures import FILLER
from edge_oracle import Oracle
from random_models import S

FAMILIES = ["gpt2", "llama", *(pytest.param(name, marks=pytest.mark.slow) for name in ("neox", "olmo2")), *SLOW]
ROLES = {"bos": [0], "members": [1, 3], "separators": [2, *range(4, S - 1)], "last": [S - 1]}
MASKS = {role: torch.isin(torch.arange(S), torch.tensor(where))[None] for role, where in ROLES.items()}


class RoleOracle(Oracle):
    """The oracle with some parts of edges exchanged: a sender's write at some positions, for queries at others."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.receivers, self.ends = set(), None

    def exchanged(self, tokens, receivers, sender, instead, ends):
        """Logits where these receivers read ``instead`` [N, S, D] of a sender, and keys and values do so as queries at
        ``ends`` [1, S] see them."""
        self.receivers, self.ends = set(receivers), ends
        try:
            return self.run(tokens, {receiver: {sender: instead} for receiver in receivers})[0]
        finally:
            self.receivers = set()

    def head(self, layer, block, h, read):
        seen = [f"{layer}.{h}.{part}" for part in "kv" if f"{layer}.{h}.{part}" in self.receivers]
        if not seen:
            return super().head(layer, block, h, read)
        changed = super().head(layer, block, h, read)
        plain = super().head(layer, block, h, lambda receiver: read(f"{layer}.{h}.q" if receiver in seen else receiver))
        return torch.where(self.ends[..., None], changed, plain)


class RoleCase(Case):
    def __init__(self, family, folder):
        super().__init__(family, folder)
        self.oracle = RoleOracle(self.oracle.model, self.oracle.behind if "normed" in family else None)
        self.written = self.scores("mean")

    def ablator(self):
        own = self.edges("mean")
        return EdgeAblator(self.model, self.graph, self.prompts.with_roles(ROLES), own.substitute)

    def without(self, part: RoleEdge, share=1.0):
        """[N] the logit difference without ``share`` of what a part of an edge carries."""
        clean, ablated = self.written.clean[part.edge.sender], self.written.ablated[part.edge.sender]
        instead = torch.where(MASKS[part.start][..., None], clean + share * (ablated - clean), clean)
        receivers = [edge.receiver for edge in self.naive([part.edge])]
        with torch.no_grad():
            logits = self.oracle.exchanged(self.prompts.tokens, receivers, part.edge.sender, instead, MASKS[part.end])
        return self.written.difference(logits).numpy()


@pytest.fixture(scope="module", params=FAMILIES)
def case(request, tmp_path_factory):
    return RoleCase(request.param, tmp_path_factory.mktemp("random") / "model")


@pytest.fixture(scope="module")
def some(case):
    """An edge into each kind of input, from the embeddings and from a head, and all their parts."""
    graph = case.graph
    last = [receiver for receiver in graph.receivers if graph.layer_of(receiver) == graph.n_layers - 1]
    receivers = [receiver for receiver in last if receiver[0] == "m" or receiver.split(".")[1] in ("0", "kv0")]
    return [Edge(sender, receiver) for receiver in [*receivers, "logits"] for sender in ("embed", "0.1", "m0")]


def test_scores_by_roles_sum_to_those_of_edges(case):
    ablator = case.ablator()
    for points in (None, 3):
        parts = by_roles.scores(ablator, case.graph.edges, points)
        whole, summed = attribution.scores(ablator, points), by_roles.total(parts)
        assert set(summed) == set(whole)
        found, expected = (torch.stack([values[edge] for edge in whole]) for values in (summed, whole))
        size = expected.abs().max()  # norms that compute in float32 leave 1e-6 of the largest score
        assert size > 1e-3 and (found - expected).abs().max() < min(1e-6 * max(1.0, size), case.tolerance)


def test_scores_by_roles_are_derivatives_of_what_ablating_a_part_does(case, some):
    """Central differences of the oracle, whose error is of the order of the step squared."""
    ablator, step = case.ablator(), 1e-4 if case.tolerance < 1e-7 else 3e-2
    for part, score in list(by_roles.scores(ablator, some[::2]).items())[::4]:
        slope = (case.without(part, step) - case.without(part, -step)) / (2 * step)
        assert score.numpy() == pytest.approx(slope, abs=max(1e-6, 50 * case.tolerance)), part


def test_a_part_of_an_edge_is_ablated_as_the_oracle_does_it(case, some):
    ablator = case.ablator()
    full = case.written.without([]).numpy()
    parts = by_roles.role_edges(ablator, some)[::4]
    found = role_patching.effects(ablator, parts)
    assert list(found) == parts
    for part, effect in found.items():
        assert effect == pytest.approx(case.without(part) - full, abs=case.tolerance), part
    assert max(np.abs(effect).max() for effect in found.values()) > 1e-2


def test_one_role_of_all_positions_is_the_edge(case, some):
    own = case.edges("mean")
    everywhere = {"all": list(range(S))}
    ablator = EdgeAblator(case.model, case.graph, case.prompts.with_roles(everywhere), own.substitute)
    parts = by_roles.role_edges(ablator, some)
    found = role_patching.effects(ablator, parts)
    expected = dict(searches.path_patching(own, some))
    assert len(parts) == len(some)
    for part, effect in found.items():
        assert effect == pytest.approx(expected[part.edge], abs=max(case.tolerance, 1e-9))


def test_parts_that_can_carry_nothing_are_not_there(case):
    """A query does not see later keys, and the logits are read at the last position."""
    pairs = by_roles.pairs(case.ablator())
    assert pairs["logits"] == [("last", "last")]
    assert pairs["m"] == pairs["q"] == [(role, role) for role in ROLES]
    never = {("last", "bos"), ("last", "members"), ("last", "separators"), ("members", "bos"), ("separators", "bos")}
    assert set(pairs["k"]) == set(pairs["v"]) == {(a, b) for a in ROLES for b in ROLES} - never
    parts = [RoleEdge(Edge("embed", "1.0.v"), *pair) for pair in never if case.graph.n_kv_heads == case.graph.n_heads]
    for effect in role_patching.effects(case.ablator(), parts).values():
        assert np.abs(effect).max() < case.tolerance


def test_prompts_without_roles_and_roles_that_overlap_are_refused(tmp_path):
    case = RoleCase("gpt2", tmp_path / "model")
    with pytest.raises(StudyError, match=r"edges.roles: these prompts have no roles"):
        by_roles.scores(case.edges("mean"), [Edge("embed", "m0")])
    both = case.prompts.with_roles({"a": [0, 1], "b": [1, 2]})
    with pytest.raises(StudyError, match=r"edges.roles: a, b share positions"):
        by_roles.scores(EdgeAblator(case.model, case.graph, both, case.edges("mean").substitute), [Edge("embed", "m0")])


# ---- planted models ------------------------------------------------------------------------------------------
# Written down before anything ran, under `mean` (docs/fixtures.md): the parts without which the whole answer is gone.
PLANTED = {
    "two_heads": "embed->0.1.v members last; 0.1->2.2.v last last; 2.2->logits last last",
    "head_and_mlp": "embed->1.2.v members last; 1.2->m1 last last; m1->logits last last",
    "induction": "embed->0.2.v members members; 0.2->1.1.k members last; embed->1.1.q last last; "
    "embed->1.1.v members last; 1.1->logits last last",
}
TO_ROUNDING = 1e-3  # of effects of LOGIT, in float32; `tests/proof/test_planted.py` has the same


def on_planted(name, family, folder):
    """An ablator of a planted model, on prompts with roles, and the parts that PLANTED names."""
    fixture = next(f for f in exact.all_fixtures() if (f.name, f.family) == (name, family))
    own = certify.edge_ablator(certify.make_ablators(fixture.build(folder), fixture.prompts())["mean"], "mean")
    places = [i for i, slot in enumerate(fixture.slots, start=1) if slot != FILLER]
    last = len(fixture.slots)
    roles = {"bos": [0], "members": [i for i in places if i != last], "last": [last]}
    roles["separators"] = [i for i in range(last) if i not in roles["bos"] + roles["members"]]
    ablator = EdgeAblator(own.model, own.graph, fixture.prompts().with_roles(roles), own.substitute)
    planned = [part.split() for part in PLANTED[name].split(";")]
    named = {(Edge.parse(edge), start, end) for edge, start, end in planned}
    found = {RoleEdge(*fixture.named({edge}, own.graph), start, end) for edge, start, end in named}
    return fixture, ablator, found


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("family", ["gpt2", pytest.param("llama", marks=pytest.mark.slow)])
def test_the_planted_parts_carry_the_answer_and_no_other_part_does(name, family, tmp_path):
    fixture, ablator, expected = on_planted(name, family, tmp_path / "model")
    parts = by_roles.role_edges(ablator, fixture.named(fixture.edges["mean"], ablator.graph))
    assert expected <= set(parts) and len(parts) > 2 * len(expected)
    for part, effect in role_patching.effects(ablator, parts).items():
        wanted = -fixture.full if part in expected else 0
        assert np.abs(effect - wanted).max() < TO_ROUNDING * fixture.full, part


def test_where_values_alone_carry_the_answer_gradients_of_parts_are_their_effects(tmp_path):
    fixture, ablator, expected = on_planted("two_heads", "gpt2", tmp_path / "model")
    for part, score in by_roles.scores(ablator, ablator.graph.edges).items():
        wanted = -fixture.full if part in expected else 0
        assert np.abs(score.numpy() - wanted).max() < TO_ROUNDING * fixture.full, part


def test_the_table_holds_every_part_and_ablates_the_largest(tmp_path):
    fixture, ablator, expected = on_planted("two_heads", "gpt2", tmp_path / "model")
    edges = fixture.named(fixture.edges["mean"], ablator.graph)
    table = role_table.table("t", ablator, edges, "eap", 5, 4, Bootstrap(50, 0))
    parts = by_roles.role_edges(ablator, edges)
    rows = list(zip(table.sender, table.receiver, table.start, table.end, strict=True))
    assert rows == [(*edge, start, end) for edge, start, end in parts] and set(table.method) == {"eap"}
    ablated = table[table.exact.notna()]
    assert len(ablated) == 4 and ablated.value.abs().min() >= table[table.exact.isna()].value.abs().max()
    found = {(*edge, start, end) for edge, start, end in expected}
    large = table[table.exact < -0.5 * fixture.full]
    assert set(zip(large.sender, large.receiver, large.start, large.end, strict=True)) == found
    assert large.exact.tolist() == pytest.approx([-fixture.full] * len(found), rel=TO_ROUNDING)
    assert (large.exact_low <= large.exact).all()
    assert role_table.table("t", ablator, [], "eap", 5, 4, Bootstrap(50, 0)).empty
