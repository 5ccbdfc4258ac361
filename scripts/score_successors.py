"""Score every head of a model as a successor head on the classes of ordered members, from weights alone."""

from atlas.geometry import classes, successors
from atlas.model import models
from atlas.prompts import tokens
from atlas.store import artifacts, job

job.start(snakemake)
folder, settings = job.model_folder(snakemake), artifacts.read_json(snakemake.input.model)["settings"]

model = models.load(folder, settings=settings, **job.run(snakemake))
members = classes.of(snakemake.params.classes, tokens.load_tokenizer(str(folder)))
job.save(snakemake, successors=successors.table(model, members, job.settings(snakemake, successors.Settings)))
