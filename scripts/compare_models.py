"""Compare the circuits of each main task between the models of a study that have the same shape."""

import pandas as pd

from atlas.circuit.chosen import circuit_at
from atlas.compare.overlap import COLUMNS, compare_models
from atlas.core.graph import Graph
from atlas.edges.chosen import reported_edges
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

graphs = {d["model"]: Graph.of(d) for d in map(artifacts.read_json, inputs.models)}
circuits, edge_circuits = {}, {}
for path in inputs.circuits:
    content = artifacts.read_json(path)
    circuits[content["model"], content["task"]] = circuit_at(path, p.threshold)
for content in map(artifacts.read_json, inputs.edge_circuits):
    edge_circuits[content["model"], content["task"]] = reported_edges(content)
rows, notes = compare_models(circuits, graphs)
edge_rows, edge_notes = compare_models(edge_circuits, graphs, edges=True)
for note in dict.fromkeys([*notes, *edge_notes]):
    job.log.info(note)

names = ["models", "circuits", "edge_circuits"]
provenance = job.provenance(snakemake)
artifacts.write_table(pd.DataFrame(rows + edge_rows, columns=["task", *COLUMNS]), out.overlap, provenance)
