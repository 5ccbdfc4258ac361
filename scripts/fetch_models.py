"""Fetch the models of a study into the caches that its first job looks in, and say where each lies."""

from atlas.model import source
from atlas.store import job, sources

job.start(snakemake)

for name in snakemake.params.models:
    job.log.info("%s: %s", name, source.resolve(name, snakemake.config["models"][name], sources.ROOT))
