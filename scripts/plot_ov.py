"""Draw what heads write about the member that they read."""

from atlas.report import style
from atlas.report.figures import ov
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

tables = artifacts.read_tables(inputs.ov), artifacts.read_table(inputs.membership)
style.save(ov.draw(*tables, p.main_tasks, p.k, p.sequential), out.svg, out.png, p.dpi, job.provenance(snakemake))
