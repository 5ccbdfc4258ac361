"""Draw where the heads of the circuits look, on the prompts and on variants of them."""

from atlas.report import style
from atlas.report.figures import attention
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

tables = [artifacts.read_tables(inputs[name]) for name in ("attention", "members")]
membership = artifacts.read_table(inputs.membership)
effects = attention.rank_by_effect(artifacts.read_tables(inputs.effects), p.kind)
figure = attention.draw(*tables, membership, effects, p.main_tasks, p.sequential)
style.save(figure, out.svg, out.png, p.dpi, job.provenance(snakemake))
