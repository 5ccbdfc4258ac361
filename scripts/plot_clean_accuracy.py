"""Draw how well a model does every task."""

from atlas import artifacts, job
from atlas.plots import clean_accuracy, style

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

summary = artifacts.read_tables(inputs.summaries)
figure = clean_accuracy.draw(summary, p.tasks, p.main_tasks, {"clean": p.clean, "corrupted": p.corrupted})
style.save(figure, out.svg, out.png, p.dpi, job.provenance(snakemake))
