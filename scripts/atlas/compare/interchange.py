"""Circuits in the formats of other tools, and files that hold a circuit in any of them (docs/interchange.md).

The published study writes `{"heads": [[9, 1]], "mlps": [0]}`. The EAP-IG library and the MIB benchmark list every node
and edge of the model with `in_graph` and a score (*graph JSON*); there an edge belongs to a query head even where heads
share keys and values. What a file leaves out is never in the circuit, and an empty list is an empty circuit.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from atlas.compare import score_tensors
from atlas.core.components import Circuit, all_components, heads, mlps
from atlas.core.errors import StudyError
from atlas.core.graph import EMBED, LOGITS, Edge, EdgeCircuit, Graph
from atlas.edges.methods import RANKINGS
from atlas.edges.rankings import ranked

INPUT = "input"  # what graph JSON calls `embed`
CFG = {"n_layers": "n_layers", "n_heads": "n_heads", "parallel_attn_mlp": "parallel"}  # key of `cfg` -> field of Graph
ROUNDING = 1e-6  # relative; scores of graph JSON are float32, so members of a group agree to 1.2e-7 if they agree


# ---- study JSON ----------------------------------------------------------------------------------------------
def to_study(circuit: Circuit) -> dict[str, Any]:
    """`{"heads": [[layer, head], ...], "mlps": [layer, ...]}`, sorted integers."""
    return {"heads": [[c.layer, c.head] for c in heads(circuit)], "mlps": [c.layer for c in mlps(circuit)]}


def from_study(content: dict[str, Any], graph: Graph) -> Circuit:
    """Inverse of `to_study`; names (`4.3`, `m2`) are read too, as in `circuits.json`. Raises StudyError."""
    known = {str(c): c for c in all_components(graph.n_layers, graph.n_heads)}
    found = set()
    for key, examples in (("heads", "'4.3' or [4, 3]"), ("mlps", "'m2' or 2")):
        if not isinstance(content.get(key), list):
            raise StudyError(f"{key}: a list is missing; give one, [] for none")
        for value in content[key]:
            component = known.get(_component_name(value))
            if component is None or component.is_mlp != (key == "mlps"):
                raise StudyError(
                    f"{key}: {value!r} is not in this model ({_size(graph)}, counted from 0); write {examples}"
                )
            found.add(component)
    return frozenset(found)


def _component_name(value: object) -> str:
    """`4.3` of "4.3" or [4, 3]; `m2` of "m2" or 2; of anything else a name that no component has."""
    if isinstance(value, str):
        return value
    numbers = value if isinstance(value, list) else [value]
    if any(type(n) is not int for n in numbers):  # True is an int to isinstance
        return ""
    return ".".join(map(str, numbers)) if isinstance(value, list) else f"m{value}"


# ---- graph JSON ----------------------------------------------------------------------------------------------
def to_graph_json(
    edges: Iterable[Edge],
    graph: Graph,
    scores: dict[Edge, float] | None = None,
    nodes: Circuit | None = None,
    d_model: int | None = None,
) -> dict[str, Any]:
    """Graph JSON of a circuit; every query head of a group gets the edges into its shared keys and values.

    ``scores``: of every edge, in the sign of `edge_scores` (negative helps). The file has the opposite sign, since that
    library scores a loss and takes the highest first. Without scores it says 0, as the library does of a graph that was
    never scored. ``nodes``: in the graph beside `embed`; if not given, what writes along an edge. ``d_model``: current
    versions of the library ask for it. Raises StudyError on edges that the model lacks, or with no score.
    """
    edges = frozenset(edges)
    if foreign := edges - graph.all_edges:
        raise StudyError(f"edges: {_some(map(str, foreign))} not in this model ({_size(graph)})")
    if scores is not None and (unscored := graph.all_edges - scores.keys()):
        raise StudyError(f"scores: {_some(map(str, unscored))} have none; score every edge, or give no scores")
    inside = {e.sender for e in edges} if nodes is None else {EMBED, *map(str, nodes)}
    cfg = {key: getattr(graph, field) for key, field in CFG.items()}
    return {
        "cfg": cfg | ({} if d_model is None else {"d_model": d_model}),
        "nodes": {_spell(node): {"in_graph": node in inside | {LOGITS}} for node in [*graph.senders, LOGITS]},
        "edges": {
            name: {"score": 0.0 if scores is None else 0.0 - float(scores[edge]), "in_graph": edge in edges}
            for edge in graph.edges
            for name in _spellings(edge, graph)
        },
    }


def from_graph_json(content: dict[str, Any], graph: Graph) -> tuple[EdgeCircuit, dict[Edge, float]]:
    """Edges with `in_graph`, and the scores of all edges that have one, negative if the edge helps (`to_graph_json`).

    Which nodes are in the graph follows from the edges, as in the library; the flags of nodes are not used. A score may
    be left out, null or NaN. Raises StudyError if the file is of another model, if edges are missing or unknown, if
    heads that share keys or values disagree, or if single neurons are in the circuit.
    """
    _check_cfg(content, graph)
    _node_flags(content, graph)
    listed, spellings = content.get("edges"), {edge: _spellings(edge, graph) for edge in graph.edges}
    if not isinstance(listed, dict):
        raise StudyError("edges: an object with every edge of the model is missing")
    expected = {name for group in spellings.values() for name in group}
    if unknown := [name for name in listed if name not in expected]:
        _refuse_unknown(unknown, graph)
    if missing := [name for name in expected if name not in listed]:
        remedy = "" if listed else "; for a circuit of nodes leave out `edges`"
        raise StudyError(f"edges: missing {_some(missing)}; list every edge of the model with its in_graph{remedy}")

    circuit, scores = set(), {}
    for edge, group in spellings.items():
        flags = [_flag(listed[name], f"edges: {name}") for name in group]
        values = [_score(listed[name], name) for name in group]
        if len(set(flags)) > 1:
            raise StudyError(f"edges: in_graph differs between {_some(group)}; they share one input, so must agree")
        if any(not _agree(values[0], other) for other in values):
            raise StudyError(
                f"edges: scores differ between {_some(group)}; they share one input, so give all its score, or null"
            )
        if flags[0]:
            circuit.add(edge)
        if values[0] is not None:
            scores[edge] = 0.0 - values[0]
    return frozenset(circuit), scores


def nodes_from_graph_json(content: dict[str, Any], graph: Graph) -> Circuit:
    """The heads and MLPs with `in_graph`, for a file that says nothing of edges. Raises StudyError."""
    _check_cfg(content, graph)
    flags = _node_flags(content, graph)
    components = all_components(graph.n_layers, graph.n_heads)
    if missing := [_spell(str(c)) for c in components if _spell(str(c)) not in flags]:
        raise StudyError(f"nodes: missing {_some(missing)}; list every head and MLP of the model with its in_graph")
    return frozenset(c for c in components if flags[_spell(str(c))])


def _spell(node: str) -> str:
    """Name of a node in graph JSON: `input`, `a0.h1`, `m0`, `logits`."""
    if node == EMBED:
        return INPUT
    if node == LOGITS or node[0] == "m":
        return node
    layer, head = node.split(".")
    return f"a{layer}.h{head}"


def _spellings(edge: Edge, graph: Graph) -> list[str]:
    """Names of an edge in graph JSON (`input->a0.h1<q>`, `a0.h1->m0`): one for each query head that reads it."""
    part = "" if edge.receiver == LOGITS or edge.receiver[0] == "m" else f"<{edge.receiver[-1]}>"
    return [f"{_spell(edge.sender)}->{_spell(node)}{part}" for node in graph.readers(edge.receiver)]


def _check_cfg(content: dict[str, Any], graph: Graph) -> None:
    cfg = content.get("cfg")
    for key, field in CFG.items():
        if not isinstance(cfg, dict) or key not in cfg:
            raise StudyError(f"cfg.{key} is missing; this model has {getattr(graph, field)}")
        if cfg[key] != getattr(graph, field):
            raise StudyError(f"cfg.{key} is {cfg[key]!r}, but this model has {getattr(graph, field)}; use its own file")


def _node_flags(content: dict[str, Any], graph: Graph) -> dict[str, bool]:
    """Name in graph JSON -> in the graph, of the nodes listed: `{"m0": true}` or `{"m0": {"in_graph": true, ...}}`."""
    nodes, known = content.get("nodes", {}), {_spell(node) for node in [*graph.senders, LOGITS]}
    if not isinstance(nodes, dict):
        raise StudyError("nodes: an object from name to in_graph is expected")
    if unknown := [name for name in nodes if name not in known]:
        raise StudyError(
            f"nodes: {_some(unknown)} not in this model ({_size(graph)}); names are input, a0.h1, m0, logits"
        )
    flags = {name: _flag(value, f"nodes: {name}") for name, value in nodes.items()}
    for name, value in nodes.items():
        neurons = value.get("neurons") if isinstance(value, dict) else None
        if flags[name] and neurons is not None and not (isinstance(neurons, list) and all(neurons)):
            raise StudyError(f"nodes: {name} is in the graph with some of its neurons; only whole nodes can be read")
    return flags


def _refuse_unknown(names: list[str], graph: Graph) -> None:
    known = {_spell(node) for node in [*graph.senders, LOGITS]}
    for name in names:
        for node in name.split("->"):
            if node.split("<")[0] not in known:
                raise StudyError(f"edges: {name}: no node {node!r} in this model ({_size(graph)})")
    kind = "parallel" if graph.parallel else "sequential"
    raise StudyError(f"edges: {_some(names)} not in this model ({_size(graph)}, {kind} blocks); remove")


def _flag(value: object, where: str) -> bool:
    """`in_graph` of an entry, which may be the flag itself."""
    flag = value.get("in_graph") if isinstance(value, dict) else value
    if flag not in (True, False):  # 1 and 0 pass
        raise StudyError(f"{where}: in_graph is {flag!r}; give true or false")
    return bool(flag)


def _score(value: object, name: str) -> float | None:
    score = value.get("score") if isinstance(value, dict) else None
    if score is None:
        return None
    if type(score) not in (int, float) or math.isinf(score):
        raise StudyError(f"edges: {name}: score is {score!r}; give a finite number, or null")
    return None if math.isnan(score) else float(score)


def _agree(a: float | None, b: float | None) -> bool:
    return a is b if a is None or b is None else math.isclose(a, b, rel_tol=ROUNDING)


# ---- files ---------------------------------------------------------------------------------------------------
def read_circuit(path: Path | str, graph: Graph, select: dict[str, Any] | None = None) -> Circuit | EdgeCircuit:
    """The circuit of nodes or of edges in a JSON file of any format above or of this project's own (docs).

    ``select``: key -> value, picks exactly one of a file with several `circuits`. Raises StudyError naming the file.
    """
    return read_circuit_and_level(path, graph, select)[0]


def read_circuit_and_level(
    path: Path | str, graph: Graph, select: dict[str, Any] | None = None
) -> tuple[Circuit | EdgeCircuit, str]:
    """`read_circuit`, and `node` or `edge`: an empty circuit of nodes keeps the embeddings, one of edges nothing."""
    try:
        if Path(path).suffix == ".pt":
            return _recognise(score_tensors.read(path, edge_names(graph)), graph, select)
    except StudyError as error:
        raise StudyError(f"{path}: {error}") from None
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StudyError(f"{path}: cannot be read as JSON ({error})") from None
    try:
        return _recognise(content, graph, select)
    except StudyError as error:
        raise StudyError(f"{path}: {error}") from None


def _recognise(content: Any, graph: Graph, select: dict[str, Any] | None) -> tuple[Circuit | EdgeCircuit, str]:
    if not isinstance(content, dict):
        raise StudyError("not a JSON object; see docs/interchange.md for the formats of circuits")
    if content.get("graph", asdict(graph)) != asdict(graph):
        raise StudyError(f"graph is {content['graph']}, but this model has {asdict(graph)}; use its own file")
    if "circuits" in content:
        content = _pick(content["circuits"], select or {})
    elif select and "cfg" in content and "edges" in content:
        return _highest(from_graph_json(content, graph)[1], graph, select), "edge"
    elif select:
        raise StudyError(f"select: {select} has nothing to choose from, the file holds one circuit; leave it out")

    edges, by_name = content.get("edges"), "heads" in content or "mlps" in content
    if by_name and edges is not None:
        raise StudyError("both heads or mlps and edges are given; give a circuit of nodes or one of edges")
    if by_name:
        return from_study(content, graph), "node"
    if isinstance(edges, list):
        return _named_edges(edges, graph), "edge"
    if "cfg" in content and "edges" in content:
        return from_graph_json(content, graph)[0], "edge"
    if "cfg" in content and "nodes" in content:
        return nodes_from_graph_json(content, graph), "node"
    raise StudyError(f"holds no circuit (keys: {_some(content) or 'none'}); give heads and mlps, or edges")


def _highest(scores: dict[Edge, float], graph: Graph, select: dict[str, Any]) -> EdgeCircuit:
    """The ``top`` edges of graph JSON by its scores, whatever its flags say; ``ranking``: one of RANKINGS, `signed`
    where none is given. Equal scores keep the order of the graph."""
    top, ranking = select.get("top"), select.get("ranking", RANKINGS[0])
    if set(select) - {"top", "ranking"} or type(top) is not int or top < 1 or ranking not in RANKINGS:
        raise StudyError(
            f"select: {select} picks nothing from edge scores; give top: the number of edges, and if wanted ranking: "
            f"{' or '.join(RANKINGS)}"
        )
    if missing := graph.all_edges - scores.keys():
        raise StudyError(f"select: top needs a score of every edge, but {_some(map(str, missing))} have none")
    if top > len(scores):
        raise StudyError(f"select: top is {top}, but this model has {len(scores)} edges; give at most that")
    return frozenset(ranked({edge: scores[edge] for edge in graph.edges}, ranking, graph)[:top])


def edge_names(graph: Graph) -> list[str]:
    """The names in graph JSON of all edges of a model."""
    return [name for edge in graph.edges for name in _spellings(edge, graph)]


def _named_edges(names: list[Any], graph: Graph) -> EdgeCircuit:
    known = {str(edge): edge for edge in graph.edges}
    for name in names:
        if not isinstance(name, str) or name not in known:
            raise StudyError(f"edges: {name!r} is not in this model ({_size(graph)}); names are like 'embed->0.1.q'")
    return frozenset(known[name] for name in names)


def _pick(circuits: object, select: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(circuits, list) or not all(isinstance(c, dict) for c in circuits):
        raise StudyError("circuits: a list of objects is expected")
    found: list[dict[str, Any]] = [
        c for c in circuits if all(key in c and c[key] == value for key, value in select.items())
    ]
    if len(found) == 1:
        return found[0]
    known = {key: list(dict.fromkeys(str(c.get(key)) for c in circuits)) for key in select}
    there = "; ".join(f"{key} is one of {', '.join(values)}" for key, values in known.items())
    if not found:
        raise StudyError(f"select: no circuit has {select}; {there or 'the list is empty'}")
    differ = [k for k in found[0] if k not in select and len({str(c.get(k)) for c in found}) > 1]
    remedy = f"add {differ[0]}" if differ else "they are the same, so remove all but one"
    raise StudyError(f"select: {len(found)} of {len(circuits)} circuits fit {select}; {remedy}")


# ---- wording -------------------------------------------------------------------------------------------------
def _size(graph: Graph) -> str:
    return f"{graph.n_layers} layers of {graph.n_heads} heads"


def _some(names: Iterable[str]) -> str:
    """The first three in order, and how many more."""
    names = sorted(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
