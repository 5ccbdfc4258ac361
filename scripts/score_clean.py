"""Score a model, unharmed, on the clean and corrupted prompts of a task, and mark the prompts that pass the filter."""

from atlas.circuit import clean
from atlas.circuit.task_data import TaskData
from atlas.core.statistics import Bootstrap
from atlas.store import artifacts, job

job.start(snakemake)
out, p = snakemake.output, snakemake.params

data = TaskData(**job.task_data(snakemake))
table = clean.score(data.model, data.every_prompt, p.filter, p.groups == "template")
provenance = job.provenance(snakemake)
artifacts.write_table(table, out.clean, provenance)
artifacts.write_table(clean.summarise(table, Bootstrap(p.bootstrap, p.seed)), out.summary, provenance)
