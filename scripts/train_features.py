"""A sparse autoencoder of a model's activations: trained on the study's text, or loaded, and how good it is."""

from atlas.core.statistics import Bootstrap
from atlas.geometry import autoencoder, features
from atlas.model import models
from atlas.prompts import tokens
from atlas.store import artifacts, job, places

job.start(snakemake)
inputs, p, folder = snakemake.input, snakemake.params, job.model_folder(snakemake)

description, settings = artifacts.read_json(inputs.model), job.settings(snakemake, features.Settings)
model = models.load(folder, settings=description["settings"], **job.run(snakemake))
frames, bootstrap = [artifacts.read_table(path) for path in inputs.prompts], Bootstrap(p.bootstrap, p.seed)
read = features.read(model, tokens.load_tokenizer(str(folder)), frames, description["max_tokens"], settings, p.seed)
given = snakemake.config["geometry"]["features"]["path"]
sae, quality = features.made(model, read, settings, given and places.below_root(given), bootstrap)
config = autoencoder.config_of(sae, read.place.hook, snakemake.wildcards.model, p.prepend_bos)
job.save(snakemake, features=quality)
artifacts.write_json(config, snakemake.output.config, job.provenance(snakemake))
autoencoder.write_weights(sae, snakemake.output.weights, job.provenance(snakemake))
