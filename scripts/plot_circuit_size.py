"""Draw size against score of all circuits of a model."""

from atlas.report import style
from atlas.report.figures import circuit_size
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

figure = circuit_size.draw(artifacts.read_tables(inputs.faithfulness), p.main_tasks, p.sequential)
style.save(figure, out.svg, out.png, p.dpi, job.provenance(snakemake))
