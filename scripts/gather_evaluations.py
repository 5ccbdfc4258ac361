"""Gather the evaluation of circuits on every task, and set each circuit beside its random controls."""

import pandas as pd

from atlas.circuit.controls import SUMMARY_COLUMNS, summarise
from atlas.circuit.verdicts import of_controls
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out = snakemake.input, snakemake.output

cross, controls, notes = (artifacts.read_tables(paths) for paths in (inputs.cross, inputs.controls, inputs.notes))
summary = pd.DataFrame(summarise(controls), columns=SUMMARY_COLUMNS)
summary = summary.merge(notes, on=["model", "question", "circuit", "task"], how="left")
summary = of_controls(summary, controls)

provenance = job.provenance(snakemake)
artifacts.write_table(cross, out.cross, provenance)
artifacts.write_table(controls, out.controls, provenance)
artifacts.write_table(summary, out.controls_summary, provenance)
