"""Draw size against score of all circuits of a model."""

from atlas import artifacts, job
from atlas.plots import circuit_size, style

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

figure = circuit_size.draw(artifacts.read_tables(inputs.faithfulness), p.main_tasks, p.sequential)
style.save(figure, out.svg, out.png, p.dpi, job.provenance(snakemake))
