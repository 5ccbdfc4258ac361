"""What the searches of edges agree on, as circuits by name. Runs no model."""

from pathlib import Path

from atlas.core.graph import EdgeMask, Graph, parse
from atlas.store import artifacts

CORE, BOTH = "core edges", "core and contingent edges"  # names of circuits


def edge_parts(path: Path | str, task: str, graph: Graph) -> dict[str, EdgeMask]:
    """CORE and BOTH of a main task, from `comparison/consensus.json`; nothing where edges were not searched again."""
    edges = artifacts.read_json(path)["tasks"].get(task, {}).get("edges")
    if edges is None:
        return {}
    core = parse(edges["core"])
    return {CORE: graph.circuit(core), BOTH: graph.circuit(core | parse(edges["contingent"]))}
