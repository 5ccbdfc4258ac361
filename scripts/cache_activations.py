"""Cache a model's activations on the search prompts of a task, clean and corrupted, and the means of ablation.

A task that no circuit can be searched on is refused here, before any search.
"""

from dataclasses import replace
from pathlib import Path

import torch

from atlas.circuit import studies
from atlas.circuit.ablation import collected
from atlas.core.errors import StudyError
from atlas.prompts import clean_scores, layouts
from atlas.prompts.batch import Prompts
from atlas.store import artifacts, job, tensors

job.start(snakemake)
inputs, out, p, w = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards

frame = artifacts.read_table(inputs.prompts).sort_values("prompt", ignore_index=True)
frame = clean_scores.with_scores(frame, artifacts.read_table(inputs.clean))
refused = clean_scores.refusal(frame, p.groups, p.allow_negative_clean)
if refused:
    raise StudyError(f"tasks.{w.task}: {refused}; `snakemake --cores 2 check_data` shows its prompts and scores")
search = frame.kept & (frame.split == "search")
groups = layouts.group_names(frame[search], p.groups == "template")

model = studies.load_model(inputs.model, job.model_folder(snakemake), p.run)
prompts = Prompts.from_frame(frame).take(search.to_numpy().nonzero()[0])  # padded as all prompts of the task are
rows = replace(prompts, group=torch.tensor(layouts.group_of(frame[search], groups))).rows()
cached, means = {"prompt": torch.tensor(prompts.prompt)}, {"groups": groups}
for run in ("clean", "corrupted"):
    cached[run], means[run] = collected(model, rows, run, getattr(torch, p.dtype), Path(out.activations).parent)
means |= rows.sizes_of_means()
provenance = job.provenance(snakemake)
tensors.write(means, out.means, provenance)
tensors.write(cached, out.activations, provenance)
for path in (out.activations, out.means):
    job.log.info("%s: %.1f MB", path, artifacts.size_mb(path))
job.log.info("clean logit difference %.3f on %d search prompts", frame["logit_diff"][search].mean(), len(prompts))
