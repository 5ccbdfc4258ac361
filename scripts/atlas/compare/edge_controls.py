"""What the searches of edges agree on, kept alone, beside the same circuit in other heads (methods: consensus).

Edges drawn one by one reach nothing, so that anything beats them. A control is the whole circuit with its heads in the
places of others of their layers (`exchange.places`): as many edges, joined in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atlas.circuit.cross import kept_rows
from atlas.compare.exchange import places
from atlas.core.components import EMPTY
from atlas.core.graph import EdgeMask
from atlas.core.statistics import Bootstrap, interval_columns
from atlas.edges.engine import EdgeAblator
from atlas.store.job import progress

PROMPTS = 24  # that random sets see, and the circuit beside them: an edge run is dear, and p counts sets, not prompts


def score_rows(
    ablator: EdgeAblator, circuits: Mapping[str, EdgeMask], split: str, bootstrap: Bootstrap
) -> list[dict[str, Any]]:
    """Rows as those of `cross.cross_rows`, of edges: the empty circuit has every edge ablated, embeddings included."""
    full, empty = ablator.logit_diff(ablator.everything), ablator.logit_diff(EMPTY)
    return kept_rows(ablator, circuits, split, full, empty, bootstrap)


def exchanged_circuits(circuit: EdgeMask, count: int, seed: int) -> list[EdgeMask]:
    """Different circuits that the exchange of heads within layers makes of one, never itself; fewer than ``count``
    where five times as many draws hold fewer (heads of few edges, or layers of few heads)."""
    graph = circuit.graph
    at = [graph.place[edge] for edge in circuit]
    found: dict[EdgeMask, None] = {}
    for receivers, senders in places(graph, 5 * count, seed):
        rows = [0] * len(graph.receivers)
        for receiver, sender in at:
            rows[receivers[receiver]] |= 1 << int(senders[sender])
        made = EdgeMask(graph, rows)
        if made != circuit:
            found[made] = None
        if len(found) == count:
            break
    return list(found)


def control_rows(
    ablator: EdgeAblator, circuits: Mapping[str, EdgeMask], count: int, seed: int, bootstrap: Bootstrap
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of `controls` and of their notes, as `cross.control_rows` has them, of circuits of edges kept alone.

    ablator: of PROMPTS of the prompts that results are reported on, at most (`task_data.edge_ablator`).
    ``components``: how many edges, since their names would fill the table.
    """
    rows, notes, full = [], [], ablator.logit_diff(ablator.everything)
    for name, circuit in circuits.items():
        drawn = exchanged_circuits(circuit, count, seed)
        note = "" if len(drawn) == count else f"only {len(drawn)} exchanges of heads were found" if drawn else ""
        note = note or ("" if drawn else "no control: no exchange of heads changes it")
        notes.append({"question": "sufficiency", "circuit": name, "note": note})
        for draw, kept in progress(list(enumerate([circuit, *drawn], start=-1)), name):
            row: dict[str, Any] = {"question": "sufficiency", "circuit": name}
            row |= {"set": "circuit" if draw < 0 else "control", "draw": draw, "components": f"{len(kept)} edges"}
            rows.append(row | interval_columns(bootstrap.percent(ablator.logit_diff(kept), full)))
    return rows, notes
