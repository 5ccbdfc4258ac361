"""Draw at which positions each component matters."""

from atlas import artifacts, job
from atlas.plots import positions, style

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

figure = positions.draw(artifacts.read_tables(inputs.positions), p.main_tasks, p.diverging)
style.save(figure, out.svg, out.png, p.dpi, job.provenance(snakemake))
