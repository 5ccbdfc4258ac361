"""Gather what is known of every head of a model on every task, and give it the roles that pass their tests."""

from atlas.circuit.chosen import chosen_circuits
from atlas.heads import labels
from atlas.store import artifacts, job

job.start(snakemake)
inputs, p = snakemake.input, snakemake.params

model = artifacts.read_json(inputs.model)
circuits = {name: c for name, c in chosen_circuits(inputs.circuits).items() if name not in ("shared", "union")}
of_model = {"detectors": artifacts.read_table(inputs.detectors)} if inputs.get("detectors") else {}
tables = {
    task: {name: artifacts.read_table(inputs[name][i]) for name in p.tables} | of_model
    for i, task in enumerate(p.tasks)
}
for task, effects in zip(p.main_tasks, map(artifacts.read_table, inputs.effects), strict=True):
    tables[task]["component_effects"] = effects[effects["kind"] == p.kind]
heads = labels.every_head(model["n_layers"], model["n_heads"])
job.save(snakemake, **labels.label_tasks(circuits, heads, tables, p.k, p.labels))
