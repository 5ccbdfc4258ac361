"""Gather what the searches of each main task agree on, and what the tasks share by that, beside chance."""

import pandas as pd

from atlas.compare import consensus
from atlas.core.graph import Graph
from atlas.store import artifacts, job

job.start(snakemake)
inputs, p = snakemake.input, snakemake.params

graph = Graph.of(artifacts.read_json(inputs.model))
contents = list(map(artifacts.read_json, inputs.stability))
searches = {content["task"]: consensus.searches_of(content) for content in contents}
edges = {content["task"]: consensus.edge_searches_of(content) for content in contents}
edges = {task: own for task, own in edges.items() if own}
edge_rows = [{"task": task} | row for task, own in edges.items() for row in consensus.edge_agreement(own)]
agreed = [{"task": task} | row for task, own in searches.items() for row in consensus.agreement(own)]
shared = consensus.shared_rows(searches, graph.n_layers, graph.n_heads)
job.save(
    snakemake,
    circuits={"threshold": p.threshold} | consensus.to_content(searches, edges),
    consensus=pd.DataFrame(agreed),
    edges=pd.DataFrame(edge_rows, columns=list(consensus.EDGE_COLUMNS)),
    shared=pd.DataFrame(shared, columns=list(consensus.SHARED_COLUMNS)),
    members=pd.DataFrame(consensus.member_rows(searches), columns=list(consensus.MEMBER_COLUMNS)),
)
