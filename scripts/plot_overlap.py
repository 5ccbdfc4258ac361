"""Draw what the circuits of the main tasks have in common."""

from atlas import artifacts, job
from atlas.plots import overlap, style

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

membership, pairs = artifacts.read_table(inputs.membership), artifacts.read_table(inputs.overlap)
figure = overlap.draw(membership, pairs, p.main_tasks, {"clean": p.clean, "circuit": p.circuit}, p.sequential)
style.save(figure, out.svg, out.png, p.dpi, sources=inputs)
