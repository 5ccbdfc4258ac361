"""Compare the circuits of a study's main tasks: what they share, and how much of that chance would explain."""

import pandas as pd

from atlas.circuit.chosen import chosen_circuits
from atlas.compare.circuits import TABLES, compare_circuits
from atlas.core.graph import Graph
from atlas.store import artifacts, job

job.start(snakemake)
inputs, p = snakemake.input, snakemake.params

chosen = chosen_circuits(inputs.chosen)
job.log.info("%d components are shared by all circuits, %d are in some", len(chosen["shared"]), len(chosen["union"]))
found = compare_circuits(
    Graph.of(artifacts.read_json(inputs.model)),
    chosen,
    list(map(artifacts.read_json, inputs.circuits)),
    list(map(artifacts.read_json, inputs.get("edge_circuits", []))),
    list(map(artifacts.read_table, inputs.get("edge_scores", []))),
    p.same,
    p.alpha,
)
job.save(snakemake, **{name: pd.DataFrame(found[name], columns=list(columns)) for name, columns in TABLES.items()})
