"""Draw what the circuits of the main tasks have in common."""

from atlas.report import style
from atlas.report.figures import overlap
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

membership, pairs = artifacts.read_table(inputs.membership), artifacts.read_table(inputs.overlap)
colours = {"clean": p.clean, "circuit": p.circuit}
figure = overlap.draw(membership, pairs, artifacts.read_table(inputs.typology), p.main_tasks, colours, p.sequential)
style.save(figure, out.svg, out.png, p.dpi, job.provenance(snakemake))
