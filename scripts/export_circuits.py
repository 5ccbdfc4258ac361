"""Write the reported circuits of a task in the formats that other tools read (docs/interchange.md)."""

from atlas.circuit.chosen import circuit_at
from atlas.compare import drawable, interchange, score_tensors
from atlas.core.graph import Graph
from atlas.edges.chosen import edge_values, reported_edges
from atlas.store import artifacts, job, tensors

job.start(snakemake)
inputs, out, p, w = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards

description = artifacts.read_json(inputs.model)
graph, provenance = Graph.of(description), job.provenance(snakemake)
circuit = nodes = circuit_at(inputs.chosen, p.threshold)
edges, scores, values = graph.among(circuit), None, None
if p.edges:
    edges = reported_edges(artifacts.read_json(inputs.edge_circuits))
    values = edge_values(artifacts.read_table(inputs.edge_scores))
    scores = values if len(values) == len(graph.edges) else None  # the format scores every edge or none
    nodes = graph.nodes(edges)
    example = drawable.Example.of(artifacts.read_table(inputs.tokens), artifacts.read_table(inputs.clean))
    slug = f"{w.model}-{w.task}"
    content = drawable.to_attribution_graph(slug, w.model, graph, nodes, edges, values, example)
    artifacts.write_json(content, out.attribution, provenance)
artifacts.write_json(interchange.to_study(circuit), out.study, provenance)
as_graph = interchange.to_graph_json(edges, graph, scores, d_model=description["d_model"])
artifacts.write_json(as_graph, out.graph, provenance)
if p.edges:
    tensors.write(score_tensors.to_tensors(as_graph), out.tensors, provenance)
title = f"{w.task} in {w.model}, {'edge' if p.edges else 'node'} circuit"
artifacts.write_text(out.dot, drawable.to_dot(title, graph, nodes, edges if p.edges else None, values))
job.log.info("%s: %d components, %d edges", w.task, len(circuit), len(edges))
