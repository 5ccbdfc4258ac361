"""Draw the reported circuits on every metric, their completeness and their minimality."""

from atlas.report import style
from atlas.report.figures import evaluation
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

tables = [artifacts.read_tables(inputs[name]) for name in ("evaluation", "completeness", "minimality")]
figure = evaluation.draw(*tables, p.main_tasks, {"clean": p.clean, "circuit": p.circuit})
style.save(figure, out.svg, out.png, p.dpi, job.provenance(snakemake))
