"""Compare the circuits of a study's main tasks: what they share, and how much of that chance would explain."""

import pandas as pd

from atlas.circuit.chosen import chosen_circuits, edge_values, method_circuits, methods_of, reported_edges
from atlas.compare.overlap import COLUMNS, compare, compare_edges, typologies
from atlas.core.components import columns
from atlas.core.graph import Graph
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p, w = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards

graph = Graph.of(artifacts.read_json(inputs.model))
circuits = chosen_circuits(inputs.chosen)
union = circuits.pop("union")
membership = [
    {"model": w.model, "circuit": name} | columns(c) for name, circuit in circuits.items() for c in sorted(circuit)
]
shared = circuits.pop("shared")
overlap = compare(circuits, graph.n_layers, graph.n_heads)
job.log.info("%d components are shared by all circuits, %d are in some", len(shared), len(union))

# ---- edges, where the study has any --------------------------------------------------------------------------
edge_rows, methods, agreement = [], [], []
contents = {c["task"]: c for c in map(artifacts.read_json, inputs.get("edge_circuits", []))}
edge_circuits = {task: reported_edges(content) for task, content in contents.items()}
for task, path in zip(contents, inputs.get("edge_scores", []), strict=True):
    values = edge_values(artifacts.read_table(path))
    for edge in sorted(edge_circuits[task]):
        edge_rows.append({"model": w.model, "circuit": task} | edge._asdict() | {"value": values.get(edge)})
overlap += compare_edges(edge_circuits, graph)
for path in inputs.circuits:
    content = artifacts.read_json(path)
    edges = contents.get(content["task"])
    methods += methods_of(content, edges)
    circuits_of = method_circuits(content, edges)
    pairs = compare(circuits_of["component"], graph.n_layers, graph.n_heads) + compare_edges(circuits_of["edge"], graph)
    agreement += [{"model": w.model, "task": content["task"]} | row for row in pairs]
kinds = typologies(overlap, p.same, p.alpha)
overlap, kinds, methods = ([{"model": w.model} | row for row in rows] for rows in (overlap, kinds, methods))

provenance = job.provenance(snakemake)
for name, rows, table_columns in (
    ("membership", membership, ["model", "circuit", "component", "layer", "head"]),
    ("overlap", overlap, ["model", *COLUMNS]),
    ("typology", kinds, ["model", "circuit_a", "circuit_b", "level", "type", "reason"]),
    ("methods", methods, ["model", "task", "level", "method", "name"]),
    ("agreement", agreement, ["model", "task", *COLUMNS]),
    ("edge_membership", edge_rows, ["model", "circuit", "sender", "receiver", "value"]),
):
    artifacts.write_table(pd.DataFrame(rows, columns=table_columns), out[name], provenance)
