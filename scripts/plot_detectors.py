"""Draw the scores of all heads as previous-token, duplicate-token and induction heads."""

from atlas.report import maps, style
from atlas.report.figures import detectors
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

heads = maps.union_heads(artifacts.read_table(inputs.membership), p.main_tasks)
figure = detectors.draw(artifacts.read_table(inputs.detectors), heads, p.labels, p.sequential)
style.save(figure, out.svg, out.png, p.dpi, job.provenance(snakemake))
