"""Edge scores and circuits as matrices in a torch file, as the EAP-IG library and MIB take them (docs/interchange.md).

A file holds `cfg`, the names of senders (`src_nodes`) and of inputs (`dst_nodes`), and of each pair a score and whether
it is in the graph, [senders, inputs]. It says what graph JSON says, and is turned into that, so that both are checked
alike. Only tensors, names and numbers are read (`weights_only`): a file that needs more than that is refused.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.core.errors import StudyError

if TYPE_CHECKING:
    import torch

NEEDED = ("cfg", "src_nodes", "dst_nodes", "edges_scores", "edges_in_graph", "nodes_in_graph")
REFUSED = {  # what a file may hold beside these, of which nothing would be left in a circuit of whole edges
    "neurons_in_graph": "single neurons",
    "positional_edges_in_graphs": "edges at single positions",
}


def to_tensors(content: dict[str, Any]) -> dict[str, Any]:
    """What such a file holds, of graph JSON (`interchange.to_graph_json`); pairs that are no edge are 0 and not in."""
    import torch

    sources = [name for name in content["nodes"] if name != "logits"]
    layers, heads = content["cfg"]["n_layers"], content["cfg"]["n_heads"]
    targets: list[str] = []
    for layer in range(layers):
        targets += [f"a{layer}.h{head}<{part}>" for part in "qkv" for head in range(heads)]
        targets.append(f"m{layer}")
    targets.append("logits")
    rows, columns = ({name: i for i, name in enumerate(names)} for names in (sources, targets))
    scores = torch.zeros(len(sources), len(targets))
    inside = torch.zeros(len(sources), len(targets), dtype=torch.bool)
    for name, entry in content["edges"].items():
        source, target = name.split("->")
        scores[rows[source], columns[target]] = entry["score"]
        inside[rows[source], columns[target]] = entry["in_graph"]
    nodes = torch.tensor([content["nodes"][name]["in_graph"] for name in sources])
    found = {"cfg": content["cfg"], "src_nodes": sources, "dst_nodes": targets}
    return found | {"edges_scores": scores, "edges_in_graph": inside, "nodes_in_graph": nodes}


def read(path: Path | str, edges: list[str]) -> dict[str, Any]:
    """Graph JSON of such a file, of these ``edges`` of the model by their names there. Raises StudyError naming what is
    wrong: a file that cannot be read without running code of it, a missing key, other names, sizes or types, or a pair
    that is in the graph and no edge of the model."""
    import torch

    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # a file that is none of its own torch refuses in many ways
        said = str(error).strip().splitlines() or ["no torch file"]
        raise StudyError(
            f"cannot be read as tensors, names and numbers alone ({said[0][:80]}); save a plain dict of them, or JSON"
        ) from None
    if not isinstance(content, dict) or (missing := [key for key in NEEDED if key not in content]):
        held = ", ".join(missing) if isinstance(content, dict) else f"no dict but {type(content).__name__}"
        raise StudyError(f"lacks {held}; give what the library's Graph.to_pt writes")
    for key, what in REFUSED.items():
        if content.get(key) is not None:
            raise StudyError(f"{key}: holds {what}; only circuits of whole edges can be read, leave it out")
    sources, targets = (_names(content[key], key) for key in ("src_nodes", "dst_nodes"))
    scores, inside = (_matrix(content[key], key, len(sources), len(targets)) for key in NEEDED[3:5])
    if inside.dtype != torch.bool and not bool(((inside == 0) | (inside == 1)).all()):
        raise StudyError("edges_in_graph: holds numbers other than 0 and 1; give booleans")
    values, flags, known = scores.double().tolist(), inside.bool().tolist(), set(edges)
    listed = {}
    for i, source in enumerate(sources):
        for j, target in enumerate(targets):
            name = f"{source}->{target}"
            if name in known:
                listed[name] = {"score": values[i][j], "in_graph": flags[i][j]}
            elif flags[i][j]:
                raise StudyError(f"edges_in_graph: {name} is in the graph and no edge of this model; use its own file")
    return {"cfg": content["cfg"], "nodes": {}, "edges": listed}


def _names(value: object, key: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value) or len(set(value)) < len(value):
        raise StudyError(f"{key}: a list of different names is expected, such as input, a0.h1, m0")
    return value


def _matrix(value: object, key: str, rows: int, columns: int) -> "torch.Tensor":
    import torch

    if not isinstance(value, torch.Tensor) or value.is_complex() or value.is_sparse or value.is_quantized:
        raise StudyError(f"{key}: a plain tensor of real numbers is expected, not {type(value).__name__}")
    if tuple(value.shape) != (rows, columns):
        raise StudyError(f"{key}: has the shape {list(value.shape)}, but the names are of {rows} x {columns}")
    return value
