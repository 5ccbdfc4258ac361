"""Make the prompts of a task and align them on the model's tokenizer."""

import pandas as pd

from atlas import artifacts, job, rejected, token_table, tokens
from atlas.errors import StudyError
from atlas.prompt_making import prompts_of

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params
name, block = snakemake.wildcards.task, p.task

model = artifacts.read_json(inputs.model)
tokenizer = tokens.load_tokenizer(model["folder"])
encoded, dropped = prompts_of(name, block, tokenizer, p.prepend_bos, model["max_tokens"], p.root)
frame = pd.DataFrame(encoded.rows)
frame.insert(0, "model", snakemake.wildcards.model)
frame.insert(1, "task", name)
counts = {
    "prompts": len(frame),
    "search": int((frame.split == "search").sum()),
    "held_out": int((frame.split == "held_out").sum()),
    "rejected": dict(encoded.rejected),
}
if not counts["search"]:
    raise StudyError(f"tasks.{name}: no prompts to search on; lower held_out_share or make more prompts")
job.log.info("%s: %s; layout %s; dropped fillers %s", name, counts, encoded.layout, dropped)
provenance = artifacts.provenance(
    {"model": inputs.model}, {"task": block, "prepend_bos": p.prepend_bos}, ("transformers",)
)
artifacts.write_table(frame, out.prompts, provenance)
table = token_table.rows(encoded.rows, encoded.layout, tokenizer, p.prepend_bos)
identity = {"model": snakemake.wildcards.model, "task": name}
columns = [*identity, *token_table.COLUMNS]
artifacts.write_table(pd.DataFrame([identity | row for row in table], columns=columns), out.tokens, provenance)
left_out = rejected.rejected_table(encoded.rejected_rows, tokenizer)
artifacts.write_table(left_out.assign(**identity)[[*identity, *rejected.COLUMNS]], out.rejected, provenance)
slow = token_table.compare_with_slow(model["folder"], tokenizer, frame.text.tolist() + frame.corrupted_text.tolist())
if slow and slow["different"]:
    text = "%s: the fast tokenizer splits %d of %d texts unlike tokenizer.model, e.g. %r"
    job.log.warning(text, name, slow["different"], slow["compared"], slow["example"])
summary = {
    "task": name,
    "layout": encoded.layout,
    "counts": counts,
    "dropped_fillers": dropped,
    "seed": block["seed"],
    "filler_seed": block["filler_seed"],
    "tokenizer": model["tokenizer"],
    "slow_tokenizer": slow,
}
artifacts.write_json(summary, out.summary, provenance)
