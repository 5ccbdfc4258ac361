"""Draw how often each component is kept when the search is repeated."""

from atlas.report import style
from atlas.report.figures import stability
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

shares, summary = artifacts.read_tables(inputs.stability), artifacts.read_tables(inputs.summary)
figure = stability.draw(shares, summary, p.main_tasks, p.sequential)
style.save(figure, out.svg, out.png, p.dpi, job.provenance(snakemake))
