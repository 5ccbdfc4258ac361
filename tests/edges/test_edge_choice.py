"""Which edge circuit is reported: candidates, the choice on held-out prompts, and what choosing does to the score."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from atlas.core.graph import Edge, Graph, names, parse
from atlas.core.statistics import Bootstrap
from atlas.edges import choice, edge_circuits
from atlas.edges.choice import Candidate
from atlas.edges.chosen import reported_entry
from atlas.edges.methods import NODE_CIRCUIT, REPORTED, EdgeSettings
from atlas.edges.task_data import edge_ablator
from atlas.proof import exact
from planted_tasks import PlantedTask

BOOTSTRAP = Bootstrap(200, seed=1)
GRAPH = Graph(1, 1, 1)
PATHS = [Edge("embed", "logits"), Edge("embed", "m0"), Edge("m0", "logits"), Edge("0.0", "logits")]
PATHS += [Edge("embed", "0.0.v"), Edge("embed", "0.0.q"), Edge("embed", "0.0.k"), Edge("0.0", "m0")]


@dataclass
class Told:
    """An ablator whose scores are told: [N] by the number of edges in a circuit."""

    by_size: dict
    graph: Graph = GRAPH
    asked: list = field(default_factory=list)

    @property
    def everything(self):
        return self.graph.all_edges

    def logit_diff(self, circuit):
        self.asked.append(len(circuit))
        return np.asarray(self.by_size[len(circuit)], dtype=float)

    def percent_of_full(self, circuit):
        return 100 * self.logit_diff(circuit).mean() / self.logit_diff(self.everything).mean()


def flat(**percents):
    """Size -> four prompts that all score this percent; of the empty circuit 0, of the whole graph 100."""
    return {int(size[1:]): [percent] * 4 for size, percent in ({"n0": 0, "n8": 100} | percents).items()}


def entry(method, setting, edges, ranking=""):
    return {"method": method, "setting": setting, "ranking": ranking, "edges": names(edges)}


def test_candidates_are_what_searches_found_and_the_reported_search_with_edges_back_in():
    """Of 5 edges 1.25 times as many are 6, 1.5 times are 7, and 1.1 times are none more; they return by the size of
    their scores, of those that removals started from alone."""
    own, start = frozenset(PATHS[:5]), frozenset(PATHS[:7])
    assert GRAPH.on_paths(own) == own
    means = {"eap": dict(zip(PATHS, (9.0, 9.0, 9.0, 9.0, 9.0, 0.5, -2.0, 8.0), strict=True))}
    found = [entry(NODE_CIRCUIT, 20.0, start), entry(NODE_CIRCUIT, 40.0, PATHS[:3]), entry(REPORTED.name, 20.0, own)]
    found.append(entry("eap", 5.0, PATHS[:2], ranking="signed"))
    settings = EdgeSettings(threshold=20)
    tried = choice.candidates(Told(flat(n5=81, n6=85, n7=79)), found, start, means, settings)
    assert [(c.method, c.added, set(c.circuit)) for c in tried] == [
        (REPORTED.name, "", set(own)),
        (REPORTED.name, "eap", {*own, PATHS[6]}),  # the larger of the two scores; both together miss the floor
    ]
    tried = choice.candidates(Told(flat(n5=70, n6=85, n7=90)), found, start, means, settings)
    assert [len(c.circuit) for c in tried] == [5, 7, 6], "the search's own stays, whatever it keeps"
    assert [c.kind for c in tried] == ["found", "found", "widened"]


def mask(count):
    return GRAPH.circuit(PATHS[:count])


TRIED = [Candidate(REPORTED.name, 20.0, "", mask(3)), Candidate("acdc", 1.0, "", mask(5))]
TRIED += [Candidate(REPORTED.name, 20.0, "eap", mask(4)), Candidate(REPORTED.name, 20.0, "eap", mask(6))]


def test_the_smallest_that_keeps_the_floor_on_held_out_prompts_is_reported():
    search, held_out = Told(flat(n3=81, n4=85, n5=90, n6=95)), Told(flat(n3=40, n4=70, n5=85, n6=90))
    table, reported, said = choice.choose("t", TRIED, {"search": search, "held_out": held_out}, 20, BOOTSTRAP)
    assert reported is TRIED[1] and said["passes"] and said["split"] == "held_out" and said["candidates"] == 4
    assert said["percent_reported_on"] == pytest.approx(85) and said["found_percent"] == pytest.approx(40)
    rows = table[(table.metric == "percent_of_full") & (table.split == "held_out")].set_index("edges")
    assert rows.value.to_dict() == pytest.approx({3: 40, 5: 85, 4: 70, 6: 90})
    assert rows.passes.to_dict() == {3: False, 5: True, 4: False, 6: True}
    assert rows.reported.to_dict() == {3: False, 5: True, 4: False, 6: False}
    assert rows.optimism.notna().to_dict() == rows.reported.to_dict()
    alone, reported, said = choice.choose("t", TRIED, {"search": search}, 20, BOOTSTRAP)
    assert reported is TRIED[0] and said["split"] == "search" and set(alone.split) == {"search"}


def test_where_none_passes_the_report_says_so():
    held_out = Told(flat(n3=40, n4=70, n5=60, n6=65))
    _, reported, said = choice.choose("t", TRIED, {"held_out": held_out}, 20, BOOTSTRAP)
    assert reported is TRIED[2] and not said["passes"], "all prompts alike, so the best can be told from all others"


def test_optimism_is_the_mean_over_resamples_of_what_choosing_gains():
    """By a loop over resamples: what each chooses, its score there less its score on all prompts."""
    rng = np.random.default_rng(5)
    values = {size: rng.normal(mean, 30, 12) for size, mean in ((3, 76), (4, 80), (5, 82))}
    values |= {0: np.zeros(12), 6: np.full(12, 120.0), 8: rng.normal(100, 10, 12)}  # 6 edges pass on every resample
    _, reported, said = choice.choose("t", TRIED, {"held_out": Told(values)}, 20, BOOTSTRAP)
    sizes, gains, again = [len(c.circuit) for c in TRIED], [], []
    percent = {n: 100 * values[n].mean() / values[8].mean() for n in sizes}
    for weights in BOOTSTRAP.weights(12):
        here = {n: 100 * (weights @ values[n]) / (weights @ values[8]) for n in sizes}
        passing = [n for n in sizes if here[n] > 80]
        gains.append(here[min(passing)] - percent[min(passing)])
        again.append(min(passing) == len(reported.circuit))
    assert said["optimism"] == pytest.approx(np.mean(gains), rel=1e-9) and said["optimism"] > 0
    assert said["chosen_again"] == pytest.approx(np.mean(again))


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return PlantedTask(exact.two_heads("gpt2"), tmp_path_factory.mktemp("task"))


@pytest.mark.parametrize("rule", ["held_out", "searched"])
def test_the_planted_circuit_is_what_is_reported(task, rule):
    data = task.data()
    search, held_out = edge_ablator(data, "search"), edge_ablator(data, "held_out")
    truth = task.fixture.named(task.fixture.edges["mean"], search.graph)
    settings = EdgeSettings(methods=("eap", REPORTED.name), choice=rule)
    nodes = {20.0: task.fixture.nodes["mean"]}
    _, _, table, content, _ = edge_circuits.search(
        "t", search, nodes, settings, BOOTSTRAP, reported_on={"held_out": held_out}
    )
    said = reported_entry(content)
    assert parse(said["edges"]) == truth and said["percent_reported_on"] == pytest.approx(100, abs=1e-3)
    assert said["candidates"] == (1 if rule == "searched" else said["candidates"]) and said["passes"]
    assert table[table.reported].edges.tolist() == [len(truth)] * 4
    assert {*table.split} == {"search", "held_out"} and {*table.metric} == {"percent_of_full", "faithfulness"}
