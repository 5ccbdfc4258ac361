"""Rank the neurons of the MLPs of a model's circuits, and find how few carry what an MLP does."""

from atlas.circuit.chosen import chosen_circuits
from atlas.core.statistics import Bootstrap
from atlas.geometry import directions, neurons, tails
from atlas.prompts.tokens import load_tokenizer
from atlas.store import job

job.start(snakemake)
inputs, p = snakemake.input, snakemake.params

data = tails.data_of(**job.data_of_tasks(snakemake))
known = directions.Known(p.classes, p.fillers, p.members)
tokenizer, settings = load_tokenizer(str(data[0].folder)), job.settings(snakemake, neurons.Settings)
circuit = chosen_circuits(inputs.circuits)["union"]
job.save(snakemake, **neurons.run(data, circuit, tokenizer, known, settings, Bootstrap(p.bootstrap, p.seed)))
