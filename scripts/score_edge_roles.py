"""Score the parts of a task's reported edges by roles of positions, and ablate the largest alone."""

from atlas.circuit.task_data import TaskData
from atlas.core.statistics import Bootstrap
from atlas.edges import role_table
from atlas.edges.chosen import reported_edges
from atlas.edges.task_data import edge_ablator
from atlas.prompts import layouts
from atlas.store import artifacts, job

job.start(snakemake)
inputs, p = snakemake.input, snakemake.params

data, bootstrap = TaskData(**job.task_data(snakemake)), Bootstrap(p.bootstrap, p.seed)
edges = reported_edges(artifacts.read_json(inputs.edge_circuits))
ablator = edge_ablator(data, "search", roles=layouts.roles_of(artifacts.read_json(inputs.prompts_info)))
roles = role_table.table(data.task, ablator, edges, p.method, p.points, p.exact, bootstrap)
job.save(snakemake, roles=roles)
