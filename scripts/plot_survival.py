"""Draw how often each component survives the search."""

from atlas import artifacts, job
from atlas.plots import style, survival

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

figure = survival.draw(artifacts.read_tables(inputs.survival), p.main_tasks, p.sequential)
style.save(figure, out.svg, out.png, p.dpi, sources=inputs)
