"""Follow a sample of a task's prompts through the model, for the atlas page."""

from atlas.circuit.chosen import chosen_circuits
from atlas.circuit.task_data import TaskData
from atlas.heads import traces
from atlas.prompts.tokens import load_tokenizer
from atlas.store import artifacts, job

job.start(snakemake)
inputs, p = snakemake.input, snakemake.params

data, settings = TaskData(**job.task_data(snakemake)), job.settings(snakemake, traces.Settings)
heads = traces.shown_heads(chosen_circuits(inputs.circuits), artifacts.read_tables(inputs.effects), settings)
scores = artifacts.read_table(inputs.scores) if inputs.get("scores") else None
info = artifacts.read_json(inputs.layout)
found = traces.trace(data, load_tokenizer(str(data.folder)), info, heads, settings, scores)
job.save(snakemake, traces=found)
