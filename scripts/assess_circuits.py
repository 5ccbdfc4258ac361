"""Assess the circuits of a task: every metric, completeness, minimality, positions, and edge circuits of every size."""

from atlas.circuit.chosen import circuit_at
from atlas.circuit.search import SearchSettings
from atlas.circuit.task_data import TaskData
from atlas.compare.interchange import read_circuit_and_level
from atlas.core.graph import Graph
from atlas.core.statistics import Bootstrap
from atlas.edges import assessment
from atlas.edges.chosen import reported_edges
from atlas.prompts import layouts
from atlas.store import artifacts, job, places

job.start(snakemake)
inputs, p, bootstrap = snakemake.input, snakemake.params, Bootstrap(snakemake.params.bootstrap, snakemake.params.seed)

data, settings = TaskData(**job.task_data(snakemake)), job.settings(snakemake, assessment.AssessSettings)
edges = artifacts.read_json(inputs.edge_circuits) if p.edges else None
circuits = {"nodes": (circuit_at(inputs.chosen, p.threshold), "node")}
circuits |= {"edges": (reported_edges(edges), "edge")} if edges else {}
for name, block in p.circuits.items():
    file = places.below_root(snakemake.config["circuits"][name]["file"])
    circuits[name] = read_circuit_and_level(file, Graph.of(data.description), block["select"])

tables = assessment.circuits_of_task(data, circuits, settings, bootstrap)
start = circuit_at(inputs.chosen, p.positions["start_threshold"])
roles = layouts.roles_of(artifacts.read_json(inputs.prompts_info))
search = job.settings(snakemake, SearchSettings)
tables["positions"] = assessment.positions_of_task(data, start, roles, settings, search, bootstrap)
if edges:
    scores = artifacts.read_table(inputs.edge_scores)
    tables |= assessment.curves_of_task(data, edges, scores, settings, bootstrap)
job.save(snakemake, **tables)
