"""Find how classes of ordered members lie in the residual stream, and whether the model uses it."""

from atlas.core.positions import Layout
from atlas.core.statistics import Bootstrap
from atlas.geometry import find_shapes
from atlas.model import models
from atlas.prompts import tokens
from atlas.store import artifacts, job

job.start(snakemake)
inputs, p, folder = snakemake.input, snakemake.params, job.model_folder(snakemake)

description, settings = artifacts.read_json(inputs.model), job.settings(snakemake, find_shapes.Settings)
tasks = []
if p.tasks:
    prompts, layouts = artifacts.read_table(inputs.prompts), artifacts.read_json(inputs.layouts)["layouts"]
    tasks = [(task, prompts[prompts["task"] == task], Layout.of(layouts[task])) for task in p.tasks]
model, tokenizer = (
    models.load(folder, settings=description["settings"], **job.run(snakemake)),
    tokens.load_tokenizer(str(folder)),
)
job.save(snakemake, **find_shapes.find(model, tokenizer, settings, tasks, Bootstrap(p.bootstrap, p.seed)))
