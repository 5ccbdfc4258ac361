"""Steer a model from one sequence to another, by a vector and by outputs of heads, beside random ones."""

from atlas.circuit.chosen import chosen_circuits
from atlas.core.statistics import Bootstrap
from atlas.geometry import steer
from atlas.geometry.steering import Settings
from atlas.model import models
from atlas.prompts import tokens
from atlas.store import artifacts, job

job.start(snakemake)
inputs, p, folder = snakemake.input, snakemake.params, job.model_folder(snakemake)

description = artifacts.read_json(inputs.model)
model = models.load(folder, settings=description["settings"], **job.run(snakemake))
wanted = steer.Wanted(p.pairs, p.main_tasks, p.tasks, p.classes, p.samples["prompts"], p.samples["tokens"])
texts = steer.Texts(
    tokens.load_tokenizer(str(folder)),
    p.prepend_bos,
    description["max_tokens"],
    {frame["task"].iloc[0]: frame for frame in map(artifacts.read_table, inputs.prompts)},
    {frame["task"].iloc[0]: frame for frame in map(artifacts.read_table, inputs.get("unrelated", []))},
)
circuits = {task: circuit for task, circuit in chosen_circuits(inputs.circuits).items() if task in p.main_tasks}
settings = job.settings(snakemake, Settings)
job.save(snakemake, **steer.tables(model, wanted, texts, circuits, settings, Bootstrap(p.bootstrap, p.seed)))
