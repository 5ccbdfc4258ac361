"""Score what every head of a model does on one task beside random heads and shuffled members; and what MLPs write."""

from atlas.circuit.task_data import TaskData
from atlas.core.positions import Layout
from atlas.core.statistics import Bootstrap
from atlas.heads import mlp_writes, role_scores
from atlas.heads.explained import Explained
from atlas.store import artifacts, job

job.start(snakemake)
inputs, wanted, p = snakemake.input, snakemake.output.keys(), snakemake.params

layout = Layout.of(artifacts.read_json(inputs.layout)["layout"])
task = Explained.of(TaskData(**job.task_data(snakemake)), layout, Bootstrap(p.bootstrap, p.seed))
settings = job.settings(snakemake, role_scores.Settings)
made = role_scores.variants(task, p.random_words, p.seed)
found = {"role_scores": role_scores.table(task, made, p.analyses, settings)}
if "mlp_answers" in wanted:
    found |= mlp_writes.tables(task, p.tokens)
job.save(snakemake, **found)
