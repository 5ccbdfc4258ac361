"""Draw every circuit evaluated on every task."""

from atlas import artifacts, job
from atlas.plots import cross_matrix, style

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

figure = cross_matrix.draw(artifacts.read_table(inputs.cross), p.tasks, p.main_tasks, p.sequential)
style.save(figure, out.svg, out.png, p.dpi, job.provenance(snakemake))
