"""Draw direct logit attribution: along the model, by layer and by head."""

from atlas import artifacts, job
from atlas.plots import attribution, style

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

tables = artifacts.read_tables(inputs.attribution), artifacts.read_table(inputs.membership)
colours = {"clean": p.clean, "circuit": p.circuit}
style.save(
    attribution.draw(*tables, p.main_tasks, colours, p.diverging), out.svg, out.png, p.dpi, job.provenance(snakemake)
)
