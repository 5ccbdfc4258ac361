"""Draw which components and edges the methods agree on."""

from atlas.report import style
from atlas.report.figures import methods
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

colours = {"clean": p.clean, "circuit": p.circuit}
figure = methods.draw(artifacts.read_table(inputs.methods), p.main_tasks, colours)
style.save(figure, out.svg, out.png, p.dpi, job.provenance(snakemake))
