"""Draw an edge circuit from the embeddings to the logits."""

from atlas.core.graph import Graph
from atlas.report import style
from atlas.report.figures import edge_diagram
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p, w = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards

graph = Graph.of(artifacts.read_json(inputs.model))
colours = {"clean": p.clean, "circuit": p.circuit}
membership = artifacts.read_table(inputs.membership)
figure = edge_diagram.draw(membership, w.circuit, p.main_tasks, graph, p.method, colours)
style.save(figure, out.svg, out.png, p.dpi, job.provenance(snakemake))
