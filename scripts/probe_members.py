"""Probe the residuals of members for their index, by probes that never saw their class."""

from atlas.core.statistics import Bootstrap
from atlas.geometry import classes, probes, residuals
from atlas.model import models
from atlas.prompts import tokens
from atlas.store import artifacts, job

job.start(snakemake)
p, folder = snakemake.params, job.model_folder(snakemake)

description, settings = artifacts.read_json(snakemake.input.model), job.settings(snakemake, probes.Settings)
model = models.load(folder, settings=description["settings"], **job.run(snakemake))
tokenizer, points = tokens.load_tokenizer(str(folder)), residuals.points_of(model.n_layers)
used = classes.of(p.classes, tokenizer)
texts = residuals.contexts(p.templates, p.fillers, p.random_words, used, settings.contexts, settings.seed)
data = [residuals.at_members(model, tokenizer, members, texts, p.prepend_bos, points) for members in used]
job.save(snakemake, probes=probes.table(data, settings, Bootstrap(p.bootstrap, p.seed)))
