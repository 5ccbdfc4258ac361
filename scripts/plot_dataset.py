"""Draw a sample of a task's prompts."""

from atlas import artifacts, job
from atlas.plots import dataset, style

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

prompts, info = artifacts.read_table(inputs.prompts), artifacts.read_json(inputs.info)
figure = dataset.draw(prompts, info, {"clean": p.clean, "corrupted": p.corrupted})
style.save(figure, out.svg, out.png, p.dpi, sources=inputs)
