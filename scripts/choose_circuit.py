"""Choose the circuit of a task that is reported, at every threshold, of those that its search found."""

from atlas.circuit.choice import choose
from atlas.circuit.search import SearchSettings
from atlas.circuit.task_data import TaskData
from atlas.core.statistics import Bootstrap
from atlas.store import artifacts, job

job.start(snakemake)
p = snakemake.params

data, settings = TaskData(**job.task_data(snakemake)), job.settings(snakemake, SearchSettings)
ablators = data.ablators(data.float32_model if settings.check_in_float32 else None)
found = artifacts.read_json(snakemake.input.circuits)["circuits"]
choice, circuits = choose(data.task, ablators, found, settings, p.fixed_order, Bootstrap(p.bootstrap, p.seed))
job.save(snakemake, choice=choice, chosen={"circuits": circuits})
