"""Search the circuits of a task at every threshold and in every order, and evaluate each."""

from atlas.circuit.node_circuits import search_all
from atlas.circuit.search import SearchSettings
from atlas.circuit.task_data import TaskData
from atlas.core.statistics import Bootstrap
from atlas.store import job

job.start(snakemake)
p = snakemake.params

data, settings = TaskData(**job.task_data(snakemake)), job.settings(snakemake, SearchSettings)
ablators = {split: data.ablator(split) for split in dict.fromkeys(["search", data.report_split])}
trace, circuits, faithfulness = search_all(
    data.task, ablators, p.orders, p.thresholds, settings, Bootstrap(p.bootstrap, p.seed), p.allow_negative_clean
)
job.save(snakemake, trace=trace, faithfulness=faithfulness, circuits={"circuits": circuits})
