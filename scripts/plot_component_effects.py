"""Draw what ablating each component alone does to a task."""

from atlas import artifacts, job
from atlas.plots import component_effects, style

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

figure = component_effects.draw(artifacts.read_table(inputs.effects), p.kind, p.diverging, p.circuit)
style.save(figure, out.svg, out.png, p.dpi, job.provenance(snakemake))
