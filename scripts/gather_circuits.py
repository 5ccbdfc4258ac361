"""Gather the circuit that each main task reports: later jobs read one file, however many tasks a study has."""

from atlas.circuit.chosen import entry_at
from atlas.store import artifacts, job

job.start(snakemake)
inputs, p, w = snakemake.input, snakemake.params, snakemake.wildcards

circuits = {}
for path in inputs.chosen:
    entry = entry_at(path, p.threshold)
    circuits[artifacts.read_json(path)["task"]] = {key: entry[key] for key in ("order", "heads", "mlps", "dropped")}

provenance = job.provenance(snakemake)
artifacts.write_json({"model": w.model, "circuits": circuits}, snakemake.output[0], provenance)
