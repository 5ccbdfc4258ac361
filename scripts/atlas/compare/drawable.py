"""Circuits in the formats of tools that draw graphs: Graphviz, and attribution graphs as circuit-tracer and Neuronpedia
show them (docs/interchange.md says what is lost).

Both draw one node for each component. An edge into keys or values that several heads share is drawn to those of them
that the circuit has, to all of the group where it has none of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from atlas.core.components import Circuit, Component
from atlas.core.graph import EMBED, LOGITS, Edge, EdgeCircuit, Graph

if TYPE_CHECKING:
    import pandas as pd

HELPS, HURTS, UNSCORED = "#4477AA", "#EE6677", "#767676"  # colours of edges
THIN, THICK = 0.5, 4.0  # points
PORTS = {"q": "query", "k": "key", "v": "value"}


# ---- what is drawn -------------------------------------------------------------------------------------------
def drawn(edges: EdgeCircuit, graph: Graph, nodes: Circuit) -> list[tuple[str, str, Edge]]:
    """(sender, reader, edge) of every line, receivers first to last; ``nodes``: the circuit's components."""
    place, inside = {edge: at for edge, at in graph.place.items() if edge in edges}, set(map(str, nodes))
    lines = []
    for edge in sorted(edges, key=place.__getitem__):
        readers = graph.readers(edge.receiver)
        own = [reader for reader in readers if reader in inside or reader == LOGITS]
        lines += [(edge.sender, reader, edge) for reader in own or readers]
    return lines


def in_order(names: Iterable[str], graph: Graph) -> list[str]:
    """Nodes in the order of the forward pass."""
    every = {name: i for i, name in enumerate([*graph.senders, LOGITS])}
    return sorted(set(names), key=every.__getitem__)


# ---- Graphviz ------------------------------------------------------------------------------------------------
def to_dot(
    title: str,
    graph: Graph,
    nodes: Circuit,
    edges: EdgeCircuit | None = None,
    scores: Mapping[Edge, float] | None = None,
) -> str:
    """A circuit as a Graphviz digraph, a rank a layer: of ``nodes``, or of ``edges`` and what they join.

    ``scores``: in the sign of `edge_scores` (negative helps); the width of a line goes with their size. Each edge keeps
    its `port` (query, key, value or nothing) and its `score` as attributes.
    """
    lines = drawn(edges or frozenset(), graph, nodes)
    names = in_order([*map(str, nodes), *(end for line in lines for end in line[:2])], graph)
    largest = max((abs((scores or {}).get(edge, 0.0)) for _, _, edge in lines), default=0.0)
    out = [f"digraph {quoted(title)} {{", "  rankdir=BT;", f"  label={quoted(title)};"]
    out += ['  node [shape=ellipse, fontname="sans-serif"];', "  edge [arrowsize=0.6];"]
    layers: dict[int, list[str]] = {}
    for name in names:
        layers.setdefault(graph.layer_of(name), []).append(name)
    for layer, own in layers.items():
        inside = "; ".join(f"{quoted(name)}{shape(name)}" for name in own)
        out.append(f"  {{ rank=same; {inside}; }}  // {own[0] if own[0] in (EMBED, LOGITS) else f'layer {layer}'}")
    if not lines:  # nothing else puts one layer above the other
        firsts = [own[0] for own in layers.values()]
        out += [f"  {quoted(a)} -> {quoted(b)} [style=invis];" for a, b in pairwise(firsts)]
    for sender, reader, edge in lines:
        out.append(f"  {quoted(sender)} -> {quoted(reader)} [{', '.join(looks(edge, scores, largest))}];")
    return "\n".join([*out, "}", ""])


def looks(edge: Edge, scores: Mapping[Edge, float] | None, largest: float) -> list[str]:
    """The attributes of an edge's line; ``largest``: size of the largest score that is drawn."""
    score = None if scores is None else scores.get(edge)
    port = PORTS[edge.receiver[-1]] if "." in edge.receiver else ""
    found = [f'port="{port}"'] if port else []
    if score is None:
        return [*found, f'color="{UNSCORED}"']
    width = THIN + (THICK - THIN) * (abs(score) / largest if largest else 0)
    return [*found, f'score="{score:.6g}"', f'color="{HELPS if score < 0 else HURTS}"', f"penwidth={width:.2f}"]


def shape(name: str) -> str:
    """The attributes of a node: MLPs and ends are boxes, heads round."""
    return " [shape=box]" if name in (EMBED, LOGITS) or name.startswith("m") else ""


def quoted(text: str) -> str:
    """A name as Graphviz reads it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


# ---- attribution graphs --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Example:
    """A prompt whose tokens stand below an attribution graph, with its answer."""

    text: str
    tokens: list[str]
    answer: str
    answer_token: int
    last_token: int
    probability: float  # of the answer, by the unharmed model

    @classmethod
    def of(cls, tokens: pd.DataFrame, clean: pd.DataFrame) -> Example:
        """The first prompt of `tokens.parquet`, its probability from `clean.parquet`."""
        rows = tokens[(tokens["prompt"] == tokens["prompt"].iloc[0]) & (tokens["run"] == "clean")]
        shown, answer = rows[~rows["role"].isin(["answer", "incorrect"])], rows[rows["role"] == "answer"].iloc[0]
        scores = clean[(clean["run"] == "clean") & (clean["metric"] == "log_prob")].set_index("prompt")["value"]
        strings = shown["string"].where(shown["role"] != "bos", shown["piece"]).tolist()
        return cls(
            text="".join(shown["string"]),
            tokens=strings,
            answer=answer["string"],
            answer_token=int(answer["id"]),
            last_token=int(shown["id"].iloc[-1]),
            probability=math.exp(scores[answer["prompt"]]),
        )


def to_attribution_graph(
    slug: str,
    model: str,
    graph: Graph,
    nodes: Circuit,
    edges: EdgeCircuit,
    scores: Mapping[Edge, float] | None,
    example: Example,
) -> dict[str, Any]:
    """An edge circuit in the JSON that circuit-tracer writes and Neuronpedia reads: metadata, qParams, nodes, links.

    A link's weight is minus the sum of the scores of its edges (query, key and value are one link there), so positive
    where it helps; 0 where edges have no score. All nodes stand at the last position: circuits have no positions.
    """
    last = len(example.tokens) - 1
    weights: dict[tuple[str, str], float] = {}
    for sender, reader, edge in drawn(edges, graph, nodes):
        weights[sender, reader] = weights.get((sender, reader), 0.0) - (scores or {}).get(edge, 0.0)
    names = in_order([EMBED, LOGITS, *map(str, nodes), *(end for pair in weights for end in pair)], graph)
    entries = {name: _node(name, graph, example, last) for name in names}
    return {
        "metadata": {
            "slug": slug,
            "scan": model,
            "transcoder_list": [],
            "prompt_tokens": example.tokens,
            "prompt": example.text,
            "node_threshold": None,
            "schema_version": 1,
        },
        "qParams": {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""},
        "nodes": list(entries.values()),
        "links": [
            {"source": entries[a]["node_id"], "target": entries[b]["node_id"], "weight": 0.0 + weight}
            for (a, b), weight in weights.items()
        ],
    }


def _node(name: str, graph: Graph, example: Example, last: int) -> dict[str, Any]:
    """A node's entry. Heads and MLPs stand as features, numbered within their layer, the MLP after the heads."""
    if name == EMBED:
        layer, number, kind, said = "E", example.last_token, "embedding", "embeddings of all tokens"
    elif name == LOGITS:
        layer, number, kind = str(graph.n_layers + 1), example.answer_token, "logit"
        said = f'Output "{example.answer}" (p={example.probability:.3f})'
    else:
        component = Component.parse(name)
        layer, number = str(component.layer), graph.n_heads if component.is_mlp else component.head
        kind, said = "cross layer transcoder", f"{'MLP' if component.is_mlp else 'head'} {name}"
    is_logit = name == LOGITS
    return {
        "node_id": f"{layer}_{number}_{last}",
        "feature": last if name == EMBED else number if is_logit else paired(int(layer), number),
        "layer": layer,
        "ctx_idx": last,
        "feature_type": kind,
        "token_prob": example.probability if is_logit else 0.0,
        "is_target_logit": is_logit,
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": f"{'L' if is_logit else layer}_{number}-{last if name in (EMBED, LOGITS) else 0}",
        "clerp": said,
        "influence": None,
        "activation": None,
    }


def paired(a: int, b: int) -> int:
    """Cantor's number of a pair of whole numbers, by which a feature of a layer has one number."""
    return (a + b) * (a + b + 1) // 2 + b
