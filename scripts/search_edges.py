"""Score the edges of a task and search its edge circuits by every configured method."""

from atlas.circuit.chosen import circuit_at
from atlas.circuit.task_data import TaskData
from atlas.core.statistics import Bootstrap
from atlas.edges import edge_circuits
from atlas.edges.methods import EdgeSettings
from atlas.edges.task_data import edge_ablator
from atlas.store import job

job.start(snakemake)
inputs, p = snakemake.input, snakemake.params

data, settings = TaskData(**job.task_data(snakemake)), job.settings(snakemake, EdgeSettings)
nodes = {threshold: circuit_at(inputs.chosen, threshold) for threshold in p.thresholds}
ablator, bootstrap = edge_ablator(data, "search"), Bootstrap(p.bootstrap, p.seed)
split = data.report_split
others = {} if split == "search" else {split: edge_ablator(data, split)}
found = edge_circuits.search(data.task, ablator, nodes, settings, bootstrap, p.allow_negative_clean, others)
names = ("scores", "trace", "choice", "circuits", "accuracy")
job.save(snakemake, **dict(zip(names, found, strict=True)))
