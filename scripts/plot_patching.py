"""Draw what patching one activation restores or takes away, by layer and position and by head."""

from atlas.report import maps, style
from atlas.report.figures import patching
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p, w = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards

heads = maps.circuit_heads(artifacts.read_table(inputs.membership), w.task)
figure = patching.draw(artifacts.read_table(inputs.patching), heads, p.diverging)
style.save(figure, out.svg, out.png, p.dpi, job.provenance(snakemake))
