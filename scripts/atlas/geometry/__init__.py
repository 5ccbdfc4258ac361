"""How a model represents the order of members: successor heads, shapes of classes, probes, directions, neurons,
features, and edits by them. Knows models, prompts and circuits; nothing of Snakemake or of pages."""
