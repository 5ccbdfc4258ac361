"""Draw what ablating each component alone does to a task."""

from atlas.report import style
from atlas.report.figures import component_effects
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

figure = component_effects.draw(artifacts.read_table(inputs.effects), p.kind, p.diverging, p.circuit)
style.save(figure, out.svg, out.png, p.dpi, job.provenance(snakemake))
