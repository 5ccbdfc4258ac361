"""Run a model on the clean and corrupted prompts of a task; cache activations, means and clean scores."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from atlas import artifacts, job, layouts, metrics, studies, tensors
from atlas.ablation import Prompts, answer_logits, collected
from atlas.errors import StudyError
from atlas.statistics import Bootstrap, interval_columns

job.start(snakemake)
inputs, out, p, w = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards

frame = artifacts.read_table(inputs.prompts).sort_values("prompt", ignore_index=True)
model = studies.load_model(inputs.model, p.run)
prompts, scores, runs = Prompts.from_frame(frame), {}, ("clean", "corrupted")
for run in runs:
    logits = answer_logits(model, prompts, run)
    scores[run] = metrics.per_prompt(
        ("logit_diff", "prob_diff", "top1", "log_prob"), logits, prompts.answer, prompts.incorrect
    )
    if not logits.isfinite().all():
        said = "is not finite; the model overflows in this dtype, or its files are damaged"
        raise StudyError(f"tasks.{w.task}: what {w.model} makes of {run} prompts {said}")
    if run == "clean":
        kept = torch.ones(len(frame), dtype=torch.bool)
        if p.filter:
            kept = metrics.passes(logits, prompts.answer, prompts.incorrect, **p.filter)
frame["kept"] = kept.tolist()
by_template = p.groups == "template"
frame["kept"] = layouts.kept_with_mean(frame, by_template)
search = (frame.kept & (frame.split == "search")).to_numpy().copy()  # pandas gives a read-only view
if not search.any():
    raise StudyError(f"tasks.{w.task}: the filter keeps none of the {len(frame)} prompts; relax prompts.filter")
mean_clean = scores["clean"]["logit_diff"][search].mean().item()
if mean_clean <= 0 and not p.allow_negative_clean:
    raise StudyError(
        f"tasks.{w.task}: the model's clean logit difference is {mean_clean:.3f}, not positive, so percent of full "
        "means nothing; the model does not do this task (or set allow_negative_clean: true)"
    )
if by_template and set(frame.template[search]) < set(frame.template):
    raise StudyError(f"tasks.{w.task}: the filter keeps no search prompt of some template; use ablation.groups: all")

rows = [
    frame[["model", "task", "prompt", "split", "kept"]].assign(run=run, metric=metric, value=values.double().numpy())
    for run in runs
    for metric, values in scores[run].items()
]
table = pd.concat(rows, ignore_index=True)
bootstrap, summary = Bootstrap(p.bootstrap, p.seed), []
for split in ("search", "held_out", "all"):
    part = table if split == "all" else table[table.split == split]
    for (run, metric), cells in part.groupby(["run", "metric"], sort=True):
        row = {"model": w.model, "task": w.task, "split": split, "run": run, "metric": metric}
        row |= interval_columns(bootstrap.mean(cells.value)) | {"prompts": len(cells), "share_kept": cells.kept.mean()}
        summary.append(row)

where = torch.tensor(search)
groups = layouts.group_names(frame[search], by_template)
cached, means = {"prompt": torch.tensor(frame.prompt[search].to_list())}, {"groups": groups}
group = torch.tensor(layouts.group_of(frame[search], groups))
searched = replace(prompts.take(where.nonzero()[:, 0]), group=group).rows()
for run in runs:
    cached[run], means[run] = collected(model, searched, run, getattr(torch, p.dtype), Path(out.activations).parent)
means |= searched.sizes_of_means()
settings = {"groups": p.groups, "dtype": p.dtype, "filter": p.filter, "run": dict(p.run)}
provenance = artifacts.provenance(
    {"prompts": inputs.prompts, "model": inputs.model}, settings, ("torch", "transformer_lens", "transformers")
)
artifacts.write_table(table, out.clean, provenance)
artifacts.write_table(pd.DataFrame(summary), out.summary, provenance)
tensors.write(means, out.means, provenance)
tensors.write(cached, out.activations, provenance)
for path in (out.activations, out.means):
    job.log.info("%s: %.1f MB", path, artifacts.size_mb(path))
job.log.info(
    "clean logit difference %.3f on %d search prompts, %d of %d prompts kept",
    mean_clean,
    search.sum(),
    frame.kept.sum(),
    len(frame),
)
