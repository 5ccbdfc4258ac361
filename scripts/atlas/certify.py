"""Run the node searches on the fixtures and compare what they find with what they must find."""

import time

from atlas import activations, models
from atlas.ablation import Ablator, replacement
from atlas.components import Circuit, heads, mlps
from atlas.fixtures import KINDS, NODE_METHODS, Fixture
from atlas.search import Rule, run

SEED = 0  # of the random order
BATCH = 8  # candidates that the speculative search asks for at once


def make_ablators(folder, prompts, batch_size: int = 64) -> dict[str, Ablator]:
    """An ablator of a built fixture for each kind of ablation."""
    model = models.load(folder, device="cpu", batch_size=batch_size)
    cache, means = activations.collect(model, prompts.corrupted_tokens)
    cache = {"corrupted": cache, "prompt": prompts.prompt}
    return {
        kind: Ablator(model, prompts, replacement(kind, model, prompts, {"corrupted": means}, cache)) for kind in KINDS
    }


def search(method: str, ablator: Ablator, threshold: float) -> tuple[Circuit, int]:
    """The circuit that a method finds, and how many circuits it asked for.

    `layers`, `ascending_effect`, `random` and `bisect` are those of a study; `speculative` is `layers` with several
    candidates at once, and asks for more than it uses.
    """
    asked = 0

    def percents(circuits):
        nonlocal asked
        asked += len(circuits)
        return ablator.percents_of_full(circuits)

    everything, alone = ablator.everything, {}
    if method == "ascending_effect":
        alone = {c: percents([everything - {c}])[0] for c in sorted(everything)}
    name = "layers" if method == "speculative" else method
    seed, batch = (SEED if method == "random" else None), (BATCH if method == "speculative" else 1)
    found = everything
    for step in run(name, seed, Rule(threshold=threshold), everything, percents, alone, batch):
        found = step.left
    return found, asked


def names(circuit: Circuit) -> str:
    return " ".join(map(str, [*heads(circuit), *mlps(circuit)]))


def rates(found: Circuit, truth: Circuit) -> dict:
    """Share of what was found that is true, and share of what is true that was found."""
    right = len(found & truth)
    return {"precision": right / len(found) if found else float(not truth), "recall": right / len(truth)}


def certify(fixture: Fixture, folder) -> list[dict]:
    """One row per method, kind of ablation and threshold, on a built fixture; no search sees another's scores."""
    rows, ablators = [], make_ablators(folder, fixture.prompts())
    for kind, shared in ablators.items():
        for threshold in fixture.thresholds:
            for method in NODE_METHODS:
                ablator = Ablator(shared.model, shared.prompts, shared.substitute)
                started = time.perf_counter()
                found, asked = search(method, ablator, threshold)
                seconds = time.perf_counter() - started
                expected, truth = fixture.returns(method, kind, threshold), fixture.nodes[kind]
                rows.append(
                    {"fixture": fixture.name, "family": fixture.family, "method": method, "kind": kind}
                    | {"threshold": threshold, "truth": names(truth), "expected": " or ".join(map(names, expected))}
                    | {"found": names(found), "as_expected": found in expected, **rates(found, truth)}
                    | {"percent": ablator.percent_of_full(found), "evaluations": asked, "seconds": seconds}
                )
    return rows


def describe(fixture: Fixture) -> dict:
    """A fixture's truth and what is expected of every method, as JSON that a person can read."""
    return {
        "name": fixture.name,
        "family": fixture.family,
        "shows": fixture.shows,
        "prompt": fixture.rows()[0],
        "full": fixture.full,
        "nodes": {kind: names(circuit) for kind, circuit in fixture.nodes.items()},
        "edges": {kind: sorted(map(str, edges)) for kind, edges in fixture.edges.items()},
        "effects": [
            {"ablated": names(e.ablated), "difference": e.difference, "kinds": list(e.kinds)} for e in fixture.effects
        ],
        "expected": [
            {"circuits": [names(c) for c in e.circuits], "methods": list(e.methods) or list(NODE_METHODS)}
            | {"kinds": list(e.kinds), "threshold": e.threshold}
            for e in fixture.expected
        ],
        "edges_expected": {
            method: {kind: [sorted(map(str, edges)) for edges in sets] for kind, sets in kinds.items()}
            for method, kinds in fixture.edges_expected.items()
        },
    }
