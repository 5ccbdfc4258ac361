"""Draw the components of a circuit, layer by layer."""

from atlas.report import style
from atlas.report.figures import circuit_diagram
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p, w = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards

membership, effects = artifacts.read_table(inputs.membership), artifacts.read_tables(inputs.effects)
colours = {"clean": p.clean, "circuit": p.circuit}
figure = circuit_diagram.draw(membership, effects, w.circuit, p.main_tasks, p.kind, colours)
style.save(figure, out.svg, out.png, p.dpi, job.provenance(snakemake))
