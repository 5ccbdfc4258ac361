"""Draw circuits beside random sets of the same shape."""

from atlas.report import style
from atlas.report.figures import controls
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

draws, summary = artifacts.read_table(inputs.controls), artifacts.read_table(inputs.summary)
figure = controls.draw(draws, summary, p.tasks, {"circuit": p.circuit})
style.save(figure, out.svg, out.png, p.dpi, job.provenance(snakemake))
