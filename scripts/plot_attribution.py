"""Draw direct logit attribution: along the model, by layer and by head."""

from atlas.report import style
from atlas.report.figures import attribution
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

tables = artifacts.read_tables(inputs.attribution), artifacts.read_table(inputs.membership)
colours = {"clean": p.clean, "circuit": p.circuit}
style.save(
    attribution.draw(*tables, p.main_tasks, colours, p.diverging), out.svg, out.png, p.dpi, job.provenance(snakemake)
)
