"""What attribution must find on the exact fixtures. Written down before any of these methods ran on them.

Patching one edge, or one component, at a time measures; attribution differentiates, and so finds what has a slope where
it looks. Under `mean` and `resample` clean and ablated embeddings differ in members alone, so attention that finds its
place by positions and flags stays where it is. Notation as in `exact`.

`eap`, `relp`, `atp` look at the clean run: `relp` finds what `eap` does. Attention is all or nothing, where its slope
is 0, and every planned unit is fed G or more, or -G / 2 or less, where its activation is a line through 0 or nothing,
which is what `relp` takes it for. Among heads alone both are the exact effect of the edge. Into an MLP they are not: a
unit of `linear_units` has slope 2 at f = 1 and is silent below f = 1/2, so `eap` gives such an edge 7/4 of its effect
under `mean` and twice it otherwise, and so does `relp` in GPT-2. In Llama the unit is a gate times the constant 1, and
`relp` passes half to each: 7/8 and once.

A component's score is the sum over the edges out of it: nothing for 1.2 of `cancelling`, whose two edges cancel.

`eap_ig`, `ig` move all embeddings. They see `induction` attend: with members taken a share k of the way, 1.1 scores
160 (1/8 + 7/8 k^2) under `mean`, against 80 at BOS. Under `resample` the corrupted prompt has a match of its own: 160
(k^2 + (1 - k)^2), 80 or more throughout, with a slope near k = 1/2 alone, of opposite signs on either side. The two
sides nearly cancel, and between the 5 points that a study takes by default they leave 1.1e-4, as good as nothing.
10 or 20 points leave 0.2 to 0.3 (at 20: 0.0396 + 0.174 + 0.026 from the three nearest pairs). They see m2 of `backup`,
whose units have a slope while f, from 1/4 or 0 to 2, is between 1/2 and 3/4. What cancels at every point stays unseen.

`eap_ig_activations` moves one sender at a time. It sees each of the pair of `interlock`, since the other one stays, but
not what feeds both. Of `backup` it sees neither head: f stays above 1 when one of them goes. What the embeddings feed
it sees as `eap_ig` does. `cancelling` stays what it was.

`edge_gates` move all edges, each by itself, and stay above a floor. Where every effect has a slope between ablated and
clean, and one circuit alone leaves the prediction as it is, they return what removals down to that floor return: the
fixtures and kind of `Fixture.gated`. Elsewhere nothing is foreseen of them (docs/fixtures.md).

The narrowest slope is that of `induction`, 0.06 wide in k, and that of a threshold is 0.125; points 1/20 apart meet
all of them. Under `zero` positions and flags shrink too, and what is found depends on the number of points.
"""

from dataclasses import replace

from atlas.core.components import Circuit
from atlas.core.graph import EdgeCircuit
from atlas.edges.methods import EDGE_GATES
from atlas.proof.fixtures import KINDS, Fixture, circuit, edges

POINTS = 20
MOVING = ("mean", "resample")  # kinds under which attention stays while embeddings move
NODES = {  # what has a slope in the clean run
    "two_heads": "0.1 2.2",
    "head_and_mlp": "1.2 m1",
    "induction": "1.1",
    "backup": "m2",
    "inhibitory": "0.1 2.0 2.3",
    "position": "1.1 2.2",
    "leak": "0.1 1.3 2.2",
    "cancelling": "0.1 2.0 2.3",
    "interlock": "0.1 m2",
}
UNSEEN = {  # true components without a slope at any point between the embeddings
    "cancelling": "1.2",
    "interlock": "1.1 1.2",
}
UNSEEN_EDGES = {  # likewise edges; of each method
    "eap_ig": {"cancelling": "0.1->1.2.v", "interlock": "0.1->1.1.v 0.1->1.2.v 1.1->m2 1.2->m2"},
    "eap_ig_activations": {
        "backup": "0.1->m2 1.2->m2",
        "cancelling": "0.1->1.2.v",
        "interlock": "0.1->1.1.v 0.1->1.2.v",
    },
}


def foreseen(fixture: Fixture) -> Fixture:
    """The fixture with what attribution must find in it; raises KeyError for one that nothing is foreseen of."""
    name = fixture.name
    found: dict[str, dict[str, tuple[EdgeCircuit, ...]]] = {"relp": dict(fixture.edges_expected["eap"])}
    removed = fixture.edges_expected["iterative_edges"]
    found[EDGE_GATES.name] = {kind: removed[kind] for kind in KINDS if fixture.gated(kind)}
    for method, unseen in UNSEEN_EDGES.items():
        found[method] = {kind: (fixture.edges[kind] - edges(unseen.get(name, "")),) for kind in MOVING}
    seen = circuit(NODES[name])
    nodes: dict[str, dict[str, Circuit]] = {method: dict.fromkeys(KINDS, seen) for method in ("atp", "relp")}
    nodes["ig"] = {kind: fixture.nodes[kind] - circuit(UNSEEN.get(name, "")) for kind in MOVING}
    return replace(fixture, edges_expected=dict(fixture.edges_expected) | found, attributed=nodes)
