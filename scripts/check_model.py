"""Find a model, or say how to get it; hold it against transformers; record its sizes and digests."""

from pathlib import Path

from atlas import artifacts, job, model_checks, models, reference

job.start(snakemake)
name, p = snakemake.wildcards.model, snakemake.params

source = {"path": str(Path(snakemake.input[0]).resolve())} if p.random_weights else dict(p.source)
folder = models.resolve(name, source, p.root)
model_checks.check(name, folder)
compared = reference.compare(name, folder, p.device, p.dtype)
description = models.describe(name, folder) | {"compared": compared, "random_weights": p.random_weights}
job.log.info("%s: %s, %s layers x %s heads", name, folder, description["n_layers"], description["n_heads"])
settings = {"source": source, "device": p.device, "dtype": p.dtype}
artifacts.write_json(
    description, snakemake.output[0], artifacts.provenance({}, settings, ("torch", "transformer_lens", "transformers"))
)
