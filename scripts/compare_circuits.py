"""Compare the circuits of a study's main tasks: what they share, and how much of that chance would explain."""

import pandas as pd

from atlas import artifacts, job
from atlas.comparison import chosen_circuits
from atlas.components import columns
from atlas.overlap import COLUMNS, compare

job.start(snakemake)
inputs, out, p, w = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards

model = artifacts.read_json(inputs.model)
circuits = chosen_circuits(inputs.circuits, p.order, p.threshold)
union = circuits.pop("union")
membership = [
    {"model": w.model, "circuit": name} | columns(c) for name, circuit in circuits.items() for c in sorted(circuit)
]
shared = circuits.pop("shared")
overlap = [{"model": w.model} | row for row in compare(circuits, model["n_layers"], model["n_heads"])]
job.log.info("%d components are shared by all circuits, %d are in some", len(shared), len(union))

sources = {f"circuits {i}": path for i, path in enumerate(inputs.circuits)}
provenance = artifacts.provenance(sources, {"order": p.order, "threshold": p.threshold})
membership_columns = ["model", "circuit", "component", "layer", "head"]
artifacts.write_table(pd.DataFrame(membership, columns=membership_columns), out.membership, provenance)
artifacts.write_table(pd.DataFrame(overlap, columns=["model", *COLUMNS]), out.overlap, provenance)
