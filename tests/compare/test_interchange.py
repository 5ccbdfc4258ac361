"""Circuits written in other tools' formats and read again, and files that must be refused."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.compare.interchange import (
    from_graph_json,
    from_study,
    nodes_from_graph_json,
    read_circuit,
    read_circuit_and_level,
    to_graph_json,
    to_study,
)
from atlas.core import components
from atlas.core.components import Component, all_components
from atlas.core.errors import StudyError
from atlas.core.graph import Edge, Graph, names, parse

PLAIN, GROUPED = Graph(2, 2, 2), Graph(2, 4, 2)
CIRCUIT = frozenset({Component(0, 1), Component(1)})
EDGES = parse(["embed->0.1.q", "embed->0.1.v", "0.1->m1", "m1->logits"])


@st.composite
def graphs(draw):
    groups = draw(st.integers(1, 2))
    return Graph(draw(st.integers(1, 3)), groups * draw(st.integers(1, 2)), groups, draw(st.booleans()))


def through_json(content: dict) -> dict:
    return json.loads(json.dumps(content))


def graph_json(edges=EDGES, graph=PLAIN, scores=None) -> dict:
    return through_json(to_graph_json(edges, graph, scores))


# ---- round trips ---------------------------------------------------------------------------------------------
@given(graphs(), st.data())
@settings(max_examples=60)
def test_study_json_comes_back(graph, data):
    circuit = data.draw(st.frozensets(st.sampled_from(all_components(graph.n_layers, graph.n_heads))))
    assert from_study(through_json(to_study(circuit)), graph) == circuit


@given(graphs(), st.data())
@settings(max_examples=60)
def test_graph_json_comes_back(graph, data):
    """Exactly: floats survive JSON, and both changes of sign are exact."""
    edges = data.draw(st.frozensets(st.sampled_from(graph.edges)))
    values = st.floats(allow_nan=False, allow_infinity=False)
    scores = {edge: data.draw(values) for edge in graph.edges} if data.draw(st.booleans()) else None
    found, found_scores = from_graph_json(graph_json(edges, graph, scores), graph)
    assert found == edges
    assert found_scores == (scores or dict.fromkeys(graph.edges, 0.0))


@given(graphs(), st.data())
@settings(max_examples=60)
def test_nodes_come_back_without_edges(graph, data):
    circuit = data.draw(st.frozensets(st.sampled_from(all_components(graph.n_layers, graph.n_heads))))
    content = through_json(to_graph_json(graph.among(circuit), graph, nodes=circuit))
    assert from_graph_json(content, graph)[0] == graph.among(circuit)
    del content["edges"]
    assert nodes_from_graph_json(content, graph) == circuit


# ---- graph JSON by hand --------------------------------------------------------------------------------------
def test_graph_json_by_hand():
    """One layer of one head: `input->a0.h0` has q, k, v; the head writes into the MLP of its layer."""
    graph = Graph(1, 1, 1)
    edges = parse(["embed->0.0.k", "0.0->logits"])
    scores = {edge: -float(i) for i, edge in enumerate(graph.edges, 1)}  # all help, so all are positive there
    assert to_graph_json(edges, graph, scores, d_model=8) == {
        "cfg": {"n_layers": 1, "n_heads": 1, "parallel_attn_mlp": False, "d_model": 8},
        "nodes": {name: {"in_graph": name != "m0"} for name in ("input", "a0.h0", "m0", "logits")},
        "edges": {
            "input->a0.h0<q>": {"score": 1.0, "in_graph": False},
            "input->a0.h0<k>": {"score": 2.0, "in_graph": True},
            "input->a0.h0<v>": {"score": 3.0, "in_graph": False},
            "input->m0": {"score": 4.0, "in_graph": False},
            "a0.h0->m0": {"score": 5.0, "in_graph": False},
            "input->logits": {"score": 6.0, "in_graph": False},
            "a0.h0->logits": {"score": 7.0, "in_graph": True},
            "m0->logits": {"score": 8.0, "in_graph": False},
        },
    }


def test_parallel_blocks_have_no_edge_from_a_head_to_the_mlp_of_its_layer():
    listed = to_graph_json((), Graph(2, 2, 2, parallel=True))["edges"]
    assert "a0.h1->m0" not in listed and "a0.h1->m1" in listed
    content = graph_json((), Graph(2, 2, 2))
    with pytest.raises(StudyError, match=r"cfg.parallel_attn_mlp is False, but this model has True"):
        from_graph_json(content, Graph(2, 2, 2, parallel=True))
    content["cfg"]["parallel_attn_mlp"] = True
    with pytest.raises(StudyError, match=r"a0.h0->m0.* and 1 more not in this model .*parallel"):
        from_graph_json(content, Graph(2, 2, 2, parallel=True))


def test_number_of_edges_is_the_published_one():
    """GPT-2 small has 32,491 edges in the EAP-IG library."""
    assert len(to_graph_json((), Graph(12, 12, 12))["edges"]) == 32_491


@pytest.mark.parametrize(
    "flag", [lambda on: on, lambda on: {"in_graph": on}, lambda on: {"in_graph": on, "score": 1.5}]
)
def test_variants_of_nodes_are_read(flag):
    """Older files have bare flags, newer ones objects, those converted from other methods no nodes at all."""
    content = graph_json()
    content["nodes"] = {name: flag(True) for name in content["nodes"]}
    assert from_graph_json(content, PLAIN)[0] == EDGES
    del content["nodes"]
    assert from_graph_json(content, PLAIN)[0] == EDGES


@pytest.mark.parametrize("score", [None, math.nan, "left out"])
def test_an_edge_may_have_no_score(score):
    content = graph_json(scores=dict.fromkeys(PLAIN.edges, 2.0))
    entry = content["edges"]["a0.h1->m1"]
    entry["score"] = score
    if score == "left out":
        del entry["score"]
    edges, scores = from_graph_json(through_json(content), PLAIN)
    assert edges == EDGES and scores.keys() == PLAIN.all_edges - {Edge("0.1", "m1")}


def test_scores_must_cover_the_graph():
    with pytest.raises(StudyError, match=r"0.0->1.0.k, 0.0->1.0.q, 0.0->1.0.v and 42 more have none"):
        to_graph_json(EDGES, PLAIN, {Edge("embed", "0.0.q"): 1.0})
    with pytest.raises(StudyError, match="m1->m0 not in this model"):
        to_graph_json(parse(["m1->m0"]), PLAIN)


def test_grouped_edges_are_expanded_to_every_query_head():
    content = graph_json(parse(["embed->0.kv1.k", "embed->0.1.q"]), GROUPED)
    inside = {name for name, entry in content["edges"].items() if entry["in_graph"]}
    assert inside == {"input->a0.h2<k>", "input->a0.h3<k>", "input->a0.h1<q>"}


def test_members_of_a_group_must_agree():
    content = graph_json(EDGES - parse(["embed->0.1.v"]), GROUPED, dict.fromkeys(GROUPED.edges, -0.1))
    member = content["edges"]["input->a0.h3<v>"]
    member["score"] *= 1 + 1e-7  # one unit in the last place of float32
    assert from_graph_json(content, GROUPED)[1][Edge("embed", "0.kv1.v")] == -0.1
    member["score"] = None
    with pytest.raises(StudyError, match=r"scores differ between input->a0.h2<v>, input->a0.h3<v>"):
        from_graph_json(content, GROUPED)
    member["score"] = 0.1001
    with pytest.raises(StudyError, match=r"scores differ between input->a0.h2<v>, input->a0.h3<v>"):
        from_graph_json(content, GROUPED)
    member["in_graph"] = True
    with pytest.raises(StudyError, match=r"in_graph differs between input->a0.h2<v>, input->a0.h3<v>"):
        from_graph_json(content, GROUPED)


def break_graph_json(how: str) -> dict:
    content = graph_json()
    cfg, nodes, edges = content["cfg"], content["nodes"], content["edges"]
    match how:
        case "size":
            cfg["n_layers"] = 3
        case "no cfg":
            del content["cfg"]
        case "node":
            nodes["a0.h2"] = {"in_graph": False}
        case "neurons":
            nodes["m1"]["neurons"] = [True, False]
        case "neuron nodes":
            nodes["m0.3"] = True
        case "node of edge":
            edges["a0.h2->m0"] = {"score": 0.0, "in_graph": False}
        case "edge":
            edges["m1->a0.h0<q>"] = {"score": 0.0, "in_graph": False}
        case "port":
            edges["input->a0.h0"] = {"score": 0.0, "in_graph": False}
        case "missing":
            del edges["a0.h1->m1"]
        case "no edges":
            edges.clear()
        case "no object":
            content["edges"] = None
        case "flag":
            edges["a0.h1->m1"]["in_graph"] = "yes"
        case "no flag":
            del edges["a0.h1->m1"]["in_graph"]
        case "score":
            edges["a0.h1->m1"]["score"] = "0.1"
        case "infinite":
            edges["a0.h1->m1"]["score"] = math.inf
    return content


@pytest.mark.parametrize(
    "how, words",
    [
        ("size", "cfg.n_layers is 3, but this model has 2"),
        ("no cfg", "cfg.n_layers is missing"),
        ("node", "nodes: a0.h2 not in this model"),
        ("neurons", "m1 is in the graph with some of its neurons"),
        ("neuron nodes", "nodes: m0.3 not in this model"),
        ("node of edge", "a0.h2->m0: no node 'a0.h2'"),
        ("edge", "m1->a0.h0<q> not in this model"),
        ("port", "input->a0.h0 not in this model"),
        ("missing", "missing a0.h1->m1; list every edge"),
        ("no edges", "missing a0.h0->a1.h0<k>.* leave out `edges`"),
        ("no object", "an object with every edge of the model is missing"),
        ("flag", "a0.h1->m1: in_graph is 'yes'"),
        ("no flag", "a0.h1->m1: in_graph is None"),
        ("score", "a0.h1->m1: score is '0.1'"),
        ("infinite", "a0.h1->m1: score is inf"),
    ],
)
def test_bad_graph_json_is_refused(how, words):
    with pytest.raises(StudyError, match=words):
        from_graph_json(break_graph_json(how), PLAIN)


def test_every_node_must_be_listed_where_there_are_no_edges():
    content = graph_json()
    del content["edges"], content["nodes"]["m0"]
    with pytest.raises(StudyError, match="nodes: missing m0"):
        nodes_from_graph_json(content, PLAIN)


# ---- files ---------------------------------------------------------------------------------------------------
@pytest.fixture
def write(tmp_path):
    def write(content) -> str:
        path = tmp_path / "circuit.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)

    return write


def ours(kind: str) -> dict:
    """A file of several circuits as the workflow writes them; the second is CIRCUIT or EDGES."""
    if kind == "nodes":
        entries = [{"order": "layers", "threshold": 10, "heads": [], "mlps": []}]
        entries += [{"order": "layers", "threshold": 20, **components.to_json(CIRCUIT)}]
        return {"model": "a", "task": "b", "circuits": entries}
    size = {"n_layers": 2, "n_heads": 2, "n_kv_heads": 2, "parallel": False}
    entries = [{"method": "acdc", "setting": 1, "edges": [], "nodes": []}]
    entries += [{"method": "eap", "setting": 4, "edges": names(EDGES), "nodes": ["0.1", "m1"]}]
    return {"model": "a", "task": "b", "graph": size, "circuits": entries}


@pytest.mark.parametrize(
    "content, select, found, level",
    [
        (to_study(CIRCUIT), None, CIRCUIT, "node"),
        (components.to_json(CIRCUIT), None, CIRCUIT, "node"),
        ({"heads": ["0.1"], "mlps": [1]}, None, CIRCUIT, "node"),  # as the published circuits of ../shared
        (ours("nodes"), {"threshold": 20}, CIRCUIT, "node"),
        (ours("nodes"), {"order": "layers", "threshold": 10}, frozenset(), "node"),
        ({"edges": names(EDGES)}, None, EDGES, "edge"),
        (ours("edges"), {"method": "eap"}, EDGES, "edge"),
        (ours("edges"), {"method": "acdc", "setting": 1.0}, frozenset(), "edge"),
        (graph_json(), None, EDGES, "edge"),
        (graph_json(()), None, frozenset(), "edge"),
        ({k: v for k, v in graph_json().items() if k != "edges"}, None, CIRCUIT, "node"),
        ({"heads": [], "mlps": []}, None, frozenset(), "node"),
        ({"edges": []}, None, frozenset(), "edge"),
    ],
)
def test_formats_are_recognised(write, content, select, found, level):
    """An empty list is an empty circuit: the published code takes it for the full one."""
    path = write(content)
    assert read_circuit_and_level(path, PLAIN, select) == (found, level)
    assert read_circuit(path, PLAIN, select) == found


@pytest.mark.parametrize(
    "content, select, words",
    [
        ("{", None, "cannot be read as JSON"),
        ("[" * 100_000, None, "cannot be read as JSON"),
        ([], None, "not a JSON object"),
        ({}, None, r"holds no circuit \(keys: none\)"),
        ({"nodes": [], "tokens": 3}, None, r"holds no circuit \(keys: nodes, tokens\)"),
        ({"heads": []}, None, "mlps: a list is missing"),
        ({"mlps": [], "heads": None}, None, "heads: a list is missing"),
        ({"heads": [[2, 0]], "mlps": []}, None, r"heads: \[2, 0\] is not in this model \(2 layers of 2 heads"),
        ({"heads": [[0, -1]], "mlps": []}, None, "heads"),
        ({"heads": [[0, True]], "mlps": []}, None, "heads"),
        ({"heads": [[0, 1, 1]], "mlps": []}, None, "heads"),
        ({"heads": ["00.1"], "mlps": []}, None, "heads: '00.1'"),
        ({"heads": ["m1"], "mlps": []}, None, "heads: 'm1'"),
        ({"heads": [], "mlps": ["0.1"]}, None, "mlps: '0.1'"),
        ({"heads": [], "mlps": [-1]}, None, "mlps: -1"),
        ({"heads": [], "mlps": [None]}, None, "mlps: None"),
        ({"edges": ["m1->0.0.q"]}, None, "edges: 'm1->0.0.q'"),
        ({"edges": [["embed", "m0"]]}, None, "edges: "),
        ({"heads": [], "mlps": [], "edges": []}, None, "a circuit of nodes or one of edges"),
        (to_study(CIRCUIT), {"threshold": 20}, "nothing to choose from"),
        (ours("nodes"), {"threshold": 30}, "threshold is one of 10, 20"),
        (ours("nodes"), {"order": "layers"}, "2 of 2 circuits fit .*; add threshold"),
        (ours("nodes"), None, "2 of 2 circuits fit {}; add threshold"),
        ({"circuits": [{"edges": []}] * 2}, None, "they are the same"),
        ({"circuits": []}, None, "the list is empty"),
        ({"circuits": {}}, None, "circuits: a list"),
        (ours("edges") | {"graph": {"n_layers": 12}}, {"method": "eap"}, "graph is .*'n_layers': 12.*this model has"),
    ],
)
def test_bad_files_are_refused_by_name(write, content, select, words):
    path = write(content)
    with pytest.raises(StudyError, match=words) as error:
        read_circuit(path, PLAIN, select)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_absent_file_is_refused():
    with pytest.raises(StudyError, match=r"absent.json: cannot be read"):
        read_circuit("absent.json", PLAIN)


def test_published_circuits_are_read(shared, write):
    """The study's circuits of gpt2-small, as ../shared has them."""
    published = json.loads((shared / "published" / "gpt2_circuits.json").read_text())["circuits"]["numerals"]
    found = read_circuit(write(published), Graph(12, 12, 12))
    assert len(found) == len(published["heads"]) + len(published["mlps"]) and Component(9, 1) in found
