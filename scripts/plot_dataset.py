"""Draw a sample of a task's prompts, and the tokens of one of each template."""

from atlas.report import style
from atlas.report.figures import dataset, tokens
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

prompts, info = artifacts.read_table(inputs.prompts), artifacts.read_json(inputs.info)
table, colours = artifacts.read_table(inputs.tokens), {"clean": p.clean, "corrupted": p.corrupted}
style.save(dataset.draw(prompts, info, colours), out.svg, out.png, p.dpi, job.provenance(snakemake))
figure = tokens.draw(table, info["slow_tokenizer"], colours)
style.save(figure, out.tokens_svg, out.tokens_png, p.dpi, job.provenance(snakemake))
