"""Draw the direct attribution of heads before and after another head is ablated."""

from atlas.report import style
from atlas.report.figures import backup
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

figure = backup.draw(artifacts.read_tables(inputs.backup), p.main_tasks, {"clean": p.clean, "circuit": p.circuit})
style.save(figure, out.svg, out.png, p.dpi, job.provenance(snakemake))
