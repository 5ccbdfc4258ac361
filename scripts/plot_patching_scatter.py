"""Draw patching of each head's pattern against its values and its output."""

from atlas.report import style
from atlas.report.figures import patching_scatter
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

tables = artifacts.read_tables(inputs.patching), artifacts.read_table(inputs.membership)
figure = patching_scatter.draw(*tables, p.main_tasks, p.diverging)
style.save(figure, out.svg, out.png, p.dpi, job.provenance(snakemake))
