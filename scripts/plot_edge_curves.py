"""Draw faithfulness against the number of edges, by method."""

from atlas.report import style
from atlas.report.figures import edge_curves
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

curves, areas = artifacts.read_tables(inputs.curves), artifacts.read_tables(inputs.areas)
figure = edge_curves.draw(curves, areas, p.main_tasks, {"clean": p.clean, "circuit": p.circuit})
style.save(figure, out.svg, out.png, p.dpi, job.provenance(snakemake))
