"""Build a checkpoint with random weights for an architecture, beside the files of its tokenizer."""

from pathlib import Path

from atlas import job, random_models

job.start(snakemake)
name, p = snakemake.wildcards.model, snakemake.params

config = random_models.read_config(name, Path(snakemake.input.architecture), p.block["layers"])
tokenizer = random_models.tokenizer_folder(name, p.block["tokenizer"], p.root)
parameters = random_models.build(name, config, tokenizer, Path(snakemake.output[0]), p.block["dtype"], p.seed)
job.log.info("%s: %.1f million random weights, %d layers", name, parameters / 1e6, config.num_hidden_layers)
