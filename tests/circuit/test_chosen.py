"""A circuit that a file does not hold is refused in one line that names what it holds."""

import pytest

from atlas.circuit.chosen import circuit_at
from atlas.core.components import Component
from atlas.core.errors import StudyError
from atlas.edges.chosen import reported_edges, reported_entry
from atlas.store import artifacts


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "circuits.json"
    entries = [{"order": "layers", "threshold": t, "heads": ["0.1"], "mlps": []} for t in (10, 20)]
    artifacts.write_json({"task": "t", "circuits": entries}, made, {})
    return made


def test_a_circuit_is_found_by_order_and_threshold(path):
    assert circuit_at(path, "layers", 20.0) == {Component(0, 1)}


@pytest.mark.parametrize(("order", "threshold"), [("layers", 30), ("bisect", 10)])
def test_a_circuit_that_is_not_there_is_named_with_those_that_are(path, order, threshold):
    with pytest.raises(StudyError, match=f"'{order}' at the threshold {threshold}, it has layers at 10, layers at 20"):
        circuit_at(path, order, threshold)


def test_an_edge_circuit_that_is_not_there_is_refused():
    content = {"task": "t", "circuits": [{"method": "iterative_edges", "edges": ["embed->m0"], "without_path": []}]}
    assert len(reported_edges(content)) == 1
    with pytest.raises(StudyError, match="of t: no circuit of iterative_edges"):
        reported_entry(content | {"circuits": [{"method": "acdc"}]})
