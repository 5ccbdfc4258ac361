"""The exact fixtures: planted models whose circuits, effects and results of every method are proved.

Notation of the proofs. A fixture's logit difference is ``LOGIT`` x (next[answer] - next[incorrect]) at the last
position; they give it as D, in units of LOGIT. In row i all members of a prompt are i plus fixed offsets, cyclically,
and there is a row for every i. Hence over the corrupted prompts each slot holds each member equally often (1), and a
head that copies a member has a mean z of 1/8 in every dimension, which adds the same to next[answer] and
next[incorrect]: 0 to D. Offsets are chosen so that no member of a corrupted prompt, nor its successor, is the answer or
the incorrect answer where it could be copied (2), so resampling such a head adds 0 to D as well, as zero does
trivially. Ablating a head that copies therefore has one effect under all kinds: its part of D is gone.

Each fixture was given its expected results before any method ran on it. *Truth* is the planted mechanism: every
component, and every edge, that carries something to the logits that differs between the clean and the ablated run. Some
fixtures defeat some methods by design; `expected` says what a method returns, which then is not the truth.
"""

from __future__ import annotations

from collections.abc import Iterable

from atlas.proof.attributed import foreseen
from atlas.proof.fixtures import (
    ASCENDING,
    FILLER,
    FIND,
    Effect,
    Expected,
    Fixture,
    all_of,
    attention,
    circuit,
    edges,
    every_kind,
    finder,
    less,
    solved,
    successor,
    with_zero,
)
from atlas.proof.planted import (
    FAMILIES,
    LOGIT,
    SELF,
    Head,
    Key,
    Match,
    Mlp,
    Offset,
    Plan,
    Write,
    dead_zone_units,
    linear_units,
    threshold_units,
)


def two_heads(family: str) -> Fixture:
    """0.1 copies the last member to `found`; 2.2 writes its successor. D = 1 - 0.

    Either ablated: 2.2 writes 0 or, by (1) and (2), nothing that differs between answer and incorrect: D = 0.
    Edges under `zero`. Queries of 0.1 gone: it attends to all ten positions alike, found = 1/10 of each shown member,
    next = 1/10 of members 1 to 4, answer and incorrect among them: D = 0. Keys: the same. Queries or keys of 2.2 gone:
    it averages `found` over the positions, 2/10 of each shown member: D = 0.
    """
    always = "embed->0.1.v 0.1->2.2.v 2.2->logits"
    true_edges, nodes = with_zero(always, attention("0.1 2.2")), circuit("0.1 2.2")
    return Fixture(
        name="two_heads",
        family=family,
        shows="the plain case: every method finds two heads",
        plan=Plan((FIND, successor(2, 2)), seed=1),
        nodes=every_kind(nodes),
        edges=true_edges,
        full=LOGIT,
        effects=(Effect(circuit("0.1"), 0), Effect(circuit("2.2"), 0), Effect(nodes, 0)),
        expected=(Expected((nodes,)),),
        edges_expected=solved(true_edges, every_kind(edges(always))),
    )


def head_and_mlp(family: str) -> Fixture:
    """1.2 copies the last member to `found`; m1, in the same layer, maps it to its successor. D = 1.

    m1's units are linear (`linear_units`): f = 1 gives 1, f <= 1/4 gives 0. 1.2 ablated: f = 1/8 everywhere (mean), 0
    (zero) or 1 at another member (resample): D = 0. m1 ablated: it writes its mean over members, nothing, or another
    member's successor: D = 0. In Llama the bias of a unit comes from the constant 1 in the embeddings, so under `zero`
    embed->m1 matters: without it the up-projection is 0 and D = 0. (Its gradient is 0: a unit writes (2 f - u) u, u
    being the constant, with slope 0 at f = u = 1.)
    """
    always = "embed->1.2.v 1.2->m1 m1->logits"
    constant = " embed->m1" if family == "llama" else ""
    true_edges, nodes = with_zero(always, attention("1.2") + constant), circuit("1.2 m1")
    return Fixture(
        name="head_and_mlp",
        family=family,
        shows="an MLP in the circuit, fed by a head of its own layer",
        plan=Plan((finder(1, 2),), (Mlp(1, linear_units("found", 1)),), seed=2),
        nodes=every_kind(nodes),
        edges=true_edges,
        full=LOGIT,
        effects=(Effect(circuit("1.2"), 0), Effect(circuit("m1"), 0), Effect(nodes, 0)),
        expected=(Expected((nodes,)),),
        edges_expected=solved(true_edges, every_kind(edges(always))),
    )


# filler a b filler c d filler a -> b; the incorrect answer is d. Clean and corrupted members are disjoint.
PAIRS = (FILLER, (0, 5), (3, 2), FILLER, (1, 7), (6, 4), FILLER, (0, 5))


def induction(family: str) -> Fixture:
    """0.2 writes to `extra` which token stands before; 1.1 attends where that is its own token, and copies. D = 1.

    Scores of 1.1: 160 where `extra` is its own token, 80 at BOS, so that without a match it attends to BOS, where it
    copies nothing. 0.2 ablated: matches are 1/8 (mean, score 20), none (zero), or of the corrupted members, which are
    disjoint from the clean ones (resample): D = 0. 1.1 ablated: D = 0 by (1) and disjointness.
    Edges. Query of 1.1 (its own token): a mean of members matches by 1/8, a corrupted one not at all; zero takes the
    whole query away, attention is uniform, and D = 1/9 - 1/9 = 0. Under `zero` the keys that 1.1 gets from `embed`
    (BOS) carry something, but a match wins without them too: no effect, no edge. Queries or keys of 0.2 gone (zero): it
    averages all earlier tokens; the best match, a third, scores 53 < 80: D = 0.
    """
    always = "embed->0.2.v 0.2->1.1.k embed->1.1.q embed->1.1.v 1.1->logits"
    true_edges, nodes = with_zero(always, attention("0.2")), circuit("0.2 1.1")
    previous = Head(0, 2, (Offset(1, 40),), "token", (Write("extra"),))
    match = Head(1, 1, (Match("token", "extra", 160), Key("first", 80)), "token", (Write("next"),))
    return Fixture(
        name="induction",
        family=family,
        shows="a key that another head writes; a sink at BOS",
        plan=Plan((previous, match), seed=3),
        slots=PAIRS,
        answer=3,
        incorrect=6,
        nodes=every_kind(nodes),
        edges=true_edges,
        full=LOGIT,
        effects=(Effect(circuit("0.2"), 0), Effect(circuit("1.1"), 0), Effect(nodes, 0)),
        expected=(Expected((nodes,)),),
        edges_expected=solved(true_edges, every_kind(edges("embed->1.1.v 1.1->logits"))),
    )


def backup(family: str) -> Fixture:
    """0.1 and 1.2 both copy the last member to `found`, and m2 asks only whether it is there. D = 1.

    f = 2 with both heads, 1 to 9/8 with one: m2 (`threshold_units`) writes 1 for any f >= 1. Each alone has no effect.
    (With one resampled, f = 1 at another member as well, and m2 writes that one's successor too, which by (2) is
    neither answer nor incorrect.) Both ablated: f = 1/4 everywhere, 0, or 2 at another member: D = 0.
    A search removes the one that it tries first and keeps the other. `layers` goes backward: it removes 1.2.
    Gradients: m2 is flat at f = 2, so only m2->logits has any (and, in Llama, the constant 1 that m2 reads).
    """
    constant = " embed->m2" if family == "llama" else ""
    last, first, second = "m2->logits", "embed->0.1.v 0.1->m2", "embed->1.2.v 1.2->m2"
    true_edges = with_zero(f"{first} {second} {last}", attention("0.1 1.2") + constant)
    early = with_zero(f"{first} {last}", attention("0.1") + constant)
    late = with_zero(f"{second} {last}", attention("1.2") + constant)
    seen = with_zero(last, constant)
    nodes, with_early, with_late = circuit("0.1 1.2 m2"), circuit("0.1 m2"), circuit("1.2 m2")
    return Fixture(
        name="backup",
        family=family,
        shows="a redundant pair: a search keeps one of two, completeness tells",
        plan=Plan(
            (FIND, finder(1, 2)),
            (Mlp(2, threshold_units("found", 1)),),
            seed=4,
        ),
        nodes=every_kind(nodes),
        edges=true_edges,
        full=LOGIT,
        effects=(
            Effect(circuit("0.1"), LOGIT),
            Effect(circuit("1.2"), LOGIT),
            Effect(circuit("0.1 1.2"), 0),
            Effect(circuit("m2"), 0),
        ),
        expected=(Expected((with_early,), ("layers", "speculative")), Expected((with_early, with_late))),
        edges_expected={
            "path_patching": all_of(seen),
            "acdc": all_of(early),
            "eap": all_of(seen),
            "iterative_edges": all_of(early, late),
        },
    )


def inhibitory(family: str) -> Fixture:
    """As `two_heads` with 2.3, and 2.0 writes half of the successor with the opposite sign. D = 1 - 1/2.

    2.0 ablated: D = 1, twice the full model's. 2.3 ablated: D = -1/2. 0.1 ablated: D = 0.
    A search under a floor removes 2.0, since the score rises; it cannot show that 2.0 matters.
    """
    good, bad = "embed->0.1.v 0.1->2.3.v 2.3->logits", "0.1->2.0.v 2.0->logits"
    positive = with_zero(good, attention("0.1 2.3"))
    true_edges = with_zero(f"{good} {bad}", attention("0.1 2.3 2.0"))
    return Fixture(
        name="inhibitory",
        family=family,
        shows="the sign of effects; scores above 100 %",
        plan=Plan((FIND, successor(2, 3), successor(2, 0, -0.5)), seed=5),
        nodes=every_kind(circuit("0.1 2.0 2.3")),
        edges=true_edges,
        full=LOGIT / 2,
        effects=(
            Effect(circuit("2.0"), LOGIT),
            Effect(circuit("2.3"), -LOGIT / 2),
            Effect(circuit("0.1"), 0),
            Effect(circuit("2.0 2.3"), 0),
        ),
        expected=(Expected((circuit("0.1 2.3"),)),),
        edges_expected={
            "path_patching": all_of(true_edges),
            "acdc": all_of(positive),
            "iterative_edges": all_of(positive),
            "eap": all_of(every_kind(edges(f"{good} {bad}"))),
        },
    )


def position(family: str) -> Fixture:
    """0.3 tells every position where it is, 1.1 attends to the first member, 2.2 writes its successor. D = 1.

    0.3 attends to all positions alike and reads BOS: it writes 1 / (p + 1) at position p, in every prompt. 1.1 scores
    1200 for a member plus 1200 / (p + 1): members stand at 4, 5, 7, 8, and the first leads by 1200 (1/5 - 1/6) = 40;
    BOS has 1200, 240 less than the first member. The answer follows the first member, the incorrect one is the last.
    0.3 under mean and resample: replaced, position by position, by what it is: no effect, not a true node. A mean over
    positions would be another value everywhere, and wrong. 0.3 under zero: the four members tie, next = 1/4 of members
    1 to 4, answer (1) and incorrect (3) among them: D = 0, a true node. 1.1 or 2.2 ablated: D = 0.
    Edges under `zero`. Keys of 1.1 without `embed`: BOS leads with 1200, nothing is copied: D = 0. Without 0.3: as
    above. 0.3's value from `embed` is the flag of BOS: as above. Its queries and keys are 0 anyway. Query of 1.1 gone:
    D = 1/10 - 1/10. Queries or keys of 2.2 gone: it averages the ten positions, of which six found the first member: D
    = 6/10.
    """
    always = "embed->1.1.v 1.1->2.2.v 2.2->logits"
    true_edges = with_zero(always, attention("1.1 2.2") + " 0.3->1.1.k embed->0.3.v")
    informative, everything = circuit("1.1 2.2"), circuit("0.3 1.1 2.2")
    where = Head(0, 3, (), "first", (Write("here"),))
    first = Head(1, 1, (Key("member", 1200), Key("here", 1200)), "token", (Write("found"),))
    return Fixture(
        name="position",
        family=family,
        shows="a head that matters under zero alone, because its output depends on nothing but the position",
        plan=Plan((where, first, successor(2, 2)), seed=6),
        slots=(FILLER, FILLER, FILLER, (0, 5), (1, 0), FILLER, (2, 7), (3, 4), FILLER),
        answer=1,
        incorrect=3,
        nodes={"mean": informative, "resample": informative, "zero": everything},
        edges=true_edges,
        full=LOGIT,
        effects=(
            Effect(circuit("0.3"), LOGIT, ("mean", "resample")),
            Effect(circuit("0.3"), 0, ("zero",)),
            Effect(circuit("1.1"), 0),
            Effect(circuit("2.2"), 0),
        ),
        expected=(
            Expected((informative,), kinds=("mean", "resample")),
            Expected((everything,), kinds=("zero",)),
        ),
        edges_expected=solved(true_edges, every_kind(edges(always))),
    )


def leak(family: str) -> Fixture:
    """As `two_heads`, 2.2 writing 7/8, and 1.3 leaking 1/8 of the successor. D = 1.

    1.3 ablated: D = 7/8, 87.5 % of full. Under a floor of 80 % (T = 20) it goes, under one of 90 % (T = 10) it stays.
    2.2 ablated: D = 1/8. Nothing can go after it at T = 20.
    """
    main, small = "embed->0.1.v 0.1->2.2.v 2.2->logits", "0.1->1.3.v 1.3->logits"
    true_edges = with_zero(f"{main} {small}", attention("0.1 2.2 1.3"))
    without, nodes = circuit("0.1 2.2"), circuit("0.1 1.3 2.2")
    return Fixture(
        name="leak",
        family=family,
        shows="the threshold: an eighth of the effect, kept or dropped as the floor says",
        plan=Plan((FIND, successor(1, 3, 0.125), successor(2, 2, 0.875)), seed=7),
        nodes=every_kind(nodes),
        edges=true_edges,
        full=LOGIT,
        effects=(
            Effect(circuit("1.3"), LOGIT * 7 / 8),
            Effect(circuit("2.2"), LOGIT / 8),
            Effect(circuit("0.1"), 0),
        ),
        expected=(Expected((without,)), Expected((nodes,), threshold=10.0)),
        edges_expected={
            "path_patching": all_of(true_edges),
            "acdc": all_of(true_edges),
            "iterative_edges": all_of(with_zero(main, attention("0.1 2.2"))),
            "eap": all_of(every_kind(edges(f"{main} {small}"))),
        },
    )


def cancelling(family: str) -> Fixture:
    """1.2 and 2.3 each write the whole successor; 2.0 reads what 1.2 left in `extra` and takes it back. D = 1 + 1 - 1.

    1.2 ablated: 2.0 takes back nothing, or the same that 1.2 now writes: D = 1. One at a time 1.2 has no effect, its
    gradient is 1 - 1 = 0, and it carries the whole answer: with 2.0 and 2.3 ablated D = 1. 2.0 ablated: D = 2. Both: D
    = 1. 2.3 ablated: D = 0. 0.1 ablated: D = 0.
    A search keeps 0.1 and one of 1.2 and 2.3, depending on its order. `layers` tries 2.0 first (200 %), then 2.3, which
    can go because 1.2 does its work: 0.1 and 1.2. `ascending_effect` tries 1.2 (0) long before 2.0 and 2.3 (100 points
    each): 0.1 and 2.3. So do the orders by attribution, which gives them the same sizes.
    Edges that change only what 1.2 reads have no effect, and no gradient, one at a time.
    """
    into = "0.1->1.2.v"
    direct, other = "embed->0.1.v 0.1->2.3.v 2.3->logits", f"embed->0.1.v {into} 1.2->logits"
    inhibition = "1.2->2.0.v 2.0->logits"
    true_edges = with_zero(f"{direct} {other} {inhibition}", attention("0.1 1.2 2.0 2.3"))
    seen = less(true_edges, f"{into} {attention('1.2')}")
    by_late, by_early = circuit("0.1 2.3"), circuit("0.1 1.2")
    copy = Head(1, 2, SELF, "found", (Write("next", 1.0, 1), Write("extra")))
    return Fixture(
        name="cancelling",
        family=family,
        shows="direct and indirect effect cancel: one at a time and by gradient the head is nothing",
        plan=Plan((FIND, copy, successor(2, 0, -1.0, read="extra"), successor(2, 3)), seed=8),
        nodes=every_kind(circuit("0.1 1.2 2.0 2.3")),
        edges=true_edges,
        full=LOGIT,
        effects=(
            Effect(circuit("1.2"), LOGIT),
            Effect(circuit("2.0"), 2 * LOGIT),
            Effect(circuit("1.2 2.0"), LOGIT),
            Effect(circuit("2.3"), 0),
            Effect(circuit("2.0 2.3"), LOGIT),
            Effect(circuit("1.2 2.0 2.3"), 0),
            Effect(circuit("0.1"), 0),
        ),
        expected=(
            Expected((by_early,), ("layers", "speculative")),
            Expected((by_late,), ASCENDING),
            Expected((by_early, by_late)),
        ),
        edges_expected={
            "path_patching": all_of(seen),
            "acdc": all_of(with_zero(f"{direct} {other}", attention("0.1 1.2 2.3"))),
            "eap": all_of(every_kind(edges(f"{direct} 1.2->logits {inhibition}"))),
            "iterative_edges": all_of(with_zero(direct, attention("0.1 2.3")), with_zero(other, attention("0.1 1.2"))),
        },
    )


def interlock(family: str) -> Fixture:
    """1.1 and 1.2 copy `found` to `extra` with opposite signs; m2 wants `extra` empty. D = 1.

    m2 adds the successor of what is found, and takes it back where `extra` is off by 7/8 or more (`dead_zone_units`).
    Neither of the pair can go: alone, the other leaves 1, -1, 7/8 or -7/8, and D = 0 (under resample a second unit
    fires, for a member whose successor is neither answer nor incorrect). Both can go together: `extra` is empty again,
    D = 1. So one-at-a-time search keeps both, a search that removes groups may find that {0.1, m2} is enough, an
    annealed one, whose moves remove two at a time, ends there since nothing smaller passes, and gradients, 0 inside the
    dead zone, say that neither matters. Under `zero` a head of the pair without its query or
    key averages over positions and leaves 0.8: the same as ablated.
    """
    constant = " embed->m2" if family == "llama" else ""
    main, pair = "embed->0.1.v 0.1->m2 m2->logits", "0.1->1.1.v 0.1->1.2.v 1.1->m2 1.2->m2"
    true_edges = with_zero(f"{main} {pair}", attention("0.1 1.1 1.2") + constant)
    nodes, enough = circuit("0.1 1.1 1.2 m2"), circuit("0.1 m2")
    units = (*linear_units("found", 1), *dead_zone_units("extra", 1, -1.0))
    plus, minus = (Head(1, h, SELF, "found", (Write("extra", sign),)) for h, sign in ((1, 1.0), (2, -1.0)))
    return Fixture(
        name="interlock",
        family=family,
        shows="a pair that can only go together: one at a time keeps it, gradients do not see it",
        plan=Plan((FIND, plus, minus), (Mlp(2, units),), seed=9),
        nodes=every_kind(nodes),
        edges=true_edges,
        full=LOGIT,
        effects=(
            Effect(circuit("1.1"), 0),
            Effect(circuit("1.2"), 0),
            Effect(circuit("1.1 1.2"), LOGIT),
            Effect(circuit("0.1"), 0),
            Effect(circuit("m2"), 0),
        ),
        expected=(
            Expected((nodes, enough), ("bisect",)),
            Expected((enough,), ("annealed",)),
            Expected((nodes,)),
        ),
        edges_expected=solved(true_edges, every_kind(edges(main))),
    )


MAKERS = (two_heads, head_and_mlp, induction, backup, inhibitory, position, leak, cancelling, interlock)


def all_fixtures() -> list[Fixture]:
    """Every exact fixture in every family."""
    return [foreseen(make(family)) for family in FAMILIES for make in MAKERS]


def ids_of(fixtures: Iterable[Fixture]) -> list[str]:
    """Their names, by which tests call them."""
    return [f.id for f in fixtures]
