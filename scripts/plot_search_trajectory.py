"""Draw the node search of a task, evaluation by evaluation."""

from atlas import artifacts, job
from atlas.plots import search_trajectory, style

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

trace = artifacts.read_table(inputs.trace)
figure = search_trajectory.draw(trace, p.orders, {"clean": p.clean, "circuit": p.circuit})
style.save(figure, out.svg, out.png, p.dpi, job.provenance(snakemake))
