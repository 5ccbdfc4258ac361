"""Make the prompts of a task and align them on the model's tokenizer."""

import pandas as pd

from atlas.prompts import generator, making, rejected, token_table, tokens
from atlas.store import artifacts, job, sources

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params
name, block = snakemake.wildcards.task, job.task_block(snakemake)
identity = {"model": snakemake.wildcards.model, "task": name}

model, folder = artifacts.read_json(inputs.model), str(job.model_folder(snakemake))
tokenizer = tokens.load_tokenizer(folder)
encoded, dropped = making.prompts_of(name, block, tokenizer, p.prepend_bos, model["max_tokens"], sources.ROOT)
table = token_table.table(encoded, tokenizer)
left_out = rejected.rejected_table(encoded.rejected_rows, tokenizer)
texts = [row[key] for key in ("text", "corrupted_text") for row in encoded.rows]
summary = {"task": name} | making.summary(encoded, block, dropped)
summary |= {"tokenizer": model["tokenizer"], "slow_tokenizer": token_table.compare_with_slow(folder, tokenizer, texts)}
job.log.info("%s: %s", name, {key: summary[key] for key in ("counts", "hold_out", "layouts", "dropped_fillers")})
for warning in making.warnings(encoded, summary):
    job.log.warning("%s: %s", name, warning)
if model.get("source", {}).get("bos") and not p.prepend_bos:
    job.log.warning("models.%s.prepend_bos is false, and its GGUF says that it expects a BOS token", identity["model"])

provenance = job.provenance(snakemake, generator.source_of(block))
artifacts.write_table(pd.DataFrame([identity | row for row in encoded.rows]), out.prompts, provenance)
columns = [*identity, *token_table.COLUMNS]
artifacts.write_table(pd.DataFrame([identity | row for row in table], columns=columns), out.tokens, provenance)
artifacts.write_table(left_out.assign(**identity)[[*identity, *rejected.COLUMNS]], out.rejected, provenance)
artifacts.write_json(summary, out.summary, provenance)
