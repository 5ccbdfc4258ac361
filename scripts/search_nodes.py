"""Search the circuits of a task at every threshold and in every order, and evaluate each."""

from atlas.circuit.node_circuits import search_all
from atlas.circuit.search import SearchSettings
from atlas.circuit.task_data import TaskData
from atlas.core.statistics import Bootstrap
from atlas.store import job

job.start(snakemake)
p = snakemake.params

data, settings = TaskData(**job.task_data(snakemake)), job.settings(snakemake, SearchSettings)
float32 = data.float32_model if settings.check_in_float32 else None
ablators = data.ablators(float32)
half = data.ablator("search") if float32 else None
bootstrap = Bootstrap(p.bootstrap, p.seed)
trace, circuits, faithfulness = search_all(
    data.task, ablators, p.orders, p.thresholds, settings, bootstrap, p.allow_negative_clean, half
)
job.save(snakemake, trace=trace, faithfulness=faithfulness, circuits={"circuits": circuits})
