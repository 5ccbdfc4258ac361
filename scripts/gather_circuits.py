"""Gather the circuit that each main task reports: later jobs read one file, however many tasks a study has."""

from atlas.circuit.chosen import circuit_at
from atlas.core import components
from atlas.store import artifacts, job

job.start(snakemake)
inputs, p, w = snakemake.input, snakemake.params, snakemake.wildcards

circuits = {}
for path in inputs.circuits:
    circuits[artifacts.read_json(path)["task"]] = components.to_json(circuit_at(path, p.order, p.threshold))

provenance = job.provenance(snakemake)
artifacts.write_json({"model": w.model, "circuits": circuits}, snakemake.output[0], provenance)
