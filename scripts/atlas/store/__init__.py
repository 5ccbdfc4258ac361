"""What lies on disk and how it is told apart: artifacts and their seals, tensors, provenance, memo, sources, places.

Knows Snakemake's job (job.py alone), but neither prompts nor models."""
