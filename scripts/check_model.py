"""Find a model, or say how to get it; hold it against transformers; record its sizes and digests."""

from pathlib import Path

from atlas.model import checks, fetched, reference, source
from atlas.store import artifacts, job, sources

job.start(snakemake)
name, p = snakemake.wildcards.model, snakemake.params

built = {"path": str(Path(*snakemake.input).absolute())} if p.random_weights else None
block = built or snakemake.config["models"][name]
folder = source.resolve(name, block, sources.ROOT)
origin = fetched.origin(block, folder)
fetched.refuse_changed(name, folder, origin)
checks.check(name, folder)
compared = reference.compare(name, folder, p.device, p.dtype)
description = source.describe(name, folder) | {"compared": compared, "random_weights": p.random_weights}
description |= {"source": origin} if origin else {}
job.log.info("%s: %s, %s layers x %s heads", name, folder, description["n_layers"], description["n_heads"])
artifacts.write_json(description, snakemake.output[0], job.provenance(snakemake))
