"""Explain the heads of a model on one task: where they attend, what they write, and which ones back up which."""

from atlas.circuit import chosen
from atlas.circuit.task_data import TaskData
from atlas.core import components
from atlas.core.positions import Layout
from atlas.core.statistics import Bootstrap
from atlas.heads import explain_heads
from atlas.heads.explained import Explained
from atlas.store import artifacts, job

job.start(snakemake)
inputs, wanted, p = snakemake.input, snakemake.output.keys(), snakemake.params

data, settings = TaskData(**job.task_data(snakemake)), job.settings(snakemake, explain_heads.Settings)
layout_of = {name: Layout.of(entry) for name, entry in artifacts.read_json(inputs.all_layouts)["layouts"].items()}
tasks = explain_heads.Tasks.of(artifacts.read_table(inputs.all_prompts), layout_of, p.tasks, p.members)
task = Explained.of(data, layout_of[data.task], Bootstrap(p.bootstrap, p.seed))
heads, substitute = components.heads(chosen.chosen_circuits(inputs.circuits)["union"]), None
if "backup" in wanted:
    substitute = data.replacing(task.prompts)
job.save(snakemake, **explain_heads.explain(task, wanted, heads, tasks, settings, substitute))
