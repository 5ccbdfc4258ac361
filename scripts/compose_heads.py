"""Score how much of what one head writes another one can read, and hold the edges of circuits against that."""

import pandas as pd

from atlas.circuit import chosen
from atlas.core import components
from atlas.core.graph import Edge
from atlas.heads import composition
from atlas.model import models
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p, w = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards

model = models.load(job.model_folder(snakemake), settings=artifacts.read_json(inputs.model)["settings"], **p.run)
found = composition.scores(model, p.seed)
circuits, edges = chosen.chosen_circuits(inputs.circuits), artifacts.read_table(inputs.edge_membership)
pieces = []
for task in p.main_tasks:
    kept = edges[edges.circuit == task]
    heads = map(str, components.heads(circuits[task]))
    rows = composition.against_edges(found, map(Edge, kept.sender, kept.receiver), heads, p.seed)
    pieces.append(rows.assign(circuit=task)[composition.AGREEMENT])

provenance = job.provenance(snakemake)
artifacts.write_table(found.assign(model=w.model), out.composition, provenance)
artifacts.write_table(pd.concat(pieces, ignore_index=True).assign(model=w.model), out.composition_edges, provenance)
