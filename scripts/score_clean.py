"""Score a model, unharmed, on the clean and corrupted prompts of a task, and mark the prompts that pass the filter."""

import pandas as pd
import torch

from atlas.circuit import studies
from atlas.circuit.ablation import answer_logits
from atlas.core import metrics
from atlas.core.errors import StudyError
from atlas.core.statistics import Bootstrap, interval_columns
from atlas.prompts import layouts
from atlas.prompts.batch import Prompts
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p, w = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards

frame = artifacts.read_table(inputs.prompts).sort_values("prompt", ignore_index=True)
model = studies.load_model(inputs.model, job.model_folder(snakemake), p.run)
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
frame["kept"] = layouts.kept_with_mean(frame, p.groups == "template")

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

provenance = job.provenance(snakemake)
artifacts.write_table(table, out.clean, provenance)
artifacts.write_table(pd.DataFrame(summary), out.summary, provenance)
job.log.info("%d of %d prompts kept", frame.kept.sum(), len(frame))
