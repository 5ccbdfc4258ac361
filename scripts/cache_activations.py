"""Cache a model's activations on the search prompts of a task, clean and corrupted, and the means of ablation.

A task that no circuit can be searched on is refused here, before any search.
"""

from pathlib import Path

import torch

from atlas.circuit import clean
from atlas.circuit.task_data import TaskData
from atlas.store import artifacts, job, tensors

job.start(snakemake)
out, p = snakemake.output, snakemake.params

data, folder = TaskData(**job.task_data(snakemake)), Path(out.activations).parent
prompts, groups = clean.search_prompts(data.every_prompt, data.clean, p.groups, p.allow_negative_clean)
cached, means = clean.activations_and_means(data.model, prompts, groups, getattr(torch, p.dtype), folder, p.fit)
provenance = job.provenance(snakemake)
for content, path in ((means, out.means), (cached, out.activations)):
    tensors.write(content, path, provenance)
    job.log.info("%s: %.1f MB", path, artifacts.size_mb(path))
