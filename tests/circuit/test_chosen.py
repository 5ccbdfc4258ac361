"""A circuit that a file does not hold is refused in one line that names what it holds."""

import pytest

from atlas.circuit.chosen import chosen_circuits, circuit_at, consensus_circuits
from atlas.core.components import Component
from atlas.core.errors import StudyError
from atlas.edges.chosen import reported_edges, reported_entry
from atlas.store import artifacts


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "chosen.json"
    entries = [{"order": "layers", "threshold": t, "heads": ["0.1"], "mlps": []} for t in (10, 20)]
    artifacts.write_json({"task": "t", "circuits": entries}, made, {})
    return made


def test_a_circuit_is_found_by_its_threshold(path):
    assert circuit_at(path, 20.0) == {Component(0, 1)}


def test_a_circuit_that_is_not_there_is_named_with_those_that_are(path):
    with pytest.raises(StudyError, match="no circuit at the threshold 30, it has 10, 20"):
        circuit_at(path, 30)


def test_what_tasks_share_is_in_all_of_them(tmp_path):
    path = tmp_path / "circuits.json"
    entries = {"a": {"heads": ["0.1", "1.2"], "mlps": ["m0"]}, "b": {"heads": ["1.2"], "mlps": ["m0", "m1"]}}
    artifacts.write_json({"circuits": entries}, path, {})
    found = chosen_circuits(path)
    assert found["shared"] == {Component(1, 2), Component(0)} and len(found["union"]) == 4


def test_a_transfer_task_has_what_is_shared_alone(tmp_path):
    path, part = tmp_path / "consensus.json", {"heads": ["0.1"], "mlps": ["m0"]}
    own = {
        "runs": 3,
        "core": part,
        "contingent": {"heads": ["1.2"], "mlps": []},
        "noise": {"heads": ["0.0"], "mlps": []},
    }
    artifacts.write_json({"tasks": {"a": own}, "shared": part}, path, {})
    assert list(consensus_circuits(path, "elsewhere")) == ["shared"]
    found = consensus_circuits(path, "a")
    assert found["core"] == found["shared"] == {Component(0, 1), Component(0)}
    assert found["core and contingent"] == found["core"] | {Component(1, 2)}


def test_an_edge_circuit_that_is_not_there_is_refused():
    content = {"task": "t", "circuits": [{"method": "iterative_edges", "edges": ["embed->m0"], "without_path": []}]}
    assert len(reported_edges(content)) == 1
    with pytest.raises(StudyError, match="of t: no circuit of iterative_edges"):
        reported_entry(content | {"circuits": [{"method": "acdc"}]})
