"""Search a task's circuit again on other data, in the order that found the reported one, and record what survives."""

from atlas.circuit import remade, stability
from atlas.circuit.attribution import Settings as Estimate
from atlas.circuit.chosen import OWN_RUN, entry_at
from atlas.circuit.search import SearchSettings
from atlas.circuit.task_data import TaskData
from atlas.core.components import from_json
from atlas.core.graph import Graph
from atlas.edges.chosen import reported_edges
from atlas.edges.methods import EdgeSettings
from atlas.edges.stability import highest_scored
from atlas.prompts import tokens
from atlas.store import artifacts, job

job.start(snakemake)
inputs, p = snakemake.input, snakemake.params

data = TaskData(**job.task_data(snakemake))
order = entry_at(inputs.chosen, p.threshold)["order"]
entries = [c for c in artifacts.read_json(inputs.circuits)["circuits"] if c["threshold"] == p.threshold]
orders = {entry["order"]: from_json(entry) for entry in entries}
own = remade.Dataset("", OWN_RUN, data.prompts("search"), data.substitute("search"))
tokenizer = tokens.load_tokenizer(str(job.model_folder(snakemake)))
maker = remade.Maker.of(data, p.task, tokenizer, p.prepend_bos, p.filter)
others = job.progress(remade.other_data(data, maker, p.resamples, p.seed), "other data")

settings = job.settings(snakemake, SearchSettings)
rule, float32 = settings.rule(p.threshold), data.float32_model if settings.check_in_float32 else None
again = (p.legacy_mlp_means, p.allow_negative_clean, float32, Estimate(p.kind, p.node_points))
node_search, edge_search = stability.NodeSearch(data.task, order, p.orders[order], rule, p.batch, *again), None
if p.edges:
    count, graph = len(reported_edges(artifacts.read_json(inputs.edge_circuits))), Graph.of(data.description)
    edge_search = highest_scored(p.edges, p.ranking, count, graph, p.kind, EdgeSettings(points=p.points))
components, edges = stability.all_runs(data.model, own, others, orders, node_search, edge_search)

runs = {"component": components, "edge": edges}
table, summary, circuits = stability.tables(runs, data.model.n_layers, data.model.n_heads)
content = {"order": order, "threshold": p.threshold} | circuits
job.save(snakemake, stability=table, summary=summary, circuits=content)
