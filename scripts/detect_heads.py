"""Score every head of a model as a previous-token, duplicate-token and induction head on repeated random tokens."""

from atlas.core.statistics import Bootstrap
from atlas.heads import detectors
from atlas.model import models
from atlas.prompts import tokens
from atlas.store import artifacts, job

job.start(snakemake)
inputs, p, folder = snakemake.input, snakemake.params, job.model_folder(snakemake)

description, settings = artifacts.read_json(inputs.model), job.settings(snakemake, detectors.Settings)
model, tokenizer = (
    models.load(folder, settings=description["settings"], **job.run(snakemake)),
    tokens.load_tokenizer(str(folder)),
)
found = detectors.detect(model, tokenizer, description, settings, Bootstrap(p.bootstrap, p.seed))
job.save(snakemake, detectors=found)
