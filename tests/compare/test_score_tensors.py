"""Edge scores as matrices in a torch file: written, read again, and refused where they cannot be trusted."""

import pytest
import torch

from atlas.compare import score_tensors
from atlas.compare.interchange import edge_names, from_graph_json, read_circuit_and_level, to_graph_json
from atlas.core.errors import StudyError
from atlas.core.graph import Edge, Graph, parse
from atlas.edges.rankings import greedy
from atlas.store import tensors

PLAIN, GROUPED, PARALLEL = Graph(2, 2, 2), Graph(2, 4, 2), Graph(2, 2, 2, parallel=True)
EDGES = parse(["embed->0.1.q", "embed->0.1.v", "0.1->m1", "m1->logits"])


def scores_of(graph):
    """A float32 score for every edge, no two of one size."""
    return {edge: (-1) ** i * float(torch.tensor(0.1 + i)) for i, edge in enumerate(graph.edges)}


def file_of(path, graph=PLAIN, edges=EDGES, **changes):
    content = score_tensors.to_tensors(to_graph_json(edges, graph, scores_of(graph), d_model=8)) | changes
    torch.save({key: value for key, value in content.items() if value is not None}, path)
    return path


@pytest.mark.parametrize("graph", [PLAIN, GROUPED, PARALLEL])
def test_what_is_written_is_read_again_with_its_scores(graph, tmp_path):
    edges = frozenset(e for i, e in enumerate(graph.edges) if i % 3 == 0)
    path = file_of(tmp_path / "circuit.pt", graph, edges)
    assert read_circuit_and_level(path, graph) == (edges, "edge")
    _, scores = from_graph_json(score_tensors.read(path, edge_names(graph)), graph)
    assert scores == scores_of(graph)


def test_rows_are_senders_and_columns_inputs_in_the_order_of_the_library():
    """Of a model of 2 layers with 2 heads, by hand; a score has the opposite sign there."""
    found = score_tensors.to_tensors(to_graph_json(EDGES, PLAIN, scores_of(PLAIN), d_model=8))
    assert found["src_nodes"] == ["input", "a0.h0", "a0.h1", "m0", "a1.h0", "a1.h1", "m1"]
    layer = ["a{0}.h0<q>", "a{0}.h1<q>", "a{0}.h0<k>", "a{0}.h1<k>", "a{0}.h0<v>", "a{0}.h1<v>", "m{0}"]
    assert found["dst_nodes"] == [name.format(i) for i in (0, 1) for name in layer] + ["logits"]
    assert found["edges_in_graph"].nonzero().tolist() == [[0, 1], [0, 5], [2, 13], [6, 14]]
    assert found["edges_scores"][2, 13] == -scores_of(PLAIN)[Edge("0.1", "m1")]
    assert found["edges_scores"].shape == (7, 15)
    assert found["nodes_in_graph"].nonzero().flatten().tolist() == [0, 2, 6]
    assert found["cfg"] == {"n_layers": 2, "n_heads": 2, "parallel_attn_mlp": False, "d_model": 8}


def test_an_artifact_of_a_study_is_read_like_any_file(tmp_path):
    content = score_tensors.to_tensors(to_graph_json(EDGES, PLAIN, scores_of(PLAIN), d_model=8))
    tensors.write(content, tmp_path / "circuit.graph.pt", {"code": "x"})
    assert read_circuit_and_level(tmp_path / "circuit.graph.pt", PLAIN)[0] == EDGES


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"edges_scores": None}, "lacks edges_scores; give what"),
        ({"edges_scores": torch.zeros(7, 14)}, r"edges_scores: has the shape \[7, 14\]"),
        ({"edges_in_graph": torch.full((7, 15), 2)}, "edges_in_graph: holds numbers other than 0 and 1"),
        (
            {"edges_in_graph": torch.ones(7, 15, dtype=torch.bool)},
            "a0.h0->a0.h0<q> is in the graph and no edge",
        ),
        ({"src_nodes": ["input"] * 7}, "src_nodes: a list of different names"),
        ({"src_nodes": ["a9.h9", "a0.h0", "a0.h1", "m0", "a1.h0", "a1.h1", "m1"]}, "no edge of this model|missing"),
        ({"neurons_in_graph": torch.ones(7, 8)}, "neurons_in_graph: holds single neurons"),
        ({"cfg": {"n_layers": 3, "n_heads": 2, "parallel_attn_mlp": False}}, "cfg.n_layers is 3, but this model has 2"),
        ({"edges_scores": torch.full((7, 15), float("inf"))}, "score is -?inf; give a finite number"),
        ({"edges_scores": [[0.0]]}, "edges_scores: a plain tensor of real numbers is expected, not list"),
    ],
)
def test_files_that_are_wrong_are_refused_in_one_line(changes, words, tmp_path):
    path = file_of(tmp_path / "circuit.pt", **changes)
    with pytest.raises(StudyError, match=words) as refused:
        read_circuit_and_level(path, PLAIN)
    assert str(refused.value).startswith(f"{path}: ") and "\n" not in str(refused.value)


class Runs:
    """An object that would run code when it is loaded."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('code of a file was run')",))


def test_nothing_in_a_file_is_run(tmp_path):
    path = tmp_path / "circuit.pt"
    torch.save({"cfg": Runs()}, path)
    with pytest.raises(StudyError, match="cannot be read as tensors, names and numbers alone"):
        read_circuit_and_level(path, PLAIN)
    for content in (b"", b"no archive", b"PK\x03\x04"):
        path.write_bytes(content)
        with pytest.raises(StudyError, match="cannot be read as tensors"):
            read_circuit_and_level(path, PLAIN)
    with pytest.raises(StudyError, match="cannot be read as tensors"):
        read_circuit_and_level(tmp_path / "missing.pt", PLAIN)


def test_the_top_edges_are_taken_by_their_scores_whatever_the_flags_say(tmp_path):
    path, scores = file_of(tmp_path / "circuit.pt"), scores_of(PLAIN)
    signed, absolute = sorted(scores, key=scores.get), sorted(scores, key=lambda e: -abs(scores[e]))
    assert read_circuit_and_level(path, PLAIN, {"top": 3}) == (frozenset(signed[:3]), "edge")
    found, _ = read_circuit_and_level(path, PLAIN, {"top": 4, "ranking": "absolute"})
    assert found == frozenset(absolute[:4]) != frozenset(signed[:4])
    flat = torch.load(path, weights_only=True)["edges_scores"]  # the largest, into the logits, are made the smallest
    upside_down = file_of(tmp_path / "other.pt", edges_scores=torch.where(flat == 0, flat, 1 / flat))
    found, _ = read_circuit_and_level(upside_down, PLAIN, {"top": 4, "ranking": "greedy"})
    expected = greedy({edge: 1 / score for edge, score in scores.items()}, PLAIN)[:4]
    assert found == PLAIN.live(found) == frozenset(expected) and not PLAIN.live(absolute[::-1][:4])
    for select in ({"top": 0}, {"top": True}, {"top": 2, "ranking": "x"}, {"threshold": 20}, {"top": 2, "a": 1}):
        with pytest.raises(StudyError, match="picks nothing from edge scores; give top"):
            read_circuit_and_level(path, PLAIN, select)
    with pytest.raises(StudyError, match="select: top is 10000, but this model has"):
        read_circuit_and_level(path, PLAIN, {"top": 10000})
    nan = file_of(tmp_path / "nan.pt", edges_scores=torch.full((7, 15), float("nan")))
    with pytest.raises(StudyError, match="top needs a score of every edge"):
        read_circuit_and_level(nan, PLAIN, {"top": 2})
