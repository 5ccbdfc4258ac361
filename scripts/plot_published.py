"""Draw our values against published ones."""

from atlas.report import style
from atlas.report.figures import published
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

figure = published.draw(artifacts.read_table(inputs.table), {"clean": p.clean, "circuit": p.circuit})
style.save(figure, out.svg, out.png, p.dpi, job.provenance(snakemake))
