"""Draw how well a model does every task."""

from atlas.report import style
from atlas.report.figures import clean_accuracy
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

summary = artifacts.read_tables(inputs.summaries)
figure = clean_accuracy.draw(summary, p.tasks, p.main_tasks, {"clean": p.clean, "corrupted": p.corrupted})
style.save(figure, out.svg, out.png, p.dpi, job.provenance(snakemake))
