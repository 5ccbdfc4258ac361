"""Train the shipped model from its specification, then test it on every kind of prompt it should have learned."""

import pandas as pd
import torch
import yaml

from atlas.shipped import training
from atlas.store import artifacts, job, places

job.start(snakemake)
out = snakemake.output
torch.set_num_threads(snakemake.threads)
spec = yaml.safe_load(places.below_root("resources/models/ladder-6x8/training.yaml").read_text())
rows = []


def log(row):
    rows.append(row)
    job.log.info(" ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))


model, tokenizer = training.train(spec, log)
model.save_pretrained(out.model)
tokenizer.save_pretrained(out.model)
table = training.evaluate(model, tokenizer, spec, spec["evaluation"]["prompts"])
for path, content in ((out.log, pd.DataFrame(rows)), (out.evaluation, table)):
    with artifacts.atomic(path) as file:
        content.to_csv(file, index=False, float_format="%.4f")
for row in training.below_thresholds(table, spec).itertuples():
    job.log.info("below its threshold: %s, top-1 %.3f on %d prompts", row.task, row.top1, row.prompts)
