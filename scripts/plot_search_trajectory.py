"""Draw the node search of a task, evaluation by evaluation."""

from atlas.report import style
from atlas.report.figures import search_trajectory
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

trace = artifacts.read_table(inputs.trace)
figure = search_trajectory.draw(trace, p.orders, {"clean": p.clean, "circuit": p.circuit})
style.save(figure, out.svg, out.png, p.dpi, job.provenance(snakemake))
