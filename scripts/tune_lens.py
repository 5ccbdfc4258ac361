"""Train a tuned lens of a model on the study's own texts, and measure it beside the logit lens."""

from atlas.core.statistics import Bootstrap
from atlas.geometry import lens_training, tuned_lens
from atlas.model import models
from atlas.store import artifacts, job

job.start(snakemake)
inputs, p = snakemake.input, snakemake.params

description = artifacts.read_json(inputs.model)
model = models.load(job.model_folder(snakemake), settings=description["settings"], **job.run(snakemake))
frames = (map(artifacts.read_table, paths) for paths in (inputs.prompts, inputs.clean))
tasks = dict(zip(p.tasks, zip(*frames, strict=True), strict=True))
training = job.settings(snakemake, lens_training.Training)
settings = tuned_lens.Settings(p.texts, p.positions, p.prompts, training)
job.save(snakemake, **tuned_lens.tables(model, tasks, settings, Bootstrap(p.bootstrap, p.seed)))
