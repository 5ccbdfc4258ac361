"""Draw at which positions each component matters."""

from atlas.report import style
from atlas.report.figures import positions
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

figure = positions.draw(artifacts.read_tables(inputs.positions), p.main_tasks, p.diverging)
style.save(figure, out.svg, out.png, p.dpi, job.provenance(snakemake))
