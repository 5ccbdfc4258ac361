"""Circuits for tools that draw graphs: what is written, read back by a small reader, equals the circuit."""

import json
import re
import shutil
import subprocess

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.compare.drawable import Example, drawn, paired, to_attribution_graph, to_dot
from atlas.core.components import Component
from atlas.core.graph import EMBED, LOGITS, Edge, Graph, parse

PLAIN, GROUPED = Graph(2, 2, 2), Graph(2, 4, 2)
EXAMPLE = Example("One two", ["One", " two"], " three", 7, 5, 0.25)
LINE = re.compile(r'^  "([^"]+)" -> "([^"]+)" \[(.*)\];$', re.MULTILINE)


@st.composite
def scored(draw):
    """A graph, edges of it, and scores of some of them."""
    graph = draw(st.sampled_from([PLAIN, GROUPED, Graph(2, 2, 1, parallel=True)]))
    edges = draw(st.frozensets(st.sampled_from(graph.edges), min_size=1, max_size=12))
    numbers = st.floats(-5, 5, allow_nan=False).map(lambda x: round(x, 3))
    return graph, edges, {edge: draw(numbers) for edge in sorted(edges) if draw(st.booleans())}


def expected_lines(graph, edges):
    """By hand: an edge goes to the heads of its group that write in the circuit, else to all of the group."""
    writers = {edge.sender for edge in edges}
    for edge in edges:
        readers = graph.readers(edge.receiver)
        for reader in [r for r in readers if r in writers or r == LOGITS] or readers:
            yield edge.sender, reader, edge


@given(scored())
@settings(max_examples=60)
def test_every_edge_is_drawn_once_to_every_head_that_reads_it(case):
    graph, edges, scores = case
    nodes = graph.nodes(edges)
    found = drawn(edges, graph, nodes)
    assert sorted(map(str, found)) == sorted(map(str, expected_lines(graph, edges)))
    dot = to_dot('of "t"', graph, nodes, edges, scores)
    lines = LINE.findall(dot)
    assert [line[:2] for line in lines] == [line[:2] for line in found]
    for (_, _, looks), (_, _, edge) in zip(lines, found, strict=True):
        score = re.search(r'score="([^"]+)"', looks)
        assert (float(score[1]) if score else None) == (pytest.approx(scores[edge]) if edge in scores else None)
        port = re.search(r'port="(\w)', looks)
        assert (port[1] if port else "") == (edge.receiver[-1] if "." in edge.receiver else "")
    assert to_dot('of "t"', graph, nodes, frozenset(sorted(edges)), scores) == dot, "the order of a set shows nowhere"


@given(scored())
@settings(max_examples=60)
def test_links_of_an_attribution_graph_are_the_sums_of_their_edges_with_the_other_sign(case):
    graph, edges, scores = case
    content = json.loads(json.dumps(to_attribution_graph("s", "m", graph, graph.nodes(edges), edges, scores, EXAMPLE)))
    ids = {node["node_id"]: node for node in content["nodes"]}
    assert len(ids) == len(content["nodes"]), "every node has an id of its own"
    found = {(link["source"], link["target"]): link["weight"] for link in content["links"]}
    assert len(found) == len(content["links"])

    def of(name):
        if name in (EMBED, LOGITS):
            return "E_5_1" if name == EMBED else f"{graph.n_layers + 1}_7_1"
        component = Component.parse(name)
        return f"{component.layer}_{graph.n_heads if component.is_mlp else component.head}_1"

    expected = {}
    for sender, reader, edge in expected_lines(graph, edges):
        key = of(sender), of(reader)
        expected[key] = expected.get(key, 0) - scores.get(edge, 0)
    assert found == {key: pytest.approx(value, abs=1e-9) for key, value in expected.items()}
    assert {node for pair in found for node in pair} <= ids.keys()
    (logit,) = (node for node in ids.values() if node["feature_type"] == "logit")
    assert logit["is_target_logit"] and logit["token_prob"] == 0.25


def test_the_fields_are_those_that_circuit_tracer_reads():
    """Every field of a node that its own classes require, of its type."""
    edges = parse(["embed->0.1.q", "0.1->m1", "m1->logits"])
    content = to_attribution_graph("s", "m", PLAIN, PLAIN.nodes(edges), edges, None, EXAMPLE)
    assert content["metadata"]["prompt_tokens"] == ["One", " two"] and content["metadata"]["scan"] == "m"
    types = {"node_id": str, "feature": int, "layer": str, "ctx_idx": int, "feature_type": str, "jsNodeId": str}
    for node in content["nodes"]:
        assert {name: type(node[name]) for name in types} == types
    assert [node["clerp"] for node in content["nodes"][1:3]] == ["head 0.1", "MLP m1"]
    assert {link["weight"] for link in content["links"]} == {0.0}, "nothing was scored"
    assert len({paired(a, b) for a in range(9) for b in range(9)}) == 81


def test_a_node_circuit_is_drawn_by_layers_without_edges():
    dot = to_dot("t", PLAIN, frozenset({Component(0, 1), Component(1)}))
    assert '{ rank=same; "0.1"; }' in dot and '{ rank=same; "m1" [shape=box]; }' in dot
    assert [line[2] for line in LINE.findall(dot)] == ["style=invis"]
    assert '  label="of \\"t\\"";' in to_dot('of "t"', PLAIN, frozenset())


def test_graphviz_reads_it():
    if shutil.which("dot") is None:
        pytest.skip("Graphviz is not installed")
    edges = parse(["embed->0.1.q", "0.1->m1", "m1->logits"])
    dot = to_dot('a "title" \\ of it', PLAIN, PLAIN.nodes(edges), edges, {Edge("0.1", "m1"): -1.0})
    drawn_as = subprocess.run(["dot", "-Tplain"], input=dot, capture_output=True, text=True, check=True).stdout
    assert drawn_as.count("\nedge ") == 3 and drawn_as.count("\nnode ") == 4


def test_the_example_is_the_first_prompt():
    rows = [("clean", 0, "<s>", "", "bos", 9), ("clean", 1, "A", "A", "members", 1), ("clean", 2, "G", " B", "last", 2)]
    rows += [
        ("clean", 3, "C", " C", "answer", 3),
        ("clean", 3, "D", " D", "incorrect", 4),
        ("corrupted", 0, "x", "x", "last", 5),
    ]
    tokens = pd.DataFrame(rows, columns=["run", "position", "piece", "string", "role", "id"]).assign(prompt=4)
    clean = pd.DataFrame({"run": ["clean"], "metric": ["log_prob"], "prompt": [4], "value": [-1.0]})
    found = Example.of(tokens, clean)
    assert (found.text, found.tokens, found.answer) == ("A B", ["<s>", "A", " B"], " C")
    assert (found.answer_token, found.last_token) == (3, 2) and found.probability == pytest.approx(0.3679, abs=1e-4)
