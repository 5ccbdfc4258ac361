"""Build a checkpoint with random weights for an architecture, beside the files of its tokenizer."""

from pathlib import Path

from atlas.model import random_models
from atlas.store import job, places, sources

job.start(snakemake)
name, p = snakemake.wildcards.model, snakemake.params
block = snakemake.config["models"][name]  # where its files are; what they hold is in the params

config = random_models.read_config(name, places.below_root(block["architecture"]), p.source["layers"])
tokenizer = random_models.tokenizer_folder(name, block["tokenizer"], sources.ROOT)
parameters = random_models.build(name, config, tokenizer, Path(snakemake.output[0]), p.source["dtype"], p.seed)
job.log.info("%s: %.1f million random weights, %d layers", name, parameters / 1e6, config.num_hidden_layers)
