"""Explain a task by what can be patched, by what writes the answer, and by where the answer appears."""

from atlas.circuit.task_data import TaskData
from atlas.core.positions import Layout
from atlas.core.statistics import Bootstrap
from atlas.heads import explain_task
from atlas.heads.explained import Explained
from atlas.store import artifacts, job

job.start(snakemake)
inputs, p = snakemake.input, snakemake.params

layout = Layout.of(artifacts.read_json(inputs.layout)["layout"])
task = Explained.of(TaskData(**job.task_data(snakemake)), layout, Bootstrap(p.bootstrap, p.seed))
settings = job.settings(snakemake, explain_task.Settings)
job.save(snakemake, **explain_task.explain(task, snakemake.output.keys(), settings))
