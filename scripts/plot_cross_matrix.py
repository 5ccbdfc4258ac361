"""Draw every circuit evaluated on every task."""

from atlas.report import style
from atlas.report.figures import cross_matrix
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

figure = cross_matrix.draw(artifacts.read_table(inputs.cross), p.tasks, p.main_tasks, p.sequential)
style.save(figure, out.svg, out.png, p.dpi, job.provenance(snakemake))
